"""How often diagnose finds a fault in healthy set-ups, what it says of broken ones, and where its commands lead.

The zoo (zoo/patients.py) holds healthy set-ups with one change, and the verdicts that are right for each. The settings
of the command that is printed are trained, and compared with the set-up that was not changed. From a bad start all
commands are typed until they end in a training. It is compared with a grid of rate and decay. Rules of other tools
(zoo/rivals.py) read the same runs.
"""

import argparse
import json
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from zoo import report, rivals
from zoo.history import accuracy, history_of, train
from zoo.patients import PATIENTS, on_cifar10, on_mnist
from zoo.report import Result

from deeptrain.analysis.diagnosis.procedure import diagnose
from deeptrain.analysis.diagnosis.subject import ComposedRun, without
from deeptrain.config.compose import compose_run

MODELS = (
    "fcn",
    "rnn",
    "fcn model.hidden=[]",
    "vgg model.width=0.125",
    "alexnet model.width=0.25",
    "resnet model.widths=[8,16,32]",
    "preact_resnet model.widths=[8,16,32]",
    "wide_resnet model.depth=10 model.width=1",
)
HEALTHY = [
    *(
        f"model=fcn {words}"
        for words in (
            "aug=mixup",
            "loss=hinge",
            "loss=mse",
            "loss=bce",
            "model.dropout=0.5",
            "loss.label_smoothing=0.1",
            "batch_size=8",
            "data.train_images=100",
            "schedule=step",
            "schedule=one_cycle",
            "optimizer=muon",
            "average=ema",
            "gradient=sam",
            "aug=cutmix",
            "aug=cutout",
            "model.norm=batch",
            "model.activation=tanh",
            "optimizer=adam",
            "optimizer=lamb",
            "penalty=l1",
            "penalty=l2",
            "max_norm=3",
            "clip_norm=1",
            "schedule=linear",
            "schedule=inverse_sqrt",
            "data.val_fraction=0.07",
        )
    ),
    *(f"model={model} optimizer={optimizer}" for model in MODELS for optimizer in ("adamw", "sgd", "rmsprop")),
]
ADVISABLE = (  # nothing is broken, and something could be better
    "fcn epochs=3",
    "fcn optimizer.lr=0.0003",
    "fcn optimizer.lr=0.02",
    "fcn optimizer=sgd optimizer.lr=0.005",
    "fcn optimizer=rmsprop",
    "fcn optimizer.weight_decay=0.5",
    "fcn optimizer=sgd clip_norm=0.01",
    "fcn schedule=constant optimizer.lr=0.01",
    "fcn schedule.warmup=0.6",
    "fcn batch_size=256",
    "fcn model.hidden=[]",
    "fcn model.hidden=[8]",
    "fcn model.hidden=[128,128,128,128]",
    "fcn model.activation=sigmoid",
    "fcn model.dropout=0.7",
    "fcn loss.label_smoothing=0.5",
    "fcn aug=mixup",
    "fcn data.augment=false",
    "fcn data.train_images=200",
    "rnn",
    "vgg model.width=0.125 epochs=3",
    "resnet model.widths=[8,16,32] epochs=3",
)
STARTS = (
    "optimizer.lr=10",
    "model.initialization=normal model.init_std=1",
    "model.dropout=0.95",
    "model.norm=none",
    "optimizer.weight_decay=1",
)
STARTED = ("fcn", "vgg model.width=0.125", "resnet model.widths=[8,16,32]")
GRID = [(rate, decay) for rate in (0.0003, 0.001, 0.003, 0.01, 0.03) for decay in (0.0, 0.05)]
PAIRED = (1, 2, 3)  # seeds
LENGTHS = ("epochs=", "limit_steps=")
NEAR = 0.01  # of accuracy
ROUNDS = 6  # of diagnoses that are followed, at most


def examine(words: str, last: int) -> dict:
    """Diagnose a set-up; return what diagnosis.json holds, and the CPU seconds that it took."""
    began = time.process_time()
    content = diagnose(ComposedRun(compose_run(words.split())), last).summary()
    return {"words": words, "seconds": time.process_time() - began, **content}


def typed(found: dict, seed: int) -> tuple[str, str]:
    """Return the program and the words of the command that a diagnosis prints, ("", "") without one."""
    if not found["commands"]:
        return "", ""
    _, program, *rest = shlex.split(found["commands"][0])
    words = " ".join(word for word in rest if word != "-m")
    return program, words.replace("seed=0,1,2", f"seed={seed}")


def paste(found: dict, seed: int) -> dict:
    """Train with the settings of the command that a diagnosis prints; return its accuracy on val."""
    _, words = typed(found, seed)
    return {"accuracy": accuracy(words.split()) if words else 0.0, "typed": words}


def follow(words: str, last: int) -> dict:
    """Type what diagnose prints, and what it prints then, until it is a training; return its accuracy on val."""
    began, seen = time.process_time(), []
    for _ in range(ROUNDS):
        found = examine(words, last)
        program, words = typed(found, 0)
        if not words:
            break
        seen.append(f"{found['verdict']}: {words}")
        if program.endswith("train.py"):
            return {"accuracy": accuracy(words.split()), "typed": seen, "seconds": time.process_time() - began}
    return {"accuracy": 0.0, "typed": seen, "seconds": time.process_time() - began}


class Known:
    """Rows of a file of JSON lines, by name: what is there is not measured again. path: None keeps them in memory."""

    def __init__(self, path: Path | None):
        self.path, self.rows = path, {}
        if path is not None and path.exists():
            self.rows = {row["words"]: row for row in map(json.loads, path.read_text().splitlines())}

    def once(self, name: str, measure: Callable[[], dict]) -> dict:
        if name not in self.rows:
            self.rows[name] = {**measure(), "words": name}
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(json.dumps(self.rows[name]) + "\n")
        return self.rows[name]


def starts(options: argparse.Namespace, known: Known) -> None:
    """Follow the commands from each bad start, and compare with the best of a grid from a sound one, as long as it.

    The best of the grid is the best of one seed, so it is a lucky one. Both are trained anew over paired seeds.
    """
    near = total = 0
    one = 1 if options.quick else None

    def best_of_grid(base: str) -> str:
        cells = [f"{base} optimizer.lr={rate} optimizer.weight_decay={decay}" for rate, decay in GRID[:one]]
        return max(cells, key=lambda cell: train_once(known, cell)["best"])

    def anew(words: str) -> np.ndarray:
        return np.array([train_once(known, _with_seed(words, seed))["best"] for seed in PAIRED[:one]])

    for model in _matching(STARTED, options):
        base = f"{options.data} model={model} epochs={options.epochs} threads=1"
        known_settings = compose_run(base.split()).values
        for change in STARTS[:one]:
            if change.partition("=")[0] not in known_settings:
                continue
            name = f"{base} {change}"
            found = known.once(f"start {name}", lambda name=name: follow(name, options.steps))
            end = found["typed"][-1].partition(": ")[2] if found["accuracy"] else ""
            lengths = [word for word in end.split() if word.startswith(LENGTHS)]
            best = best_of_grid(" ".join([*without(base.split(), lengths), *lengths]))
            reached = anew(end) if end else np.zeros(len(PAIRED[:one]))
            behind = anew(best) - reached
            is_near = behind.mean() <= NEAR
            near, total = near + is_near, total + 1
            gap = f"{100 * behind.mean():+.1f} ± {100 * _error(behind):.1f} points below {anew(best).mean():.1%}"
            print(f"{'near' if is_near else 'FAR':<6} {gap}  {name}, {found['seconds']:.0f} CPU s")
            print(*(f"       {line}" for line in found["typed"]), f"       grid: {best}", sep="\n", flush=True)
    print(f"starts: {near} of {total} within a point of the grid")


def train_once(known: Known, words: str) -> dict:
    return known.once(f"run {words}", lambda: train(words.split()).summary())


def healthy(options: argparse.Namespace, known: Known) -> None:
    """Diagnose healthy set-ups; let the rules of other tools read the same runs."""
    results = []
    data = f"{_locked_data(options) or options.data} "
    for seed in options.seeds:
        for setting in _matching(HEALTHY, options):
            name = f"{data}{setting} epochs={options.epochs} seed={seed} threads=1"
            found = known.once(name, lambda name=name: examine(name, options.steps))
            results.append(Result(None, found, heard=rivals.listen(history_of(train_once(known, name)))))
            print(results[-1], flush=True)
    print(*report.of_healthy(results), sep="\n")


def zoo(options: argparse.Namespace, known: Known) -> None:
    """Diagnose patients, type what is printed, and compare with the healthy twin."""
    results = []
    data = _locked_data(options)
    patients = [p.on(data) for p in PATIENTS] if data else PATIENTS
    chosen = [p for p in patients if options.half in ("all", "open" if p.is_open else "locked")]
    chosen = [p for p in chosen if options.match in p.words]
    for seed in options.seeds:
        for patient in chosen[: 1 if options.quick else None]:
            twin, name = (f"{words} seed={seed} threads=1" for words in (patient.base, patient.words))
            runs = train_once(known, twin), train_once(known, name)
            found = known.once(name, lambda name=name: examine(name, options.steps))
            after = known.once(f"after {name} {found['commands']}", lambda found=found, seed=seed: paste(found, seed))
            accuracies = [run["best"] for run in runs]
            results.append(Result(patient, found, after, *accuracies, heard=rivals.listen(history_of(runs[1]))))
            print(results[-1], flush=True)
    print(*report.of_patients(results), sep="\n")


def advice(options: argparse.Namespace, known: Known) -> None:
    """Follow the commands that diagnoses of sound set-ups print, over paired seeds that they have not seen."""
    gains = []
    for setting in _matching(ADVISABLE, options):
        length = "" if "epochs=" in setting else f" epochs={options.epochs}"
        name = f"{options.data} model={setting}{length} seed=0 threads=1"
        found = known.once(name, lambda name=name: examine(name, options.steps))
        program, words = typed(found, 0)
        if not program.endswith("train.py") or set(words.split()) == set(name.split()):
            print(f"     no advice  {name}", flush=True)
            continue
        pairs = [[train_once(known, _with_seed(w, seed))["best"] for w in (words, name)] for seed in PAIRED]
        gains.append(np.array([after - before for after, before in pairs]))
        print(f"{100 * gains[-1].mean():+6.1f} ± {100 * _error(gains[-1]):.1f} points  {name} -> {words}", flush=True)
    print(f"advice: better {report.share(gain.mean() > 0 for gain in gains)}")
    worse = [gain.mean() < -2 * _error(gain) for gain in gains]
    print(f"advice: worse beyond two errors {report.share(map(bool, worse))}")


def _error(values: np.ndarray) -> float:
    """Return the standard error of a mean, 0 for one value."""
    return values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0


def _matching(settings: Sequence[str], options: argparse.Namespace) -> list[str]:
    return [words for words in settings if options.match in words][: 1 if options.quick else None]


def _locked_data(options: argparse.Namespace) -> str:
    """Return the words of the images that rules are never mended on, "" for digits."""
    return on_mnist(options.mnist) if options.mnist else on_cifar10(options.cifar10) if options.cifar10 else ""


def _with_seed(words: str, seed: int) -> str:
    return " ".join([*(word for word in words.split() if not word.startswith("seed=")), f"seed={seed}"])


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one of each: does it run at all?")
    parser.add_argument("--data", default="data=digits", help="settings of the data, as one word; the zoo has its own")
    parser.add_argument("--steps", type=int, default=7, help="of the diagnosis")
    parser.add_argument("--epochs", type=int, default=10, help="the zoo has its own")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--mnist", help="the folder that holds MNIST/raw: the zoo and healthy set-ups on images of it")
    parser.add_argument("--cifar10", help="the folder that holds train/CLASS: the same on images of CIFAR-10")
    parser.add_argument("--half", choices=("open", "locked", "all"), default="all", help="of the zoo")
    parser.add_argument("--match", default="", help="only set-ups whose words hold this, as model=resnet")
    parser.add_argument("--out", type=Path, help="a file of JSON lines; what is in it is not measured again")
    parser.add_argument("what", nargs="?", choices=tuple(PARTS), help="all if none is named")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    known = Known(options.out)
    for name, part in PARTS.items():
        if options.what in (name, None):
            part(options, known)


PARTS = {"healthy": healthy, "zoo": zoo, "advice": advice, "starts": starts}


if __name__ == "__main__":
    main()

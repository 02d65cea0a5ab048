"""How often diagnose finds a fault in healthy set-ups, what it says of broken ones, and where its commands lead.

A patient is a healthy set-up with one change. The verdicts that are right for it stand beside it. From a bad start,
only the commands that are printed are followed. The training that they end with is compared with a grid of rate and
decay.
"""

import argparse
import json
import math
import shlex
import time
from pathlib import Path

import torch

from deeptrain import build_trainer
from deeptrain.analysis.diagnosis.procedure import diagnose
from deeptrain.analysis.diagnosis.subject import ComposedRun
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
        )
    ),
    *(f"model={model} optimizer={optimizer}" for model in MODELS for optimizer in ("adamw", "sgd", "rmsprop")),
]
DEEP = "model=fcn model.hidden=[64,64,64,64,64,64,64,64]"
BAD_START = (
    "remedied",
    "signal_dies",
    "signal_explodes",
    "dead_units",
    "ignores_input",
    "start_too_bad",
    "cannot_memorise",
    "no_signal",
    "rate_too_high",
    "rate_too_low",
)
PATIENTS = {
    "model=fcn optimizer.lr=0.3": ("rate_too_high", "better_rate"),
    "model=fcn optimizer.lr=3": ("rate_too_high",),
    "model=fcn optimizer.lr=3e-6": ("rate_too_low", "better_rate"),
    "model=fcn optimizer=sgd optimizer.lr=100": ("rate_too_high",),
    "model=fcn optimizer=sgd optimizer.lr=1e-6": ("rate_too_low",),
    "model=resnet model.widths=[8,16,32] optimizer=sgd optimizer.lr=1e-6": ("rate_too_low",),
    "model=fcn clip_norm=1e-5 optimizer=sgd": ("remedied", "rate_too_low"),
    "model=fcn optimizer=sgd penalty=l2 penalty.strength=1": ("regularized",),
    "model=fcn optimizer.weight_decay=100": ("regularized",),
    "model=fcn model.dropout=0.95": ("regularized",),
    "model=vgg model.width=0.125 model.dropout=0.99": ("regularized",),
    "model=resnet model.widths=[8,16,32] model.stochastic_depth=0.98": ("regularized",),
    "model=fcn model.initialization=normal model.init_std=1": BAD_START,
    f"{DEEP} model.initialization=normal model.init_std=1": BAD_START,
    f"{DEEP} model.initialization=normal model.init_std=0.0001": BAD_START,
    f"{DEEP} model.activation=sigmoid": BAD_START,
    "model=fcn model.hidden=[1]": ("remedied", "cannot_memorise", "ignores_input"),
    "model=fcn data.mean=[0.0] data.std=[0.0001]": ("remedied", "start_too_bad", "rate_too_high"),
}
RIGHT = {"fault", "advice"}
STARTS = (
    "optimizer.lr=10",
    "model.initialization=normal model.init_std=1",
    "model.dropout=0.95",
    "model.norm=none",
    "optimizer.weight_decay=1",
)
STARTED = ("fcn", "vgg model.width=0.125", "resnet model.widths=[8,16,32]")
GRID = [(rate, decay) for rate in (0.0003, 0.001, 0.003, 0.01, 0.03) for decay in (0.0, 0.05)]
ROUNDS = 6  # of diagnoses that are followed, at most


def examine(words: str, last: int) -> dict:
    """Diagnose a set-up; return what diagnosis.json holds, and the CPU seconds that it took."""
    began = time.process_time()
    content = diagnose(ComposedRun(compose_run(words.split())), last).summary()
    return {"words": words, "seconds": time.process_time() - began, **content}


def upper_bound(count: int, failed: int) -> float:
    """Return the 95 % bound of a rate, where few have failed (Clopper and Pearson, one-sided; exact for none)."""
    return 1 - 0.05 ** (1 / count) if not failed else min(1.0, (failed + 1.96 * math.sqrt(failed) + 2) / count)


def train(words: list[str]) -> float:
    """Train; return the best accuracy on val."""
    trainer = build_trainer(compose_run(words))
    trainer.fit()
    trainer.close()
    return float(trainer.progress.best or 0.0)


def follow(words: str, last: int) -> dict:
    """Type what diagnose prints, and what it prints then, until it is a training; return its accuracy on val."""
    began, typed = time.process_time(), []
    for _ in range(ROUNDS):
        found = examine(words, last)
        if not found["commands"]:
            break
        _, program, *rest = shlex.split(found["commands"][0])
        words = " ".join(word for word in rest if word != "-m").replace("seed=0,1,2", "seed=0")
        typed.append(f"{found['verdict']}: {words}")
        if program == "train.py":
            return {"accuracy": train(shlex.split(words)), "typed": typed, "seconds": time.process_time() - began}
    return {"accuracy": 0.0, "typed": typed, "seconds": time.process_time() - began}


def starts(options: argparse.Namespace, known: dict[str, dict]) -> None:
    """Follow the commands from each bad start, and compare with the best of a grid from a sound one."""

    def once(name: str, measure) -> dict:
        if name not in known:
            known[name] = {"words": name, **measure()}
            if options.out:
                with options.out.open("a") as file:
                    file.write(json.dumps(known[name]) + "\n")
        return known[name]

    near = total = 0
    for model in STARTED[: 1 if options.quick else None]:
        base = f"{options.data} model={model} epochs={options.epochs} threads=1"
        cells = {
            f"{base} optimizer.lr={rate} optimizer.weight_decay={decay}": None
            for rate, decay in GRID[: 1 if options.quick else None]
        }
        grid = [once(f"grid {cell}", lambda cell=cell: {"accuracy": train(cell.split())})["accuracy"] for cell in cells]
        print(f"grid   {max(grid):.4f}  {base}", flush=True)
        known_settings = compose_run(base.split()).values
        for change in STARTS[: 1 if options.quick else None]:
            if change.partition("=")[0] not in known_settings:
                continue
            name = f"{base} {change}"
            found = once(f"start {name}", lambda name=name: follow(name, options.steps))
            is_near = found["accuracy"] >= max(grid) - 0.01
            near, total = near + is_near, total + 1
            print(f"{'near' if is_near else 'FAR':<6} {found['accuracy']:.4f}  {name}, {found['seconds']:.0f} CPU s")
            print(*(f"       {line}" for line in found["typed"]), sep="\n", flush=True)
    print(f"starts: {near} of {total} within a point of the grid")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one of each: does it run at all?")
    parser.add_argument("--data", default="data=digits", help="settings of the data, as one word")
    parser.add_argument("--steps", type=int, default=7, help="of the diagnosis")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a file of JSON lines; set-ups in it are not examined again")
    parser.add_argument("what", nargs="?", choices=("healthy", "patients", "starts"), help="all if none is named")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    known = {}
    if options.out and options.out.exists():
        known = {row["words"]: row for row in map(json.loads, options.out.read_text().splitlines())}
    groups = {"healthy": dict.fromkeys(HEALTHY, ()), "patients": PATIENTS}
    if options.what in ("starts", None):
        starts(options, known)
    for group in [name for name in groups if options.what in (name, None)]:
        cases = list(groups[group].items())[: 1 if options.quick else None]
        results = []
        for seed in range(options.seeds):
            for setting, accepted in cases:
                name = f"{options.data} {setting} epochs={options.epochs} seed={seed} threads=1"
                found = known.get(name) or examine(name, options.steps)
                if options.out and name not in known:
                    with options.out.open("a") as file:
                        file.write(json.dumps(found) + "\n")
                first = found["verdicts"][0] if found["verdicts"] else {"kind": "", "name": "healthy"}
                is_told = first["kind"] in RIGHT
                is_right = first["name"] in accepted if accepted else first["kind"] != "fault"
                results.append(is_right)
                told = f"{first['kind']} {first['name']} {first['confidence']}: {first['override']}" if is_told else "-"
                print(f"{'right' if is_right else 'WRONG'}  {found['seconds']:4.0f} s  {name}  {told}", flush=True)
        wrong = results.count(False)
        bound = f", 95 % bound {upper_bound(len(results), wrong):.1%}" if group == "healthy" else ""
        print(f"{group}: {len(results) - wrong} of {len(results)} right{bound}")


if __name__ == "__main__":
    main()

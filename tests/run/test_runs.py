"""Whole runs, tiny and real: every shipped choice trains, a seed fixes every bit, a resumed run is the same run."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from PIL import Image

from deeptrain import build
from deeptrain.commands.cli import train
from deeptrain.config.compose import compose_run
from deeptrain.config.options import options
from deeptrain.data import torchvision_sets
from deeptrain.run import dry_run
from deeptrain.run.launch import main as start
from deeptrain.training import checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
TINY = ["data=synthetic", "data.shape=[3,16,16]", "data.size=80", "batch_size=16", "validate.clean_images=16"]
SMALL = ["model=fcn", "model.hidden=[16]", "loggers=none"]
WITHOUT_FILES = ("digits", "synthetic")
OWN_DATA = ("csv", "gates", "npz")


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def trained(*words: str, seed: int = 0):
    """Train in this process without a folder; return the trainer."""
    run = compose_run([*TINY, f"seed={seed}", *words])
    dry_run.check_settings(run)
    trainer = build.trainer(build.open_setup(run))
    trainer.fit()
    return trainer


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def command(*words: str, **environment: str) -> subprocess.CompletedProcess:
    return forked.run([sys.executable, ROOT / "train.py", *words], env={**os.environ, **environment})


CHOICES = [
    *(
        f"{group}={name}"
        for group in ("model", "aug", "loss", "penalty", "optimizer", "schedule", "average")
        for name in options(group)
    ),
    *(f"data={name}" for name in WITHOUT_FILES),
    "aug=[cutout,mixup,cutmix]",
    "precision=bf16",
    "model.stochastic_depth=0.5",
    "accumulate=3",
    "clip_norm=1.0",
    "max_norm=3",
    "sam=0.05",
    "loss.class_weights=auto",
    "loss.label_smoothing=0.1",
    "data.loader=stream",
    "data.subtract_image_mean=true",
    "validate.every_steps=1",
    "early_stop.patience=1",
]


@pytest.mark.parametrize("word", CHOICES)
def test_every_choice_trains_two_steps(word, device):
    words = [] if word.startswith(("model", "data=")) else SMALL[:2]
    words = [*words, word] if not word.startswith("data=") else ["epochs=2", word]
    if not word.startswith("data="):
        trainer = trained("limit_steps=2", f"device={device.type}", *words)
    else:
        trainer = build.trainer(build.open_setup(compose_run([f"device={device.type}", "limit_steps=2", *words])))
        trainer.fit()
    assert trainer.progress.step == 2
    assert 0 <= trainer.progress.metrics["accuracy/val"] <= 1
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())


@pytest.mark.parametrize("name", sorted(torchvision_sets.SPECS))
def test_every_set_of_torchvisions_trains_two_steps(name, tmp_path, monkeypatch):
    """As its option ships; how its files are read is a matter of tests/data."""
    known, rng = torchvision_sets.SPECS[name], np.random.default_rng(0)
    for file in known.train:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    labels = np.arange(30 * len(known.classes)) % len(known.classes)
    shape = (28, 28, 1) if known.train[0].endswith("ubyte") else (32, 32, 3)
    images = rng.integers(0, 256, (len(labels), *shape), np.uint8)
    monkeypatch.setattr(torchvision_sets, "_read", lambda *_: (images, labels))
    run = compose_run([f"data={name}", f"data.root={tmp_path}", *SMALL, "limit_steps=2", "validate.clean_images=16"])
    dry_run.check_settings(run)
    trainer = build.trainer(build.open_setup(run))
    assert trainer.fit()[0] == "finished" and trainer.progress.step == 2
    assert 0 <= trainer.progress.metrics["accuracy/val"] <= 1


def test_every_data_option_is_trained_somewhere():
    elsewhere = {"image_folder", "torchvision"}  # tests/reliability/test_hostile_data.py, tests/data/test_data_own.py
    assert {*options("data")} == {*WITHOUT_FILES, *torchvision_sets.SPECS, *OWN_DATA, *elsewhere}


def write_own_data():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 8, 8, 3), np.uint8), np.arange(40) % 2
    np.savez("data.npz", images=images, labels=labels)
    for index, image in enumerate(images):
        Image.fromarray(image).save(f"{index}.png")
    Path("labels.csv").write_text("".join(f"{index}.png,class {label}\n" for index, label in enumerate(labels)))


@pytest.mark.parametrize("name", OWN_DATA)
def test_own_data_trains_two_steps(name):
    write_own_data()
    run = compose_run([f"data={name}", *SMALL, "limit_steps=2", "cache_dir=cache"])
    dry_run.check_settings(run)
    trainer = build.trainer(build.open_setup(run))
    assert trainer.fit()[0] == "finished" and trainer.progress.step == 2
    assert 0 <= trainer.progress.metrics["accuracy/val"] <= 1


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_composes_and_trains_two_steps(name):
    """On synthetic images in place of the experiment's own data."""
    data = [*TINY[:2], "data.size=300", "data.val_fraction=0.1", "limit_steps=2", "validate.clean_images=16"]
    run = compose_run([f"experiment={name}", *data])
    trainer = build.trainer(build.open_setup(run))
    trainer.fit()
    assert trainer.progress.step == 2


EVERYTHING = [
    "optimizer=sgd",
    "aug=[cutout,mixup]",
    "average=ema",
    "model=resnet",
    "model.depth=20",
    "model.stochastic_depth=0.3",
    "penalty=elastic",
    "sam=0.05",
    "max_norm=3",
    "clip_norm=1",
    "loss.label_smoothing=0.1",
    "loss.class_weights=auto",
]


def test_a_seed_fixes_every_bit():
    words = [*EVERYTHING, "model.blocks=[1,1,1]", "model.widths=[4,8,8]", "epochs=2"]
    first, second = trained(*words), trained(*words)
    assert same(first.model.state_dict(), second.model.state_dict())
    assert first.progress.metrics == second.progress.metrics
    assert not same(first.model.state_dict(), trained(*words, seed=1).model.state_dict())


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_the_number_of_workers_changes_nothing(workers):
    words = [*SMALL, "aug=mixup", "epochs=2"]
    resident = trained(*words, "data.loader=resident")
    streamed = trained(*words, "data.loader=stream", f"workers={workers}")
    assert same(resident.model.state_dict(), streamed.model.state_dict())


def test_accumulation_is_the_same_step():
    whole, pieces = (trained(*SMALL, "epochs=1", f"accumulate={n}") for n in (1, 4))
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(pieces.model.state_dict()[name], value, atol=1e-6, rtol=1e-5)


def read_rows(folder: Path) -> list[dict]:
    return list(csv.DictReader((folder / "metrics.csv").open()))


@pytest.mark.parametrize("average", [["average=ema"], ["average=swa", "average.start=0.25", "average.bn_images=30"]])
def test_a_run_resumed_at_an_epoch_is_the_run_never_stopped(average):
    """Weights, averages, optimizer and every metric but the times, bit for bit; one header, one point a step."""
    words = [*TINY, *EVERYTHING, *average, "model.blocks=[1,1,1]", "model.widths=[4,8,8]", "log.every_steps=2"]
    assert command(*words, "epochs=4", "dir=whole").returncode == 0
    whole = checkpoint.load(Path("whole/checkpoints/last.pt"))

    stopped = [*words, "epochs=4", "dir=stopped"]
    script = (
        "import sys; from deeptrain.training import trainer; from deeptrain.commands import cli\n"
        "def outcome(self, progress, old=trainer.Plan.outcome):\n"
        "    return ('finished', 'cut short') if progress.epoch == 2 else old(self, progress)\n"
        "trainer.Plan.outcome = outcome\n"
        "sys.exit(cli.train(sys.argv[1:]))"
    )
    assert forked.run([sys.executable, "-c", script, *stopped]).returncode == 0
    assert len(read_rows(Path("stopped"))) == 2
    assert command("resume=stopped").returncode == 0
    again = checkpoint.load(Path("stopped/checkpoints/last.pt"))
    for part in ("model", "average"):
        assert same(whole[part], again[part])
    for one, other in zip(whole["optimizer"]["state"].values(), again["optimizer"]["state"].values(), strict=True):
        assert torch.equal(one["momentum_buffer"], other["momentum_buffer"])
    times = ("seconds", "images_per_second")
    without_times = [
        [{k: v for k, v in row.items() if k not in times} for row in read_rows(Path(f))] for f in ("whole", "stopped")
    ]
    assert without_times[0] == without_times[1]


def points(folder: Path) -> list[tuple[str, int]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return [(tag, event.step) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)]


def test_a_run_folder_holds_what_was_promised(drawn_figures):
    assert train([*TINY, "model=fcn", "aug=mixup", "epochs=2", "dir=run", "average=ema", "log.every_steps=3"]) == 0
    folder = Path("run")
    files = "config.yaml overrides.yaml run.log metrics.csv split.json curves.png confusion.png samples.png card.html"
    for name in [*files.split(), "result.json", "checkpoints/last.pt", "checkpoints/best.pt"]:
        assert (folder / name).stat().st_size > 0, name
    for name in ("curves", "layers", "confusion"):
        with Image.open(folder / f"{name}.png") as figure:
            assert min(figure.size) > 200
    result = json.loads((folder / "result.json").read_text())
    assert result["status"] == "finished" and result["epochs"] == 2 and result["steps"] == 10
    assert result["monitor"] == "accuracy/val" and 0 <= result["best"] <= 1
    needed = "reason best_epoch seconds train_seconds images_per_second metrics parameters versions"
    assert set(needed.split()) <= result.keys()
    tags = points(folder)
    assert len(tags) == len(set(tags)), "one point for each (tag, step)"
    assert {"loss/train", "loss/val", "accuracy/val", "accuracy/train_clean", "rate/lr"} <= {tag for tag, _ in tags}
    state = checkpoint.load(folder / "checkpoints" / "last.pt")
    assert {"model", "optimizer", "average", "progress", "overrides", "versions"} <= state.keys()
    best = checkpoint.load(folder / "checkpoints" / "best.pt")
    sizes = {name: (folder / "checkpoints" / f"{name}.pt").stat().st_size for name in ("last", "best")}
    assert best["optimizer"] is None and sizes["best"] < sizes["last"]


@pytest.mark.parametrize(
    "words",
    [
        ["epohcs=3"],
        ["optimizer.lr=-1"],
        ["data=image_folder", "data.root=nowhere"],
        ["data=mnist", "data.root=nowhere"],
        ["batch_size=100000"],
        ["schedule.warmup=40"],
        ["early_stop.patience=30"],
        ["aug=cutout", "aug.cutout.size=100"],
        ["model.patch_size=3", "model.stem=patch", "data=synthetic", "data.shape=[3,16,16]"],
        *([] if torch.cuda.is_available() else [["device=cuda"]]),
        ["resume=nowhere"],
        ["model.widths=[8,8]"],
        ["-m", "seed=0"],
        ["-m", "seed=0,0"],
        ["-m", "seed=range(0)"],
        ["--config-dir", "nowhere"],
        ["aug=[mixup,mixup]"],
        ["accumulate=1000"],
        ["data=digits", "model=vgg", "batch_size=1"],
        ["resume="],
        ["dir="],
        ["+epochs=3"],
        ["epochs=3", "="],
        ["model=fcn", "model.hidden=[300000,300000]"],
        *([] if torch.cuda.is_available() else [["-m", "seed=0,1", "device=cuda"]]),
        *([] if torch.cuda.is_available() else [["-m", *TINY, *SMALL, "epochs=1", "device=cpu,cuda"]]),
        ["-m", *TINY[:3], *SMALL, "epochs=1", "batch_size=16,73"],
        ["-m", *TINY, *SMALL, "epochs=1", "aug=cutout", "aug.cutout.size=4,100"],
    ],
    ids=" ".join,
)
def test_a_mistake_leaves_no_folder_and_no_traceback(words, capsys):
    assert train(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and "Traceback" not in said
    assert words[0].split("=")[0] in said or words[-1].split("=")[0] in said
    assert not Path("outputs").exists()


def test_a_piped_log_is_short_and_plain():
    """No carriage return, no colour; a two-epoch log under 2 KB; at most 12 lines before the first epoch's."""
    done = command(*TINY, *SMALL, "epochs=2")
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stdout and "\x1b" not in done.stdout
    assert len(done.stdout) < 2048
    lines = done.stdout.splitlines()
    header = next(index for index, line in enumerate(lines) if line.lstrip().startswith("epoch"))
    assert header <= 12
    assert 6 <= len(lines) - header - 3 <= 8 + 3, "the end is 6 to 8 lines, and up to 3 of what the curves show"
    assert any("scripts/evaluate.py" in line for line in lines) and any(
        "tensorboard --logdir" in line for line in lines
    )


def test_an_existing_folder_is_not_trained_into():
    assert train([*TINY, *SMALL, "epochs=1", "dir=run"]) == 0
    assert train([*TINY, *SMALL, "epochs=1", "dir=run"]) == 2


def test_training_longer(capfd):
    assert train([*TINY, *SMALL, "epochs=1", "dir=run"]) == 0
    assert train(["resume=run"]) == 2, "nothing is left to do"
    assert train([*TINY, *SMALL, "epochs=2", "limit_steps=3", "dir=short"]) == 0
    assert train(["resume=short", "limit_steps=6"]) == 0
    assert [row["epoch"] for row in read_rows(Path("short"))] == ["0.6", "1", "1.2"]
    assert train(["resume=run", "epochs=3"]) == 0
    assert [row["epoch"] for row in read_rows(Path("run"))] == ["1", "2", "3"]
    assert "starts anew" not in capfd.readouterr().out
    assert train(["resume=run/checkpoints/best.pt", "epochs=5"]) == 0
    assert "warning: best.pt holds the weights alone: the optimizer starts anew" in capfd.readouterr().out


@pytest.mark.parametrize("limit", ["epochs=1", "limit_steps=3", "early_stop.patience=1"])
def test_a_limit_that_a_run_has_passed_is_refused(limit, capsys):
    """The run has stopped in its fourth epoch; its folder stays as it was."""
    assert train([*TINY, *SMALL, "epochs=4", "limit_steps=16", "optimizer.lr=1e-9", "dir=run"]) == 0
    before = {path: path.read_bytes() for path in Path("run").glob("*.*")}
    assert train(["resume=run", "limit_steps=null", limit]) == 2
    name = limit.partition("=")[0]
    assert f"nothing left to do: {limit}, and" in (said := capsys.readouterr().err) and f"leave {name} out" in said
    assert before == {path: path.read_bytes() for path in Path("run").glob("*.*")}


@pytest.mark.parametrize(
    ("words", "changes", "verb"),
    [
        (["epochs=2"], ["epochs=4"], "rises"),
        (["epochs=4", "limit_steps=10"], ["limit_steps=null"], "rises"),
        (["epochs=2", "schedule=constant"], ["schedule=cosine", "epochs=3", "resume_changed=true"], "falls"),
        (["epochs=2", "schedule=constant"], ["epochs=4"], None),
        (["epochs=4", "optimizer.lr=0.01", "early_stop.patience=1", "optimizer.lr=1e-9"], ["optimizer.lr=0.1"], None),
    ],
    ids=lambda words: " ".join(words or ["no word"]),
)
def test_a_jump_of_the_rate_is_said(words, changes, verb, capsys):
    assert train([*TINY, *SMALL, *words, "dir=run"]) == 0
    capsys.readouterr()
    assert train(["resume=run", "early_stop.patience=null", *changes]) == 0
    said = capsys.readouterr().out
    assert f"warning: the rate {verb} from " in said if verb else "the rate " not in said


def test_training_longer_is_a_new_run_where_a_resumed_one_would_jump(capsys):
    for schedule, first in (("cosine", "data=synthetic"), ("constant", "resume=cons")):
        assert train([*TINY, *SMALL, "epochs=2", f"schedule={schedule}", f"dir={schedule[:4]}"]) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("train longer"))
        assert f"train.py {first}" in line and line.endswith("epochs=4") and "dir=" not in line


def test_what_is_changed_on_resume_holds():
    """Also what the optimizer's state would bring back: its rate and decay; another optimizer is refused."""
    assert train([*TINY, *SMALL, "epochs=1", "dir=run"]) == 0
    assert train(["resume=run", "optimizer=sgd", "epochs=2"]) == 2
    assert train(["resume=run", "model.hidden=[9]", "epochs=2"]) == 2
    assert train(["resume=run", "dir=other", "epochs=2"]) == 2
    assert train(["resume=run", "optimizer.lr=0.5", "optimizer.weight_decay=0", "epochs=2"]) == 0
    group = checkpoint.load(Path("run/checkpoints/last.pt"))["optimizer"]["param_groups"][0]
    assert group["initial_lr"] == 0.5 and group["weight_decay"] == 0


def test_an_interrupted_run_goes_on_where_it_stopped():
    """Ctrl-C ends the step, saves and names the command; the run it becomes is the run never interrupted."""
    words = [*TINY, *SMALL, "aug=mixup", "epochs=2", "validate.every_epochs=2"]
    assert command(*words, "dir=whole").returncode == 0
    script = (
        "import os, signal, sys; from deeptrain.training import trainer; from deeptrain.commands import cli\n"
        "def train_step(self, *batch, old=trainer.Trainer.train_step):\n"
        "    outputs = old(self, *batch)\n"
        "    if self.progress.step == 2: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return outputs\n"
        "trainer.Trainer.train_step = train_step\n"
        "sys.exit(cli.train(sys.argv[1:]))"
    )
    stopped = [sys.executable, "-c", script, *words, "dir=stopped"]
    done = forked.run(stopped)
    assert done.returncode == 130 and not done.stderr
    assert "resume=stopped" in done.stdout and "evaluate.py" not in done.stdout, "there is no best yet"
    assert json.loads(Path("stopped/result.json").read_text())["status"] == "interrupted"
    assert command("resume=stopped").returncode == 0
    whole, again = (checkpoint.load(Path(f"{name}/checkpoints/last.pt")) for name in ("whole", "stopped"))
    assert same(whole["model"], again["model"])


def test_a_metric_that_is_not_a_number_is_never_best():
    trainer = trained(*SMALL, "epochs=1")
    before = trainer.progress.best
    assert trainer.plan.update_best(trainer.progress, {"accuracy/val": float("nan")}) is None
    assert trainer.progress.best == before and trainer.progress.since_best > 0


def test_training_gone_wrong_is_said_in_a_line(capsys):
    assert train([*TINY, *SMALL, "optimizer.lr=1e30", "epochs=2", "dir=run", "log.every_steps=1"]) == 1
    result = json.loads(Path("run/result.json").read_text())
    assert result["status"] == "failed" and "learning rate" in result["reason"]
    assert "Traceback" not in capsys.readouterr().err


def test_early_stopping():
    assert train([*TINY, *SMALL, "epochs=50", "early_stop.patience=2", "early_stop.min_delta=1", "dir=run"]) == 0
    result = json.loads(Path("run/result.json").read_text())
    assert result["status"] == "stopped_early" and result["epochs"] == 3


def test_evaluation_opens_test_and_notes_it():
    assert train([*TINY, *SMALL, "epochs=2", "dir=run"]) == 0
    evaluate = [sys.executable, str(ROOT / "scripts" / "evaluate.py")]
    done = forked.run([*evaluate, "run"])
    assert done.returncode == 0, done.stderr
    assert forked.run([*evaluate, "run", "split=val"]).returncode == 0
    test, val = json.loads(Path("run/evaluation.json").read_text())
    assert test["split"] == "test" and {"accuracy", "top5", "loss"} == test["metrics"].keys() and "time" in test
    best = json.loads(Path("run/result.json").read_text())["best"]
    assert val["split"] == "val" and val["metrics"]["accuracy"] == pytest.approx(best)
    wrong = forked.run([*evaluate, "nowhere"])
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: ")


def test_a_sweep_makes_a_folder_a_run_and_a_table(capsys):
    words = [*TINY, "model.hidden=[8]", "model=fcn", "loggers=none", "epochs=1"]
    assert train(["-m", *words, "aug=none,[cutout,mixup]", "seed=0,1", "optimizer.lr=0.1"]) == 0
    (base,) = Path("outputs/sweeps").glob("*/*")
    names = {result.parent.name for result in base.glob("*/result.json")}
    assert names == {f"aug={aug},seed={seed}" for aug in ("none", "cutout+mixup") for seed in (0, 1)}
    said = capsys.readouterr().out
    assert said.count("±") >= 2 and "best     aug=" in said
    alone = trained("model=fcn", "model.hidden=[8]", "epochs=1", "optimizer.lr=0.1", "aug=[cutout,mixup]", seed=1)
    swept = checkpoint.load(base / "aug=cutout+mixup,seed=1" / "checkpoints" / "last.pt")
    assert same(alone.model.state_dict(), swept["model"]), "the same as a job of a sweep as alone"


def test_a_wrong_sweep_starts_nothing(capsys):
    assert train(["-m", *TINY, "model=fcn", "optimizer.lr=0.1,-1"]) == 2
    assert "optimizer.lr=-1: must be > 0" in capsys.readouterr().err
    assert not Path("outputs").exists()


def test_a_sweep_tells_the_mistakes_of_all_its_runs_before_its_first(capsys):
    words = [*TINY[:3], *SMALL, "epochs=1", "batch_size=16,73", "aug=cutout", "aug.cutout.size=4,100", "seed=0,1"]
    assert train(["-m", *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 2 and "batch_size=73" in said and "aug.cutout.size=100" in said
    assert not Path("outputs").exists()


def test_start_is_what_the_command_line_calls():
    assert start([*TINY, *SMALL, "epochs=1", "limit_steps=1", "dir=run"]) == 0

"""Corners of the command line: experiments that do not fit, values that refer, options of one's own, scripts."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import forked
import pytest
import yaml

from deeptrain.commands import ensemble, evaluate
from deeptrain.commands.cli import guarded, help_page, split_flags, train
from deeptrain.config.compose import compose_run, compose_sweep
from deeptrain.errors import UsageError
from deeptrain.loggers.console import Console

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["data=synthetic", "data.size=60", "data.shape=[1,8,8]", "epochs=1", "loggers=none"]


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def mistakes(*words: str) -> list[str]:
    with pytest.raises(UsageError) as caught:
        compose_run(list(words))
    return caught.value.lines


def own_options(folder: Path) -> Path:
    """Write an option, and an experiment that uses it, into a folder of the user's own."""
    for group in ("model", "experiment"):
        (folder / group).mkdir(parents=True)
    (folder / "model" / "tiny.yaml").write_text("# tiny\n_target_: deeptrain.model.fcn.FCN\nhidden: [4]\n")
    mix = "# @package _global_\n# mixes\ndefaults:\n  - override /aug: [mixup]\naug:\n  mixup:\n    alpha: 0.4\n"
    (folder / "experiment" / "mix.yaml").write_text(mix)
    return folder


def test_a_loss_of_ones_own_that_takes_no_mixed_targets_is_refused_beside_mixup(tmp_path, capsys):
    (tmp_path / "own" / "loss").mkdir(parents=True)
    option = "# the margin to each other class\n_target_: torch.nn.MultiMarginLoss\nmargin: 1.0\n"
    (tmp_path / "own" / "loss" / "margin.yaml").write_text(option)
    words = ["--config-dir=own", "loss=margin", *SMALL, "model=fcn", "model.hidden=[4]"]
    assert train([*words, "aug=mixup", "dir=mixed"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: loss=margin: does not take mixed targets, which aug=mixup makes (")
    assert not Path("mixed").exists()
    assert train([*words, "aug=cutout", "dir=plain"]) == 0


def test_an_experiment_beside_another_model_is_one_line():
    (line,) = mistakes("experiment=cifar10_45s", "model=fcn")
    assert line.startswith("experiment=cifar10_45s: sets model.blocks, ") and "leave out model=fcn" in line
    first, second = mistakes("experiment=cifar10_45s", "model=fcn", "model.blocks=[1]")
    assert "model.blocks" not in first and second.startswith("model.blocks=[1]: FCN has no blocks")


def test_an_experiment_beside_another_aug_is_one_line(tmp_path):
    folder = f"--config-dir={own_options(tmp_path / 'own')}"
    assert compose_run([folder, "experiment=mix"]).parts["aug"]["mixup"]["alpha"] == 0.4
    (line,) = mistakes(folder, "experiment=mix", "aug=cutout")
    assert line.startswith("experiment=mix: sets aug.mixup.alpha, which aug=[cutout] does not have")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model=fcn", "model.hidden.0=5"], "model.hidden is a list, and is written as a whole"),
        (["optimizer.lr=${foo}"], "optimizer.lr: refers to foo, which is no setting"),
        (["optimizer.lr=${oc.env:NO_SUCH}"], "refers to the environment variable NO_SUCH, which is not set"),
        (["optimizer.lr=???"], "optimizer.lr: must be given, write optimizer.lr=..."),
        (["--config-dir=nowhere"], "--config-dir=nowhere: is no folder"),
        (["--config-dir="], "--config-dir=: is no folder"),
    ],
)
def test_no_words_of_the_libraries_below(words, said):
    (line,) = mistakes(*words)
    assert said in line
    assert "nterpolation" not in line and "Mandatory" not in line


def test_a_run_remembers_the_folder_of_its_options(tmp_path, monkeypatch, capsys):
    """The commands at the end name it, as a folder may be a stranger's; they work from elsewhere, as sweeps do."""
    own_options(tmp_path / "own, folder")
    assert train([*SMALL, "--config-dir", "own, folder", "model=tiny", "dir=run"]) == 0
    word = f"--config-dir={tmp_path / 'own, folder'}"
    assert yaml.safe_load(Path("run/overrides.yaml").read_text())[0] == word
    said = capsys.readouterr().out
    assert f"evaluate.py run '{word}'" in said and f"train.py '{word}' " in said
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert train(["resume=../run", "epochs=2"]) == 2
    assert word in capsys.readouterr().err
    assert train(["resume=../run", word, "epochs=2"]) == 0
    evaluate = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), "../run", word]
    assert forked.run(evaluate).returncode == 0
    jobs, keys = compose_sweep([word, "model=tiny,fcn"])
    assert keys == ["model"] and [compose_run(job).choices["model"] for job in jobs] == ["tiny", "fcn"]


def test_flags_are_told_from_words():
    assert split_flags(["-m", "seed=0,1", "--debug"]) == ({"multirun", "debug"}, ["seed=0,1"])
    assert split_flags(["--config-dir", "own", "seed=1"])[1] == ["--config-dir=own", "seed=1"]
    assert split_flags(["-cd=own"])[1] == ["--config-dir=own"]


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("evaluate", ["epochs=3"], "epochs=3: evaluating does not read it; it takes allow_targets, cache_dir, data,"),
        ("evaluate", ["aug=mixup"], "aug=mixup: evaluating does not read it"),
        ("evaluate", ["-m"], "-m: evaluating does not take it; python scripts/evaluate.py RUN"),
        ("preview", ["dir=x"], "dir=x: a preview does not read it"),
        ("preview", ["resume=run"], "resume=run: a preview does not read it"),
        ("preview", ["-m"], "-m: a preview does not read it"),
        ("preview", ["--cfg", "job"], "--cfg: a preview does not read it"),
        ("evaluate", ["--cfg", "job"], "--cfg: evaluating does not take it"),
    ],
)
def test_scripts_refuse_what_they_do_not_read(script, words, said, tmp_path, capsys):
    if script == "evaluate":
        for name in ("overrides.yaml", "checkpoints/best.pt"):
            (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "run" / name).write_text("[]")
        words = ["run", *words]
    command = getattr(import_module(f"deeptrain.commands.{script}"), script)
    assert guarded(lambda: command(words)) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and said in errors


def test_help_lists_folders_of_options():
    page = help_page()
    assert "shelf/..." in page and "whitening\n" in page and "_base" not in page and "explain=" in page
    assert max(map(len, page.splitlines())) <= 120


def test_many_epochs_break_no_column(capsys):
    screen = Console()
    screen.start(10**9, 5)
    screen.epoch({"epoch": 0.01, "loss/train": 1.0, "loss/val": 1.0, "accuracy/val": 0.5}, best=True)
    lines = capsys.readouterr().out.splitlines()
    assert "0.01/1e+09" in lines[1] and len(lines[1]) < 60


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["--help"], ["--version"], ["explain=mixup"], ["--cfg", "job"]], ids=lambda w: w[0])
def test_a_full_disk_behind_standard_output_is_one_line(words):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, str(ROOT / "train.py"), *words]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "error: standard output: No space left on device\n")


def test_a_run_of_a_sweep_has_equals_signs_in_its_name():
    """Where several runs are named, such a folder is a run, not a setting."""
    runs = ["aug=none,seed=0", "aug=none,seed=1"]
    for run in runs:
        Path(run).mkdir()
    assert evaluate.parse([*runs, "split=val", "device=cpu"]).names == runs
    assert ensemble.parse([*runs, "device=cpu"]).names == runs

"""optimizer.lr=auto and scripts/find_lr.py, end to end."""

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from deeptrain.commands.cli import train
from deeptrain.commands.find_lr import find_lr
from deeptrain.config.compose import compose_run
from deeptrain.run import found_rate

WORDS = ["data=digits", "data.train_images=300", "model=fcn", "limit_steps=12", "loggers=none"]


@pytest.fixture(autouse=True)
def outputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def result(folder: str) -> dict:
    return json.loads((Path(folder) / "result.json").read_text())


@pytest.mark.slow
def test_a_run_with_auto_is_the_run_with_the_rate_typed(capsys):
    assert train([*WORDS, "optimizer.lr=auto", "dir=found"]) == 0
    found = result("found")["found_lr"]
    assert f"{found['lr']:g}, found in {found['steps']} steps of search" in capsys.readouterr().out
    assert yaml.safe_load(Path("found/config.yaml").read_text())["optimizer"]["lr"] == found["lr"]
    assert json.loads(Path("found/find_lr.json").read_text())["lr"] == found["lr"]
    assert train([*WORDS, f"optimizer.lr={found['lr']}", "dir=typed"]) == 0
    assert result("typed")["weights"] == result("found")["weights"]
    assert "found_lr" not in result("typed")
    assert train(["resume=found", "limit_steps=14"]) == 0
    assert result("found")["found_lr"] == found
    assert train(["resume=found", "limit_steps=16", "optimizer.lr=auto"]) == 2


def test_the_command_shows_the_line_to_paste(capsys, drawn_figures):
    assert find_lr([*WORDS, "optimizer.lr=5", "dir=it"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("range test  the loss has fallen most of its way at ")
    assert lines[1].startswith("race 1 ")
    rate = json.loads(Path("it/find_lr.json").read_text())["lr"]
    assert lines[-1] == f"try   python train.py {' '.join(WORDS)} optimizer.lr={rate:g}"
    with Image.open("it/find_lr.png") as figure:
        assert min(figure.size) > 200


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m"], "-m: a search for the rate does not read it; leave it out"),
        (["resume=x"], "resume=x: a search for the rate does not read it; leave it out"),
        (["model=nothing"], "model=nothing: "),
    ],
)
def test_mistakes_are_answered_in_a_line(words, message, capsys):
    assert find_lr(words) == 2
    assert f"error: {message}" in capsys.readouterr().err


def test_auto_stands_for_the_options_own_rate_until_it_is_found():
    run = compose_run(["optimizer=sgd", "optimizer.lr=auto"])
    assert run.find_lr
    assert run.parts["optimizer"]["lr"] == 0.1
    assert found_rate.with_rate(run, 0.03) == ["optimizer=sgd", "optimizer.lr=0.03"]
    assert not compose_run(["optimizer=sgd"]).find_lr

"""Runs of version 0.3.0, made by it: they resume, evaluate and repeat."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deeptrain.training import checkpoint

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "tests" / "fixtures" / "run_0_3_0"

pytestmark = pytest.mark.slow


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(shutil.copytree(RUNS, tmp_path / "runs"))
    return Path()


def command(script: str, *words: str) -> str:
    line = [sys.executable, str(ROOT / script), *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_interrupted_run_goes_on_as_it_would_have(runs):
    command("train.py", "resume=interrupted", "limit_steps=40")
    new = checkpoint.load(runs / "interrupted/checkpoints/last.pt")
    old = checkpoint.load(runs / "interrupted_then_resumed.pt")
    assert new["progress"]["step"] == old["progress"]["step"] == 40
    for part in ("model", "average"):
        assert new[part].keys() == old[part].keys()
        for name, value in old[part].items():
            torch.testing.assert_close(new[part][name], value, rtol=1e-4, atol=1e-6)
    rows = [line.split(",")[1] for line in (runs / "interrupted/metrics.csv").read_text().splitlines()[1:]]
    assert len(rows) == len(set(rows))


def test_a_checkpoint_of_0_3_0_is_read_with_its_old_names(runs):
    progress = checkpoint.load(runs / "interrupted/checkpoints/last.pt")["progress"]
    assert {"slowed", "left_out"} <= progress.keys(), "the fixture is one of 0.3.0"


def test_a_finished_run_is_evaluated(runs):
    out = command("scripts/evaluate.py", "finished", "split=val")
    accuracy = json.loads((runs / "finished/result.json").read_text())["best"]
    assert f"val accuracy {accuracy:.4f}" in out


def test_a_finished_run_is_repeated(runs):
    command("train.py", "rerun=finished", "dir=again")
    new, old = (checkpoint.load(runs / f"{name}/checkpoints/last.pt") for name in ("again", "finished"))
    for name, value in old["model"].items():
        torch.testing.assert_close(new["model"][name], value, rtol=1e-4, atol=1e-6)

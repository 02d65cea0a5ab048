"""Runs of version 0.3.0, made by it: they resume, evaluate and repeat."""

import itertools
import json
import shutil
import sys
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from PIL import Image

from deeptrain.commands.cli import train
from deeptrain.data import folder_layout
from deeptrain.data.image_files import FileSplit, ImageFiles
from deeptrain.run import artifacts
from deeptrain.training import checkpoint

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "tests" / "fixtures" / "run_0_3_0"

pytestmark = pytest.mark.slow


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(shutil.copytree(RUNS, tmp_path / "runs"))
    return Path()


def command(script: str, *words: str) -> str:
    done = forked.run([sys.executable, ROOT / script, *words])
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
    assert f"val accuracy {accuracy:.2%}" in out


@pytest.mark.parametrize("loader", ["resident", "stream"])
def test_a_run_keeps_its_order_of_numbered_classes_and_its_fingerprint(tmp_path, monkeypatch, loader):
    """0.3.0 had 10 before 2, and hashed no contents. The run goes on, and is repeated, as it would have been then."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(artifacts, "_draw", lambda *_: None)
    rng = np.random.default_rng(0)
    for name in ("1", "2", "10"):
        Path("data", name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(f"data/{name}/{number}.png")
    words = ["data=image_folder", "data.root=data", f"data.loader={loader}", "workers=0", "model=fcn", "loggers=none"]
    words += ["model.hidden=[4]", "batch_size=5", "epochs=2", "schedule=constant", "device=cpu", "threads=1"]
    with monkeypatch.context() as patch:
        patch.setattr(folder_layout, "natural_order", lambda name: name)
        patch.setattr(FileSplit, "fingerprint", lambda self, cache_dir: self.digests[0])
        patch.setattr(ImageFiles, "_open", without_content(ImageFiles._open))
        assert train([*words, "dir=whole"]) == 0
        assert train([*words, "dir=parts", "limit_steps=4"]) == 0
    before = checkpoint.load(Path("parts/checkpoints/last.pt"))
    assert before["classes"] == ["1", "10", "2"] and "-" not in before["data"]
    assert train(["resume=parts", "limit_steps=null"]) == 0
    assert train(["rerun=whole", "dir=again"]) == 0
    whole = checkpoint.load(Path("whole/checkpoints/last.pt"))
    for name in ("parts", "again"):
        after = checkpoint.load(Path(f"{name}/checkpoints/last.pt"))
        assert checkpoint.digest(after["model"]) == checkpoint.digest(whole["model"])
        assert after["classes"] == ["1", "10", "2"] and "-" in after["data"]
    (tmp_path / "data/10/0.png").write_bytes((tmp_path / "data/2/0.png").read_bytes())
    assert train(["resume=parts", "epochs=3"]) == 2, "other images"


def without_content(open_split):
    """Return ImageFiles._open with the fingerprints of 0.3.0."""

    def _open(self, *arguments, **more):
        samples, statistics, fingerprint = open_split(self, *arguments, **more)
        return samples, statistics, fingerprint.partition("-")[0]

    return _open


def test_a_run_is_not_resumed_on_its_test_folder(tmp_path, monkeypatch, capsys):
    """Where train/ is gone, an evaluation may take test/ alone; a resume may not train on it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(artifacts, "_draw", lambda *_: None)
    for split, name, number in itertools.product(("train", "test"), "ab", range(4)):
        Path("data", split, name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(f"data/{split}/{name}/{number}.png")
    words = ["data=image_folder", "data.root=data", "model=fcn", "model.hidden=[4]", "loggers=none", "device=cpu"]
    assert train([*words, "batch_size=4", "epochs=1", "dir=run"]) == 0
    shutil.rmtree("data/train")
    assert train(["resume=run", "epochs=2", "resume_changed=true"]) == 2
    assert "has test/ but no train/" in capsys.readouterr().err


def test_a_finished_run_is_repeated(runs):
    command("train.py", "rerun=finished", "dir=again")
    new, old = (checkpoint.load(runs / f"{name}/checkpoints/last.pt") for name in ("again", "finished"))
    for name, value in old["model"].items():
        torch.testing.assert_close(new["model"][name], value, rtol=1e-4, atol=1e-6)

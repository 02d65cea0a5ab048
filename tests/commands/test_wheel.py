"""The package without the clone: a wheel that trains, evaluates, explains and sweeps in an empty folder."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["data=synthetic", "data.size=60", "data.shape=[1,8,8]", "model=fcn", "model.hidden=[4]", "epochs=1"]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("uv") is None, reason="uv builds the wheel")]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(["uv", "build", "--quiet", "--wheel", "--out-dir", str(folder), str(ROOT)], check=True)
    wheel = str(next(folder.glob("*.whl")))
    install = ["uv", "pip", "install", "--quiet", "--no-deps", "--python", sys.executable]
    subprocess.run([*install, "--target", str(folder / "site"), wheel], check=True)
    return folder / "site"


def command(installed: Path, *words: str) -> str:
    line = [sys.executable, "-P", "-m", "deeptrain", *words]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_installed_package_does_what_the_clone_does(installed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = command(installed, "train", *SMALL, "dir=run", "loggers=none")
    assert "deeptrain evaluate run" in out and "train.py" not in out
    assert "test accuracy" in command(installed, "evaluate", "run")
    command(installed, "train", "-m", *SMALL, "seed=0,1", "loggers=none")
    assert len(list(Path("outputs/sweeps").glob("*/*/seed=*/result.json"))) == 2
    assert "Mixup" in command(installed, "train", "explain=mixup")
    page = command(installed, "train", "--help")
    assert "deeptrain train model=vgg" in page and "python" not in page
    assert "torchrun --nproc-per-node 2 -m deeptrain train" in page
    assert "settings of deeptrain train" in command(installed, "preview", "--help")
    assert "deeptrain evaluate RUN" in command(installed, "--help")


def test_the_entry_point_is_installed(installed):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    line = [str(installed / "bin" / "deeptrain"), "--help"]
    done = subprocess.run(line, capture_output=True, text=True, check=True, env=environment)
    assert "deeptrain evaluate RUN" in done.stdout


def test_the_package_is_typed_and_lists_its_names(installed):
    assert (installed / "deeptrain" / "py.typed").is_file()
    script = (
        "import sys, deeptrain; assert 'torch' not in sys.modules; print(deeptrain.__version__, *deeptrain.__all__)"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    version, *names = done.stdout.split()
    assert version[0].isdigit() and {"Trainer", "compose", "build_trainer"} <= {*names}

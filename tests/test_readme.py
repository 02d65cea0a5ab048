"""What the README shows works: every command composes, every example of an extension trains."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from deeptrain.commands.cli import split_flags, train
from deeptrain.config.compose import compose_run, compose_sweep

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = "\n".join(page.read_text() for page in PAGES)
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if not kind for line in text.splitlines() if line.startswith("python ")]


def code(kind: str, marker: str) -> str:
    (found,) = [text for language, text in BLOCKS if language == kind and marker in text]
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_compose(command, tmp_path):
    words = shlex.split(command, comments=True)[2:]
    if words[0].startswith("explain="):
        assert train(words) == 0
        return
    words = [word for word in words if word != "--all"]  # of preview.py
    if words == ["--help"] or any(word.startswith(("resume=", "outputs/")) for word in words):
        return
    flags, words = split_flags(words)
    if "multirun" in flags:
        assert len(compose_sweep(words)[0]) > 1
    else:
        compose_run(words)


def test_extensions_train(tmp_path):
    """The model, the augmentation and the schedule of the README, kept outside the clone, in one run."""
    package = tmp_path / "extra"
    package.mkdir()
    model, augmentation = code("python", "class Conv"), code("python", "class Brightness")
    (package / "conv.py").write_text(model)
    (package / "brightness.py").write_text(augmentation)
    (package / "exponential.py").write_text(code("python", "def exponential"))
    for group, name, module in (
        ("model", "conv", "deeptrain.model.conv"),
        ("aug", "brightness", "deeptrain.aug.brightness"),
        ("schedule", "exponential", "my_package.exponential"),
    ):
        folder = tmp_path / "configs" / group
        folder.mkdir(parents=True)
        yaml = code("yaml", f"{module}.").replace(module, f"extra.{name}")
        (folder / f"{name}.yaml").write_text(yaml)
    chosen = ["model=conv", "model.width=8", "aug=[brightness,mixup]", "schedule=exponential", "allow_targets=[extra]"]
    small = ["data=synthetic", "data.size=100", "epochs=1", "dir=run", "loggers=none"]
    command = [sys.executable, str(ROOT / "train.py"), "--config-dir", "configs", *chosen, *small]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wrong = subprocess.run(
        [*command, "model.width=0"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2 and "model.width=0: must be >= 1" in wrong.stderr


def test_ten_lines_train_own_tensors(tmp_path):
    text = code("python", "tensor_loader")
    assert len([line for line in text.splitlines() if line.strip()]) <= 10
    done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "'epoch': 3" in done.stdout and not list(tmp_path.iterdir()), "without a run folder nothing is written"


def test_the_python_example_trains(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    text = code("python", "build_trainer").replace('"epochs=3"', '"epochs=1", "limit_steps=2"')
    (tmp_path / "example.py").write_text(text)
    done = subprocess.run([sys.executable, "example.py"], capture_output=True, text=True, check=True)
    assert 0 <= float(done.stdout) <= 1

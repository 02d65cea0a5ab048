"""Configuration files, method cards and the names of commands: in a clone, or in an installed package."""

import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parents[1]  # of a clone
IS_CLONE = (ROOT / "configs" / "train.yaml").is_file()
CONFIGS = ROOT / "configs" if IS_CLONE else PACKAGE / "resources" / "configs"
CARDS = ROOT / "docs" / "methods" if IS_CLONE else PACKAGE / "resources" / "methods"
CLONE_COMMANDS = {
    "train": "python train.py",
    "evaluate": "python scripts/evaluate.py",
    "predict": "python scripts/predict.py",
    "ensemble": "python scripts/ensemble.py",
    "export": "python scripts/export.py",
    "preview": "python scripts/preview.py",
    "read": "python scripts/read.py",
    "report": "python scripts/report.py",
    "ablate": "python scripts/ablate.py",
    "tune": "python scripts/tune.py",
    "check-data": "python scripts/check_data.py",
    "find-lr": "python scripts/find_lr.py",
    "diagnose": "python scripts/diagnose.py",
}


def command(name: str) -> str:
    """Return what to type for a command, as in `python train.py` or `deeptrain train`."""
    return CLONE_COMMANDS[name] if IS_CLONE else f"deeptrain {name}"


def train_process() -> list[str]:
    """Return the command line that starts a training in a process of its own."""
    return [sys.executable, str(ROOT / "train.py")] if IS_CLONE else [sys.executable, "-P", "-m", "deeptrain", "train"]

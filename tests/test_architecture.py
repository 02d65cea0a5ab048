"""The house keeps its shape: imports go down only, Hydra stays at the door, every YAML binds to its signature."""

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from deeptrain.config.settings import LISTS
from deeptrain.config.signatures import read_signature
from deeptrain.schema import type_error

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "deeptrain"
FLOORS = (  # a room imports rooms of lower floors only; axes do not import one another
    ("schema", "errors", "runtime"),
    ("data", "model", "aug", "loss", "penalty", "optimizer", "gradient", "schedule", "average", "metrics"),
    ("report",),
    ("loggers",),
    ("training",),
    ("config",),
    ("build",),
    ("analysis",),
    ("run",),
    ("inference", "compare"),
    ("sweep",),
    ("search",),
    ("commands",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MAX_ROOT_FILES = 12
# passed by the builder, not by YAML
RUNTIME = {
    "input_shape",
    "num_classes",
    "class_counts",
    "class_names",
    "mean",
    "covariance",
    "epochs",
    "parameters",
    "model",
}
RUNTIME |= {
    "all_is_test",
    "charts",
    "decoder",
    "class_names",
    "initial_loss",
    "input_recipe",
    "learned_classes",
    "metrics",
    "params",
    "run_dir",
    "step",
    "title",
    "val_images",
    "warn",
}
FILES = sorted(SOURCE.rglob("*.py"))
OPTIONS = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.parent.name == "configs")
PRESETS = [path for path in OPTIONS if path.parent.name == "finetune"]  # of settings that every run has
PARTS = [path for path in OPTIONS if path.parent.name not in ("experiment", "finetune")]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "deeptrain" and len(parts) > 1 and parts[1] in FLOOR else None


def test_the_package_root_is_small():
    assert len(list(SOURCE.glob("*.py"))) <= MAX_ROOT_FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down_only(path):
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if room in ("__init__", "__main__"):
        return
    for other in {room_of(module) for module in imports(path)} - {None, room}:
        assert FLOOR[other] < FLOOR[room], f"{room} (floor {FLOOR[room]}) imports {other} (floor {FLOOR[other]})"


def test_the_runtime_room_imports_nothing_of_ours():
    for path in (SOURCE / "runtime").glob("*.py"):
        assert {room_of(module) for module in imports(path)} <= {None, "runtime"}, path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_config_and_entry_points_know_hydra(path):
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if FLOOR.get(room, 0) < FLOOR["config"]:
        assert not {module for module in imports(path) if module.split(".")[0] in ("hydra", "omegaconf")}


def nodes(path: Path) -> list[dict]:
    if path.read_text().startswith("# @package _global_"):  # it sets what belongs to other parts, as aug=off does
        return []
    content = yaml.safe_load(path.read_text()) or {}
    content = list(content.values()) if path.parent.name in LISTS else [content]
    return [node for node in content if node]


@pytest.mark.parametrize("path", PARTS, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_yaml_binds_to_its_signature(path):
    for node in nodes(path):
        target = node.pop("_target_")
        module, _, name = target.rpartition(".")
        real = inspect.signature(getattr(import_module(module), name)).parameters
        read = read_signature(target)
        if path.parent.name == "aug":
            assert list(node)[-2:] == ["probability", "until"], "what every augmentation has comes last"
            when = read_signature("deeptrain.aug.pipeline.RandomApply")
            assert when and not any(
                type_error(node.pop(name), when[name].annotation) for name in ("probability", "until")
            )
        assert read is not None, f"{target} cannot be read from its source"
        assert set(read) == set(real), "what is read without importing is what there is"
        if target.startswith("deeptrain."):
            assert set(node) | RUNTIME >= set(real), "every setting has a key, so that the command line knows it"
        runtime = set() if path.parent.name == "data" else RUNTIME  # data gives its own mean
        assert set(node) <= set(real) - runtime, "every key is a setting"
        for key, value in node.items():
            if not str(value).startswith("${"):
                assert type_error(value, read[key].annotation) is None, f"{key}={value}"
                if (default := real[key].default) is not inspect.Parameter.empty and path.parent.name == "aug":
                    assert value == default, f"{key}={value}: the signature has {default}"


@pytest.mark.parametrize("path", OPTIONS, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_option_says_what_it_is_for(path):
    first = next(line for line in path.read_text().splitlines() if not line.startswith("# @package"))
    assert first.startswith("# ") and 10 < len(first) <= 100


def test_settings_and_train_yaml_agree():
    from dataclasses import asdict

    from deeptrain.config.settings import Settings

    written = yaml.safe_load((ROOT / "configs" / "train.yaml").read_text())
    settings = {key: value for key, value in written.items() if key not in ("defaults", "hydra", *LISTS)}
    default = yaml.safe_load((ROOT / "configs" / "finetune" / "all.yaml").read_text())
    assert settings | {"finetune": default} == asdict(Settings())


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_holds_settings(path):
    from deeptrain.config.settings import Finetune
    from deeptrain.config.validate import settings_messages

    assert not list(settings_messages(yaml.safe_load(path.read_text()), Finetune))


def test_the_command_line_answers_without_torch():
    """Help, checks and mistakes load neither torch nor anything else that takes long."""
    script = (
        "import sys; from deeptrain.commands.cli import train; "
        "codes = [train(['--help']), train(['modle=vgg']), train(['optimizer.lr=-1'])]; "
        "heavy = {'torch', 'torchvision', 'sklearn', 'matplotlib', 'tensorboard', 'pandas'} & set(sys.modules); "
        "assert codes == [0, 2, 2], codes; assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)

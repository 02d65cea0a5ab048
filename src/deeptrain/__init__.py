"""Train image classifiers and compare regularizers. Names are imported on first use, so importing needs no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deeptrain.analysis.diagnosis.given import diagnose
    from deeptrain.analysis.find_lr import find_lr
    from deeptrain.aug.pipeline import Pipeline
    from deeptrain.build import build_trainer
    from deeptrain.config.compose import compose_run as compose
    from deeptrain.data.tensors import tensor_loader
    from deeptrain.inference.restore import load
    from deeptrain.training.progress import Plan
    from deeptrain.training.trainer import Trainer
    from deeptrain.training.validation import Validator

    __version__: str

__all__ = [
    "Pipeline",
    "Plan",
    "Trainer",
    "Validator",
    "__version__",
    "build_trainer",
    "compose",
    "diagnose",
    "find_lr",
    "load",
    "tensor_loader",
]

_PLACES = {
    "Pipeline": ("deeptrain.aug.pipeline", "Pipeline"),
    "Plan": ("deeptrain.training.progress", "Plan"),
    "Trainer": ("deeptrain.training.trainer", "Trainer"),
    "Validator": ("deeptrain.training.validation", "Validator"),
    "diagnose": ("deeptrain.analysis.diagnosis.given", "diagnose"),
    "find_lr": ("deeptrain.analysis.find_lr", "find_lr"),
    "load": ("deeptrain.inference.restore", "load"),
    "build_trainer": ("deeptrain.build", "build_trainer"),
    "tensor_loader": ("deeptrain.data.tensors", "tensor_loader"),
    "compose": ("deeptrain.config.compose", "compose_run"),
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("deeptrain")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return [*globals(), *__all__]

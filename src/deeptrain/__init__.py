"""Train image classifiers and compare regularizers. Names are imported on first use, so importing needs no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deeptrain.build import build_trainer
    from deeptrain.config.compose import compose_run as compose
    from deeptrain.training.trainer import Trainer

    __version__: str

__all__ = ["Trainer", "__version__", "build_trainer", "compose"]

_PLACES = {
    "Trainer": ("deeptrain.training.trainer", "Trainer"),
    "build_trainer": ("deeptrain.build", "build_trainer"),
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

"""What a run measures, and where it goes: metrics and loggers."""

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from deeptrain.build.data import data_info
from deeptrain.config.instantiate import instantiate, locate
from deeptrain.config.settings import RunConfig
from deeptrain.errors import UsageError

if TYPE_CHECKING:  # a part that needs no torch is built without importing it
    from deeptrain.data.dataset import Dataset
    from deeptrain.loggers.logger import Logger
    from deeptrain.metrics.metric import Metric


def metrics(run: RunConfig, dataset: "Dataset") -> "dict[str, Metric]":
    """Return what a run measures: the metrics of every run, then those of metrics=."""
    from deeptrain.metrics.metric import METRICS

    nodes = run.parts["metrics"].items()
    return {**METRICS, **{name: instantiate(f"metrics.{name}", node, **data_info(dataset)) for name, node in nodes}}


def loggers(run: RunConfig, **facts: Any) -> "list[Logger]":
    """Build the loggers of loggers=; UsageError if one cannot start."""
    built = []
    for name, node in run.parts["loggers"].items():
        try:
            built.append(instantiate(f"loggers.{name}", node, **facts))
        except (UsageError, OSError):
            raise
        except Exception as error:  # of a package that is not ours
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise UsageError([f"loggers={name}: cannot start ({reason[:300]}); leave it out, or mend that"]) from error
    return built


def check_loggers(run: RunConfig) -> None:
    """Raise UsageError if a logger needs a package that is not installed."""
    for name, node in run.parts["loggers"].items():
        package = getattr(locate(f"loggers.{name}", node["_target_"]), "requires", None)
        if package is not None and find_spec(package) is None:
            raise UsageError([f"loggers={name}: needs the package {package}; pip install 'deeptrain[{package}]'"])

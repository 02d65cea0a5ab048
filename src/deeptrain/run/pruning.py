"""The median rule: a run ends early where it is worse than half of the finished runs beside it were."""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from deeptrain.config.settings import RunConfig
from deeptrain.loggers.metrics_csv import read_rows
from deeptrain.report.formatting import metric_format
from deeptrain.run import folder
from deeptrain.runtime.paths import read_path

if TYPE_CHECKING:
    from deeptrain.training.trainer import Trainer

FINISHED = ("finished", "stopped_early")
MIN_RUNS = 5  # finished ones, before any other is pruned
MARGIN = 0.0025  # of a share, such as accuracy: a smaller difference is the luck of an image or two


def rule(trainer: "Trainer", run: RunConfig, run_dir: Path | None) -> Callable[[float, float], str] | None:
    """Return what early_stop.prune asks at every validation; None without it.

    run_dir: of a run that goes on. A new run without dir= has no runs beside it that it could be compared with.
    """
    if run.settings.early_stop.prune is None:
        return None
    plan, world, named = trainer.plan, trainer.world, run_dir or run.settings.dir
    is_share = trainer.validator.metrics[plan.monitor.removesuffix("/val")].as_percent
    text, margin = metric_format(is_share), MARGIN if is_share else 0.0
    has_rivals = named is not None and world.is_main
    beside = (read_path(str(named)), plan.monitor, plan.higher_is_better, text, margin) if has_rivals else None
    median = MedianRule(*beside) if beside else None
    return lambda epoch, record: world.broadcast(median(epoch, record) if median else "")


class MedianRule:
    """Say why a run is to end: its best value so far is worse than the median of the finished runs at this epoch.

    The median stopping rule of Golovin et al. 2017 (Google Vizier), as Optuna's MedianPruner has it.
    margin: by which the value is to be worse, in the metric's unit.
    """

    def __init__(
        self,
        run_dir: Path,
        monitor: str,
        higher_is_better: bool,
        text: Callable[[float], str] = str,
        margin: float = 0.0,
    ):
        self.run_dir, self.monitor, self.text, self.margin = run_dir.resolve(), monitor, text, margin
        self.higher_is_better = higher_is_better
        self._curves: dict[Path, dict[float, float]] = {}  # of runs that have finished: they change no more

    def __call__(self, epoch: float, record: float) -> str:
        """Return the reason, "" if the run is to go on. record: its best value so far."""
        curves = self.finished_curves()
        values = [curve[epoch] for curve in curves if epoch in curve]
        if len(curves) < MIN_RUNS or not values:
            return ""
        median = statistics.median(values)
        behind = median - record if self.higher_is_better else record - median
        if behind <= self.margin:
            return ""
        others = f"the median of {len(values)} finished runs is {self.text(median)}"
        return f"{self.monitor} {self.text(record)} after epoch {epoch:g}, where {others}"

    def finished_curves(self) -> list[dict[float, float]]:
        """Return the monitored metric by epoch of each finished run in the folders beside this one."""
        for path in self.run_dir.parent.iterdir():
            is_other = path != self.run_dir and path not in self._curves and path.is_dir()
            if is_other and folder.read_result(path).get("status") in FINISHED:
                self._curves[path] = curve(path, self.monitor, self.higher_is_better)
        return list(self._curves.values())


def curve(path: Path, monitor: str, higher_is_better: bool) -> dict[float, float]:
    """Return a metric by epoch from a run's metrics.csv, of the better weights where they are averaged too."""
    better, names = max if higher_is_better else min, (monitor, f"{monitor}_average")
    rows = [(row["epoch"], [row[name] for name in names if name in row]) for row in read_rows(path / "metrics.csv")]
    return {epoch: better(values) for epoch, values in rows if values}

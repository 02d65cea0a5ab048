"""What a run leaves behind as it goes: the console's lines, and what the loggers write."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deeptrain.loggers.console import Console
from deeptrain.loggers.log_digests import LogDigests
from deeptrain.loggers.logger import BEST, GAP, Logger
from deeptrain.loggers.metrics_csv import MetricsTable
from deeptrain.metrics.metric import METRICS, Metric

MUCH_WAITING = 0.1  # for data, of the time of a pass: from here on the table shows it
NOTICED = 0.5  # seconds of it that a user notices


class Plan(Protocol):
    """What a logger reads of training.progress.Plan."""

    epochs: int
    steps_per_epoch: int
    monitor: str

    def epochs_done(self, progress: Any, /) -> float: ...
    def seconds_left(self, progress: Any, /) -> float: ...


class Position(Protocol):
    """What a logger reads of training.progress.Progress."""

    epoch: int
    step_in_epoch: int
    step: int
    images: int
    train_seconds: float
    best: float | None


def metric_names(
    metrics: Iterable[str] = METRICS, *, clean: bool, average: bool, penalties: Sequence[str] = ()
) -> list[str]:
    """Name what a run measures, in the order of metrics.csv. penalties: the terms beside the loss."""
    parts = ["train", *(["train_clean"] if clean else []), "val", *(["val_average"] if average else [])]
    names = [f"{name}/{part}" for part in parts for name in metrics]
    return [*names, *(["loss/penalty"] if penalties else []), *(f"penalty/{term}" for term in penalties)]


def table_columns(metrics: Sequence[str]) -> list[str]:
    """Return the columns of metrics.csv."""
    return ["epoch", "step", *metrics, "rate/lr", "images_per_second", "seconds"]


class RunLogger:
    """The one seam between the loop and what watches it: it composes rows and hands them to the loggers.

    Without loggers it only shows. Logging never stops a training: a logger that fails is left out after one warning.
    metrics: those of the table that the console shows.
    """

    def __init__(
        self,
        console: Console | None = None,
        loggers: Sequence[Logger] = (),
        metrics: Mapping[str, Metric] = METRICS,
    ):
        self.console, self.loggers, self.metrics = console or Console(), list(loggers), metrics
        self.history: list[dict[str, Any]] = []  # a row a validation
        self._digests = LogDigests()
        self._images, self._seconds = 0, 0.0  # of the run at the last validation

    @property
    def table(self) -> MetricsTable | None:
        """Return metrics.csv, if it is among the loggers."""
        return next((logger for logger in self.loggers if isinstance(logger, MetricsTable)), None)

    def start(self, plan: Plan, progress: Position) -> None:
        """Start or go on from a position of the run."""
        self.plan = plan
        self._images, self._seconds = progress.images, progress.train_seconds
        self.console.start(plan.epochs, plan.steps_per_epoch, progress.epoch, self.metrics)

    def describe(self, settings: Mapping[str, Any], samples: np.ndarray, step: int) -> None:
        """Log what is said once a run: the settings, and its first training images, uint8 (H, W, 3)."""
        self._each(lambda logger: logger.describe(settings, samples, step))

    def advance(self, step_in_epoch: int) -> None:
        """Move the live line. It shows the values of the last log point, so nothing waits for the device."""
        self.console.advance(step_in_epoch)

    def log_step(self, progress: Position, values: Mapping[str, float], lr: float, images_per_second: float) -> None:
        """Show and log the training means since the last log point by name, and the penalties by tag."""
        position, left = (progress.epoch + 1, progress.step_in_epoch), self.plan.seconds_left(progress)
        self.console.progress(*position, values["loss"], values["accuracy"], lr, images_per_second, left)
        tags = {name if "/" in name else f"{name}/train": value for name, value in values.items()}
        tags |= {"rate/lr": lr, "speed/images_per_second": images_per_second}
        self._each(lambda logger: logger.log_step(tags, progress.step))

    def log_validation(
        self, progress: Position, metrics: Mapping[str, float], lr: float, is_best: bool, waited: float
    ) -> None:
        """Show and log the metrics of one validation. waited: seconds spent waiting for data since the last one."""
        images, seconds = progress.images - self._images, max(progress.train_seconds - self._seconds, 1e-9)
        self._images, self._seconds = progress.images, progress.train_seconds
        row = {"epoch": self.plan.epochs_done(progress), "step": progress.step, **metrics, "rate/lr": lr}
        row |= {"images_per_second": images / seconds, "seconds": progress.train_seconds}
        clock = {"seconds_left": self.plan.seconds_left(progress)}
        clock |= {"data_wait": waited / seconds} if waited > max(MUCH_WAITING * seconds, NOTICED) else {}
        self.console.epoch(row | clock, is_best)
        self.history.append(row)
        table, more = self.table, row | self._derived(row, progress)
        self._each(lambda logger: logger.log_validation(row if logger is table else more, progress.step))

    def log_layers(self, progress: Position, values: Mapping[str, float]) -> None:
        """Log statistics of the layers by tag, if there are any."""
        if values:
            row = {"epoch": self.plan.epochs_done(progress), "step": progress.step, **values}
            self._each(lambda logger: logger.log_layers(row, progress.step))

    def log_figures(self, figures: Mapping[str, Path], step: int) -> None:
        """Log the pictures of a run that is over: PNG files by name."""
        self._each(lambda logger: logger.log_figures(figures, step))

    def _derived(self, row: Mapping[str, float], progress: Position) -> dict[str, float]:
        """Return what follows from a row: the gap, and the best so far."""
        gap = {"accuracy/train_clean", "accuracy/val"} <= row.keys()
        found = {GAP: 100 * (row["accuracy/train_clean"] - row["accuracy/val"])} if gap else {}
        return found | ({} if progress.best is None else {BEST + self.plan.monitor.removesuffix("/val"): progress.best})

    def flush(self) -> dict[str, Any]:
        """Write what waits in memory, before a checkpoint: a resumed run does not log it again.

        Return what the checkpoint is to know of the files: their lengths and digests.
        """
        files: list[Path] = []
        self._each(lambda logger: logger.flush())
        self._each(lambda logger: files.extend(logger.files()))
        return self._digests.measure(files)

    def truncate(self, step: int) -> None:
        """Drop what was logged after a step: the run goes on from there."""
        self.history = [row for row in self.history if row["step"] <= step]
        self._digests.forget()
        self._each(lambda logger: logger.truncate(step))

    def message(self, text: str) -> None:
        self.console.message(text)

    def close(self) -> None:
        self.console.close()
        self._each(lambda logger: logger.close())

    def _each(self, write: Callable[[Logger], Any]) -> None:
        """Let every logger write; drop one that fails."""
        for logger in list(self.loggers):
            try:
                write(logger)
            except Exception as error:
                self.loggers.remove(logger)
                name = "metrics.csv" if isinstance(logger, MetricsTable) else type(logger).__name__
                message = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                self.console.warn(f"{name} cannot be written ({message}); the run goes on without it")

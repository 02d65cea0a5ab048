"""What a run leaves behind as it goes: the screen's lines, metrics.csv, TensorBoard's points and the checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from deeptrain.loggers.console import Console
from deeptrain.loggers.metrics_csv import MetricsTable
from deeptrain.loggers.tensorboard import TensorBoard


class Plan(Protocol):
    """What a logger reads of training.progress.Plan."""

    epochs: int
    steps_per_epoch: int

    def epochs_done(self, progress: Any, /) -> float: ...
    def seconds_left(self, progress: Any, /) -> float: ...


class Position(Protocol):
    """What a logger reads of training.progress.Progress."""

    epoch: int
    step_in_epoch: int
    step: int
    images: int
    train_seconds: float


Sink = TypeVar("Sink", MetricsTable, TensorBoard)

VALIDATED = ("train_clean", "val", "val_average")
ALWAYS = ("epoch", "step", "rate/lr", "images_per_second", "seconds")


def metric_names(*, clean: bool, average: bool, penalties: Sequence[str] = ()) -> list[str]:
    """Name the metrics that a run measures, in the order of metrics.csv; `penalties` are the terms beside the loss."""
    parts = ["train", *(["train_clean"] if clean else []), "val", *(["val_average"] if average else [])]
    names = [f"{name}/{part}" for part in parts for name in ("loss", "accuracy", "top5")]
    return [*names, *(["loss/penalty"] if penalties else []), *(f"penalty/{term}" for term in penalties)]


class RunLogger:
    """The one seam between the loop and whatever watches it. Without a folder it only shows, and keeps nothing.

    Logging never stops a training: whichever fails of metrics.csv and TensorBoard is told of once, then left out.
    """

    def __init__(
        self,
        console: Console | None = None,
        folder: Path | None = None,
        *,
        metrics: list[str] | None = None,
        first_step: int = 0,
        tensorboard: bool = False,
    ):
        self.console, self.folder = console or Console(), folder
        self.history: list[dict[str, Any]] = []  # a row a validation
        self._images, self._seconds = 0, 0.0  # of the run at the last validation
        self.table = self.board = None
        self._failed: set[object] = set()
        if folder is not None:
            self.table = MetricsTable(
                folder / "metrics.csv", [*ALWAYS[:2], *(metrics or []), *ALWAYS[2:]], self.console.warn
            )
            self.table.truncate(first_step)
        if folder is not None and tensorboard:
            self.board = TensorBoard(folder, first_step=first_step and first_step + 1, warn=self.console.warn)

    def start(self, plan: Plan, progress: Position) -> None:
        """Start or go on from a position of the run."""
        self.plan = plan
        self._images, self._seconds = progress.images, progress.train_seconds
        self.console.begin(plan.epochs, plan.steps_per_epoch, progress.epoch)

    def describe(self, picture: np.ndarray, settings: Mapping[str, Any], step: int) -> None:
        """Log what is said once a run: its first pictures, uint8 (H, W, 3), and the settings that a sweep compares."""
        if self.board is not None and not self.board.resumed:
            self._log(self.board, lambda board: board.image("samples", picture, step))
            self._log(self.board, lambda board: board.hparams(settings))

    def advance(self, step_in_epoch: int) -> None:
        """Move the live line. It shows the values of the last log point, so nothing waits for the device."""
        self.console.tick(step_in_epoch)

    def log_step(self, progress: Position, values: Mapping[str, float], lr: float, images_per_second: float) -> None:
        """Show and log the training means since the last log point by name, and the penalties by tag."""
        position, left = (progress.epoch + 1, progress.step_in_epoch), self.plan.seconds_left(progress)
        self.console.progress(*position, values["loss"], values["accuracy"], lr, images_per_second, left)
        tags = {name if "/" in name else f"{name}/train": value for name, value in values.items()}
        tags |= {"rate/lr": lr, "speed/images_per_second": images_per_second}
        self._log(self.board, lambda board: board.scalars(tags, progress.step))

    def log_validation(
        self, progress: Position, metrics: Mapping[str, float], lr: float, is_best: bool, waited: float
    ) -> None:
        """Show and log the metrics of one validation. waited: seconds spent waiting for data since the last one."""
        images, seconds = progress.images - self._images, max(progress.train_seconds - self._seconds, 1e-9)
        self._images, self._seconds = progress.images, progress.train_seconds
        row = {"epoch": self.plan.epochs_done(progress), "step": progress.step, **metrics, "rate/lr": lr}
        row |= {"images_per_second": images / seconds, "seconds": progress.train_seconds}
        clock = {"data_wait": waited / seconds, "seconds_left": self.plan.seconds_left(progress)}
        self.console.epoch(row | clock, is_best)
        self.history.append(row)
        self._log(self.table, lambda table: table.append(row))
        new = {tag: row[tag] for tag in row if tag.partition("/")[2] in VALIDATED}  # log points had the rest
        self._log(self.board, lambda board: board.scalars(new, progress.step))

    def flush(self) -> None:
        """Write what waits in memory, before a checkpoint: a resumed run does not log it again."""
        self._log(self.board, lambda board: board.flush())

    def truncate(self, step: int) -> None:
        """Drop what was logged after a step: the run goes on from there."""
        self.history = [row for row in self.history if row["step"] <= step]
        self._log(self.table, lambda table: table.truncate(step))
        self._log(self.board, lambda board: board.rewind(step + 1))

    def message(self, text: str) -> None:
        self.console.note(text)

    def close(self) -> None:
        self.console.close()
        self._log(self.table, lambda table: table.close())
        self._log(self.board, lambda board: board.close())

    def _log(self, sink: Sink | None, write: Callable[[Sink], Any]) -> None:
        """Let a sink write, if there is one and it has not failed before."""
        if sink is None or sink in self._failed:
            return
        try:
            write(sink)
        except Exception as error:
            self._failed.add(sink)
            name = "metrics.csv" if sink is self.table else "TensorBoard"
            said = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            self.console.warn(f"{name} cannot be written ({said}); the run goes on without it")

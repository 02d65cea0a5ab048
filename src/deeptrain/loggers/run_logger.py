"""What a run leaves behind as it goes: the screen's lines, metrics.csv, TensorBoard's points and the checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from deeptrain.loggers.console import Console
from deeptrain.loggers.metrics_csv import MetricsTable
from deeptrain.loggers.tensorboard import TensorBoard
from deeptrain.training import checkpoint

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
        screen: Console,
        folder: Path | None = None,
        *,
        metrics: list[str] | None = None,
        first_step: int = 0,
        tensorboard: bool = False,
    ):
        self.screen, self.folder = screen, folder
        self.table = self.board = None
        self._failed: set[object] = set()
        if folder is not None:
            self.table = MetricsTable(folder / "metrics.csv", [*ALWAYS[:2], *(metrics or []), *ALWAYS[2:]], screen.warn)
            self.table.truncate(first_step)
        if folder is not None and tensorboard:
            self.board = TensorBoard(folder, first_step=first_step and first_step + 1, warn=screen.warn)

    def begin(self, epochs: int, steps_per_epoch: int, first_epoch: int) -> None:
        self.screen.begin(epochs, steps_per_epoch, first_epoch)

    def describe(self, picture: np.ndarray, settings: Mapping[str, Any], step: int) -> None:
        """Log what is said once a run: its first pictures, uint8 (H, W, 3), and the settings that a sweep compares."""
        if self.board is not None and not self.board.goes_on:
            self._log(self.board, lambda board: board.image("samples", picture, step))
            self._log(self.board, lambda board: board.hparams(settings))

    def tick(self, step_in_epoch: int) -> None:
        """Move the live line; what it says is of the last log point, so that nothing waits for the device."""
        self.screen.tick(step_in_epoch)

    def step(
        self,
        step: int,
        means: dict[str, float],
        penalties: Mapping[str, float],
        *,
        epoch: int,
        step_in_epoch: int,
        rate: float,
        images_per_second: float,
        seconds_left: float,
    ) -> None:
        """Show and log the training means since the last log point, and the penalties, by their tags."""
        self.screen.progress(
            epoch + 1, step_in_epoch, means["loss"], means["accuracy"], rate, images_per_second, seconds_left
        )
        tags = {f"{name}/train": value for name, value in means.items()}
        pace = {"rate/lr": rate, "speed/images_per_second": images_per_second}
        self._log(self.board, lambda board: board.scalars({**tags, **penalties, **pace}, step))

    def row(self, row: dict[str, Any], *, best: bool, waited: float, seconds_left: float) -> None:
        """Show and keep the metrics of one validation; `waited` is the share of the time spent waiting for data."""
        self.screen.epoch({**row, "data_wait": waited, "seconds_left": seconds_left}, best)
        self._log(self.table, lambda table: table.append(row))
        new = {tag: row[tag] for tag in row if tag.partition("/")[2] in VALIDATED}  # the rest was, at the log points
        self._log(self.board, lambda board: board.scalars(new, row["step"]))

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write checkpoints/<name>.pt; the one before stays until the new one is whole, and of last.pt also then."""
        self._log(self.board, lambda board: board.flush())  # a resumed run does not log again what came before
        if self.folder is not None:
            checkpoint.save(self.folder / "checkpoints" / f"{name}.pt", state, keep=name == "last")

    def last(self) -> dict[str, Any] | None:
        """Read the last checkpoint back; None where none is kept."""
        return None if self.folder is None else checkpoint.load_newest(self.folder / "checkpoints" / "last.pt")[0]

    def rewind(self, step: int) -> None:
        """Drop what has been recorded after a step, since the run goes on from there."""
        self._log(self.table, lambda table: table.truncate(step))
        self._log(self.board, lambda board: board.rewind(step + 1))

    def note(self, text: str) -> None:
        self.screen.note(text)

    def close(self) -> None:
        self.screen.close()
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
            self.screen.warn(f"{name} cannot be written ({said}); the run goes on without it")

"""steps.csv, a row a log point, and layers.csv, a row whenever the layers were looked at."""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deeptrain.loggers.metrics_csv import Row, Table

SECONDS = 1.0  # between two writes: to open a file takes as long as a few steps


class StepsTable(Table):
    """Training means and vital signs at each log point. Written once a second, and before a checkpoint.

    Nothing in it depends on the clock: a resumed run continues it to the same bytes.
    """

    def __init__(
        self, path: Path, columns: Sequence[str], steps_per_epoch: int, warn: Callable[[str], Any] = warnings.warn
    ):
        super().__init__(path, ["epoch", "step", *columns], warn)
        self._steps_per_epoch = steps_per_epoch
        self._held: list[bytes] = []
        self._written = 0.0

    def log_step(self, values: Mapping[str, float], step: int) -> None:
        row = {"epoch": round(step / self._steps_per_epoch, 4), "step": step}
        self._held.append(self._line(row | {name: values[name] for name in self.columns if name in values}))
        if not 0 <= (now := time.monotonic()) - self._written < SECONDS:
            self._written = now
            self.flush()

    def flush(self) -> None:
        held, self._held = self._held, []
        if held:
            self._file.add(b"".join(held))

    def rows(self) -> list[Row]:
        self.flush()
        return super().rows()

    def close(self) -> None:
        self.flush()
        super().close()


class LayersTable(Table):
    """For each layer the spread of its output, its dead units, the last update/weight ratio and gradient norm."""

    def log_layers(self, row: Mapping[str, float], step: int) -> None:
        self.append({name: row[name] for name in self.columns if name in row})

"""What a logger is: it gets what a run measures, and writes it somewhere."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from deeptrain.runtime.files import write_atomically

MAX_ID_BYTES = 1000
VALIDATED = ("train_clean", "val", "val_average")
GAP, BEST = "gap/accuracy_points", "Best/"  # a capital: TensorBoard sorts by letters, and the best comes first


def validated(row: Mapping[str, float]) -> dict[str, float]:
    """Return what a validation has measured by tag, without the training means: log points had these."""
    return {tag: value for tag, value in row.items() if _is_validated(tag)}


def _is_validated(tag: str) -> bool:
    return tag.partition("/")[2] in VALIDATED or tag == GAP or tag.startswith(BEST)


def read_run_id(path: Path) -> str:
    """Read the id of a run from a file of its folder, which may be a stranger's; ValueError if it holds none."""
    content = json.loads(path.read_bytes()[:MAX_ID_BYTES] or b"null")
    if not isinstance(content, dict) or not isinstance(content.get("run_id"), str):
        raise ValueError(f"{path}: holds no run_id; move it away")
    return content["run_id"]


def write_run_id(path: Path, run_id: str) -> None:
    write_atomically(path, json.dumps({"run_id": run_id}).encode())


class Logger:
    """Base of all loggers. Every method does nothing: write those that you need.

    A constructor may ask for facts by their names. `run_dir` is the run folder, a Path. `metrics` are the columns of
    metrics.csv, `title` the overrides of the run. `warn` shows one line. `step` is 0 for a new run; a
    resumed run goes on from there.

    A method may raise: the run warns once and goes on without this logger. It runs in the training process, so let it
    return within a millisecond. Only rank 0 has loggers.
    """

    requires: ClassVar[str | None] = None  # a package, and the extra of deeptrain that brings it

    def describe(self, settings: Mapping[str, Any], samples: np.ndarray, step: int) -> None:
        """Log the settings of the run by dotted key, and its first training images, uint8 (H, W, 3)."""

    def log_step(self, values: Mapping[str, float], step: int) -> None:
        """Log the training means since the last log point by tag, for example `loss/train` and `rate/lr`."""

    def log_validation(self, row: Mapping[str, float], step: int) -> None:
        """Log a row of metrics.csv: `epoch`, every metric by tag, `images_per_second`, `seconds`.

        Besides, `gap/accuracy_points` (train_clean less val, in points) and the best so far, as in `Best/accuracy`.
        """

    def log_layers(self, row: Mapping[str, float], step: int) -> None:
        """Log statistics of the layers by tag, for example `dead/LAYER`, with `epoch` and `step`; now and then."""

    def log_figures(self, figures: Mapping[str, Path], step: int) -> None:
        """Log the pictures of a run that is over: PNG files by name."""

    def flush(self) -> None:
        """Write what is held in memory. A checkpoint follows: a resumed run does not log it again."""

    def files(self) -> list[Path]:
        """Return the files that grow. A checkpoint keeps their length and digest, and a resume warns of damage."""
        return []

    def truncate(self, step: int) -> None:
        """Drop what was logged after a step: the run goes on from there."""

    def close(self) -> None:
        """Write the rest. The run is over."""

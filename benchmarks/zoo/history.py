"""Training a set-up, and what a run records of it: its rows, its steps, its layers, its first batch."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from deeptrain import build
from deeptrain.analysis.initial_loss import measure_initial_loss
from deeptrain.analysis.run_record import Record
from deeptrain.config.compose import compose_run
from deeptrain.errors import UsageError
from deeptrain.loggers.console import Console
from deeptrain.loggers.logger import Logger
from deeptrain.loggers.run_logger import RunLogger
from deeptrain.training.nonfinite import NonFiniteError
from deeptrain.training.recovery import TrainingFailed

Row = dict[str, float]


@dataclass
class History:
    """What is recorded of a run. rows: of metrics.csv; steps: of steps.csv; layers: of layers.csv.

    inputs: mean, standard deviation, least and largest value of the first batch as the network takes it. shares: of
    the classes in train. failed: why the run ended early, "" if it did not.
    """

    words: str
    config: Mapping[str, Any]
    classes: int
    train: int
    val: int
    shares: list[float]
    inputs: tuple[float, float, float, float]
    initial_loss: dict[str, float] | None
    rows: list[Row] = field(default_factory=list)
    steps: list[Row] = field(default_factory=list)
    layers: list[Row] = field(default_factory=list)
    best: float = 0.0
    failed: str = ""

    def curve(self, tag: str) -> np.ndarray:
        return np.array([row[tag] for row in self.rows if tag in row])

    @property
    def record(self) -> Record:
        """Return it as the reader takes a run."""
        result = {"status": "failed" if self.failed else "finished", "reason": self.failed}
        facts = self.train, self.val, self.classes, {**result, "initial_loss": self.initial_loss}
        return Record(self.rows, self.config, *facts, self.steps, max(self.shares))

    def summary(self) -> dict[str, Any]:
        return asdict(self)


class _Recorder(Logger):
    def __init__(self, history: History):
        self.history = history

    def log_step(self, values: Mapping[str, float], step: int) -> None:
        self.history.steps.append({"step": step, **values})

    def log_validation(self, row: Mapping[str, float], step: int) -> None:
        self.history.rows.append(dict(row))

    def log_layers(self, row: Mapping[str, float], step: int) -> None:
        self.history.layers.append(dict(row))


def train(words: list[str]) -> History:
    """Train a run in silence; one that fails has the history up to there."""
    import yaml

    run = compose_run(words)
    setup = build.open_setup(run)
    data = setup.dataset
    counts = np.bincount(data.train.labels, minlength=len(data.classes))
    history = History(
        " ".join(words),
        yaml.safe_load(run.yaml),
        len(data.classes),
        len(data.train),
        len(data.val),
        (counts / counts.sum()).tolist(),
        (0.0, 1.0, 0.0, 0.0),
        None,
    )
    trainer = build.trainer(setup, {}, RunLogger(Console(quiet=True), [_Recorder(history)]))
    try:
        images, _ = next(iter(trainer.train_loader.epoch(0, 0)))
        inputs = trainer.pipeline.evaluate(images)
        values = (inputs.mean(), inputs.std(), inputs.min(), inputs.max())
        history.inputs = tuple(float(value) for value in values)  # type: ignore[assignment]
        history.initial_loss = measure_initial_loss(trainer, setup)
        history.layers.append({"epoch": 0, "step": 0, **trainer.vitals.look_now(trainer.validator)})
        trainer.fit()
    except (TrainingFailed, NonFiniteError) as error:
        history.failed = str(error)
    finally:
        trainer.close()
    best = trainer.progress.best
    history.best = float(best) if best is not None and math.isfinite(best) else 0.0
    return history


def accuracy(words: list[str]) -> float:
    """Return the best accuracy on val of a run; 0 if the words do not make one."""
    try:
        return train(words).best
    except UsageError:
        return 0.0


def history_of(summary: dict[str, Any]) -> History:
    """Return a history from its summary."""
    return History(**{**summary, "inputs": tuple(summary["inputs"])})

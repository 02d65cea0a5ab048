"""Where a run stands; how long it is and what is due when. Pure functions of numbers, without a model."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from deeptrain.metrics.metric import Metric
from deeptrain.schema import NonNegativeFloat, NonNegativeInt

RAW, AVERAGE = "raw", "average"  # the two kinds of weights that a validation measures


@dataclass
class Progress:
    """All state of the loop that is not a tensor. Checkpoints store it."""

    epoch: NonNegativeInt = 0  # epochs completed
    step_in_epoch: NonNegativeInt = 0
    step: NonNegativeInt = 0  # optimizer steps
    images: NonNegativeInt = 0
    train_seconds: NonNegativeFloat = 0.0  # validation not included
    best: float | None = None  # of the monitored metric
    best_epoch: NonNegativeFloat = 0  # epochs completed at the best validation
    since_best: NonNegativeInt = 0  # validations since the last gain of more than min_delta
    reference: float | None = None  # of the monitored metric, at that gain
    validated: NonNegativeInt = 0  # step of the last validation
    rollbacks: NonNegativeInt = 0  # times that on_nan=rollback halved the learning rate
    skipped_steps: NonNegativeInt = 0  # by on_nan=skip
    metrics: dict[str, float] = field(default_factory=dict)  # of the last validation

    @property
    def lr_scale(self) -> float:
        return 1 / 2**self.rollbacks

    def advance(self, images: int, steps_per_epoch: int) -> None:
        """Count one step on a batch of `images` images."""
        self.step += 1
        self.images += images
        self.step_in_epoch += 1
        if self.step_in_epoch == steps_per_epoch:
            self.epoch, self.step_in_epoch = self.epoch + 1, 0


@dataclass
class Plan:
    """How long a run is, what is due when, and which metric decides.

    steps_per_epoch, higher_is_better (of `monitor`): `bind` sets them. max_seconds: of training.
    patience: validations without a better `monitor`.
    """

    epochs: int = 30
    steps_per_epoch: int = 1
    limit_steps: int | None = None
    max_seconds: float | None = None
    monitor: str = "accuracy/val"
    higher_is_better: bool = True
    patience: int | None = None
    min_delta: float = 0.0
    validate_every_epochs: int = 1
    validate_every_steps: int | None = None
    save_every_steps: int | None = None
    save_every_minutes: float | None = None
    log_every_steps: int = 20

    def __post_init__(self):
        steps = self.epochs * self.steps_per_epoch
        self.total_steps = min(steps, self.limit_steps or steps)
        self.saved_at = 0.0  # train_seconds at the last checkpoint of this process

    def bind(self, steps_per_epoch: int, metrics: Mapping[str, Metric]) -> "Plan":
        """Return the plan of a run with this loader and these metrics; ValueError if `monitor` is none of them."""
        metric = metrics.get(self.monitor.removesuffix("/val"))
        if metric is None:
            choices = ", ".join(f"{name}/val" for name in metrics)
            raise ValueError(f"monitor={self.monitor}: must be one of {choices}")
        return replace(self, steps_per_epoch=steps_per_epoch, higher_is_better=metric.higher_is_better)

    def fraction(self, progress: Progress) -> float:
        """Return how much of the run is done, in [0, 1]. Schedules are functions of it."""
        done = progress.step / self.total_steps
        if self.max_seconds is not None:
            done = max(done, progress.train_seconds / self.max_seconds)
        return min(done, 1.0)

    def epochs_done(self, progress: Progress) -> float:
        """Return the passes over the training set: a whole number between epochs, else with two decimals."""
        if progress.step_in_epoch == 0:
            return progress.epoch
        return round(progress.epoch + progress.step_in_epoch / self.steps_per_epoch, 2)

    def seconds_left(self, progress: Progress) -> float:
        done = self.fraction(progress)
        return progress.train_seconds * (1 - done) / max(done, 1e-9)

    def outcome(self, progress: Progress) -> tuple[str, str] | None:
        """Return status and reason if the run is over, else None."""
        if progress.epoch >= self.epochs:
            return "finished", f"{self.epochs} epoch{'s' if self.epochs > 1 else ''} done"
        if self.limit_steps is not None and progress.step >= self.limit_steps:
            return "finished", f"limit_steps={self.limit_steps} reached"
        if self.max_seconds is not None and progress.train_seconds >= self.max_seconds:
            return "finished", f"max_seconds={self.max_seconds:g} reached"
        if self.patience is not None and progress.since_best >= self.patience:
            return "stopped_early", f"{self.monitor} no better for {self.patience} validations"
        return None

    def validation_is_due(self, progress: Progress) -> bool:
        every = self.validate_every_steps
        epoch_ended = progress.step_in_epoch == 0 and progress.epoch % self.validate_every_epochs == 0
        return epoch_ended or (every is not None and progress.step % every == 0) or self.outcome(progress) is not None

    def save_is_due(self, progress: Progress) -> bool:
        if self.save_every_steps is not None and progress.step % self.save_every_steps == 0:
            return True
        since = progress.train_seconds - self.saved_at
        return self.save_every_minutes is not None and since > 60 * self.save_every_minutes

    def update_best(self, progress: Progress, metrics: dict[str, float]) -> str | None:
        """Record a validation; return which weights, "raw" or "average", are the best so far, None if neither."""
        progress.metrics, progress.validated = metrics, progress.step
        names = {RAW: self.monitor, AVERAGE: f"{self.monitor}_average"}
        values = {
            weights: metrics[name] for weights, name in names.items() if math.isfinite(metrics.get(name, math.nan))
        }
        if not values:
            progress.since_best += 1
            return None
        weights = (max if self.higher_is_better else min)(values, key=lambda weights: values[weights])
        if progress.reference is None:
            progress.reference = progress.best  # of a run of 0.3.0
        if self._gain(values[weights], progress.reference) > self.min_delta:
            progress.reference, progress.since_best = values[weights], 0
        else:
            progress.since_best += 1
        if self._gain(values[weights], progress.best) <= 0:
            return None
        progress.best, progress.best_epoch = values[weights], self.epochs_done(progress)
        return weights

    def _gain(self, value: float, old: float | None) -> float:
        """Return by how much a value is better than an old one; inf if there is none."""
        if old is None:
            return math.inf
        return value - old if self.higher_is_better else old - value

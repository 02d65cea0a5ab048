"""Where a run stands; how long it is and what is due when. Pure functions of numbers, without a model."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from deeptrain.metrics.metric import Metric
from deeptrain.schema import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, validate_fields

RAW, AVERAGE = "raw", "average"  # the two kinds of weights that a validation measures
ROUNDING = 1e-6  # of a share, which is a sum of float32


@dataclass
class Progress:
    """All state of the loop that is not a tensor. Checkpoints store it."""

    epoch: NonNegativeInt = 0  # epochs completed
    step_in_epoch: NonNegativeInt = 0
    step: NonNegativeInt = 0  # optimizer steps
    images: NonNegativeInt = 0
    train_seconds: NonNegativeFloat = 0.0  # validation not included
    best: float | None = None  # of the monitored metric
    best_loss: float | None = None  # on val, at the best validation
    record: float | None = None  # of the monitored metric: its best value so far, perhaps not that of the best
    best_epoch: NonNegativeFloat = 0  # epochs completed at the best validation
    since_best: NonNegativeInt = 0  # validations since the last gain of more than min_delta
    reference: float | None = None  # of the monitored metric, at that gain
    validated: NonNegativeInt = 0  # step of the last validation
    rollbacks: NonNegativeInt = 0  # times that on_nan=rollback halved the learning rate
    skipped_steps: NonNegativeInt = 0  # by on_nan=skip
    pruned: str = ""  # why other runs make it hopeless to go on
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


class Candidate(NamedTuple):
    """Weights that may be the best: what a validation says of them."""

    weights: str
    value: float  # of the monitored metric
    loss: float | None


@dataclass
class Plan:
    """How long a run is, what is due when, and which metric decides.

    steps_per_epoch; higher_is_better and is_share (a share of the images) of `monitor`; val_images: `bind` sets them.
    max_seconds: of training. patience: validations without a better `monitor`. val_is_sample: of new images, so its
    shares have a standard error; not if val is what is trained on. prune: gets the epochs done and the best value of
    `monitor` so far; says why the run is to end, or "".
    """

    epochs: PositiveInt = 30
    steps_per_epoch: PositiveInt = 1
    limit_steps: PositiveInt | None = None
    max_seconds: PositiveFloat | None = None
    monitor: str = "accuracy/val"
    higher_is_better: bool = True
    is_share: bool = False
    val_images: NonNegativeInt = 0
    val_is_sample: bool = True
    patience: PositiveInt | None = None
    min_delta: NonNegativeFloat = 0.0
    validate_every_epochs: PositiveInt = 1
    validate_every_steps: PositiveInt | None = None
    save_every_steps: PositiveInt | None = None
    save_every_minutes: PositiveFloat | None = None
    log_every_steps: PositiveInt = 20
    prune: Callable[[float, float], str] | None = None

    def __post_init__(self):
        validate_fields(self)
        steps = self.epochs * self.steps_per_epoch
        self.total_steps = min(steps, self.limit_steps or steps)
        self.saved_at = 0.0  # train_seconds at the last checkpoint of this process

    def bind(self, steps_per_epoch: int, metrics: Mapping[str, Metric], val_images: int = 0) -> "Plan":
        """Return the plan of a run with these loaders and metrics; ValueError if `monitor` is none of them."""
        metric = metrics.get(self.monitor.removesuffix("/val"))
        if metric is None:
            choices = ", ".join(f"{name}/val" for name in metrics)
            raise ValueError(f"monitor={self.monitor}: must be one of {choices}")
        is_share = metric.as_percent and metric.values is not None and metric.compute is None
        return replace(
            self,
            steps_per_epoch=steps_per_epoch,
            higher_is_better=metric.higher_is_better,
            is_share=is_share,
            val_images=val_images,
        )

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
        if self.prune is not None and progress.pruned:
            return "pruned", progress.pruned
        return None

    @property
    def first_validation(self) -> int:
        """Return the step of the first validation; 0 if the clock may end the run before."""
        if self.max_seconds is not None:
            return 0
        steps = self.validate_every_epochs * self.steps_per_epoch
        return min(steps, self.total_steps, self.validate_every_steps or steps)

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
        found = self._candidates(metrics)
        if not found:
            progress.since_best += 1
            return None
        self._update_patience(progress, value := self._best_value(candidate.value for candidate in found))
        so_far = [] if progress.best is None else [Candidate("", progress.best, progress.best_loss)]
        known = (progress.record, progress.best, value)
        progress.record = self._best_value(number for number in known if number is not None)
        progress.pruned = self.prune(self.epochs_done(progress), progress.record) if self.prune else ""
        chosen = self._choose([*so_far, *found], progress.record)
        if chosen in so_far:
            return None
        progress.best, progress.best_loss = chosen.value, chosen.loss
        progress.best_epoch = self.epochs_done(progress)
        return chosen.weights

    def _candidates(self, metrics: Mapping[str, float]) -> list[Candidate]:
        """List the weights that a validation has measured."""
        ends = {RAW: "", AVERAGE: "_average"}
        found = [
            (weights, metrics.get(self.monitor + end), metrics.get(f"loss/val{end}")) for weights, end in ends.items()
        ]
        return [
            Candidate(weights, value, loss)
            for weights, value, loss in found
            if value is not None and math.isfinite(value)
        ]

    def _update_patience(self, progress: Progress, value: float) -> None:
        """Count the validations since the last gain of more than min_delta over the last gain that counted."""
        if progress.reference is None:
            progress.reference = progress.best  # of a run of 0.3.0
        if self._gain(value, progress.reference) > self.min_delta:
            progress.reference, progress.since_best = value, 0
        else:
            progress.since_best += 1

    def _choose(self, candidates: list[Candidate], record: float) -> Candidate:
        """Choose the lowest loss among those within the noise of the record; of equal ones the first.

        The noise is one standard error of a share of val_images, and at least one image (Breiman et al., 1984).
        Other metrics have none, so there only equal values are decided by the loss.
        """
        noise = 0.0
        if self.is_share and self.val_images and self.val_is_sample:
            images = math.sqrt(max(1.0, self.val_images * record * (1 - record)))
            noise = images / self.val_images + ROUNDING
        level = [candidate for candidate in candidates if self._gain(record, candidate.value) <= noise]
        losses = [candidate.loss for candidate in level if candidate.loss is not None]
        if len(losses) < len(level):  # of a run of 0.3.0
            return max(level, key=lambda candidate: self._gain(candidate.value, record))
        return level[losses.index(min(losses))]

    def _best_value(self, values: Iterable[float]) -> float:
        return max(values) if self.higher_is_better else min(values)

    def _gain(self, value: float, old: float | None) -> float:
        """Return by how much a value is better than an old one; inf if there is none."""
        if old is None:
            return math.inf
        return value - old if self.higher_is_better else old - value

"""What a step measures: training means between log points, and where the time goes."""

import math
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from deeptrain.metrics.metric import METRICS, Metric
from deeptrain.metrics.running_metrics import RunningMetrics
from deeptrain.runtime.world import SINGLE, World
from deeptrain.training.nonfinite import NonFiniteError

Outputs = list[tuple[Tensor, Tensor, Tensor]]  # loss, logits and targets of each micro-batch


class TrainMeter:
    """Training means since the last log point, and those of all log points since the last validation.

    skip_nonfinite: leave out batches whose loss is inf or NaN. In fp16 the scaler skips their step too.
    """

    def __init__(self, metrics: Mapping[str, Metric] = METRICS, *, skip_nonfinite: bool = False, world: World = SINGLE):
        self.world = world
        self.metrics = RunningMetrics(metrics, skip_nonfinite=skip_nonfinite)
        self.log_means: list[tuple[int, dict[str, float]]] = []  # images and means of each log point
        self.penalty_terms: dict[str, Tensor] = {}  # of the last step
        self.penalties: dict[str, float] = {}  # by tag, at the last log point
        self.images, self.seconds, self._computed_at = 0, 0.0, perf_counter()  # between the last two log points

    def update(self, outputs: Outputs) -> None:
        for loss, logits, targets in outputs:
            self.metrics.update(loss, logits, targets)

    def total_loss(self, outputs: Outputs) -> float:
        """Return what the gradient belongs to: the batch's mean loss over all ranks, and the last step's penalties."""
        sums = [sum(loss.item() * len(logits) for loss, logits, _ in outputs), sum(len(x) for _, x, _ in outputs)]
        loss, images = self.world.all_reduce_sum(sums)
        return loss / images + sum(term.item() for term in self.penalty_terms.values())

    @property
    def has_batches(self) -> bool:
        """Tell whether any rank has batches since the last log point."""
        (images,) = self.world.all_reduce_max(self.metrics.images)
        return images > 0

    def compute(self) -> dict[str, float]:
        """Return the means since the last log point, {} if every step was skipped. The host waits for the device here.

        Raises NonFiniteError if the loss is inf or NaN.
        """
        self.images, means = self.metrics.exchange(self.world.all_reduce_sum), self.metrics.compute()
        if not means:
            return {}
        if not math.isfinite(means["loss"]):
            raise NonFiniteError(f"the loss is {means['loss']}")
        self.log_means.append((self.images, means))
        self.penalties = self._read_penalties()
        now = perf_counter()
        self.seconds, self._computed_at = now - self._computed_at, now
        return means

    @property
    def images_per_second(self) -> float:
        return self.images / max(self.seconds, 1e-9)

    def epoch_means(self) -> dict[str, float]:
        """Return the training means since the last validation, by tag."""
        images = sum(count for count, _ in self.log_means)
        names = self.log_means[0][1] if self.log_means else ()
        names = [name for name in names if all(name in means for _, means in self.log_means)]  # metrics may be added
        return {f"{name}/train": sum(count * means[name] for count, means in self.log_means) / images for name in names}

    def start_epoch(self) -> None:
        self.log_means, self._computed_at = [], perf_counter()

    def keep_on_main(self) -> None:
        """Give rank 0 the sums of all ranks, since it alone saves them."""
        self.metrics.exchange(self.world.all_reduce_sum)
        self.metrics.exchange(self.world.main_only)

    def _read_penalties(self) -> dict[str, float]:
        if not self.penalty_terms:  # no step yet, or none since a resume
            return self.penalties
        values = torch.stack(list(self.penalty_terms.values())).tolist()
        terms = {f"penalty/{name}": value for name, value in zip(self.penalty_terms, values, strict=True)}
        return {"loss/penalty": sum(values), **terms}

    def state_dict(self) -> dict[str, Any]:
        return {"recent": self.metrics.state_dict(), "passed": self.log_means, "penalties": self._read_penalties()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.penalty_terms = {}
        self.metrics.load_state_dict(state["recent"])
        self.metrics.exchange(self.world.main_only)
        self.log_means = [(images, dict(means)) for images, means in state["passed"]]
        self.penalties = dict(state["penalties"])


class Stopwatch:
    """Seconds of training, and the part of them spent waiting for data."""

    def __init__(self):
        self.started_at, self.waited = perf_counter(), 0.0

    def restart(self) -> None:
        """Leave out the time since the last lap."""
        self.started_at = perf_counter()

    def batch_arrived(self) -> None:
        self.waited += perf_counter() - self.started_at

    def take_waited(self) -> float:
        """Return the seconds spent waiting since the last call."""
        waited, self.waited = self.waited, 0.0
        return waited

    def lap(self) -> float:
        """Return the seconds since the last lap or restart."""
        started_at, self.started_at = self.started_at, perf_counter()
        return self.started_at - started_at

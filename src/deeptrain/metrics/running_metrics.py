"""Running means of the loss and the metrics, which wait for the device only when they are read."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from deeptrain.metrics.metric import METRICS, Metric, Predictions

LEFT_OUT = "left_out"  # images
MAX_LOGITS = 2**22  # kept before they are reduced on their device: 16 MiB of float32


class RunningMetrics:
    """Means over batches, each weighted by its number of images.

    `update` keeps references, about a microsecond a batch. Many batches are then reduced by one call each on the
    device, and `compute` brings the results to the host. So do not overwrite a batch before `compute`.

    skip_nonfinite: leave out a batch whose loss is inf or NaN. In fp16 its step is not taken either.
    """

    def __init__(self, metrics: Mapping[str, Metric] = METRICS, *, skip_nonfinite: bool = False):
        self.metrics, self.skip_nonfinite = metrics, skip_nonfinite
        self._batches: list[tuple[Tensor, Tensor, Tensor]] = []
        self._logits = 0  # numbers in these batches
        self._reduced: list[tuple[Tensor, list[int]]] = []  # losses and sums on the device; batch sizes
        self._sums = self._zeros()  # on the host

    @property
    def images(self) -> int:
        """How many images have been added since the last `compute`; known without waiting for the device."""
        waiting = sum(len(logits) for _, logits, _ in self._batches) + sum(sum(sizes) for _, sizes in self._reduced)
        return waiting + int(self._sums["images"][0] + self._sums[LEFT_OUT][0])

    def update(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Add one batch: its mean loss (scalar), logits (N, K) and targets, ids (N,) or probabilities (N, K)."""
        self._batches.append((loss.detach(), logits.detach(), targets))
        self._logits += logits.numel()
        if self._logits > MAX_LOGITS:
            self._reduce()

    def compute(self) -> dict[str, float]:
        """Return every metric over all batches since the last call.

        {} when there were none, NaN when every one of them has been left out.
        """
        self._collect()
        sums, self._sums = self._sums, self._zeros()
        images, left_out = sums.pop("images")[0], sums.pop(LEFT_OUT)[0]
        if not images:
            return dict.fromkeys(sums, math.nan) if left_out else {}
        return {name: self._value(name, [total / images for total in totals]) for name, totals in sums.items()}

    def exchange(self, exchange: Callable[[list[float]], list[float]]) -> int:
        """Replace the sums by what the ranks exchange for them; return the number of images in them."""
        self._collect()
        received = iter(exchange([total for totals in self._sums.values() for total in totals]))
        self._sums = {name: [next(received) for _ in totals] for name, totals in self._sums.items()}
        return int(self._sums["images"][0])

    def state_dict(self) -> dict[str, Any]:
        """Return the sums over all images since the last `compute`."""
        self._collect()
        return {name: totals[0] if len(totals) == 1 else list(totals) for name, totals in self._sums.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from such sums, and drop what has been added since.

        A metric that they lack is left out of the next `compute`: its mean would be of some images only.
        """
        state = {LEFT_OUT: 0.0, **state}  # runs before 0.3.0 have left out nothing
        sums = {name: totals if isinstance(totals, list) else [totals] for name, totals in state.items()}
        self._sums = {name: [float(total) for total in sums[name]] for name in self._zeros() if name in sums}
        self._batches, self._logits, self._reduced = [], 0, []

    def _zeros(self) -> dict[str, list[float]]:
        return {
            **{name: [0.0] * metric.size for name, metric in self.metrics.items()},
            "images": [0.0],
            LEFT_OUT: [0.0],
        }

    def _value(self, name: str, means: list[float]) -> float:
        compute = self.metrics[name].compute
        return float(compute(torch.tensor(means, dtype=torch.float64))) if compute else means[0]

    def _reduce(self) -> None:
        """Replace the batches by one vector on their device: every loss, then the sums; nothing waits."""
        if not self._batches:
            return
        losses, logits, targets = zip(*self._batches, strict=True)
        alike = len({target.ndim for target in targets}) == 1
        predictions = Predictions(torch.cat(logits), torch.cat(targets if alike else [*map(class_ids, targets)]))
        sizes, means = [batch.shape[0] for batch in logits], torch.stack(losses)
        values = [metric.values(predictions) for metric in self.metrics.values() if metric.values]
        if self.skip_nonfinite:
            skipped = ~torch.cat([one.expand(size) for one, size in zip(means.isfinite(), sizes, strict=True)])
            values = [each.masked_fill(skipped.view(-1, *[1] * (each.ndim - 1)), 0) for each in values]
        sums = [each.sum(0, dtype=torch.float32).reshape(-1) for each in values]
        self._reduced.append((torch.cat([means, *sums]), sizes))
        self._batches, self._logits = [], 0

    def _collect(self) -> None:
        """Bring what has been reduced to the host: the one wait for the device."""
        self._reduce()
        if not self._reduced:
            return
        sums = self._sums
        host = iter(torch.cat([vector for vector, _ in self._reduced]).tolist())
        for _, sizes in self._reduced:
            for size in sizes:
                loss = next(host)
                if self.skip_nonfinite and not math.isfinite(loss):
                    sums[LEFT_OUT][0] += size
                else:
                    sums["loss"][0] += loss * size
                    sums["images"][0] += size
            for name, metric in self.metrics.items():
                values = [next(host) for _ in range(metric.size if metric.values else 0)]
                if values and name in sums:
                    sums[name] = [total + value for total, value in zip(sums[name], values, strict=True)]
        self._reduced = []


def class_ids(targets: Tensor) -> Tensor:
    """Return class ids (N,) as they are, and of probabilities (N, K) the likeliest class."""
    return targets if targets.ndim == 1 else targets.argmax(1)


def label_rank(logits: Tensor, labels: Tensor) -> Tensor:
    """Count the classes that the logits (N, K) put before each label, float32 (N,): 0 is right, below 5 top-5's.

    Equal logits rank by index, as in argmax; a label whose logit is inf or NaN is never right. Ten times cheaper than
    topk, and half as dear as comparisons that write booleans: these write floats, in place.
    """
    classes = logits.shape[1]
    lead = logits.float() - logits.gather(1, labels[:, None])
    steps = torch.zeros(2 * classes, device=logits.device)
    steps[classes:] = torch.finfo(steps.dtype).smallest_normal  # above a lead of 0, below one to speak of
    most = steps.unfold(0, classes, 1).index_select(0, classes - labels)  # rows that step up at their label
    return classes - lead.lt_(most) @ torch.ones(classes, device=logits.device)

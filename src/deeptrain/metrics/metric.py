"""The table of metrics. An entry is measured in training and validation, shown, logged, and may be monitored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line reads the table and must not import torch
    from torch import Tensor

TOP = 5


@dataclass
class Predictions:
    """Outputs of a network beside what it should have said. What several metrics need is computed once.

    logits: (N, K). targets: class ids (N,) or probabilities (N, K).
    """

    logits: "Tensor"
    targets: "Tensor"

    @cached_property
    def labels(self) -> "Tensor":
        """Class ids (N,); of probabilities the likeliest class."""
        from deeptrain.metrics.running_metrics import class_ids

        return class_ids(self.targets)

    @cached_property
    def label_rank(self) -> "Tensor":
        """How many classes the logits put before the label, float32 (N,): 0 is right, below 5 is in the top 5."""
        from deeptrain.metrics.running_metrics import label_rank

        return label_rank(self.logits, self.labels)

    @cached_property
    def predicted(self) -> "Tensor":
        """The class of the largest logit, (N,)."""
        return self.logits.argmax(1)

    @cached_property
    def probabilities(self) -> "Tensor":
        """Softmax of the logits, float32 (N, K)."""
        return self.logits.float().softmax(1)


@dataclass(frozen=True)
class Metric:
    """A number that is computed from the mean of per-image values.

    values: returns one value (N,), or `size` values (N, S), for each image. None for the loss: the trainer computes it.
    compute: turns their means, float64 (S,), into the metric. Default: the mean itself.
    as_percent: it is a fraction in [0, 1], shown in percent.
    column: its head in the terminal's table, by default `val NAME`; "" leaves it out.
    """

    values: "Callable[[Predictions], Tensor] | None"
    size: int = 1
    compute: "Callable[[Tensor], Tensor] | None" = None
    higher_is_better: bool = False
    as_percent: bool = False
    column: str | None = None


METRICS: Mapping[str, Metric] = {
    "loss": Metric(None),
    "accuracy": Metric(lambda p: p.label_rank < 1, higher_is_better=True, as_percent=True),
    "top5": Metric(lambda p: p.label_rank < TOP, higher_is_better=True, as_percent=True, column=""),
}


def informative(metrics: Mapping[str, Metric], num_classes: int) -> dict[str, Metric]:
    """Return the metrics to show: of five classes or fewer all answers are in the top 5."""
    return {name: metric for name, metric in metrics.items() if name != "top5" or num_classes > TOP}

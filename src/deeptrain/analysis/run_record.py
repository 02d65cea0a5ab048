"""What is known of a run for a reading: its curves, its settings, its result. No torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any

from deeptrain.analysis.curves import difference_error

Row = Mapping[str, float]

USUAL_RATES = {"adam": 0.001, "adamw": 0.003, "rmsprop": 0.001, "adagrad": 0.01, "sgd": 0.1, "muon": 0.02}
USUAL_RATES |= {"lars": 10.0, "lamb": 0.01}
MOMENTUM = 0.9  # at which these are meant
FULL_RATE = 0.3  # of the highest rate: from here on a curve shows what the rate does


@dataclass(frozen=True)
class Record:
    """What is known of a run, finished or not.

    rows: of metrics.csv. config: of config.yaml. train, val: their numbers of images, 0 if not known. result: of
    result.json, {} while it runs. steps: of steps.csv. largest_class: its share of the images.
    """

    rows: Sequence[Row]
    config: Mapping[str, Any]
    train: int = 0
    val: int = 0
    num_classes: int = 0
    result: Mapping[str, Any] = field(default_factory=dict)
    steps: Sequence[Row] = ()
    largest_class: float | None = None

    @property
    def is_over(self) -> bool:
        return self.result.get("status") in ("finished", "stopped_early")

    @property
    def clean(self) -> int:
        """Training images that are evaluated without augmentation."""
        return min(self.train, int(self.setting("validate.clean_images") or 2000))

    @property
    def chance(self) -> float:
        """The accuracy of the best answer that is the same for all images."""
        return self.largest_class or 1 / max(self.num_classes, 2)

    @cached_property
    def equal_logits(self) -> float | None:
        """The loss of equal logits."""
        known = self.result.get("initial_loss") or {}
        if "equal_logits" in known:
            return known["equal_logits"]
        return math.log(self.num_classes) if self.num_classes > 1 and self.option("loss") == "CrossEntropy" else None

    def setting(self, key: str) -> Any:
        """Return a setting by its dotted key, None if the run has none."""
        node: Any = self.config
        for name in key.split("."):
            node = node.get(name) if isinstance(node, Mapping) else None
        return node

    def number(self, key: str) -> float:
        """Return a setting that is a number, else 0."""
        value = self.setting(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0

    def option(self, group: str) -> str:
        """Return what a part is made with: the last word of its `_target_`."""
        return str(self.setting(f"{group}._target_") or "").rpartition(".")[2]

    @property
    def mixes(self) -> bool:
        return any(name in (self.config.get("aug") or {}) for name in ("mixup", "cutmix", "mixup_or_cutmix"))

    def curve(self, tag: str) -> list[float]:
        return [row[tag] for row in self.rows if tag in row]

    def last(self, tag: str) -> float | None:
        values = self.curve(tag)
        return values[-1] if values else None

    @property
    def train_loss(self) -> list[float]:
        """Return the training loss as it is minimised, but of mixed targets, whose loss has a floor, the clean one."""
        return self.curve("loss/train_clean" if self.mixes and self.curve("loss/train_clean") else "loss/train")

    @cached_property
    def factors(self) -> list[float]:
        """Return the rate of each row as a part of the highest one, which may lie between two rows."""
        rates = self.curve("rate/lr")
        is_own = self.setting("finetune.backbone_lr_factor") in (None, 1) and self.setting("scale_lr") in (None, "none")
        full = self.number("optimizer.lr") if is_own else 0.0
        highest = max([full, *rates])
        return [rate / (highest or 1.0) for rate in rates]

    @property
    def warmup(self) -> float:
        """Return the part of the run in which the rate rises."""
        length, epochs = self.setting("schedule.warmup"), self.number("epochs")
        return length / max(epochs, 1) if isinstance(length, int) else self.number("schedule.warmup")

    @property
    def initial(self) -> float | None:
        """The training loss before the first step."""
        return (self.result.get("initial_loss") or {}).get("train")

    @property
    def rate_ratio(self) -> float | None:
        """Return the rate over the usual one of its optimizer, with its momentum; None if that is not known."""
        usual, momentum = USUAL_RATES.get(self.option("optimizer")), self.setting("optimizer.momentum")
        if usual is None:
            return None
        reach = (1 - MOMENTUM) / max(1 - momentum, 1e-6) if self.option("optimizer") == "sgd" and momentum else 1.0
        return self.number("optimizer.lr") / usual * max(1.0, reach)

    @cached_property
    def step_size(self) -> float | None:
        """Return update over weight, of the median layer, at the full rate; None if it is not known."""
        sampled = [
            row for row in self.steps if row["step"] > 1 and row.get("vitals/ratio_median") and row.get("rate/lr")
        ]
        highest = max((row["rate/lr"] for row in sampled), default=0.0)
        sizes = [
            row["vitals/ratio_median"] * highest / row["rate/lr"]
            for row in sampled
            if row["rate/lr"] >= FULL_RATE * highest
        ]
        return median(sizes) if len(sizes) > 1 else None

    @cached_property
    def fitted(self) -> tuple[float, int] | None:
        """Return the share of training images that it gets right at the end, and of how many; None if not measured."""
        value = self.last("accuracy/train_clean")
        return None if value is None else (value, self.clean)

    @cached_property
    def gap(self) -> tuple[float, float] | None:
        """Return by how much train, not augmented, is ahead of val at the end, and the standard error of that."""
        val = self.last("accuracy/val")
        if self.fitted is None or val is None or not self.val or not self.clean or self.setting("overfit"):
            return None
        return self.fitted[0] - val, difference_error(self.fitted, (val, self.val))

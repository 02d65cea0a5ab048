"""A comparison of settings: its rows, what is estimated of each, and what else a report says."""

import math
from dataclasses import dataclass, field

import numpy as np

from deeptrain.compare import collect
from deeptrain.compare.collect import Run
from deeptrain.compare.settings import Setting
from deeptrain.compare.statistics import Interval


@dataclass
class Row:
    """A setting in a comparison. values, others: of its runs by seed, by the kind that counts and by the other one.

    With folds, each fold of each seed has its value. gain: the interval of its difference from the baseline, larger is
    better; None for the baseline, or without pairs. over_folds: the interval of the value itself, for other images.
    """

    setting: Setting
    values: dict[str, float]
    others: dict[str, float] = field(default_factory=dict)
    collapsed: list[Run] = field(default_factory=list)
    gain: Interval | None = None
    at_90: Interval | None = None
    gains: dict[str, float] = field(default_factory=dict)  # of each seed
    correlation: float = math.nan
    may_be_best: bool = False
    over_folds: Interval | None = None

    @property
    def label(self) -> str:
        return self.setting.label

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.values.values()))) if self.values else math.nan

    @property
    def other_mean(self) -> float:
        return float(np.mean(list(self.others.values()))) if self.others else math.nan

    @property
    def spread(self) -> float:
        """Return the standard deviation over the seeds, or the folds."""
        return float(np.std(list(self.values.values()), ddof=1)) if len(self.values) > 1 else math.nan

    def mean_of(self, key: str) -> float:
        """Return the mean of a number in result.json over the runs that count."""
        found = [collect.number(run.result.get(key)) for run in self.setting.runs if run.repeat in self.values]
        found = [value for value in found if math.isfinite(value)]
        return float(np.mean(found)) if found else math.nan

    @property
    def gap(self) -> float:
        gaps = [run.gap for run in self.setting.runs if run.repeat in self.values]
        return float(np.mean(gaps)) if gaps else math.nan


@dataclass(frozen=True)
class Contrast:
    """Something else that is estimated at each seed: an interaction of two settings, or a difference on one class."""

    name: str
    interval: Interval


@dataclass
class Comparison:
    """All that a report says. rows: the baseline and all that can be compared with it, best first.

    value: "final" or "best", the weights that count. scale: 100 for a share, which is told in points, else 1.
    """

    rows: list[Row]
    baseline: Row | None
    monitor: str
    value: str
    higher: bool
    scale: float
    runs: list[Run]
    smallest: float | None = None
    looks: int = 1
    images: int = 0  # over which the intervals hold too; 0: for these images only
    folds: int = 0  # of k-fold cross-validation, whose images differ from value to value
    classes: list[Contrast] = field(default_factory=list)
    pairs: list[Contrast] = field(default_factory=list)
    seeds: tuple[int | None, int | None] | None = None  # that `smallest` needs
    left_out: list[Row] = field(default_factory=list)  # without a value
    notes: list[str] = field(default_factory=list)

    @property
    def level(self) -> float:
        return 1 - 0.05 / self.looks

    @property
    def val_ratio(self) -> float:
        """Return validation images to training images of a fold; 0 without folds."""
        return 1 / (self.folds - 1) if self.folds else 0.0

    @property
    def repeats(self) -> str:
        """Name what the values of a setting differ in."""
        return "folds" if self.folds else "seeds"

    @property
    def compared(self) -> list[Row]:
        return [row for row in self.rows if row.gain is not None]

    @property
    def is_claim(self) -> bool:
        """Tell whether any interval could be computed: one run a setting allows none."""
        return any(row.gain is not None and math.isfinite(row.gain.half) for row in self.rows)

    @property
    def best(self) -> Row | None:
        return self.rows[0] if self.rows else None

    def with_status(self, *statuses: str) -> list[Run]:
        return [run for run in self.runs if run.status in statuses]

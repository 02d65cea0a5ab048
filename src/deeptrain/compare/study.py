"""From runs to a comparison: which value of each run counts, what is paired with what, and what cannot be compared."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from deeptrain.compare import collect, statistics
from deeptrain.compare.collect import Run, Setting
from deeptrain.compare.statistics import Interval
from deeptrain.data.fingerprint import is_same
from deeptrain.errors import UsageError
from deeptrain.schema import suggest

ENDS_AT_ZERO = 0.05  # of the largest rate: a schedule whose last one is below it ends at zero
NEUTRAL = ("none", "off", "null", "false", "0", "0.0", "[]", "")
MAX_PAIRS = 12  # of settings whose interaction is shown
MIN_SEEDS = 2  # for an interval


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


def compare_runs(
    runs: Sequence[Run],
    baseline: str | None = None,
    value: str = "auto",
    smallest: float | None = None,
    looks: int | None = None,
) -> Comparison:
    """Compare runs; UsageError if there is nothing to compare, or no such baseline."""
    settings = collect.group(runs)
    monitor = _monitor(runs)
    value = _kind(runs) if value == "auto" else value
    is_higher, scale = _direction(runs, monitor)
    any_learned = any(run.is_done and run.has_learned for run in runs)
    rows = [_row(setting, value, monitor, any_learned) for setting in settings]
    found = Comparison([row for row in rows if row.values], None, monitor, value, is_higher, scale, list(runs))
    found.left_out = [row for row in rows if not row.values]
    found.looks = looks or _looks(settings)
    found.smallest = smallest
    if found.rows:
        found.baseline = _baseline(found.rows, baseline, settings)
        found.folds = found.baseline.setting.runs[0].folds
        _estimate(found)
    found.rows.sort(key=lambda row: -row.mean if is_higher else row.mean)
    found.notes = _notes(found)
    return found


# --- which value counts ---


def _monitor(runs: Sequence[Run]) -> str:
    """Return the metric that most runs were judged by."""
    counts = Counter(run.monitor for run in runs if run.monitor)
    return counts.most_common(1)[0][0] if counts else "accuracy/val"


def _kind(runs: Sequence[Run]) -> str:
    """Return "best" if all runs stop early: then the best weights are the result; else "final"."""
    done = [run for run in runs if run.is_done]
    stops = [run.config.get("early_stop.patience", "null") != "null" for run in done]
    return "best" if done and all(stops) else "final"


def _direction(runs: Sequence[Run], monitor: str) -> tuple[bool, float]:
    """Return whether larger is better, and 100 for a share. Runs of 0.3.0 do not say so."""
    for run in runs:
        if run.monitor == monitor and "higher_is_better" in run.result:
            return bool(run.result["higher_is_better"]), 100.0 if run.result.get("as_percent") else 1.0
    return (False, 1.0) if monitor.startswith("loss") else (True, 100.0)


def _row(setting: Setting, kind: str, monitor: str, any_learned: bool) -> Row:
    """Read the values of a setting. Runs that have learned nothing are named apart, if any other run has learned."""
    collapsed = [run for run in setting.runs if any_learned and not run.has_learned]
    counted = [run for run in setting.runs if run not in collapsed]
    values, others = (
        {run.repeat: found for run in counted if (found := run.value(each, monitor)) is not None}
        for each in (kind, "best" if kind == "final" else "final")
    )
    return Row(setting, values, {seed: others[seed] for seed in values if seed in others}, collapsed)


def _looks(settings: Sequence[Setting]) -> int:
    """Count how often seeds were added to a setting: by how many sweeps its seeds were run."""
    sweeps = [{run.path.parent for run in setting.runs if run.planned} for setting in settings]
    return max([1, *map(len, sweeps)])


def _baseline(rows: Sequence[Row], named: str | None, settings: Sequence[Setting]) -> Row:
    if named is None:
        return max(rows, key=lambda row: sum(value in NEUTRAL for value in row.setting.values.values()))
    words = named.split()
    found = [row for row in rows if row.label == named or collect.matches(row.setting, words)]
    if len(found) == 1:
        return found[0]
    labels = [setting.label for setting in settings]
    if not found:
        raise UsageError([f"baseline='{named}': {suggest(named, labels)}"])
    several = ", ".join(f"'{row.label}'" for row in found[:3])
    raise UsageError([f"baseline='{named}': fits {len(found)} settings ({several}, ...); name one of them whole"])


# --- estimates ---


def _estimate(found: Comparison) -> None:
    """Add the intervals against the baseline, the settings that may be the best, classes and interactions."""
    base, sign = found.baseline, 1 if found.higher else -1
    assert base is not None
    rows = [row for row in found.rows if row is not base and row.values.keys() & base.values.keys()]
    for row in rows:
        seeds = [seed for seed in base.values if seed in row.values]
        row.gains = {seed: sign * (row.values[seed] - base.values[seed]) for seed in seeds}
        row.correlation = _correlation([row.values[s] for s in seeds], [base.values[s] for s in seeds])
    scores = {} if found.folds else _scores(found, [base, *rows])
    found.images = len(next(iter(scores.values()))) if scores else 0
    if repeated := [row for row in rows if len(row.gains) >= MIN_SEEDS]:
        _set_intervals(found, base, repeated, scores)
    for row in (row for row in rows if row not in repeated):
        (row.gain,) = statistics.compare([np.array(list(row.gains.values()))])
    _set_best(found, [base, *repeated], scores)
    for row in [base, *rows] if found.folds else []:
        (row.over_folds,) = statistics.compare([np.array(list(row.values.values()))], val_ratio=found.val_ratio)
    found.classes = _by_class(found, rows, scores)
    found.pairs = _interactions(found, scores)


def _set_intervals(found: Comparison, base: Row, rows: list[Row], scores: dict[str, np.ndarray]) -> None:
    differences = [np.array(list(row.gains.values())) for row in rows]
    images = [_image_gains(row, base, scores) for row in rows] if scores else None
    resolution = _resolution(found)
    for level, name in ((found.level, "gain"), (0.9, "at_90")):
        intervals = statistics.compare(
            differences, images, resolution=resolution, level=level, val_ratio=found.val_ratio
        )
        for row, interval in zip(rows, intervals, strict=True):
            setattr(row, name, interval)
    if found.smallest:
        noise = [float(each.mean(0).var(ddof=1)) / each.shape[1] for each in images or []]
        found.seeds = statistics.seeds_needed(
            differences, found.smallest / found.scale, float(np.mean(noise or [0.0])), found.level, found.val_ratio
        )


def _resolution(found: Comparison) -> float:
    """Return one image's share of the value, as far as it is known; 0 for a metric that is no share."""
    if found.scale == 1:
        return 0.0
    answers = found.baseline.setting.runs[0].answers if found.folds and found.baseline else None
    images = len(answers.labels) if answers else found.images
    return 1 / images if images else 0.0


def _image_gains(row: Row, base: Row, scores: dict[str, np.ndarray]) -> np.ndarray:
    """Return by how much a setting is better on each image at each seed, (n, m)."""
    return np.stack([scores[_key(row, seed)] - scores[_key(base, seed)] for seed in row.gains])


def _key(row: Row, seed: str) -> str:
    return f"{row.label}\0{seed}"


def _scores(found: Comparison, rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Return what each run earns on each image, larger is better; {} unless all runs answered the same images."""
    kind = found.monitor.partition("/")[0]
    if kind not in ("accuracy", "loss"):
        return {}
    scores, first = {}, None
    for row in rows:
        for run in (run for run in row.setting.runs if run.repeat in row.values):
            own = run.answers
            first = first or own
            if own is None or first is None or found.value not in own.predicted:
                return {}
            if own.images != first.images or not is_same(own.data, first.data):
                return {}
            right = own.predicted[found.value] == own.labels
            scores[_key(row, run.repeat)] = (
                right.astype(np.float32) if kind == "accuracy" else -own.losses[found.value].astype(np.float32)
            )
    return scores


def _set_best(found: Comparison, rows: Sequence[Row], scores: dict[str, np.ndarray]) -> None:
    """Mark the settings that may be the best, by the seeds that all of them have."""
    seeds = [seed for seed in rows[0].values if all(seed in row.values for row in rows)]
    if len(seeds) < MIN_SEEDS:
        return
    sign = 1 if found.higher else -1
    values = np.array([[sign * row.values[seed] for seed in seeds] for row in rows])
    images = np.array([[scores[_key(row, seed)] for seed in seeds] for row in rows]) if scores else None
    resolution = _resolution(found)
    for index in statistics.may_be_best(values, images, resolution=resolution, val_ratio=found.val_ratio):
        rows[index].may_be_best = True
    base, leading = rows[0], rows[int(values.mean(1).argmax())]
    for row in rows[1:]:  # what the table cannot tell from the best one is not excluded by a narrower one-sided bound
        if row.gain and not row.gain.is_clear and leading in (base, row):
            base.may_be_best = row.may_be_best = True


def _by_class(found: Comparison, rows: Sequence[Row], scores: dict[str, np.ndarray]) -> list[Contrast]:
    """Compare the best setting with the baseline, or the best other one if the baseline leads, class by class."""
    base, leading = found.baseline, [row for row in rows if len(row.gains) >= MIN_SEEDS]
    if not scores or base is None or not leading or found.monitor != "accuracy/val":
        return []
    best = max(leading, key=lambda row: float(np.mean(list(row.gains.values()))))
    gains, own = _image_gains(best, base, scores), best.setting.runs[0].answers
    assert own is not None
    present = [index for index in range(len(own.classes)) if (own.labels == index).sum() > 1]
    level = 1 - (1 - found.level) / max(1, len(present))
    contrasts = []
    for index in present:
        of_class = gains[:, own.labels == index]
        (interval,) = statistics.compare([of_class.mean(1)], [of_class], resolution=1 / of_class.shape[1], level=level)
        contrasts.append(Contrast(own.classes[index], interval))
    return contrasts


def _interactions(found: Comparison, scores: dict[str, np.ndarray]) -> list[Contrast]:
    """Return by how much two changes together differ from the sum of both, where all four settings were run."""
    base, sign = found.baseline, 1 if found.higher else -1
    assert base is not None
    by_parts = {_parts(row, base): row for row in found.rows}
    single = [part for parts in by_parts if len(parts) == 1 for part in parts]
    names, values, images = [], [], []
    for first, second in combinations(single, 2):
        both = by_parts.get(frozenset({first, second}))
        rows = [row for row in (both, by_parts[frozenset({first})], by_parts[frozenset({second})], base) if row]
        seeds = [seed for seed in base.values if all(seed in row.values for row in rows)]
        if len(rows) < 4 or len(seeds) < MIN_SEEDS or len(names) == MAX_PAIRS:
            continue
        names.append(f"{first} with {second}")
        signs = (1, -1, -1, 1)
        values.append(
            np.array([sign * sum(w * row.values[s] for w, row in zip(signs, rows, strict=True)) for s in seeds])
        )
        if scores:
            images.append(
                np.stack([sum(w * scores[_key(row, s)] for w, row in zip(signs, rows, strict=True)) for s in seeds])
            )
    intervals = (
        statistics.compare(values, images or None, level=found.level, val_ratio=found.val_ratio) if names else []
    )
    return [Contrast(name, interval) for name, interval in zip(names, intervals, strict=True)]


def _parts(row: Row, base: Row) -> frozenset[str]:
    """Return in what a setting differs from the baseline: a list such as aug=[cutout,mixup] counts by its entries."""
    parts: set[str] = set()
    for key, value in row.setting.values.items():
        then = base.setting.values.get(key)
        if value == then:
            continue
        entries = value.strip("[]").split(",") if value.startswith("[") and then in NEUTRAL else [value]
        parts |= {f"{key}={entry.strip()}" for entry in entries}
    return frozenset(parts)


def _correlation(first: Sequence[float], second: Sequence[float]) -> float:
    if len(first) < 3 or min(np.ptp(first), np.ptp(second)) == 0:
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])


# --- what the reader should know ---


def _notes(found: Comparison) -> list[str]:
    """Say what makes a comparison weaker than it looks."""
    done = [run for run in found.runs if run.is_done]
    notes = []
    if other := sum(run.monitor != found.monitor for run in done):
        notes.append(f"{other} of {len(done)} runs were judged by another metric than {found.monitor}")
    if len({run.version for run in done}) > 1:
        notes.append("the runs are of different versions of deeptrain or of its code")
    first = next((run for run in done if run.result.get("data")), None)
    if first and not all(is_same(first.result["data"], str(run.result.get("data"))) for run in done):
        notes.append("the runs have not all been trained on the same images, so the differences may come from the data")
    if any(run.config.get("overfit", "null") != "null" for run in done):
        notes.append("some runs were measured on the images that they were trained on (overfit)")
    if found.value == "final" and (steep := [row.label for row in found.rows if not _ends_at_zero(row)]):
        what = "the learning rate" if len(steep) == len(found.rows) else f"the learning rate of {_listed(steep)}"
        notes.append(f"{what} does not end near zero, so the final weights swing from step to step")
    if found.value == "best":
        notes.append(
            "the best epoch is chosen on the same images, which favours noisy settings by some tenths of a point"
        )
    correlations = [row.correlation for row in found.compared if math.isfinite(row.correlation)]
    if correlations and float(np.mean(correlations)) < 0:
        notes.append(f"equal {found.repeats} do not give alike values, so comparing them in pairs does not help here")
    if opened := sum(run.test_openings for run in found.runs):
        notes.append(f"the test split was opened {opened} times for these runs: what was chosen by it is flattered")
    if repeated := [run for row in found.rows for run in row.setting.repeated]:
        what = "fold" if found.folds else "seed"
        notes.append(f"{len(repeated)} runs repeat a {what} that their setting has already; they are left out")
    if found.looks > 1:
        notes.append(
            f"seeds were added {found.looks - 1} times, so each look has {100 * found.level:.1f} % instead of 95 %"
        )
    return notes


def _ends_at_zero(row: Row) -> bool:
    """Tell whether the learning rate has come down at the end, as far as metrics.csv tells."""
    run = next((run for run in row.setting.runs if run.repeat in row.values), None)
    rates = [row["rate/lr"] for row in run.rows if "rate/lr" in row] if run else []
    return not rates or rates[-1] <= ENDS_AT_ZERO * max(rates)


def _listed(labels: Sequence[str], most: int = 3) -> str:
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return ", ".join(labels[:most]) + more

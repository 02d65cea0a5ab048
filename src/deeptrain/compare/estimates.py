"""From values to intervals: paired by seeds and images, by class, and for two changes at once."""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from deeptrain.compare import statistics
from deeptrain.compare.comparison import Comparison, Contrast, Row
from deeptrain.compare.settings import NEUTRAL
from deeptrain.data.fingerprint import is_same

MAX_PAIRS = 12  # of settings whose interaction is shown
MIN_SEEDS = 2  # for an interval


def estimate(found: Comparison) -> None:
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

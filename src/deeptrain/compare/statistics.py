"""Is a setting better than the baseline? Paired intervals that hold for all settings at once; numbers only."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaincinv, ndtr, stdtrit

LEVEL = 0.95
POWER = 0.8
NODES, QUANTILES = 60, 400  # of the normal and of the chi-square distribution in `critical_value`
MAX_SEEDS = 200  # that advice names
SHARED = 0.25  # correlation of the variances of two differences that share their baseline


@dataclass(frozen=True)
class Interval:
    """The mean difference of a setting from the baseline, and how far off it may be.

    pairs: seeds that both have. half: of the interval; nan if one pair says nothing of it. sd: of the difference of one
    pair. degrees: of freedom of half. over_images: the interval holds for other images too.
    """

    mean: float
    half: float
    sd: float
    pairs: int
    degrees: float = math.nan
    over_images: bool = False

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half

    @property
    def is_clear(self) -> bool:
        """Tell whether 0 lies outside."""
        return abs(self.mean) > self.half

    @property
    def largest(self) -> float:
        """Return the largest difference that the interval leaves possible, without its sign."""
        return abs(self.mean) + self.half

    @property
    def share_better(self) -> float:
        """Return the probability that one run with the setting is better than one without it, at the same seed."""
        return float(ndtr(self.mean / self.sd)) if self.sd > 0 else math.nan


def compare(
    differences: Sequence[np.ndarray],
    images: Sequence[np.ndarray] | None = None,
    *,
    resolution: float = 0.0,
    level: float = LEVEL,
    one_sided: bool = False,
    val_ratio: float = 0.0,
) -> list[Interval]:
    """Return the simultaneous paired intervals of k settings: all of them hold in `level` of such comparisons.

    differences: setting minus baseline at each seed that both have, (n,) a setting. images: the same image by image,
    (n, m) a setting; then the intervals hold over seeds and images, else for these images. resolution: one image's
    share of the value. one_sided: only the upper ends hold, which is enough to exclude. val_ratio: validation images to
    training images, where the values are of folds: of these a mean of n has the variance
    s² (1/n + val_ratio) (corrected resampled t, Nadeau and Bengio, 2003).
    """
    k, counts = len(differences), [len(each) for each in differences]
    own = [float(np.var(each, ddof=1)) if len(each) > 1 else 0.0 for each in differences]
    weights = [max(0, count - 1) for count in counts]
    if not sum(weights):
        return [Interval(float(np.mean(each)), math.nan, math.nan, len(each)) for each in differences]
    mean_variance = float(np.average(own, weights=weights))
    degrees = sum(weights) / (1 + (k - 1) * SHARED)
    found = []
    for index, values in enumerate(differences):
        variance = max(own[index], mean_variance, resolution**2 / 6)
        total, freedom = variance * (1 / counts[index] + val_ratio), degrees
        if images is not None:
            total, freedom = over_images(total, degrees, images[index])
        half = critical_value(k, freedom, level, one_sided) * math.sqrt(total)
        found.append(
            Interval(float(np.mean(values)), half, math.sqrt(variance), counts[index], freedom, images is not None)
        )
    return found


def over_images(seed_variance: float, degrees: float, differences: np.ndarray) -> tuple[float, float]:
    """Return variance and degrees of freedom of a mean over seeds and images, crossed random effects.

    seed_variance, degrees: of the mean over seeds. differences: of each image at each seed, (n, m).
    """
    seeds, images = differences.shape
    by_image, by_seed = differences.mean(0), differences.mean(1, keepdims=True)
    image_variance = float(np.var(by_image, ddof=1)) / images if images > 1 else 0.0
    residual = 0.0
    if seeds > 1 and images > 1:
        rest = differences - by_image - by_seed + differences.mean()
        residual = float((rest**2).sum()) / ((seeds - 1) * (images - 1)) / (seeds * images)
    total = max(seed_variance + image_variance - residual, seed_variance, image_variance)
    spread = seed_variance**2 / degrees + image_variance**2 / max(1, images - 1)
    return total, total**2 / spread if spread else degrees


@functools.lru_cache(maxsize=4096)
def critical_value(k: int, degrees: float, level: float = LEVEL, one_sided: bool = False) -> float:
    """Return how many standard errors hold k differences from one baseline at once; for k = 1 that of Student's t.

    It solves E_u E_z [Φ(z + √2 c √u) - Φ(z - √2 c √u)]^k = level, z normal and u chi-square by its degrees.
    Without the second term where one_sided (Dunnett, 1955).
    """
    if k == 1:
        return float(stdtrit(degrees, level if one_sided else (1 + level) / 2))
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()
    roots = math.sqrt(2) * _chi_square_roots(degrees)[:, None]

    def coverage(c: float) -> float:
        inside = ndtr(nodes + c * roots)
        if not one_sided:
            inside = inside - ndtr(nodes - c * roots)
        return float((inside**k @ weights).mean())

    tail = 1 - level if one_sided else (1 - level) / 2
    low, high = (float(stdtrit(degrees, 1 - share)) for share in (tail, tail / k))  # one alone; Bonferroni
    return _root(lambda c: coverage(c) - level, low, high)


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    """Return where a rising function crosses 0 between two numbers: false position, which halves a stale end."""
    below, above = function(low), function(high)
    middle, side = high, 0
    for _ in range(60):
        if above - below <= 0 or high - low < 1e-6 * high:
            break
        middle = (low * above - high * below) / (above - below)
        value = function(middle)
        if abs(value) < 1e-7:
            break
        if value < 0:
            low, below, above, side = middle, value, above / 2 if side < 0 else above, -1
        else:
            high, above, below, side = middle, value, below / 2 if side > 0 else below, 1
    return middle


def may_be_best(
    values: np.ndarray, images: np.ndarray | None = None, *, resolution: float = 0.0, val_ratio: float = 0.0
) -> list[int]:
    """Return the settings that may be the best: the true best is among them in 95 % (Hsu's comparison).

    values: (settings, seeds), larger is better. images: image by image, (settings, seeds, images). val_ratio: as in
    `compare`.
    """
    best = int(values.mean(1).argmax())
    others = [index for index in range(len(values)) if index != best]
    if not others or values.shape[1] < 2:
        return list(range(len(values)))
    by_image = None if images is None else [images[best] - images[index] for index in others]
    differences = [values[best] - values[index] for index in others]
    found = compare(differences, by_image, resolution=resolution, one_sided=True, val_ratio=val_ratio)
    near = [index for index, interval in zip(others, found, strict=True) if interval.mean <= interval.half]
    return sorted([best, *near])


def seeds_needed(
    differences: Sequence[np.ndarray],
    smallest: float,
    image_variance: float = 0.0,
    level: float = LEVEL,
    val_ratio: float = 0.0,
) -> tuple[int | None, int | None]:
    """Return how many seeds find `smallest` in 80 % of comparisons: by the variance, and by its upper limit.

    The limit holds in 80 %. image_variance: of the mean, which more seeds do not lower. None: over 200, or never.
    val_ratio: as in `compare`; then what is counted are folds.
    """
    k, degrees = len(differences), sum(len(each) - 1 for each in differences) / (1 + (len(differences) - 1) * SHARED)
    if degrees <= 0:
        return None, None
    weights = [len(each) - 1 for each in differences]
    own = [float(np.var(each, ddof=1)) if len(each) > 1 else 0.0 for each in differences]
    variance = float(np.average(own, weights=weights))
    upper = variance * degrees / (2 * float(gammaincinv(degrees / 2, 1 - POWER)))
    low, high = (_seeds(k, each, smallest, image_variance + each * val_ratio, level) for each in (variance, upper))
    return low, high


def _seeds(k: int, variance: float, smallest: float, image_variance: float, level: float) -> int | None:
    if power(k, MAX_SEEDS, variance, smallest, image_variance, level) < POWER:
        return None
    low, high = 2, MAX_SEEDS
    while low < high:
        middle = (low + high) // 2
        enough = power(k, middle, variance, smallest, image_variance, level) >= POWER
        low, high = (low, middle) if enough else (middle + 1, high)
    return low


def power(
    k: int, seeds: int, variance: float, difference: float, image_variance: float = 0.0, level: float = LEVEL
) -> float:
    """Return how often a difference is found with so many seeds among k settings: that of the noncentral t.

    scipy's nctdtr has no digits left for large effects, so the mean over the variance is taken here.
    """
    degrees = (seeds - 1) * k / (1 + (k - 1) * SHARED)
    error = math.sqrt(variance / seeds + image_variance)
    if error == 0:
        return 1.0
    c = critical_value(k, degrees, level) * _chi_square_roots(degrees)
    effect = difference / error
    return float((ndtr(effect - c) + ndtr(-effect - c)).mean())


def _chi_square_roots(degrees: float) -> np.ndarray:
    """Return √u at evenly spaced quantiles of u, chi-square by its degrees of freedom."""
    shares = (np.arange(QUANTILES) + 0.5) / QUANTILES
    return np.sqrt(gammaincinv(degrees / 2, shares) * 2 / degrees)

"""Intervals from images drawn anew (the bootstrap; Efron, 1979): of one number, or of two networks' difference."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

DRAWS = 1000
MAX_VALUES = 2**22  # of the counts that are held at a time
Statistic = Callable[[np.ndarray], np.ndarray]  # how often each image counts, float64 (D, N) -> (D,)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


def mean_of(values: np.ndarray, compute: Callable[[np.ndarray], np.ndarray] | None = None) -> Statistic:
    """Return the statistic that is computed from the means of per-image values, (N,) or (N, S).

    compute: from means (D, S) to (D,). Default: the mean itself.
    """
    columns = np.asarray(values, np.float64).reshape(len(values), -1)
    compute = compute or (lambda means: means[:, 0])
    return lambda counts: compute(counts @ columns / counts.sum(1, keepdims=True))


def estimate(
    statistics: Mapping[str, Statistic], images: int, draws: int = DRAWS, seed: int = 0
) -> dict[str, Estimate]:
    """Return each statistic of so many images with its interval. All see the same draws.

    The interval is the basic one: the quantiles of the draws, mirrored at the value. So an error of calibration, which
    grows by chance, is not taken for larger than it is.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, list[np.ndarray]] = {name: [] for name in statistics}
    piece = max(1, min(draws, MAX_VALUES // images))
    for start in range(0, draws, piece):
        rows = range(min(piece, draws - start))
        counts = np.stack([np.bincount(rng.integers(images, size=images), minlength=images) for _ in rows])
        for name, statistic in statistics.items():
            found[name].append(statistic(counts.astype(np.float64)))
    return {name: _interval(statistics[name], images, np.concatenate(drawn)) for name, drawn in found.items()}


def _interval(statistic: Statistic, images: int, drawn: np.ndarray) -> Estimate:
    value = float(statistic(np.ones((1, images)))[0])
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(value, float(2 * value - high), float(2 * value - low))


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> tuple[int, int, float]:
    """Return how many images only the first, only the second has right, and the exact p-value (McNemar, 1947).

    Under equal networks each such image is a fair coin: the two-sided binomial test.
    """
    first, second = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
    count, fewer = first + second, min(first, second)
    ways = (math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(fewer + 1))
    return first, second, min(1.0, 2 * math.fsum(math.exp(way - count * math.log(2)) for way in ways))

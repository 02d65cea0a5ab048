"""Statistics of training curves: each one says how sure it is. Pure functions of numbers."""

import math
from collections.abc import Sequence

import numpy as np

MAD_TO_SD = 1.4826  # of normal noise
SIGNIFICANT = 0.02  # with four points or fewer no order of them is


def share_error(share: float, images: int) -> float:
    """Return the standard error of a share of so many images; never 0, for none of n may be one of n + 2."""
    p = (share * images + 1) / (images + 2)
    return math.sqrt(p * (1 - p) / images)


def difference_error(first: tuple[float, int], second: tuple[float, int]) -> float:
    """Return the standard error of the difference of two shares, each with its number of images."""
    return math.hypot(share_error(*first), share_error(*second))


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return the median of the slopes between any two points (Theil, 1950; Sen, 1968)."""
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    first, second = np.triu_indices(len(xs), 1)
    return float(np.median((ys[second] - ys[first]) / (xs[second] - xs[first])))


def falls(values: Sequence[float]) -> float:
    """Return how likely values without a trend fall as much by chance (Mann, 1945; Kendall): 0.5 and more is no fall.

    One-sided, by the normal approximation with continuity correction.
    """
    ys = np.asarray(values, float)
    count = len(ys)
    if count < 3:
        return 1.0
    first, second = np.triu_indices(count, 1)
    score = float(np.sign(ys[first] - ys[second]).sum())  # pairs that fall less pairs that rise
    spread = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    return 0.5 * math.erfc((score - math.copysign(min(1.0, abs(score)), score)) / spread / math.sqrt(2))


def is_falling(values: Sequence[float]) -> bool:
    """Tell whether values fall beyond chance."""
    return falls(values) < SIGNIFICANT


def noise_level(values: Sequence[float]) -> float:
    """Return the standard deviation of the noise about a smooth curve: how far points are from between neighbours."""
    bends = np.diff(np.asarray(values, float), 2)
    return float(MAD_TO_SD * np.median(np.abs(bends)) / math.sqrt(6)) if len(bends) else 0.0

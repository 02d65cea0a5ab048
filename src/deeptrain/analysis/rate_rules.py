"""What other tools read off a learning-rate range test, each by its own definition. We only mark their answers.

Every rule takes the rates of the steps and the loss of each step, not smoothed. Its answer is NaN if it has none.
"""

import math
from collections.abc import Callable

import numpy as np

Array = np.ndarray
STOP = 4.0  # times the least smoothed loss: where all of them stop the test
SLIDE_STEPS, SLIDE_CHANGE = 15, 0.005


def debiased_mean(losses: Array, beta: float = 0.98) -> Array:
    """Return the running mean m = beta m + (1 - beta) loss, divided by 1 - beta^t."""
    mean, means = 0.0, []
    for step, loss in enumerate(losses, start=1):
        mean = beta * mean + (1 - beta) * loss
        means.append(mean / (1 - beta**step))
    return np.array(means)


def running_mean(losses: Array, share: float = 0.05) -> Array:
    """Return the running mean m = share loss + (1 - share) m, which starts at the first loss."""
    means = list(losses[:1])
    for loss in losses[1:]:
        means.append(share * loss + (1 - share) * means[-1])
    return np.array(means)


def until_divergence(smoothed: Array) -> int:
    """Return how many steps the test has: up to the first loss above STOP times the least one before."""
    above = ~(smoothed <= STOP * np.minimum.accumulate(smoothed))
    return int(above.argmax()) + 1 if above.any() else len(smoothed)


def _fastai(rates: Array, losses: Array) -> tuple[Array, Array]:
    """Return rates and smoothed losses without the first tenth of 100 steps, the last five, and all after a NaN."""
    smoothed = debiased_mean(losses)
    part = slice(10, until_divergence(smoothed) - 5)
    rates, smoothed = rates[part], smoothed[part]
    is_nan = np.isnan(smoothed)
    end = int(is_nan.argmax()) if is_nan.any() else len(smoothed)
    return rates[:end], smoothed[:end]


def valley(rates: Array, losses: Array) -> float:
    """Half way into the longest falling subsequence (fastai's default)."""
    rates, smoothed = _fastai(rates, losses)
    if not len(rates):
        return math.nan
    lengths = np.ones(len(rates), dtype=int)
    for index in range(1, len(rates)):
        before = lengths[:index][smoothed[:index] > smoothed[index]]
        lengths[index] = 1 + before.max(initial=0)
    third = lengths.max() / 3
    start = int(lengths.argmax()) - int(lengths.max())
    return float(rates[start + int(third) + int(third / 2)])


def slide(rates: Array, losses: Array) -> float:
    """Where, from the end, the slopes 15 steps apart agree within 0.005 (fastai)."""
    rates, smoothed = _fastai(rates, losses)
    if len(rates) <= SLIDE_STEPS:
        return math.nan
    slopes = np.gradient(smoothed)
    right, left = len(rates) - 1, len(rates) - 1 - SLIDE_STEPS
    found = rates[left]
    while left >= 0 and abs(slopes[right] - slopes[left]) > SLIDE_CHANGE:
        found = rates[left]
        right, left = right - 1, left - 1
    return float(found)


def minimum(rates: Array, losses: Array) -> float:
    """A tenth of the rate with the least smoothed loss (fastai)."""
    rates, smoothed = _fastai(rates, losses)
    return float(rates[smoothed.argmin()]) / 10 if len(rates) else math.nan


def steep(rates: Array, losses: Array) -> float:
    """Where the smoothed loss falls fastest, by the logarithm of the rate (fastai; Lightning before 2.5.3)."""
    rates, smoothed = _fastai(rates, losses)
    if len(rates) < 2:
        return math.nan
    return float(rates[(np.diff(smoothed) / np.diff(np.log(rates))).argmin()])


def lightning(rates: Array, losses: Array) -> float:
    """Where the smoothed loss falls fastest, by the rate itself (Lightning since 2.5.3)."""
    smoothed = debiased_mean(losses)
    part = slice(10, until_divergence(smoothed) - 1)
    rates, smoothed = rates[part], smoothed[part]
    rates, smoothed = rates[np.isfinite(smoothed)], smoothed[np.isfinite(smoothed)]
    return float(rates[np.gradient(smoothed, rates).argmin()]) if len(rates) > 1 else math.nan


def torch_lr_finder(rates: Array, losses: Array) -> float:
    """Where the smoothed loss falls fastest, by the step (torch-lr-finder)."""
    smoothed = running_mean(losses)
    part = slice(10, until_divergence(smoothed) - 5)
    rates, smoothed = rates[part], smoothed[part]
    return float(rates[np.gradient(smoothed).argmin()]) if len(rates) > 1 else math.nan


RULES: dict[str, Callable[[Array, Array], float]] = {
    "fastai valley": valley,
    "fastai steep": steep,
    "fastai minimum": minimum,
    "fastai slide": slide,
    "Lightning": lightning,
    "torch-lr-finder": torch_lr_finder,
}

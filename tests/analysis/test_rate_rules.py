"""The rules of other tools, against their definitions."""

import math
from itertools import combinations

import numpy as np
import pytest

from deeptrain.analysis import rate_rules
from deeptrain.analysis.rate_rules import RULES, debiased_mean, running_mean, until_divergence

RATES = np.geomspace(1e-7, 10, 100)


def curve(middle: int = 60, width: float = 6.0) -> np.ndarray:
    """A loss that falls by a sigmoid around one step and rises at the end."""
    steps = np.arange(100)
    return 2.3 - 1.5 / (1 + np.exp(-(steps - middle) / width)) + 0.02 * np.exp((steps - 80) / 4)


def test_debiased_mean_is_the_weighted_mean():
    losses = np.array([3.0, 1.0, 4.0, 1.5])
    for count in range(1, 5):
        weights = 0.98 ** np.arange(count)[::-1]
        assert debiased_mean(losses)[count - 1] == pytest.approx(np.average(losses[:count], weights=weights))


def test_running_mean_starts_at_the_first_loss():
    assert running_mean(np.array([2.0, 1.0, 1.0])) == pytest.approx([2, 1.95, 1.9025])


def test_a_test_ends_at_four_times_the_least_loss():
    assert until_divergence(np.array([2.0, 1.0, 3.9, 4.1, 9.0])) == 4
    assert until_divergence(np.array([2.0, 1.0, math.nan])) == 3
    assert until_divergence(np.array([2.0, 1.0])) == 2


def longest_fall(losses: np.ndarray) -> tuple[int, int]:
    """Return length and last index of the longest falling subsequence, by trying all."""
    for length in range(len(losses), 0, -1):
        found = [c for c in combinations(range(len(losses)), length) if all(np.diff(losses[list(c)]) < 0)]
        if found:
            return length, min(chosen[-1] for chosen in found)
    raise AssertionError


@pytest.mark.parametrize("seed", range(4))
def test_valley_lies_in_the_longest_fall(seed, monkeypatch):
    losses, rates = np.random.default_rng(seed).normal(size=11), np.geomspace(1e-3, 1, 11)
    monkeypatch.setattr(rate_rules, "_fastai", lambda rates, losses: (rates, losses))
    length, end = longest_fall(losses)
    expected = end - length + int(length / 3) + int(length / 3 / 2)
    assert rate_rules.valley(rates, losses) == rates[expected]


def test_steepest_rules_find_the_steepest_step_of_their_own_smoothing():
    smoothed = debiased_mean(curve())[10:95]
    assert RULES["fastai steep"](RATES, curve()) == RATES[10:95][np.diff(smoothed).argmin()]
    smoothed = running_mean(curve())[10:95]
    assert RULES["torch-lr-finder"](RATES, curve()) == RATES[10:95][np.gradient(smoothed).argmin()]
    smoothed = debiased_mean(curve())[10:99]
    assert RULES["Lightning"](RATES, curve()) == RATES[10:99][np.gradient(smoothed, RATES[10:99]).argmin()]
    assert RULES["Lightning"](RATES, curve()) < RULES["fastai steep"](RATES, curve())


def test_minimum_is_a_tenth_of_the_lowest():
    assert RULES["fastai minimum"](RATES, curve()) == RATES[10:95][debiased_mean(curve())[10:95].argmin()] / 10


def test_slide_stops_where_the_slopes_agree(monkeypatch):
    monkeypatch.setattr(rate_rules, "_fastai", lambda rates, losses: (rates, losses))
    losses = np.array([2.0] * 20 + [2.0 - 0.1 * k for k in range(20)])
    slopes = np.gradient(losses)
    right = max(index for index in range(15, 40) if abs(slopes[index] - slopes[index - 15]) <= 0.005)
    assert RULES["fastai slide"](RATES[:40], losses) == RATES[right + 1 - 15 if right < 39 else right - 15]


@pytest.mark.parametrize("name", RULES)
def test_no_answer_is_nan_and_no_error(name):
    assert math.isnan(RULES[name](RATES[:3], np.array([2.0, 1.0, math.nan])))

"""Statistics of curves agree with their formulas, and err as seldom as they say."""

import math

import numpy as np
import pytest

from deeptrain.analysis.curves import (
    difference_error,
    falls,
    is_falling,
    noise_level,
    share_error,
    slope,
)


def test_the_error_of_a_share_is_binomial_and_never_zero():
    assert share_error(0.9, 10_000) == pytest.approx(math.sqrt(0.9 * 0.1 / 10_000), rel=1e-2)
    assert 0 < share_error(1.0, 288) < 0.006 and share_error(0.0, 10) == pytest.approx(share_error(1.0, 10))
    draws = np.random.default_rng(0).binomial(288, 0.95, 4000) / 288
    assert share_error(0.95, 288) == pytest.approx(draws.std(), rel=0.05)
    assert difference_error((0.5, 100), (0.5, 100)) == pytest.approx(math.sqrt(2) * share_error(0.5, 100))


def test_slope_is_the_line_and_does_not_mind_an_outlier():
    x = list(range(20))
    y = [3 - 0.5 * each for each in x]
    assert slope(x, y) == pytest.approx(-0.5)
    assert slope(x, [*y[:7], 1000, *y[8:]]) == pytest.approx(-0.5)


def test_no_order_of_four_points_is_a_trend_and_five_that_fall_are():
    assert not is_falling([4, 3, 2, 1])
    assert is_falling([5, 4, 3, 2, 1]) and not is_falling([1, 2, 3, 4, 5]) and not is_falling([])
    assert falls([1, 2, 3, 4, 5]) > 0.9


def test_noise_is_seldom_taken_for_a_fall():
    rng = np.random.default_rng(1)
    assert sum(is_falling(rng.normal(size=10)) for _ in range(1000)) < 35  # 2 % are 20; three errors more are 33


def test_noise_about_a_slope_is_measured_without_the_slope():
    noise = np.random.default_rng(2).normal(0, 0.1, 2000)
    assert noise_level(noise + np.linspace(5, 0, 2000)) == pytest.approx(0.1, rel=0.1)
    assert noise_level([1.0]) == 0 and noise_level([1, 2, 3]) == 0

"""The intervals: known critical values, known formulas for one setting, and what they promise, by simulation."""

import numpy as np
import pytest
from scipy import stats

from deeptrain.compare import statistics
from deeptrain.data.split import deal

PUBLISHED = {
    (1, 2): 4.303,
    (2, 3.2): 3.72,
    (3, 4): 3.62,
    (6, 5.3): 3.63,
    (6, 10.7): 3.03,
    (12, 6.4): 3.77,
    (6, 24): 2.76,
}


@pytest.mark.parametrize(("k", "degrees"), PUBLISHED)
def test_critical_values(k, degrees):
    assert statistics.critical_value(k, degrees) == pytest.approx(PUBLISHED[k, degrees], abs=0.015)


def test_dunnetts_own_table():
    """Dunnett, 1955: joint coverage 0.95 of 3 settings with 20 degrees of freedom; two-sided, then one-sided."""
    assert statistics.critical_value(3, 20) == pytest.approx(2.54, abs=0.01)
    assert statistics.critical_value(3, 20, one_sided=True) == pytest.approx(2.19, abs=0.01)


def test_one_setting_is_the_paired_t_interval():
    values = np.array([0.3, 0.1, 0.5, 0.2])
    (found,) = statistics.compare([values])
    low, high = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_the_larger_of_own_and_mean_variance():
    quiet, noisy = np.array([0.0, 0.1, 0.2]), np.array([-2.0, 0.0, 2.0])
    first, second = statistics.compare([quiet, noisy])
    assert first.sd == pytest.approx(np.sqrt((0.01 + 4) / 2)) and second.sd == pytest.approx(2)


def test_equal_counts_have_a_width():
    (found,) = statistics.compare([np.zeros(3)], resolution=0.01)
    assert found.half == pytest.approx(4.303 * 0.01 / np.sqrt(6 * 3), rel=1e-3)


def test_one_pair_says_nothing_of_its_own_noise():
    alone = statistics.compare([np.array([0.1]), np.array([0.2])])
    assert all(np.isnan(each.half) and not each.is_clear for each in alone)
    borrowed, _ = statistics.compare([np.array([0.1]), np.array([0.2, 0.3, 0.1])])
    assert borrowed.half > 0 and borrowed.pairs == 1


def test_images_add_their_own_noise():
    rng = np.random.default_rng(0)
    images = rng.normal(0.1, 1, (5, 200))
    values = images.mean(1)
    total, _ = statistics.over_images(values.var(ddof=1) / 5, 4, images)
    by_image = images.mean(0).var(ddof=1) / 200
    assert total >= max(by_image, values.var(ddof=1) / 5)
    same = np.tile(images[:1], (5, 1))  # seeds that change nothing: what is left is the noise of the images
    assert statistics.over_images(0.0, 4, same)[0] == pytest.approx(same[0].var(ddof=1) / 200)


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 34), (0.75, 16), (1, 10), (1.5, 6), (2, 5), (3, 4)])
def test_seeds_for_a_power(effect, seeds):
    assert statistics._seeds(1, 1.0, effect, 0.0, 0.95) == seeds


def test_advice_is_a_range_and_knows_when_seeds_do_not_help():
    differences = [np.array([0.1, -0.2, 0.3]), np.array([0.2, 0.0, -0.3])]
    low, high = statistics.seeds_needed(differences, 0.5)
    assert low is not None and high is not None and 2 <= low < high
    assert statistics.seeds_needed(differences, 0.5, image_variance=1.0) == (None, None)


def draw(rng, k: int, n: int, noise: float | np.ndarray = 1.0, effect: float = 0.0) -> np.ndarray:
    """Draw values (k + 1, n); the baseline is row 0, and row 1 is better by `effect`."""
    values = rng.normal(size=(k + 1, n)) * noise
    values[1] += effect
    return values


def share(repetitions, check):
    rng = np.random.default_rng(1)
    return np.mean([check(rng) for _ in range(repetitions)])


@pytest.mark.parametrize(("k", "n"), [(2, 3), (6, 3), (12, 5), (6, 10)])
def test_all_intervals_hold_at_once(k, n):
    noise = np.where(np.arange(k + 1) == 2, 3.0, 1.0)[:, None]  # one setting is three times as noisy

    def holds(rng):
        values = draw(rng, k, n, noise)
        return all(abs(each.mean) <= each.half for each in statistics.compare(list(values[1:] - values[0])))

    assert share(1000, holds) > 0.93


def test_a_large_effect_is_found_with_three_seeds():
    def found(rng):
        values = draw(rng, 6, 3, effect=4)
        first = statistics.compare(list(values[1:] - values[0]))[0]
        return first.is_clear

    assert share(1000, found) > 0.70


def test_the_best_may_be_the_best():
    def holds(rng):
        return 1 in statistics.may_be_best(draw(rng, 5, 3, effect=0.5))

    assert share(1000, holds) > 0.94
    assert statistics.may_be_best(np.array([[0.0, 0.1, 0.0], [5.0, 5.1, 5.1], [4.9, 5.2, 5.0]])) == [1, 2]


def test_no_larger_than_holds():
    """The sentence "no larger than x" is the largest difference of the 90 % interval."""

    def holds(rng):
        values = draw(rng, 1, 5, effect=0.5)
        (found,) = statistics.compare([values[1] - values[0]], level=0.9)
        return found.largest >= 0.5

    assert share(1000, holds) > 0.94


def test_intervals_hold_for_other_images():
    """The images are the same in all runs: their luck does not average out over seeds."""

    def holds(rng):
        own = rng.normal(size=100) + rng.normal(0, 0.5, (8, 1)) / 10 + rng.normal(size=(8, 100))
        (found,) = statistics.compare([own.mean(1)], [own])
        return abs(found.mean) <= found.half

    assert share(500, holds) > 0.93


def test_folds_have_the_corrected_resampled_t():
    """Nadeau and Bengio, 2003: s² (1/n + n_val/n_train) with n - 1 degrees of freedom, n = folds times seeds."""
    values = np.array([0.3, 0.1, 0.5, 0.2, 0.25, 0.4, 0.1, 0.35, 0.3, 0.15])  # 2 seeds of 5 folds
    (found,) = statistics.compare([values], val_ratio=1 / 4)
    half = stats.t.ppf(0.975, 9) * np.sqrt(values.var(ddof=1) * (1 / 10 + 1 / 4))
    assert found.half == pytest.approx(half) and found.degrees == 9


def test_more_folds_do_not_help_beyond_the_images_there_are():
    differences = [np.array([0.1, -0.2, 0.3, 0.1, -0.1])]
    assert statistics.seeds_needed(differences, 0.2) != (None, None)
    assert statistics.seeds_needed(differences, 0.2, val_ratio=1 / 4) == (None, None)


SHIFT = np.array([0.6, 0.4, 0.3, 0.2, 0.25])  # of two classes, half their distance


def nearest_mean(images: np.ndarray, labels: np.ndarray, used: int) -> tuple[np.ndarray, float]:
    one, other = (images[labels == label][:, :used].mean(0) for label in (0, 1))
    return other - one, float((one + other) @ (other - one)) / 2


def test_intervals_over_folds_hold_for_other_images_where_the_plain_t_does_not():
    """Real cross-validations of two classifiers, 3 seeds of 5 folds: the expected difference is known by formula."""
    rng = np.random.default_rng(0)

    def draw_images(count):
        labels = np.arange(count) % 2
        return rng.normal(size=(count, 5)) + np.outer(labels - 0.5, 2 * SHIFT), labels

    def accuracy(used, count):
        direction, offset = nearest_mean(*draw_images(count), used)
        middle, spread = SHIFT[:used] @ direction, np.linalg.norm(direction)
        return stats.norm.cdf([(middle - offset) / spread, (middle + offset) / spread]).mean()

    def hits(images, labels, used, train):
        direction, offset = nearest_mean(images[train], labels[train], used)
        return (((images @ direction_of(direction)) > offset) == labels)[~train].mean()

    def direction_of(direction):
        return np.pad(direction, (0, 5 - len(direction)))

    expected = np.mean([accuracy(5, 160) - accuracy(3, 160) for _ in range(2000)])
    held = {0.0: 0, 1 / 4: 0}
    for _ in range(300):
        images, labels = draw_images(200)
        trains = [deal(labels, 5, seed) != fold for seed in range(3) for fold in range(5)]
        values = np.array([hits(images, labels, 5, train) - hits(images, labels, 3, train) for train in trains])
        for ratio in held:
            (found,) = statistics.compare([values], val_ratio=ratio)
            held[ratio] += bool(found.low <= expected <= found.high)
    assert held[1 / 4] / 300 > 0.94 and held[0.0] / 300 < 0.85

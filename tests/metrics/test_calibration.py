"""Numbers about probabilities equal slow definitions, scikit-learn and scipy; a temperature lies at the minimum."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, f1_score, log_loss

from deeptrain.metrics.calibration import (
    calibration_error,
    equal_mass_bins,
    equal_width_bins,
    reliability,
    risk_coverage_area,
)
from deeptrain.metrics.per_class import macro_f1_of
from deeptrain.metrics.probabilities import brier_scores, class_probabilities, fit_temperature, nll, ranked_first
from deeptrain.metrics.resampling import estimate, mcnemar, mean_of

RNG = np.random.default_rng(0)


def network(images: int, classes: int, scale: float = 1.0, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits (N, K) whose softmax at temperature `scale` is the truth, and labels drawn from it."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, classes, generator=generator).double()
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return scale * logits, labels


def value(statistic, images: int) -> float:
    return float(statistic(np.ones((1, images)))[0])


CASES = {
    "plain": network(300, 5),
    "two classes": network(200, 2),
    "one image": network(1, 3),
    "a class without images": (network(200, 4)[0], network(200, 4)[1].clamp(max=2)),
    "one class only": (network(100, 3)[0], torch.zeros(100, dtype=torch.int64)),
    "confidence 1": (torch.eye(3).repeat(20, 1) * 2000, torch.arange(60) % 2),
    "ties": (torch.zeros(50, 4), torch.arange(50) % 4),
    "few levels": (torch.eye(3).repeat(20, 1) * 2, torch.arange(60) % 2),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request):
    logits, labels = request.param
    probabilities = class_probabilities(logits, "CrossEntropy")
    predicted, confidence = ranked_first(logits, probabilities)
    return logits, labels, probabilities, predicted.numpy(), confidence.numpy(), (predicted == labels).double().numpy()


def test_nll_brier_and_f1_are_those_of_scikit_learn(case):
    logits, labels, probabilities, predicted, _, _ = case
    classes = range(logits.shape[1])
    clipped = probabilities[torch.arange(len(labels)), labels].min() > 1e-15
    if clipped:  # scikit-learn clips at its smallest probability
        expected = log_loss(labels, probabilities, labels=classes) if len(classes) > 1 else 0
        assert nll(logits, labels, "CrossEntropy").mean() == pytest.approx(expected, abs=1e-12)
    one_hot = np.eye(len(classes))[labels.numpy()]
    expected = sum(brier_score_loss(one_hot[:, k], probabilities[:, k], pos_label=1) for k in classes)
    assert brier_scores(probabilities, labels).mean() == pytest.approx(expected, abs=1e-12)
    present = sorted({*predicted.tolist(), *labels.tolist()})
    expected = f1_score(labels, predicted, labels=present, average="macro", zero_division=0)
    assert value(macro_f1_of(predicted, labels.numpy(), len(classes)), len(labels)) == pytest.approx(expected)


def slow_error(confidence, right, index) -> float:
    """Return the calibration error by its definition, a bin at a time."""
    total = 0.0
    for number in set(index):
        inside = [position for position, own in enumerate(index) if own == number]
        gap = np.mean([confidence[i] for i in inside]) - np.mean([right[i] for i in inside])
        total += len(inside) / len(index) * abs(gap)
    return total


def test_calibration_errors_are_those_of_the_definition(case):
    *_, confidence, right = case
    count = len(right)
    width = [next(k for k in range(15) if c <= (k + 1) / 15 or k == 14) for c in confidence]
    below = [sum(other < c for other in confidence) for c in confidence]
    for index, own in ((width, equal_width_bins(confidence)), ([b * 15 // count for b in below], None)):
        own = equal_mass_bins(confidence) if own is None else own
        expected = slow_error(confidence, right, index)
        assert value(calibration_error(confidence, right, own), count) == pytest.approx(expected, abs=1e-12)


def test_bins_of_equal_mass_have_equally_many_images():
    index = equal_mass_bins(RNG.random(1000), 15)
    assert set(np.bincount(index)) <= {66, 67}


def test_the_bins_of_the_diagram_add_up_to_the_error(case):
    *_, confidence, right = case
    bins = reliability(confidence, right)
    total = sum(one.images / len(right) * abs(one.confidence - one.accuracy) for one in bins if one.images)
    assert total == pytest.approx(
        value(calibration_error(confidence, right, equal_width_bins(confidence)), len(right)), abs=1e-12
    )


@pytest.mark.parametrize("confidence", [[0.9, 0.8, 0.7, 0.6, 0.5], [0.9, 0.9, 0.7, 0.7, 0.7], [0.5] * 5])
def test_the_area_of_risk_and_coverage_is_the_mean_over_all_orders(confidence):
    right = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    orders = [o for o in itertools.permutations(range(5)) if all(np.diff([confidence[i] for i in o]) <= 0)]
    areas = [np.mean(np.cumsum(1 - right[list(order)]) / np.arange(1, 6)) for order in orders]
    statistic = risk_coverage_area(np.array(confidence), right)
    assert value(statistic, 5) == pytest.approx(np.mean(areas), abs=1e-12)


def test_images_that_count_twice_are_as_if_they_were_there_twice(case):
    *_, confidence, right = case
    count = len(right)
    weights = RNG.multinomial(count, np.full(count, 1 / count)).astype(float)
    again = np.repeat(np.arange(count), weights.astype(int))
    for make in (lambda c, r: risk_coverage_area(c, r), lambda c, r: calibration_error(c, r, equal_width_bins(c))):
        weighted = make(confidence, right)(weights[None])[0]
        assert weighted == pytest.approx(value(make(confidence[again], right[again]), count), abs=1e-12)


# --- temperature ---


@pytest.mark.parametrize("loss", ["CrossEntropy", "BCE"])
@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_a_temperature_is_at_the_minimum_of_the_nll(loss, scale):
    logits, labels = network(400, 6, scale)
    found = fit_temperature(logits, labels, loss)
    losses = [float(nll(logits, labels, loss, found * factor).mean()) for factor in (0.999, 1, 1.001)]
    assert losses[1] < losses[0] and losses[1] < losses[2]


def test_the_true_temperature_is_found_and_keeps_every_answer():
    logits, labels = network(20_000, 10, 3.0)
    found = fit_temperature(logits, labels, "CrossEntropy")
    assert found == pytest.approx(3, rel=0.03)
    many = torch.randn(100_000, 10, generator=torch.Generator().manual_seed(1))
    for temperature in (0.05, found, 40):
        assert torch.equal(class_probabilities(many, "CrossEntropy", temperature).argmax(1), many.argmax(1))


@pytest.mark.parametrize(
    ("logits", "labels", "part"),
    [
        (*network(99, 3), "needs 100 images, there are 99"),
        (torch.eye(3).repeat(50, 1), torch.arange(150) % 3, "nearly all"),
        (torch.eye(3).repeat(50, 1), torch.arange(1, 151) % 3, "say nothing"),
        (torch.full((200, 3), torch.nan), torch.arange(200) % 3, "not finite"),
    ],
)
def test_images_that_decide_on_no_temperature_are_refused(logits, labels, part):
    with pytest.raises(ValueError, match=part):
        fit_temperature(logits, labels, "CrossEntropy")


# --- intervals ---


def test_the_interval_of_a_mean_is_the_textbooks():
    values = RNG.normal(size=2000)
    found = estimate({"mean": mean_of(values)}, 2000)["mean"]
    half = 1.96 * values.std() / np.sqrt(2000)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.2 * half)


def test_statistics_see_the_same_draws():
    values = RNG.normal(size=50)
    found = estimate({"one": mean_of(values), "other": mean_of(values + 1)}, 50, draws=40)
    assert found["other"].low - found["one"].low == pytest.approx(1)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 0), (5, 9), (40, 40), (700, 600)])
def test_mcnemar_is_the_binomial_test(first, second):
    from scipy.stats import binomtest

    right = np.array([True] * first + [False] * second + [True] * 5)
    other = np.array([False] * first + [True] * second + [True] * 5)
    expected = binomtest(first, first + second).pvalue if first + second else 1
    assert mcnemar(right, other) == (first, second, pytest.approx(expected))

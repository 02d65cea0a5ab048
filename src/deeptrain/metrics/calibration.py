"""How far the probabilities of a network can be believed."""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn.functional import one_hot

from deeptrain.metrics.metric import Metric, Predictions
from deeptrain.metrics.resampling import Statistic, mean_of
from deeptrain.schema import PositiveInt, validate_call


@validate_call
def ece(*, bins: PositiveInt = 15) -> Metric:
    """Expected calibration error: mean distance of confidence and accuracy, over bins of confidence (Guo et al., 2017).

    The confidence is the probability of the predicted class. A bin counts by its share of the images.
    """

    def values(predictions: Predictions) -> Tensor:
        confidence = predictions.probabilities.amax(1)
        index = (confidence * bins).ceil().long().clamp_(1, bins) - 1  # bins are open below, closed above
        surplus = confidence - (predictions.predicted == predictions.labels).float()
        return one_hot(index, bins) * surplus[:, None]

    return Metric(values, bins, lambda means: means.abs().sum(), as_percent=True)


def brier() -> Metric:
    """Brier score: squared distance of the probabilities from the one-hot label, in [0, 2] (Brier, 1950)."""

    def values(predictions: Predictions) -> Tensor:
        probabilities = predictions.probabilities
        return (probabilities - one_hot(predictions.labels, probabilities.shape[1])).square().sum(1)

    return Metric(values)


# --- of an evaluation, in float64 and with intervals ---


@dataclass(frozen=True)
class Bin:
    """The images whose confidence is in (low, high]."""

    low: float
    high: float
    images: int
    confidence: float  # mean; NaN without images, as accuracy
    accuracy: float


def equal_width_bins(confidence: np.ndarray, bins: int = 15) -> np.ndarray:
    """Return the bin of each confidence (N,), among bins of equal width, open below and closed above."""
    return (np.ceil(confidence * bins).astype(np.int64)).clip(1, bins) - 1


def equal_mass_bins(confidence: np.ndarray, bins: int = 15) -> np.ndarray:
    """Return the bin of each confidence (N,), among bins of equally many images. Equal confidences share a bin."""
    ordered = np.sort(confidence)
    return np.searchsorted(ordered, confidence) * bins // len(confidence)


def calibration_error(confidence: np.ndarray, right: np.ndarray, index: np.ndarray) -> Statistic:
    """Return the expected calibration error over bins, whose `index` each image has."""
    surplus = np.zeros((len(index), int(index.max()) + 1))
    surplus[np.arange(len(index)), index] = confidence - right
    return mean_of(surplus, lambda means: np.abs(means).sum(1))


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> list[Bin]:
    """Return bins of equal width with their mean confidence and accuracy."""
    index, found = equal_width_bins(confidence, bins), []
    for number in range(bins):
        inside = index == number
        means = [float(values[inside].mean()) if inside.any() else math.nan for values in (confidence, right)]
        found.append(Bin(number / bins, (number + 1) / bins, int(inside.sum()), *means))
    return found


def risk_coverage_area(confidence: np.ndarray, right: np.ndarray) -> Statistic:
    """Return the area under the risk-coverage curve (Geifman & El-Yaniv, 2017).

    It is the mean error of the k most confident images, averaged over all k. Equal confidences come in any order, so
    they count by their expected error.
    """
    order = np.argsort(-confidence, kind="stable")
    mistakes = 1.0 - right[order]
    starts = np.flatnonzero(np.diff(confidence[order], prepend=np.inf))
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, len(order) + 1))])

    def area(counts: np.ndarray) -> np.ndarray:
        sizes = np.add.reduceat(counts[:, order], starts, 1)
        errors = np.add.reduceat(counts[:, order] * mistakes, starts, 1)
        before, errors_before = np.cumsum(sizes, 1) - sizes, np.cumsum(errors, 1) - errors
        share = errors / np.maximum(sizes, 1)
        spans = harmonic[(before + sizes).astype(np.int64)] - harmonic[before.astype(np.int64)]
        return (errors + (errors_before - share * before) * spans).sum(1) / counts.sum(1)

    return area

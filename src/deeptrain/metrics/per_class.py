"""Scores of each class, and metrics in which every class counts alike."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from deeptrain.metrics.confusion import Confusion
from deeptrain.metrics.metric import Metric, Predictions
from deeptrain.metrics.resampling import Statistic


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class: fractions in [0, 1], 0 where nothing can be divided. images: how many are of the class."""

    precision: float
    recall: float
    f1: float
    images: int


def per_class(confusion: Confusion) -> list[ClassScore]:
    """Return the scores of every class: precision = TP / predicted, recall = TP / true, F1 their harmonic mean."""
    counts = confusion.hits, confusion.claimed, confusion.images
    return [
        ClassScore(hit / max(claimed, 1), hit / max(images, 1), 2 * hit / max(claimed + images, 1), images)
        for hit, claimed, images in zip(*(values.tolist() for values in counts), strict=True)
    ]


def balanced_accuracy(num_classes: int) -> Metric:
    """Mean of the recalls of all classes that have images (Brodersen et al., 2010)."""

    def compute(means: Tensor) -> Tensor:
        hits, _, true = means.view(3, num_classes)
        return (hits / true)[true > 0].mean()

    return Metric(_counts, 3 * num_classes, compute, higher_is_better=True, as_percent=True)


def macro_f1(num_classes: int) -> Metric:
    """Mean F1 of all classes that are in the labels or the predictions."""

    def compute(means: Tensor) -> Tensor:
        hits, predicted, true = means.view(3, num_classes)
        return (2 * hits / (predicted + true))[predicted + true > 0].mean()

    return Metric(_counts, 3 * num_classes, compute, higher_is_better=True, as_percent=True)


def _counts(predictions: Predictions) -> Tensor:
    """Return hits, predictions and labels of each class as one-hot rows, (N, 3 K)."""
    classes = predictions.logits.shape[1]
    predicted, true = one_hot(predictions.predicted, classes), one_hot(predictions.labels, classes)
    return torch.cat([predicted * true, predicted, true], 1)


def macro_f1_of(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> Statistic:
    """Return `macro_f1` of class ids (N,), for any counts of the images."""

    def compute(counts: np.ndarray) -> np.ndarray:
        right = predicted == labels

        def per_class(ids: np.ndarray, weights: np.ndarray) -> np.ndarray:
            return np.bincount(ids, weights, minlength=num_classes)

        found = []
        for row in counts:
            both = per_class(labels, row) + per_class(predicted, row)
            hits = per_class(labels, row * right)
            found.append((2 * hits[both > 0] / both[both > 0]).mean())
        return np.array(found)

    return compute

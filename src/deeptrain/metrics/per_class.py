"""The confusion matrix, scores of each class, and metrics in which every class counts alike."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from deeptrain.metrics.metric import Metric, Predictions
from deeptrain.metrics.resampling import Statistic

if TYPE_CHECKING:
    from scipy.sparse import csr_array


def confusion_matrix(predicted: Tensor, labels: Tensor, num_classes: int) -> "csr_array":
    """Count (label, prediction) pairs of class ids (N,): sparse (K, K) int64, a row a true class; batches add up.

    It has at most N entries: with 10,000 classes all K² counts would take 800 MB.
    """
    from scipy.sparse import coo_array

    pairs = labels.cpu().numpy(), predicted.cpu().numpy()
    return coo_array((np.ones(len(labels), np.int64), pairs), (num_classes, num_classes)).tocsr()


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class: fractions in [0, 1], 0 where nothing can be divided. images: how many are of the class."""

    precision: float
    recall: float
    f1: float
    images: int


def per_class(confusion: "csr_array") -> list[ClassScore]:
    """Return the scores of every class: precision = TP / predicted, recall = TP / true, F1 their harmonic mean."""
    counts: Any = (confusion.diagonal(), confusion.sum(0), confusion.sum(1))
    hits, predicted, true = (values.tolist() for values in counts)
    return [
        ClassScore(hit / max(claimed, 1), hit / max(images, 1), 2 * hit / max(claimed + images, 1), images)
        for hit, claimed, images in zip(hits, predicted, true, strict=True)
    ]


def most_taken_for(confusion: "csr_array", label: int) -> tuple[int, int]:
    """Return the other class that images of a class are taken for most often, and how many are; (label, 0) if none."""
    row = slice(*confusion.indptr[label : label + 2])
    others = confusion.indices[row] != label
    columns, counts = confusion.indices[row][others], confusion.data[row][others]
    if not len(counts):
        return label, 0
    return int(columns[counts.argmax()]), int(counts.max())


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

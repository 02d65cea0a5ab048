"""Which classes were taken for which."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Confusion:
    """Counts of (true class, predicted class). Pairs that do not occur are not kept.

    With 10,000 classes all K² counts would take 800 MB. true, predicted: class ids (P,), in the order of the rows of a
    matrix. counts: images of each pair, (P,).
    """

    true: np.ndarray
    predicted: np.ndarray
    counts: np.ndarray
    num_classes: int

    @property
    def images(self) -> np.ndarray:
        """Return how many images are of each class, (K,)."""
        return self._sums(self.true, self.counts)

    @property
    def claimed(self) -> np.ndarray:
        """Return how many images were taken for each class, (K,)."""
        return self._sums(self.predicted, self.counts)

    @property
    def hits(self) -> np.ndarray:
        """Return how many images of each class are right, (K,)."""
        return self._sums(self.true, self.counts * (self.true == self.predicted))

    def most_taken_for(self, label: int) -> tuple[int, int]:
        """Return the other class that images of a class are taken for most often, and how many; (label, 0) if none."""
        row = slice(*np.searchsorted(self.true, [label, label + 1]))
        others = self.predicted[row] != label
        taken, counts = self.predicted[row][others], self.counts[row][others]
        return (int(taken[counts.argmax()]), int(counts.max())) if len(counts) else (label, 0)

    def shares(self, most: int) -> np.ndarray:
        """Return each row as shares of its images, (K, K). Of more than `most` classes, neighbours share a cell.

        A cell is then the mean of its rows, and the sum of its columns.
        """
        width = -(-self.num_classes // most)
        cells = np.arange(self.num_classes) // width
        side, parts = cells[-1] + 1, self.counts / self.images[self.true]
        where = cells[self.true] * side + cells[self.predicted]
        sums = np.bincount(where, parts, minlength=side * side).reshape(side, side)
        return sums / np.bincount(cells)[:, None]

    def _sums(self, ids: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return np.bincount(ids, counts, minlength=self.num_classes).astype(np.int64)


def confusion_of(predicted: Tensor, labels: Tensor, num_classes: int) -> Confusion:
    """Count the pairs of class ids (N,)."""
    pairs, counts = np.unique((labels * num_classes + predicted).cpu().numpy(), return_counts=True)
    return Confusion(*np.divmod(pairs, num_classes), counts, num_classes)

"""Which images a network gets wrong: the pairs of classes, the pictures with their files, a sheet of them, a table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from deeptrain.data.dataset import Samples
from deeptrain.metrics.probabilities import class_probabilities, nll, ranked_first
from deeptrain.report import formatting
from deeptrain.report.image_grid import grid, save
from deeptrain.run.calibration import WITHOUT_PROBABILITIES

if TYPE_CHECKING:
    from deeptrain.metrics.confusion import Confusion

SHOWN, COLUMNS = 5, 8
PICTURES = 2 * COLUMNS  # of each kind on the sheet


@dataclass
class Mistakes:
    """What a network says of each image of a split, beside the truth. Probabilities are those of the temperature."""

    names: list[str]
    classes: list[str]
    labels: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray  # float64 (N, K)
    confidence: np.ndarray
    losses: np.ndarray  # -log of the true class's probability
    has_probabilities: bool

    @property
    def worst(self) -> np.ndarray:
        """Return the wrong images, the largest loss first."""
        return self._wrong(self.losses)

    @property
    def most_confident(self) -> np.ndarray:
        """Return the wrong images, the most confident answer first."""
        return self._wrong(self.confidence)

    def _wrong(self, values: np.ndarray) -> np.ndarray:
        order = np.argsort(-values, kind="stable")
        return order[(self.predicted != self.labels)[order]]

    def describe(self, index: int) -> str:
        """Say what an image is and what it was taken for: cat, taken for dog (98.10%)."""
        share = f" ({formatting.percent(float(self.confidence[index]))})" if self.has_probabilities else ""
        return f"{self.classes[self.labels[index]]}, taken for {self.classes[self.predicted[index]]}{share}"


def find(
    logits: Tensor, labels: Tensor, names: list[str], classes: list[str], loss: str, temperature: float | None
) -> Mistakes:
    """Compare logits (N, K) with class ids (N,). temperature: None as trained."""
    probabilities = class_probabilities(logits, loss, temperature or 1)
    predicted, confidence = (found.numpy() for found in ranked_first(logits, probabilities))
    losses = nll(logits, labels, loss, temperature or 1).numpy()
    known = temperature is not None or loss not in WITHOUT_PROBABILITIES
    arrays = labels.numpy(), predicted, probabilities.numpy(), confidence, losses
    return Mistakes(names, classes, *arrays, has_probabilities=known)


def lines(mistakes: Mistakes, confusion: "Confusion") -> list[str]:
    """Compose what is shown: the most confused pairs, the pictures with the largest loss, the most confident errors."""
    worst, confident = mistakes.worst[:SHOWN], mistakes.most_confident[:SHOWN]
    if not len(worst):
        return ["no picture is wrong"]
    rows = [f"most confused  {', '.join(_pairs(confusion, mistakes.classes))}", "", "largest loss"]
    rows += [f"  {mistakes.losses[index]:7.3f}  {mistakes.names[index]}: {mistakes.describe(index)}" for index in worst]
    if mistakes.has_probabilities:
        rows.append("most confident mistakes; look at their labels first")
        rows += [f"  {formatting.percent(float(mistakes.confidence[index])):>7}  {mistakes.names[index]}: "
                 f"{mistakes.classes[mistakes.labels[index]]}, taken for {mistakes.classes[mistakes.predicted[index]]}"
                 for index in confident]  # fmt: skip
    return rows


def _pairs(confusion: "Confusion", classes: Sequence[str]) -> Iterator[str]:
    """Yield the off-diagonal cells with the most images: cat taken for dog (61)."""
    true, taken, counts = confusion.true, confusion.predicted, confusion.counts
    (wrong,) = np.nonzero(true != taken)
    for index in wrong[np.argsort(-counts[wrong], kind="stable")][:SHOWN].tolist():
        yield f"{classes[int(true[index])]} taken for {classes[int(taken[index])]} ({counts[index]:,})"


def draw(mistakes: Mistakes, samples: Samples, path: Path) -> bool:
    """Draw the pictures of both lists with their captions, and say whether there are any."""
    kinds = [("largest\nloss", mistakes.worst[:PICTURES]), ("most\nconfident", mistakes.most_confident[:PICTURES])]
    kinds = kinds if mistakes.has_probabilities else kinds[:1]
    indices = [int(index) for _, found in kinds for index in found]
    if not indices:
        return False
    per_kind = len(indices) // len(kinds)
    columns = min(COLUMNS, per_kind)
    if per_kind % columns:  # whole rows, so that each kind begins with one
        columns = next(number for number in range(columns, 0, -1) if per_kind % number == 0)
    titles = [title.replace("\n", " ") if row == 0 else "" for title, _ in kinds for row in range(per_kind // columns)]
    captions = [_caption(mistakes, index) for index in indices]
    pixels = np.stack([pixels_of(samples, index) for index in indices])
    save(path, grid(pixels, captions, columns, titles=titles))
    return True


def _caption(mistakes: Mistakes, index: int) -> str:
    taken, true = (mistakes.classes[ids[index]] for ids in (mistakes.predicted, mistakes.labels))
    share = f" {mistakes.confidence[index]:.0%}" if mistakes.has_probabilities else ""
    return f"{taken}{share} · not {true}\n{Path(mistakes.names[index]).name}"


def pixels_of(samples: Samples, index: int) -> np.ndarray:
    """Return one image of a split as the network sees it, uint8 (H, W, C)."""
    if samples.images is not None:
        return np.asarray(samples.images[index])
    assert samples.decoder is not None and samples.files is not None
    return samples.decoder.decode_center(samples.files[index])


def table(mistakes: Mistakes) -> Iterator[list[Any]]:
    """Yield the rows of csv=FILE: a head, then one for each image."""
    yield ["file", "true", "predicted", "probability", "loss", *mistakes.classes]
    for index, name in enumerate(mistakes.names):
        true, predicted = (mistakes.classes[ids[index]] for ids in (mistakes.labels, mistakes.predicted))
        numbers = [float(mistakes.confidence[index]), float(mistakes.losses[index])]
        yield [name, true, predicted, *numbers, *mistakes.probabilities[index].tolist()]

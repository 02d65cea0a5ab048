"""What is measured on a spread of train where some part asks for it; kept in the user's cache if it takes long."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deeptrain.data.cache import entry
from deeptrain.data.dataset import Dataset, Samples
from deeptrain.data.decode import decode_all
from deeptrain.data.decoded_images import pieces

COLOURS = 4096  # images that give the covariance of colours
DECODED = 1024  # of them where each has to be decoded first


def covariance(dataset: Dataset, cache_dir: Path | str | None = None) -> np.ndarray:
    """Return how the channels of train's pixels vary together: float64 (C, C), on the scale 0 to 255.

    Raises ValueError naming the file if a picture cannot be read.
    """
    if dataset.train.images is not None:  # a tenth of a second
        return _covariance(some_images(dataset.train, COLOURS))
    count = {"covariance": DECODED}
    return remembered(dataset, count, lambda: [_covariance(some_images(dataset.train, DECODED))], cache_dir)[0]


def some_images(train: Samples, count: int) -> np.ndarray:
    """Return up to count images, spread evenly over train: uint8 (M, H, W, C)."""
    some = train.spread(count)
    if some.images is not None:
        return np.asarray(some.images)
    assert some.decoder is not None and some.files is not None
    return np.concatenate(list(decode_all(some.decoder, some.files)))


def remembered(
    dataset: Dataset, what: dict[str, Any], compute: Callable[[], list[np.ndarray]], cache_dir: Path | str | None
) -> list[np.ndarray]:
    """Return the arrays that compute gives, now or in an earlier run on the same training images."""

    def build(folder: Path) -> None:
        for number, array in enumerate(compute()):
            np.save(folder / f"{number}.npy", array)

    key = {"train": dataset.fingerprint, "split": dataset.split, "shape": dataset.image_shape, **what}
    folder = entry(cache_dir, "measured", key, build)
    return [np.load(path, allow_pickle=False) for path in sorted(folder.glob("*.npy"))]


def _covariance(images: np.ndarray) -> np.ndarray:
    channels = images.shape[3]
    total, products = np.zeros(channels), np.zeros((channels, channels))
    for piece in pieces(images, 256):
        pixels = piece.reshape(-1, channels).astype(np.float64)  # whole numbers: their sums are exact
        total += pixels.sum(0)
        products += pixels.T @ pixels
    count = images.size // channels
    mean = total / count
    return products / count - np.outer(mean, mean)

"""Statistics of the training images for components that ask for them; slow ones are kept in the user's cache."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deeptrain.data.cache import get_or_build
from deeptrain.data.dataset import Dataset, Samples
from deeptrain.data.decode import decode_all
from deeptrain.data.decoded_images import chunks

COVARIANCE_IMAGES = 4096
MAX_DECODED_IMAGES = 1024  # instead, where each image must be decoded first


def covariance(dataset: Dataset, cache_dir: Path | str | None = None) -> np.ndarray:
    """Return the covariance of the channels over the pixels of train: float64 (C, C), on the scale 0 to 255.

    Raises ValueError with the file's name if an image cannot be read.
    """
    if dataset.train.images is not None:  # a tenth of a second
        return _covariance(sample_images(dataset.train, COVARIANCE_IMAGES))

    def compute() -> list[np.ndarray]:
        return [_covariance(sample_images(dataset.train, MAX_DECODED_IMAGES))]

    return cached_arrays(dataset, {"covariance": MAX_DECODED_IMAGES}, compute, cache_dir)[0]


def sample_images(train: Samples, count: int) -> np.ndarray:
    """Return up to count evenly spaced images of train: uint8 (M, H, W, C)."""
    subset = train.evenly_spaced(count)
    if subset.images is not None:
        return np.asarray(subset.images)
    assert subset.decoder is not None and subset.files is not None
    return np.concatenate(list(decode_all(subset.decoder, subset.files)))


def cached_arrays(
    dataset: Dataset, key: dict[str, Any], compute: Callable[[], list[np.ndarray]], cache_dir: Path | str | None
) -> list[np.ndarray]:
    """Return the arrays of compute(), from the cache if an earlier run made them from the same training images."""

    def build(folder: Path) -> None:
        for number, array in enumerate(compute()):
            np.save(folder / f"{number}.npy", array)

    key = {"train": dataset.fingerprint, "split": dataset.split, "shape": dataset.image_shape, **key}
    folder = get_or_build(cache_dir, "measured", key, build)
    return [np.load(path, allow_pickle=False) for path in sorted(folder.glob("*.npy"))]


def _covariance(images: np.ndarray) -> np.ndarray:
    channels = images.shape[3]
    total, products = np.zeros(channels), np.zeros((channels, channels))
    for chunk in chunks(images, 256):
        pixels = chunk.reshape(-1, channels).astype(np.float64)  # integers: their sums are exact
        total += pixels.sum(0)
        products += pixels.T @ pixels
    count = images.size // channels
    mean = total / count
    return products / count - np.outer(mean, mean)

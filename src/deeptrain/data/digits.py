"""The 1,797 handwritten digits of scikit-learn: real images without a download (Alpaydin and Kaynak, 1998)."""

from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

import numpy as np

from deeptrain.data.array_source import ArraySource, Split
from deeptrain.data.dataset import SplitFraction, unused_settings
from deeptrain.data.split import stratified
from deeptrain.schema import NonNegativeInt, validate_call

TEST_FRACTION, TEST_SEED = 0.2, 0  # the set has no official test split: ours is the same in every run


@validate_call
@dataclass
class Digits(ArraySource):
    """8 x 8 grey images of ten classes. A fifth is the test split; a fifth of the rest is held out for validation."""

    val_fraction: SplitFraction = 0.2
    crop_padding: NonNegativeInt = 1

    name = "digits"
    characters = True

    def class_names(self) -> list[str]:
        return [str(digit) for digit in range(10)]

    def split_sizes(self) -> dict[Split, int | None]:
        return {"train": 1438, "test": 359}

    def read_split(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        images, labels = read_digits()
        indices = stratified(labels, TEST_FRACTION, TEST_SEED)
        if split == "train":
            indices = np.delete(np.arange(len(labels)), indices)
        return images[indices], labels[indices]

    def notes(self) -> list[str]:
        return unused_settings(self, "digits come with scikit-learn")


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Read scikit-learn's file without importing it (a second): uint8 (1797, 8, 8, 1) from 0 to 255, int64 (1797,)."""
    spec = PathFinder.find_spec("sklearn")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise ValueError("digits: come with scikit-learn, which is not installed: pip install scikit-learn")
    table = np.loadtxt(Path(folders[0]) / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    images = (table[:, :64] * (255 / 16)).round().astype(np.uint8)  # the file counts to 16
    return images.reshape(-1, 8, 8, 1), table[:, 64].astype(np.int64)

"""The 1,797 handwritten digits of scikit-learn: real images without a download (Alpaydin and Kaynak, 1998)."""

from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

import numpy as np

from deeptrain.data.dataset import Dataset, Loading, Samples, Share, SourceSplits, Whitening, make_dataset, no_effect
from deeptrain.data.decoded_images import DecodedImages, from_arrays
from deeptrain.data.split import stratified
from deeptrain.schema import NonNegativeInt, PositiveFloat, UnitFloat, validate_call

TEST_FRACTION, TEST_SEED = 0.2, 0  # the set has no official test split: ours is the same in every run


@validate_call
@dataclass
class Digits:
    """8 x 8 grey images of ten classes. A fifth is kept as test, a fifth of the rest held out as validation."""

    root: str | None = None
    download: bool = False
    val_fraction: Share = 0.2
    split_seed: NonNegativeInt = 0
    loader: Loading = "auto"
    crop_padding: NonNegativeInt = 1
    flip: bool = False
    mean: list[UnitFloat] | None = None
    std: list[PositiveFloat] | None = None
    subtract_image_mean: bool = False
    whiten: Whitening | None = None
    whiten_eps: PositiveFloat = 0.01

    name = "digits"

    def load(self, cache_dir: Path | str | None = None) -> Dataset:
        """Return all but the test split; the file is small enough to be read every time."""
        train, test = self._stores()
        parts = SourceSplits(
            train=Samples(train.images, None, train.labels),
            measure=train.measure,
            fingerprint=train.fingerprint,
            test=f"test {len(test.labels):,} kept shut",
            notes=no_effect(self.root, self.download, "digits come with scikit-learn"),
        )
        return make_dataset(self, [str(digit) for digit in range(10)], parts)

    def test(self, cache_dir: Path | str | None = None) -> Samples:
        """Return the fifth that training does not see."""
        _, test = self._stores()
        return Samples(test.images, None, test.labels)

    def _stores(self) -> tuple[DecodedImages, DecodedImages]:
        images, labels = read_digits()
        held = stratified(labels, TEST_FRACTION, TEST_SEED)
        rest = np.delete(np.arange(len(labels)), held)
        return from_arrays(images[rest], labels[rest]), from_arrays(images[held], labels[held])


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Read scikit-learn's file without importing it (a second): uint8 (1797, 8, 8, 1) on the scale 0 to 255, labels."""
    spec = PathFinder.find_spec("sklearn")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise ValueError("digits: come with scikit-learn, which is not installed: pip install scikit-learn")
    table = np.loadtxt(Path(folders[0]) / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    images = (table[:, :64] * (255 / 16)).round().astype(np.uint8)  # the file counts to 16
    return images.reshape(-1, 8, 8, 1), table[:, 64].astype(np.int64)

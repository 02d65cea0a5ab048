"""Made-up images, fast and learnable, of any shape and any number of classes: a blurry pattern each, plus noise."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np

from deeptrain.data.dataset import Dataset, Loading, Samples, Share, SourceSplits, Whitening, make_dataset, no_effect
from deeptrain.data.decoded_images import DecodedImages, from_arrays
from deeptrain.runtime.random import generator
from deeptrain.schema import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Range,
    UnitFloat,
    validate_call,
)

GRID = 4  # a class's pattern is this many patches high and wide
CONTRAST = 32  # standard deviation of the patterns, of 255


@validate_call
@dataclass
class Synthetic:
    """`size` images for training and validation and a fifth as many for test; the classes take turns."""

    root: str | None = None
    download: bool = False
    shape: list[PositiveInt] = field(default_factory=lambda: [3, 32, 32])  # (C, H, W)
    num_classes: Annotated[int, Range(minimum=2)] = 10
    size: PositiveInt = 2000
    noise: NonNegativeFloat = 1.0  # standard deviation, relative to that of the patterns
    val_fraction: Share = 0.1
    split_seed: NonNegativeInt = 0
    loader: Loading = "auto"
    crop_padding: NonNegativeInt = 0
    flip: bool = False
    mean: list[UnitFloat] | None = None
    std: list[PositiveFloat] | None = None
    subtract_image_mean: bool = False
    whiten: Whitening | None = None
    whiten_eps: PositiveFloat = 0.01

    name = "synthetic"

    def __post_init__(self):
        if len(self.shape) != 3 or self.shape[0] not in (1, 3):
            raise ValueError(f"shape={self.shape}: must be [channels,height,width] with 1 or 3 channels")
        if self.size < 2 * self.num_classes:
            raise ValueError(f"size={self.size}: must be at least {2 * self.num_classes}, two images a class")

    def load(self, cache_dir: Path | str | None = None) -> Dataset:
        """Make the training and validation images; nothing is written."""
        store = self._make("train", self.size)
        parts = SourceSplits(
            train=Samples(store.images, None, store.labels),
            measure=store.measure,
            fingerprint=store.fingerprint,
            test=f"test {self._test_size():,} kept shut",
            notes=no_effect(self.root, self.download, "synthetic images are made on the spot"),
        )
        return make_dataset(self, [f"class {label}" for label in range(self.num_classes)], parts)

    def test(self, cache_dir: Path | str | None = None) -> Samples:
        """Make the test images: the same patterns under other noise."""
        store = self._make("test", self._test_size())
        return Samples(store.images, None, store.labels)

    def _test_size(self) -> int:
        return max(self.size // 5, self.num_classes)

    def _make(self, split: str, count: int) -> DecodedImages:
        channels, height, width = self.shape
        patches = generator(0, "synthetic patterns").standard_normal((self.num_classes, GRID, GRID, channels))
        rows, columns = np.arange(height) * GRID // height, np.arange(width) * GRID // width
        patterns = patches[:, rows][:, :, columns].astype(np.float32)  # (K, H, W, C)
        labels = np.arange(count) % self.num_classes
        images = generator(0, f"synthetic {split}").standard_normal((count, height, width, channels), np.float32)
        images *= self.noise
        images += patterns[labels]
        return from_arrays((images * CONTRAST + 128).clip(0, 255).astype(np.uint8), labels)

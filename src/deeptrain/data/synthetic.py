"""Made-up images of any shape and any number of classes, learnable in seconds: a blurry pattern a class, plus noise."""

import math
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from deeptrain.data.array_source import ArraySource, Split
from deeptrain.data.dataset import unused_settings
from deeptrain.data.decoded_images import chunks
from deeptrain.runtime.random import generator
from deeptrain.schema import NonNegativeFloat, PositiveInt, Range, validate_call

GRID = 4  # patches of a class's pattern, in height and in width
CHUNK = 2**22  # values that are drawn at once
CONTRAST = 32  # standard deviation of the patterns, of 255


@validate_call
@dataclass
class Synthetic(ArraySource):
    """`size` images for training and validation, a fifth as many for test. The labels are 0, 1, ..., 0, 1, ..."""

    shape: list[PositiveInt] = field(default_factory=lambda: [3, 32, 32])  # (C, H, W)
    num_classes: Annotated[int, Range(minimum=2)] = 10
    size: PositiveInt = 2000
    noise: NonNegativeFloat = 1.0  # standard deviation, relative to that of the patterns

    name = "synthetic"
    smaller = "write a smaller data.size or data.shape"

    def __post_init__(self):
        if len(self.shape) != 3 or self.shape[0] not in (1, 3):
            raise ValueError(f"shape={self.shape}: must be [channels,height,width] with 1 or 3 channels")
        if self.size < 2 * self.num_classes:
            raise ValueError(f"size={self.size}: must be at least {2 * self.num_classes}, two images a class")

    def class_names(self) -> list[str]:
        return [f"class {label}" for label in range(self.num_classes)]

    def split_sizes(self) -> dict[Split, int | None]:
        return {"train": self.size, "test": max(self.size // 5, self.num_classes)}

    def split_bytes(self, split: Split) -> int:
        return (self.split_sizes()[split] or 0) * math.prod(self.shape)

    def read_split(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        """Make the images. The patterns of all splits are the same, their noise is not."""
        count = self.split_sizes()[split]
        assert count is not None
        channels, height, width = self.shape
        patches = generator(0, "synthetic patterns").standard_normal((self.num_classes, GRID, GRID, channels))
        rows, columns = np.arange(height) * GRID // height, np.arange(width) * GRID // width
        patterns = patches[:, rows][:, :, columns].astype(np.float32)  # (K, H, W, C)
        labels = np.arange(count) % self.num_classes
        images, random = np.empty((count, height, width, channels), np.uint8), generator(0, f"synthetic {split}")
        for indices in chunks(np.arange(count), max(1, CHUNK // patterns[0].size)):
            values = random.standard_normal((len(indices), height, width, channels), np.float32)
            values *= self.noise
            values += patterns[labels[indices]]
            images[indices] = (values * CONTRAST + 128).clip(0, 255).astype(np.uint8)
        return images, labels

    def notes(self) -> list[str]:
        return unused_settings(self, "synthetic images are made on the spot")

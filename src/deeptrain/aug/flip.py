"""Flip: mirrors images at random."""

import numpy as np
from torch import Tensor

from deeptrain.aug.pixel_rows import scatter, select
from deeptrain.schema import UnitFloat, validate_call


class Flip:
    """Mirror each image left to right with probability `horizontal`, and upside down with probability `vertical`.

    The two coins of an image are independent. Do not flip images that change their meaning, such as digits.
    """

    @validate_call
    def __init__(self, *, horizontal: UnitFloat = 0.5, vertical: UnitFloat = 0.0):
        self.horizontal, self.vertical = horizontal, vertical

    def __call__(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return images of the same dtype, and the same targets."""
        for dimension, coins in zip((3, 2), self._sample(len(images), rng), strict=True):
            if coins.any():
                indices = np.flatnonzero(coins)
                images = scatter(images, indices, select(images, indices).flip(dimension))
        return images, targets

    def describe(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> list[str]:
        words = {(False, False): "", (True, False): "flipped", (False, True): "upside down", (True, True): "turned"}
        return [words[bool(across), bool(down)] for across, down in self._sample(len(images), rng).T]

    def _sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        return rng.random((2, count)) < [[self.horizontal], [self.vertical]]

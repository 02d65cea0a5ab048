"""RandAugment: applies a few random operations to every image, all at one magnitude."""

from typing import Annotated

import numpy as np
from torch import Tensor

from deeptrain.aug.operations import Operations, magnitude_table
from deeptrain.schema import NonNegativeInt, PositiveInt, Range, validate_call

Bins = Annotated[int, Range(minimum=2)]
MAX_TRANSLATION = 150 / 331  # of the image's side: the paper's largest, 150 pixels of 331


class RandAugment:
    """Apply `num_operations` of fourteen operations to every image, one after the other (Cubuk et al., 2020).

    Each operation is sampled from all fourteen, with a random sign where it has one. Magnitude 0 is the weakest,
    bins - 1 the strongest, in equal steps. Raises ValueError if magnitude >= bins.
    """

    @validate_call
    def __init__(
        self,
        input_shape: tuple[int, int, int],
        *,
        num_operations: PositiveInt = 2,
        magnitude: NonNegativeInt = 9,
        bins: Bins = 31,
    ):
        if magnitude >= bins:
            raise ValueError(f"magnitude={magnitude}: must be below bins={bins}")
        height, width = input_shape[1:]
        table = magnitude_table(
            bins,
            shear=0.3,
            translate=(MAX_TRANSLATION * width, MAX_TRANSLATION * height),
            rotate=30,
            blend=0.9,
            posterize=4,
        )
        self.num_operations = num_operations
        self.operations = Operations(input_shape, {name: [values[magnitude]] for name, values in table.items()})

    def __call__(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return new uint8 images (float images are rounded), and the same targets."""
        return self.operations(images, *self._sample(len(images), rng)), targets

    def describe(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> list[str]:
        rounds = self._sample(len(images), rng)
        return [" · ".join(map(self.operations.describe, choices)) for choices in zip(*rounds, strict=True)]

    def _sample(self, count: int, rng: np.random.Generator) -> list[np.ndarray]:
        return [self.operations.sample(count, rng) for _ in range(self.num_operations)]

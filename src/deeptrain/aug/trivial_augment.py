"""TrivialAugment: one operation for every image, at any magnitude."""

import numpy as np
from torch import Tensor

from deeptrain.aug.operations import Operations, magnitude_table
from deeptrain.schema import validate_call

NUM_BINS = 31
MAX_MAGNITUDES = {"shear": 0.99, "translate": (32.0, 32.0), "rotate": 135.0, "blend": 0.99, "posterize": 6}


class TrivialAugment:
    """Apply one of RandAugment's operations to every image, its magnitude drawn evenly (Müller & Hutter, 2021).

    There is nothing to tune: the ranges are the paper's wide ones, with translations of up to 32 pixels whatever the
    image's size.
    """

    @validate_call
    def __init__(self, input_shape: tuple[int, int, int]):
        self.operations = Operations(input_shape, magnitude_table(NUM_BINS, **MAX_MAGNITUDES))

    def __call__(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return new images of bytes, to which float images are rounded, and the targets as they are."""
        return self.operations(images, self.operations.sample(len(images), rng)), targets

    def describe(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> list[str]:
        return [self.operations.describe(choice) for choice in self.operations.sample(len(images), rng)]

"""TrivialAugment: applies one random operation to every image, at a random magnitude."""

import numpy as np
from torch import Tensor

from deeptrain.aug.operations import Operations, magnitude_table
from deeptrain.schema import validate_call

NUM_BINS = 31
MAX_MAGNITUDES = {"shear": 0.99, "translate": (32.0, 32.0), "rotate": 135.0, "blend": 0.99, "posterize": 6}


class TrivialAugment:
    """Apply one of RandAugment's operations to every image, at a uniform magnitude (Müller & Hutter, 2021).

    It has no settings. The ranges are the paper's wide ones, with translations of up to 32 pixels at every image size.
    """

    @validate_call
    def __init__(self, input_shape: tuple[int, int, int]):
        self.operations = Operations(input_shape, magnitude_table(NUM_BINS, **MAX_MAGNITUDES))

    def __call__(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return new uint8 images (float images are rounded), and the same targets."""
        return self.operations(images, self.operations.sample(len(images), rng)), targets

    def describe(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> list[str]:
        return [self.operations.describe(choice) for choice in self.operations.sample(len(images), rng)]

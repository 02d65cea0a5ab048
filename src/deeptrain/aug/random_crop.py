"""Random crop: pads every image and cuts out a random window of its size."""

import numpy as np
from torch import Tensor

from deeptrain.aug.pixel_rows import Border, pad, windows
from deeptrain.schema import PositiveInt, validate_call


class Crop:
    """Shift every image by up to `padding` pixels in each direction; the padding is black or a reflection.

    data.crop_padding does the same with black; both together shift twice. Raises ValueError if the padding is not
    smaller than the image.
    """

    @validate_call
    def __init__(self, input_shape: tuple[int, int, int], *, padding: PositiveInt = 4, mode: Border = "reflect"):
        shorter = min(input_shape[1:])
        if padding >= shorter:
            raise ValueError(f"padding={padding}: must be below {shorter}, the image's shorter side")
        self.padding: int = padding
        self.border: Border = mode

    def __call__(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return new images of the same dtype, and the same targets."""
        down, across = rng.integers(2 * self.padding + 1, size=(2, len(images)))
        return windows(pad(images, self.padding, self.border), down, across, images.shape[2:]), targets

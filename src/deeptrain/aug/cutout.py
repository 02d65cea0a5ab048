"""Cutout: hides a square of every image."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from deeptrain.aug.pixel_rows import box_masks, paste, pixel_rows, sample_boxes, tile_channels
from deeptrain.schema import PositiveInt, Range, validate_call

Side = PositiveInt | Annotated[float, Range(above=0, maximum=1)]  # int: pixels; float: fraction of the shorter side


class Cutout:
    """Fill one square of every image with the data's mean (DeVries & Taylor, 2017).

    The centre is any pixel. The square is clipped at the border, so the mean hidden area is below size². The paper's
    16 pixels at 32 are half the shorter side. Raises ValueError if the square is larger than the image.
    """

    @validate_call
    def __init__(self, input_shape: tuple[int, int, int], mean: Sequence[float], *, size: Side = 0.5):
        shorter = min(input_shape[1:])
        self.side = size if isinstance(size, int) else max(1, round(size * shorter))
        if self.side > shorter:
            raise ValueError(f"size={size}: must be at most {shorter}, the image's shorter side")
        self.fill = tuple(float(value) for value in mean)

    def __call__(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return new images of the same dtype, and the same targets."""
        images = images.contiguous(memory_format=torch.channels_last)
        count, _, height, width = images.shape
        boxes = sample_boxes(rng, count, (height, width), (self.side, self.side))
        fill = tile_channels(self.fill, width, images.dtype, images.device)
        cut = torch.empty_like(images)
        paste(pixel_rows(images), fill, *box_masks(boxes, images), out=pixel_rows(cut))
        return cut, targets

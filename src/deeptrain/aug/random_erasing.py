"""Random erasing: hides a rectangle of every image, of random area and shape."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from deeptrain.aug.pixel_rows import box_masks, paste, pixel_rows, sample_rectangles, tile_channels
from deeptrain.aug.sampling import check_fit, checked_range, random_bytes
from deeptrain.runtime.upload import upload
from deeptrain.schema import PositiveFloat, UnitFloat, validate_call

AREA, ASPECT = [0.02, 0.4], [0.3, 3.3]  # the paper's


class RandomErasing:
    """Fill one rectangle inside every image with black, the data's mean or noise (Zhong et al., 2020).

    Its fraction of the image's area is uniform in `area`. Its height over width is log-uniform in that part of
    `aspect` where the box fits. Its position is uniform. Sides are rounded to pixels.

    The log-uniform aspect is torchvision's. The paper's aspect is uniform, which makes more tall boxes than wide ones.
    The paper also samples until the box lies inside, which makes fewer large boxes. Raises ValueError if no box fits.
    """

    @validate_call
    def __init__(
        self,
        mean: Sequence[float],
        *,
        area: list[UnitFloat] = AREA,
        aspect: list[PositiveFloat] = ASPECT,
        fill: Literal["zero", "mean", "noise"] = "noise",
        input_shape: tuple[int, int, int] | None = None,
    ):
        self.area, self.aspect = checked_range("area", area), checked_range("aspect", aspect)
        check_fit(self.area, self.aspect, input_shape)
        self.noise = fill == "noise"
        self.fill = tuple(float(value) if fill == "mean" else 0.0 for value in mean)

    def __call__(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return new images of the same dtype, and the same targets."""
        images = images.contiguous(memory_format=torch.channels_last)
        count, channels, height, width = images.shape
        boxes = sample_rectangles(rng, count, (height, width), self.area, self.aspect)
        if self.noise:
            values = random_bytes(rng, (count, height, width * channels))
            fill = upload(values, images.device).to(images.dtype)
        else:
            fill = tile_channels(self.fill, width, images.dtype, images.device)
        erased = torch.empty_like(images)
        paste(pixel_rows(images), fill, *box_masks(boxes, images), out=pixel_rows(erased))
        return erased, targets

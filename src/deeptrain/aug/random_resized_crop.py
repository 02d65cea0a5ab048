"""Random resized crop: resizes a random rectangle of every image to the image's size."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from deeptrain.aug.pixel_rows import sample_rectangles, to_channels_last
from deeptrain.aug.sampling import check_fit, checked_range
from deeptrain.runtime.upload import upload
from deeptrain.schema import PositiveFloat, UnitFloat, validate_call

AREA, ASPECT = [0.08, 1.0], [0.75, 1.3333]  # the paper's


class ScaleCrop:
    """Cut a rectangle out of every image and resize it, bilinearly, to the image's size (Szegedy et al., 2015).

    Its fraction of the image's area is uniform in `area`. Its height over width is log-uniform in that part of
    `aspect` where the box fits. Its position is uniform. Sides are rounded to pixels. The paper's areas
    suit large images; at 32 pixels [0.5,1] is strong enough. Raises ValueError if no rectangle fits.
    """

    @validate_call
    def __init__(
        self,
        *,
        area: list[UnitFloat] = AREA,
        aspect: list[PositiveFloat] = ASPECT,
        input_shape: tuple[int, int, int] | None = None,
    ):
        self.area, self.aspect = checked_range("area", area), checked_range("aspect", aspect)
        check_fit(self.area, self.aspect, input_shape)

    def __call__(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return new images of the same dtype (uint8 rounded), and the same targets."""
        size = images.shape[2:]
        top, bottom, left, right = sample_rectangles(rng, len(images), size, self.area, self.aspect).T
        down, across = (
            _positions(start, end, extent, images.device)
            for start, end, extent in ((top, bottom, size[0]), (left, right, size[1]))
        )
        grid = torch.stack(
            [across[:, None, :].expand(-1, size[0], -1), down[:, :, None].expand(-1, -1, size[1])], dim=3
        )
        planes = images.to(torch.float32, memory_format=torch.contiguous_format)
        padding_mode = "zeros" if images.device.type == "mps" else "border"  # the same inside; MPS lacks border in 2.12
        resized = grid_sample(planes, grid, padding_mode=padding_mode, align_corners=False)
        resized = resized if images.is_floating_point() else resized.round_()
        return to_channels_last(resized, images.dtype), targets


def _positions(start: np.ndarray, end: np.ndarray, extent: int, device: torch.device) -> Tensor:
    """Return the source positions (N, extent) of each box's pixels along one axis, on grid_sample's scale of -1 to 1.

    Pixel centres map to pixel centres. Positions are clipped to the centres of the box's outermost pixels, so no value
    comes from outside the box.
    """
    start, end = start[:, None], end[:, None]
    pixels = start + (np.arange(extent) + 0.5) * (end - start) / extent - 0.5
    return upload((2 * np.clip(pixels, start, end - 1) + 1) / extent - 1, device)

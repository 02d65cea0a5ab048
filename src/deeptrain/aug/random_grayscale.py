"""Random grayscale: takes the colour out of images."""

import numpy as np
from torch import Tensor

from deeptrain.aug.pixel_rows import to_channels_last, to_dtype

LUMA_WEIGHTS = (0.2989, 0.587, 0.114)  # red, green, blue (ITU-R BT.601), as torchvision rounds them


class Gray:
    """Give all three channels the image's brightness; images of one channel are not changed."""

    def __call__(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return new images of the same dtype, and the same targets. rng is not used."""
        if images.shape[1] == 1:
            return images, targets
        gray = to_dtype(brightness(images.contiguous()), images.dtype)
        return to_channels_last(gray[:, None].expand(-1, 3, -1, -1), images.dtype), targets


def brightness(images: Tensor) -> Tensor:
    """Return the brightness of colour images (N, 3, H, W): (N, H, W) float32 on the same scale.

    Contiguous images (planes) are the fastest.
    """
    red, green, blue = images.unbind(1)
    return red * LUMA_WEIGHTS[0] + green * LUMA_WEIGHTS[1] + blue * LUMA_WEIGHTS[2]

"""Gray: colour is taken out of images."""

import numpy as np
from torch import Tensor

from deeptrain.aug.pixel_rows import to_channels_last, to_dtype

LUMA_WEIGHTS = (0.2989, 0.587, 0.114)  # of red, green and blue in brightness (ITU-R BT.601), as torchvision rounds them


class Gray:
    """Give all three channels the image's brightness; images of one channel stay as they are."""

    def __call__(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return new images of the dtype that came, and the targets as they are; nothing is drawn."""
        if images.shape[1] == 1:
            return images, targets
        gray = to_dtype(brightness(images.contiguous()), images.dtype)
        return to_channels_last(gray[:, None].expand(-1, 3, -1, -1), images.dtype), targets


def brightness(images: Tensor) -> Tensor:
    """Return the brightness (N, H, W) of colour images (N, 3, H, W): float32, on their scale; quickest from planes."""
    red, green, blue = images.unbind(1)
    return red * LUMA_WEIGHTS[0] + green * LUMA_WEIGHTS[1] + blue * LUMA_WEIGHTS[2]

"""Color jitter: brightness, contrast, saturation and hue of every image change a little."""

from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from deeptrain.aug.pixel_rows import to_channels_last
from deeptrain.aug.random_grayscale import brightness
from deeptrain.aug.sampling import to_device
from deeptrain.schema import NonNegativeFloat, Range, validate_call

HueShift = Annotated[float, Range(minimum=0, maximum=0.5)]  # half a turn of the colour circle reaches every hue
BYTE_SCALE = (
    255.999 / 255
)  # torchvision's way from real numbers back to bytes: what is a hair below a whole stays whole


class ColorJitter:
    """Change brightness, contrast, saturation and hue, in this order, each image by its own draws (Howard, 2013).

    The first three are factors drawn evenly from 1 - setting (at least 0) to 1 + setting; the hue is turned by up to
    `hue` of the colour circle either way. Every step clips to 0..255 and, on bytes, cuts off decimals, as torchvision's
    adjust_brightness, adjust_contrast, adjust_saturation and adjust_hue do. Grey images have neither of the last two.
    """

    @validate_call
    def __init__(
        self,
        *,
        brightness: NonNegativeFloat = 0.4,
        contrast: NonNegativeFloat = 0.4,
        saturation: NonNegativeFloat = 0.4,
        hue: HueShift = 0.0,
    ):
        self.settings = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}

    def __call__(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return new images of the dtype that came, and the targets as they are."""
        is_uint8 = not images.is_floating_point()
        planes = images.to(torch.float32, memory_format=torch.contiguous_format, copy=True)  # (N, C, H, W)
        for name, values in self._sample(len(images), rng).items():
            if self.settings[name] == 0 or (images.shape[1] == 1 and name in ("saturation", "hue")):
                continue
            planes = ADJUSTMENTS[name](planes, values, is_uint8)
        return to_channels_last(planes, images.dtype), targets

    def describe(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> list[str]:
        drawn = {name: values for name, values in self._sample(len(images), rng).items() if self.settings[name]}
        return [
            " · ".join(f"{name} {values[image]:.2f}" for name, values in drawn.items()) for image in range(len(images))
        ]

    def _sample(self, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw for each image three factors and a part of the circle, whether they are used or not."""
        drawn = {}
        for (name, setting), even in zip(self.settings.items(), rng.random((4, count)), strict=True):
            low, high = (-setting, setting) if name == "hue" else (max(0.0, 1 - setting), 1 + setting)
            drawn[name] = low + (high - low) * even
        return drawn


def adjust_brightness(planes: Tensor, factors: np.ndarray, is_uint8: bool) -> Tensor:
    """Scale pixels (N, C, H, W), in place."""
    return _clip(planes.mul_(_per_image(factors, planes)), is_uint8)


def adjust_contrast(planes: Tensor, factors: np.ndarray, is_uint8: bool) -> Tensor:
    """Move pixels away from the mean brightness of their image, or towards it."""
    gray = _gray_planes(planes, is_uint8) if planes.shape[1] == 3 else planes
    return _blend(planes, gray.mean(dim=(1, 2, 3), keepdim=True), factors, is_uint8)


def adjust_saturation(planes: Tensor, factors: np.ndarray, is_uint8: bool) -> Tensor:
    """Move colours away from their own brightness, or towards it."""
    return _blend(planes, _gray_planes(planes, is_uint8), factors, is_uint8)


def adjust_hue(planes: Tensor, turns: np.ndarray, is_uint8: bool) -> Tensor:
    """Turn the hue by a part of the colour circle; value and saturation, as in HSV, stay."""
    red, green, blue = planes.unbind(1)
    value, least = planes.amax(1), planes.amin(1)
    chroma = value - least
    scale = 1 / chroma.clamp(min=1e-6)  # without chroma there is no hue, and none comes in below
    # sixths of the circle from red, by which channel is the largest; the first of equals counts
    first = (red == value).float()
    second = (green == value).float().mul_(1 - first)
    third = 1 - first - second
    hue = first * (green - blue) + second * (blue - red) + third * (red - green)
    hue.mul_(scale).add_(second, alpha=2).add_(third, alpha=4).add_(6 * _per_image(turns, planes)[:, 0])
    turned = torch.empty_like(planes)
    for channel, sixths in enumerate((5, 3, 1)):
        corner = (hue + sixths).remainder_(6)
        part = torch.minimum(corner, 4 - corner).clamp_(0, 1)
        torch.sub(value, part.mul_(chroma), out=turned[:, channel])
    return _clip(turned.mul_(BYTE_SCALE) if is_uint8 else turned, is_uint8)


ADJUSTMENTS = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}


def _blend(planes: Tensor, other: Tensor, factors: np.ndarray, is_uint8: bool) -> Tensor:
    return _clip(planes.mul_(_per_image(factors, planes)).add_(other * _per_image(1 - factors, planes)), is_uint8)


def _gray_planes(planes: Tensor, is_uint8: bool) -> Tensor:
    gray = brightness(planes)[:, None]
    return gray.floor_() if is_uint8 else gray


def _clip(planes: Tensor, is_uint8: bool) -> Tensor:
    planes.clamp_(0, 255)
    return planes.floor_() if is_uint8 else planes


def _per_image(values: np.ndarray, planes: Tensor) -> Tensor:
    """Bring one value an image to the device: (N, 1, 1, 1)."""
    return to_device(values, planes.device)[:, None, None, None]

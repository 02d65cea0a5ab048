"""Color jitter: small random changes of brightness, contrast, saturation and hue."""

from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from deeptrain.aug.pixel_rows import to_channels_last
from deeptrain.aug.random_grayscale import brightness
from deeptrain.runtime.upload import upload
from deeptrain.schema import NonNegativeFloat, Range, validate_call

HueShift = Annotated[float, Range(minimum=0, maximum=0.5)]  # half a turn reaches every hue
BYTE_SCALE = 255.999 / 255  # torchvision's scale from floats to bytes: rounding errors below an integer do no harm


class ColorJitter:
    """Change brightness, contrast, saturation and hue, in this order (Howard, 2013). Each image has its own samples.

    The first three are factors, uniform from 1 - setting (at least 0) to 1 + setting. The hue turns by up to `hue` of
    the colour circle, either way. Every step clips to 0..255; on uint8 it also cuts off decimals. Torchvision's
    adjust_brightness, adjust_contrast, adjust_saturation and adjust_hue do the same. Images of one channel skip
    saturation and hue.
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
        """Return new images of the same dtype, and the same targets."""
        is_uint8 = not images.is_floating_point()
        planes = images.to(torch.float32, memory_format=torch.contiguous_format, copy=True)  # (N, C, H, W)
        for name, values in self._sample(len(images), rng).items():
            if self.settings[name] == 0 or (images.shape[1] == 1 and name in ("saturation", "hue")):
                continue
            planes = ADJUSTMENTS[name](planes, values, is_uint8)
        return to_channels_last(planes, images.dtype), targets

    def describe(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> list[str]:
        samples = {name: values for name, values in self._sample(len(images), rng).items() if self.settings[name]}
        return [
            " · ".join(f"{name} {values[image]:.2f}" for name, values in samples.items())
            for image in range(len(images))
        ]

    def _sample(self, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Sample three factors and a turn for each image. Settings that are off are sampled too."""
        samples = {}
        for (name, setting), row in zip(self.settings.items(), rng.random((4, count)), strict=True):
            low, high = (-setting, setting) if name == "hue" else (max(0.0, 1 - setting), 1 + setting)
            samples[name] = low + (high - low) * row
        return samples


def adjust_brightness(planes: Tensor, factors: np.ndarray, is_uint8: bool) -> Tensor:
    """Scale pixels (N, C, H, W) in place."""
    return _clip(planes.mul_(_per_image(factors, planes)), is_uint8)


def adjust_contrast(planes: Tensor, factors: np.ndarray, is_uint8: bool) -> Tensor:
    """Move pixels away from the mean brightness of their image, or towards it."""
    gray = _gray_planes(planes, is_uint8) if planes.shape[1] == 3 else planes
    return _blend(planes, gray.mean(dim=(1, 2, 3), keepdim=True), factors, is_uint8)


def adjust_saturation(planes: Tensor, factors: np.ndarray, is_uint8: bool) -> Tensor:
    """Move colours away from their own brightness, or towards it."""
    return _blend(planes, _gray_planes(planes, is_uint8), factors, is_uint8)


def adjust_hue(planes: Tensor, turns: np.ndarray, is_uint8: bool) -> Tensor:
    """Turn the hue by a fraction of the colour circle. The value and saturation of HSV stay."""
    red, green, blue = planes.unbind(1)
    value = planes.amax(1)
    chroma = value - planes.amin(1)
    scale = 1 / chroma.clamp(min=1e-6)  # a pixel without chroma has no hue: the last step multiplies by chroma
    # The hue in sixths of the circle from red. It depends on the largest channel, the first one in a tie.
    red_max = (red == value).float()
    green_max = (green == value).float().mul_(1 - red_max)
    blue_max = 1 - red_max - green_max
    hue = red_max * (green - blue) + green_max * (blue - red) + blue_max * (red - green)
    hue.mul_(scale).add_(green_max, alpha=2).add_(blue_max, alpha=4).add_(6 * _per_image(turns, planes)[:, 0])
    result = torch.empty_like(planes)
    for channel, offset in enumerate((5, 3, 1)):
        sixths = (hue + offset).remainder_(6)
        fraction = torch.minimum(sixths, 4 - sixths).clamp_(0, 1)
        torch.sub(value, fraction.mul_(chroma), out=result[:, channel])
    return _clip(result.mul_(BYTE_SCALE) if is_uint8 else result, is_uint8)


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
    """Send one value per image to the device: (N, 1, 1, 1)."""
    return upload(values, planes.device)[:, None, None, None]

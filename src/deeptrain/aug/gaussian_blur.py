"""Gaussian blur: smooths every image with its own width."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from deeptrain.aug.pixel_rows import pad, to_dtype
from deeptrain.aug.sampling import checked_range, uniform
from deeptrain.runtime.upload import upload
from deeptrain.schema import PositiveFloat, UnitFloat, validate_call

SIGMA = [0.1, 2.0]  # pixels, as in SimCLR


class Blur:
    """Smooth every image with a Gaussian kernel; σ is uniform in `sigma`, in pixels (Chen et al., 2020).

    The kernel's side is the odd number closest to `kernel` times the image's shorter side, and at least 3. The weights
    sum to 1. The border is padded by reflection. Raises ValueError if the kernel outgrows the image.
    """

    @validate_call
    def __init__(
        self, input_shape: tuple[int, int, int], *, sigma: list[PositiveFloat] = SIGMA, kernel: UnitFloat = 0.1
    ):
        shorter = min(input_shape[1:])
        self.sigma = checked_range("sigma", sigma)
        self.radius = max(1, round((kernel * shorter - 1) / 2))
        if self.radius >= shorter:
            raise ValueError(f"kernel={kernel}: {2 * self.radius + 1} pixels are too many for a side of {shorter}")

    def __call__(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return new images of the same dtype (uint8 rounded), and the same targets."""
        sigma = uniform(rng, self.sigma, len(images))
        weights = np.exp(-0.5 * (np.arange(self.radius + 1) / sigma[:, None]) ** 2)
        weights /= (
            2 * weights.sum(1, keepdims=True) - weights[:, :1]
        )  # the centre occurs once, every other weight twice
        # R + 1 times (N, 1, 1), from the centre on
        taps = upload(weights, images.device)[:, :, None, None].unbind(1)
        count, channels, height, width = images.shape
        padded = pad(images, self.radius, "reflect").float()
        smoothed = _convolve(padded.view(count, padded.shape[1], -1), taps, 1, 1)
        smoothed = _convolve(smoothed, taps, 2, channels)
        smoothed = smoothed if images.is_floating_point() else smoothed.round_()
        return to_dtype(smoothed, images.dtype).view(count, height, width, channels).permute(0, 3, 1, 2), targets

    def describe(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> list[str]:
        return [f"blur {sigma:.1f}" for sigma in uniform(rng, self.sigma, len(images))]


def _convolve(values: Tensor, taps: Sequence[Tensor], dimension: int, step: int) -> Tensor:
    """Convolve values (N, rows, columns) with a symmetric kernel along a dimension; `step` is its dilation."""
    radius = len(taps) - 1
    length = values.shape[dimension] - 2 * radius * step

    def shifted(distance: int) -> Tensor:
        return values.narrow(dimension, (radius + distance) * step, length)

    total = shifted(0) * taps[0]
    for distance, tap in enumerate(taps[1:], 1):
        total += (shifted(-distance) + shifted(distance)) * tap
    return total

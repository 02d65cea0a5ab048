"""Blur: every image is smoothed by a Gaussian of its own width."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from deeptrain.aug.pixel_rows import pad, to_dtype
from deeptrain.aug.sampling import checked_range, to_device, uniform
from deeptrain.schema import PositiveFloat, UnitFloat, validate_call

SIGMA = [0.1, 2.0]  # pixels, as in SimCLR


class Blur:
    """Smooth every image with a Gaussian kernel whose σ is drawn evenly from `sigma`, in pixels (Chen et al., 2020).

    The kernel's side is the odd number next to `kernel` times the image's shorter side, at least 3, as in the paper;
    weights sum to 1 and the image is continued by its reflection. Raises ValueError if the kernel outgrows the image.
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
        """Return new images of the dtype that came, bytes rounded, and the targets as they are."""
        sigma = uniform(rng, self.sigma, len(images))
        weights = np.exp(-0.5 * (np.arange(self.radius + 1) / sigma[:, None]) ** 2)
        weights /= 2 * weights.sum(1, keepdims=True) - weights[:, :1]  # the centre counts once, the others twice
        taps = to_device(weights, images.device)[:, :, None, None].unbind(
            1
        )  # R + 1 times (N, 1, 1), from the centre on
        count, channels, height, width = images.shape
        padded = pad(images, self.radius, "reflect").float()
        smooth = _weighted(padded.view(count, padded.shape[1], -1), taps, 1, 1)
        smooth = _weighted(smooth, taps, 2, channels)
        smooth = smooth if images.is_floating_point() else smooth.round_()
        return to_dtype(smooth, images.dtype).view(count, height, width, channels).permute(0, 3, 1, 2), targets

    def describe(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> list[str]:
        return [f"blur {sigma:.1f}" for sigma in uniform(rng, self.sigma, len(images))]


def _weighted(values: Tensor, taps: Sequence[Tensor], dimension: int, step: int) -> Tensor:
    """Sum values (N, rows, columns), moved along a dimension by multiples of step, with weights falling both ways."""
    radius = len(taps) - 1
    length = values.shape[dimension] - 2 * radius * step

    def moved(distance: int) -> Tensor:
        return values.narrow(dimension, (radius + distance) * step, length)

    total = moved(0) * taps[0]
    for distance, tap in enumerate(taps[1:], 1):
        total += (moved(-distance) + moved(distance)) * tap
    return total

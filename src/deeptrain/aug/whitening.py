"""Whitening: the values of an image are made uncorrelated and of variance 1, as they vary over the training images."""

from typing import Literal

import torch
from torch import Tensor

from deeptrain.aug.pixel_rows import pixel_rows

FIT_IMAGES = 10_000  # images that it is computed from
MAX_INPUT_VALUES = 4096  # values an image: the matrix has as many rows and columns
MAX_UNCACHED_VALUES = 1024  # up to here it is computed in about a second
Kind = Literal["pca", "zca"]


class Whitening:
    """Flatten, subtract the mean image, multiply by a matrix: (N, C, H, W) to the same shape, channels_last.

    `pca` gives the coordinates along the principal components, the strongest first, each divided by its standard
    deviation; `zca` turns them back, which changes an image least (Bell & Sejnowski, 1997). Values are counted in the
    order of lines, (H, W, C).
    """

    def __init__(self, weight: Tensor, bias: Tensor):
        self.weight, self.bias = weight, bias  # (D, D) and (D,), float32

    @classmethod
    def fit(cls, images: Tensor, kind: Kind, eps: float) -> "Whitening":
        """Compute it from normalised images (N, C, H, W) on the host.

        `eps` is added to the variance of each component, so that those which hardly vary are not blown up.
        """
        rows = pixel_rows(images.contiguous(memory_format=torch.channels_last)).flatten(1)
        mean = rows.mean(0, dtype=torch.float64)
        size = rows.shape[1]
        covariance = torch.zeros(size, size, dtype=torch.float64)
        for piece in rows.split(1024):
            centred = piece.double() - mean
            covariance.addmm_(centred.T, centred)
        variances, components = torch.linalg.eigh(covariance / len(rows))
        variances, components = variances.flip(0).clamp(min=0), components.flip(1)
        weight = components / (variances + eps).sqrt()
        weight = weight @ components.T if kind == "zca" else weight
        return cls(weight.float(), -(mean @ weight).float())

    def state_dict(self) -> dict[str, Tensor]:
        """Return what makes the same whitening again, on the host."""
        return {"weight": self.weight.cpu(), "bias": self.bias.cpu()}

    def __call__(self, images: Tensor) -> Tensor:
        """Whiten normalised channels_last images, in full float32 whatever the network computes in."""
        if self.weight.device != images.device:
            self.weight, self.bias = self.weight.to(images.device), self.bias.to(images.device)
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")  # what hardly varies is a small difference of large values
        with torch.autocast(images.device.type, enabled=False):
            white = torch.addmm(self.bias, pixel_rows(images).flatten(1), self.weight)
        torch.set_float32_matmul_precision(precision)
        count, channels, height, width = images.shape
        return white.view(count, height, width, channels).permute(0, 3, 1, 2)

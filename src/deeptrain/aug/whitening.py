"""Whitening: makes the values of images uncorrelated and of variance 1 over the training images."""

from typing import Literal

import torch
from torch import Tensor

from deeptrain.aug.pixel_rows import pixel_rows

FIT_IMAGES = 10_000  # training images that the matrix is computed from
MAX_INPUT_VALUES = 4096  # values per image (C·H·W): the matrix has the same number of rows and columns
MAX_UNCACHED_VALUES = 1024  # values per image: up to here the matrix takes about a second, and is not cached
Kind = Literal["pca", "zca"]


class Whitening:
    """Flatten, subtract the mean image, multiply by a matrix: (N, C, H, W) to the same shape, channels_last.

    `pca` returns the coordinates along the principal components, the strongest first. Each is divided by its standard
    deviation. `zca` rotates them back, which changes an image least (Bell & Sejnowski, 1997). Values are in the order
    of pixel_rows, (H, W, C).
    """

    def __init__(self, weight: Tensor, bias: Tensor):
        self.weight, self.bias = weight, bias  # (D, D) and (D,), float32

    @classmethod
    def fit(cls, images: Tensor, kind: Kind, eps: float) -> "Whitening":
        """Compute the matrix from normalised images (N, C, H, W) on the host.

        `eps` is added to the variance of each component: it limits the gain of the weak ones.
        """
        rows = pixel_rows(images.contiguous(memory_format=torch.channels_last)).flatten(1)
        mean = rows.mean(0, dtype=torch.float64)
        size = rows.shape[1]
        covariance = torch.zeros(size, size, dtype=torch.float64)
        for chunk in rows.split(1024):
            deviations = chunk.double() - mean
            covariance.addmm_(deviations.T, deviations)
        variances, components = torch.linalg.eigh(covariance / len(rows))
        variances, components = variances.flip(0).clamp(min=0), components.flip(1)
        weight = components / (variances + eps).sqrt()
        weight = weight @ components.T if kind == "zca" else weight
        return cls(weight.float(), -(mean @ weight).float())

    def state_dict(self) -> dict[str, Tensor]:
        """Return the constructor's two tensors, on the host."""
        return {"weight": self.weight.cpu(), "bias": self.bias.cpu()}

    def __call__(self, images: Tensor) -> Tensor:
        """Whiten normalised channels_last images, always in full float32."""
        if self.weight.device != images.device:
            self.weight, self.bias = self.weight.to(images.device), self.bias.to(images.device)
        precision = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")  # a weak component is a small difference of large values
        with torch.autocast(images.device.type, enabled=False):
            white = torch.addmm(self.bias, pixel_rows(images).flatten(1), self.weight)
        torch.set_float32_matmul_precision(precision)
        count, channels, height, width = images.shape
        return white.view(count, height, width, channels).permute(0, 3, 1, 2)

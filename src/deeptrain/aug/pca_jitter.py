"""PCA jitter: shifts the colour of every image along the principal components of the training colours."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from deeptrain.aug.pixel_rows import pixel_rows
from deeptrain.runtime.upload import upload
from deeptrain.schema import NonNegativeFloat, validate_call


class PCAJitter:
    """Add Σ α_k σ_k p_k to all pixels of an image; each has its own α_k ~ N(0, strength²) (Krizhevsky et al., 2012).

    p_k are the principal components of the training pixels, σ_k² the variances along them. The paper writes the
    eigenvalue σ_k²; its authors' code has σ_k. Only σ_k gives a colour in the unit of the pixels.
    """

    @validate_call
    def __init__(self, covariance: Sequence[Sequence[float]], *, strength: NonNegativeFloat = 0.1):
        variances, components = np.linalg.eigh(np.asarray(covariance, np.float64))
        components *= np.where(components.sum(0) < 0, -1, 1)  # else the sign would depend on the library
        self.strength = strength
        self.colours = np.sqrt(np.maximum(variances, 0))[:, None] * components.T  # (C, C), a row is σ_k p_k

    def __call__(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return new images of the same dtype, clamped to 0..255, and the same targets."""
        images = images.contiguous(memory_format=torch.channels_last)
        shifts = rng.normal(0, self.strength, (len(images), len(self.colours))) @ self.colours  # (N, C)
        if not images.is_floating_point():
            shifts = shifts.round().clip(-255, 255).astype(np.int16)  # whole levels: half the bytes of float32
        shift = upload(shifts, images.device).repeat(1, images.shape[3])[:, None]  # (N, 1, W·C)
        result = (pixel_rows(images) + shift).clamp_(0, 255).to(images.dtype)
        count, channels, height, width = images.shape
        return result.view(count, height, width, channels).permute(0, 3, 1, 2), targets

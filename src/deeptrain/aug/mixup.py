"""Mixup: blends every image with another one, and their targets too."""

import numpy as np
import torch
from torch import Tensor

from deeptrain.runtime.upload import upload
from deeptrain.schema import PositiveFloat, validate_call

# An image's partner is its neighbour in the batch; the order is random already. Pairs of own and partner slices.
NEIGHBOURS = ((slice(1, None), slice(None, -1)), (slice(0, 1), slice(-1, None)))


class Mixup:
    """x = λ x_i + (1 - λ) x_j and the same for the targets, λ ~ Beta(alpha, alpha) (Zhang et al., 2018).

    A small alpha keeps most λ near 0 or 1. The authors' code has one λ per batch; per_image=True samples one per
    image. In a batch of one the image is its own partner.
    """

    mixes = True

    @validate_call
    def __init__(self, num_classes: int, *, alpha: PositiveFloat = 0.2, per_image: bool = False):
        self.num_classes, self.alpha, self.per_image = num_classes, alpha, per_image

    def __call__(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return new float32 images and probabilities (N, K)."""
        lambdas = rng.beta(self.alpha, self.alpha, size=len(images) if self.per_image else None)
        weights = upload(1 - lambdas, images.device) if isinstance(lambdas, np.ndarray) else 1 - lambdas
        images = images.to(torch.float32, memory_format=torch.channels_last)
        mixed = torch.empty_like(images)
        for own, partner in NEIGHBOURS:
            share = weights[own, None, None, None] if isinstance(weights, Tensor) else weights
            torch.lerp(images[own], images[partner], share, out=mixed[own])
        return mixed, mix_targets(targets, weights, self.num_classes)


def mix_targets(targets: Tensor, weights: Tensor | float, num_classes: int) -> Tensor:
    """Mix each target with its partner's: probabilities (N, K).

    targets: class ids (N,) or probabilities (N, K). weights: the partners', (N,) or one for all.
    """
    if targets.ndim == 1:
        zeros = torch.zeros(len(targets), num_classes, device=targets.device)
        targets = zeros.scatter_(1, targets[:, None], 1.0)
    share = weights[:, None] if isinstance(weights, Tensor) else weights
    return torch.lerp(targets, targets.roll(1, dims=0), share)

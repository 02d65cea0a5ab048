"""Mixup: every image is blended with another, and its target with the other's."""

import numpy as np
import torch
from torch import Tensor

from deeptrain.aug.lines import lines
from deeptrain.schema import Positive, checked

# Every image's partner is its neighbour in the batch, whose order is random already: own slice, partner's slice.
NEIGHBOURS = ((slice(1, None), slice(None, -1)), (slice(0, 1), slice(-1, None)))


class Mixup:
    """x = λ x_i + (1 - λ) x_j and the same for the targets, λ ~ Beta(alpha, alpha) (Zhang et al., 2018).

    A small alpha keeps most λ near 0 or 1. One λ a batch as in the authors' code, or one an image. In a batch of one
    the image is its own partner.
    """

    mixes = True

    @checked
    def __init__(self, num_classes: int, *, alpha: Positive = 0.2, per_image: bool = False):
        self.num_classes, self.alpha, self.per_image = num_classes, alpha, per_image

    def __call__(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return new float32 images and probabilities (N, K)."""
        own = rng.beta(self.alpha, self.alpha, size=len(images) if self.per_image else 1)
        partner = np.broadcast_to(1 - own, len(images)).astype(np.float32)
        weights = torch.from_numpy(partner).to(images.device, non_blocking=True)
        images = images.to(torch.float32, memory_format=torch.channels_last)
        mixed = torch.empty_like(images)
        blend(lines(images), weights[:, None, None], out=lines(mixed))
        return mixed, mix_targets(targets, weights, self.num_classes)


def blend(own: Tensor, weights: Tensor, out: Tensor) -> None:
    """Write every row of own moved towards its partner's by weights: 0 leaves it, 1 gives the partner."""
    for here, there in NEIGHBOURS:
        torch.lerp(own[here], own[there], weights[here], out=out[here])


def mix_targets(targets: Tensor, weights: Tensor, num_classes: int) -> Tensor:
    """Return probabilities (N, K) in which the partner has its weight (N,); targets are ids or probabilities."""
    if targets.ndim == 1:
        targets = targets[:, None] == torch.arange(num_classes, device=targets.device)
    soft = targets.to(torch.float32)
    mixed = torch.empty_like(soft)
    blend(soft, weights[:, None], out=mixed)
    return mixed

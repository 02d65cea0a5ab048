"""Mixup or CutMix: applies one of the two to each batch, at random."""

import numpy as np
from torch import Tensor

from deeptrain.aug.cutmix import CutMix
from deeptrain.aug.mixup import Mixup
from deeptrain.schema import PositiveFloat, UnitFloat, validate_call


class MixupOrCutMix:
    """Apply CutMix to a batch with probability `cutmix`, else Mixup.

    With `probability` (a setting of every augmentation) below 1, the other batches are not changed.
    """

    mixes = True

    @validate_call
    def __init__(
        self,
        num_classes: int,
        *,
        cutmix: UnitFloat = 0.5,
        mixup_alpha: PositiveFloat = 0.2,
        cutmix_alpha: PositiveFloat = 1.0,
        per_image: bool = False,
    ):
        self.share = cutmix
        self.mixup = Mixup(num_classes, alpha=mixup_alpha, per_image=per_image)
        self.cutmix = CutMix(num_classes, alpha=cutmix_alpha, per_image=per_image)

    def __call__(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return new images and probabilities (N, K). Mixup makes float32; CutMix keeps the dtype."""
        mix = self.cutmix if rng.random() < self.share else self.mixup
        return mix(images, targets, rng)

    def describe(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> list[str]:
        return ["CutMix" if rng.random() < self.share else "Mixup"] * len(images)

"""What every batch runs through on the device: the augmentations in written order, then one normalisation."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from deeptrain.aug.lines import lines, repeated

Augmentation = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]

FLAT = 1e-3  # a channel that varies less than this, of 255, is constant: it is centred, not blown up


class Pipeline:
    """Augment and normalise batches of images (N, C, H, W) with pixels from 0 to 255, uint8 or float32.

    `mean` and `std` are per channel on that scale. With `subtract_image_mean`, the mean over all pixels and channels of
    each normalised image is subtracted from it: overall brightness goes, colour cast and contrast stay.
    """

    def __init__(
        self,
        augmentations: Sequence[Augmentation],
        mean: Sequence[float],
        std: Sequence[float],
        subtract_image_mean: bool = False,
    ):
        self.augmentations = list(augmentations)
        self.scale = tuple(1 / float(deviation) if deviation > FLAT else 1.0 for deviation in std)
        self.shift = tuple(-float(average) * scale for average, scale in zip(mean, self.scale, strict=True))
        self.subtract_image_mean = subtract_image_mean

    def train(self, images: Tensor, targets: Tensor, rng: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        """Return augmented images as a network takes them, float32 channels_last, and their targets.

        Without augmentations nothing is drawn, and rng may be None.
        """
        if self.augmentations:
            assert rng is not None
            images, targets = self.augment(images, targets, rng)
        return self.evaluate(images), targets

    def augment(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return augmented images still on the scale of 0 to 255, to be looked at, and their targets."""
        for augmentation in self.augmentations:
            images, targets = augmentation(images, targets, rng)
        return images, targets

    def evaluate(self, images: Tensor) -> Tensor:
        """Return (images - mean) / std per channel: float32 channels_last, apart from what came in."""
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        width, device = images.shape[3], images.device
        shift, scale = (repeated(values, width, torch.float32, device) for values in (self.shift, self.scale))
        normalised = torch.empty_like(pixels) if pixels is images else pixels
        torch.addcmul(shift, lines(pixels), scale, out=lines(normalised))
        if self.subtract_image_mean:
            normalised -= normalised.mean(dim=(1, 2, 3), keepdim=True)
        return normalised

"""What every batch runs through on the device: the augmentations in written order, then one normalisation."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from deeptrain.aug.pixel_rows import pixel_rows, scatter, select, tile_channels
from deeptrain.aug.whitening import Whitening
from deeptrain.schema import UnitFloat, validate_call

Augmentation = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]

MIN_STD = 1e-3  # a channel that varies less than this, of 255, is constant: it is centred, not blown up


class RandomApply:
    """An augmentation, how often it is applied and until when: two settings that all of them have.

    `probability` is an image's own; an augmentation that mixes images (`mixes = True`) gets one coin for the batch.
    `until` is the part of training after which it stops; at 1 it never does.
    """

    @validate_call
    def __init__(self, augmentation: Augmentation, *, probability: UnitFloat = 1.0, until: UnitFloat = 1.0):
        self.augmentation, self.probability, self.until = augmentation, probability, until
        self.mixes: bool = getattr(augmentation, "mixes", False)
        self.name: str = getattr(augmentation, "__name__", type(augmentation).__name__)

    def __call__(
        self, images: Tensor, targets: Tensor, rng: np.random.Generator, progress: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Apply it to the images that are drawn; the others, and the batch that came in, stay as they are."""
        chosen = self.chosen(len(images), rng, progress)
        if len(chosen) == len(images):
            return self.augmentation(images, targets, rng)
        return self._to_some(images, targets, chosen, rng) if len(chosen) else (images, targets)

    def chosen(self, count: int, rng: np.random.Generator, progress: float = 0.0) -> np.ndarray:
        """Draw which of count images it is applied to, as indices; nothing is drawn where that is certain."""
        if self.until < 1 and progress >= self.until:
            return np.arange(0)
        if self.probability == 1:
            return np.arange(count)
        coins = rng.random(1 if self.mixes else count) < self.probability
        return np.flatnonzero(np.broadcast_to(coins, count))

    def describe(self, images: Tensor, targets: Tensor, rng: np.random.Generator, progress: float = 0.0) -> list[str]:
        """Say of each image what the same generator would draw; nothing where it is left alone.

        Of an augmentation that describes nothing its name is said where some images are left alone.
        """
        words = [""] * len(images)
        chosen = self.chosen(len(images), rng, progress)
        if len(chosen) and (describe := getattr(self.augmentation, "describe", None)):
            some = targets[torch.from_numpy(chosen).to(targets.device)]
            drawn = describe(select(images, chosen), some, rng)
        else:
            drawn = [self.name if self.probability < 1 else ""] * len(chosen)
        for position, said in zip(chosen, drawn, strict=True):
            words[position] = said
        return words

    def _to_some(
        self, images: Tensor, targets: Tensor, chosen: np.ndarray, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        index = torch.from_numpy(chosen).to(targets.device, non_blocking=True)
        some = targets.index_select(0, index)
        changed, wanted = self.augmentation(select(images, chosen), some, rng)
        if wanted is not some:
            if wanted.dtype != targets.dtype or wanted.shape[1:] != targets.shape[1:]:
                wrong = f"probability={self.probability}: {self.name} mixes targets"
                raise ValueError(f"{wrong}, so it must have mixes = True")
            targets = targets.index_copy(0, index, wanted)
        return scatter(images, chosen, changed), targets


class Pipeline:
    """Augment and normalise batches of images (N, C, H, W) with pixels from 0 to 255, uint8 or float32.

    `mean` and `std` are per channel on that scale. With `subtract_image_mean`, the mean over all pixels and channels of
    each normalised image is subtracted from it: overall brightness goes, colour cast and contrast stay. `whitening`
    comes last.
    """

    def __init__(
        self,
        augmentations: Sequence[Augmentation],
        mean: Sequence[float],
        std: Sequence[float],
        subtract_image_mean: bool = False,
        whitening: Whitening | None = None,
    ):
        self.augmentations = [each if isinstance(each, RandomApply) else RandomApply(each) for each in augmentations]
        self.scale = tuple(1 / float(deviation) if deviation > MIN_STD else 1.0 for deviation in std)
        self.shift = tuple(-float(average) * scale for average, scale in zip(mean, self.scale, strict=True))
        self.subtract_image_mean, self.whitening = subtract_image_mean, whitening

    def train(
        self, images: Tensor, targets: Tensor, rng: np.random.Generator | None, progress: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Return augmented images as a network takes them, float32 channels_last, and their targets.

        Without augmentations nothing is drawn, and rng may be None. `progress` is the part of training that is done.
        """
        if self.augmentations:
            assert rng is not None
            images, targets = self.augment(images, targets, rng, progress)
        return self.evaluate(images), targets

    def augment(
        self, images: Tensor, targets: Tensor, rng: np.random.Generator, progress: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Return augmented images still on the scale of 0 to 255, to be looked at, and their targets."""
        for augmentation in self.augmentations:
            images, targets = augmentation(images, targets, rng, progress)
        return images, targets

    def evaluate(self, images: Tensor) -> Tensor:
        """Return (images - mean) / std per channel, perhaps whitened: float32 channels_last, a new tensor."""
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        width, device = images.shape[3], images.device
        shift, scale = (tile_channels(values, width, torch.float32, device) for values in (self.shift, self.scale))
        normalised = torch.empty_like(pixels) if pixels is images else pixels
        torch.addcmul(shift, pixel_rows(pixels), scale, out=pixel_rows(normalised))
        if self.subtract_image_mean:
            normalised -= normalised.mean(dim=(1, 2, 3), keepdim=True)
        return self.whitening(normalised) if self.whitening else normalised

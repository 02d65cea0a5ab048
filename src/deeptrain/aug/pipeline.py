"""The pipeline of every batch, on the device: the augmentations in the given order, then one normalisation."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from deeptrain.aug.pixel_rows import pixel_rows, scatter, select, tile_channels
from deeptrain.aug.whitening import Whitening
from deeptrain.runtime.upload import upload
from deeptrain.schema import UnitFloat, validate_call

Augmentation = Callable[[Tensor, Tensor, np.random.Generator], tuple[Tensor, Tensor]]

MIN_STD = 1e-3  # of 255: a channel below this is constant, and is centred but not scaled


class RandomApply:
    """Apply an augmentation with a probability, and until a point of training. All augmentations have both settings.

    probability: one coin per image, or one per batch if the augmentation mixes images (`mixes = True`).
    until: the fraction of training after which the augmentation stops; at 1 it never stops.
    """

    @validate_call
    def __init__(self, augmentation: Augmentation, *, probability: UnitFloat = 1.0, until: UnitFloat = 1.0):
        self.augmentation, self.probability, self.until = augmentation, probability, until
        self.mixes: bool = getattr(augmentation, "mixes", False)
        self.name: str = getattr(augmentation, "__name__", type(augmentation).__name__)

    def __call__(
        self, images: Tensor, targets: Tensor, rng: np.random.Generator, progress: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Apply the augmentation to the sampled images. The other images and the input batch are not changed."""
        indices = self.sample_indices(len(images), rng, progress)
        if len(indices) == len(images):
            return self.augmentation(images, targets, rng)
        return self._apply_at(images, targets, indices, rng) if len(indices) else (images, targets)

    def sample_indices(self, count: int, rng: np.random.Generator, progress: float = 0.0) -> np.ndarray:
        """Sample the indices of the images to change, of `count`. rng is not used where the answer is certain."""
        if self.until < 1 and progress >= self.until:
            return np.arange(0)
        if self.probability == 1:
            return np.arange(count)
        coins = rng.random(1 if self.mixes else count) < self.probability
        return np.flatnonzero(np.broadcast_to(coins, count))

    def describe(self, images: Tensor, targets: Tensor, rng: np.random.Generator, progress: float = 0.0) -> list[str]:
        """Return one caption per image: what the same generator would sample. It is empty for an unchanged image.

        An augmentation without describe() shows its name if probability < 1.
        """
        captions = [""] * len(images)
        indices = self.sample_indices(len(images), rng, progress)
        if len(indices) and (describe := getattr(self.augmentation, "describe", None)):
            own_targets = targets[torch.from_numpy(indices).to(targets.device)]
            descriptions = describe(select(images, indices), own_targets, rng)
        else:
            descriptions = [self.name if self.probability < 1 else ""] * len(indices)
        for index, description in zip(indices, descriptions, strict=True):
            captions[index] = description
        return captions

    def _apply_at(
        self, images: Tensor, targets: Tensor, indices: np.ndarray, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        index = upload(indices, targets.device)
        own_targets = targets.index_select(0, index)
        new_images, new_targets = self.augmentation(select(images, indices), own_targets, rng)
        if new_targets is not own_targets:
            if new_targets.dtype != targets.dtype or new_targets.shape[1:] != targets.shape[1:]:
                message = f"probability={self.probability}: {self.name} mixes targets"
                raise ValueError(f"{message}, so it must have mixes = True")
            targets = targets.index_copy(0, index, new_targets)
        return scatter(images, indices, new_images), targets


class Pipeline:
    """Augment and normalise batches of images (N, C, H, W) with pixels from 0 to 255, uint8 or float32.

    mean, std: per channel, on that scale. subtract_image_mean: subtract from each normalised image its mean over all
    pixels and channels. Overall brightness goes; colour cast and contrast stay. whitening: the last step.
    """

    def __init__(
        self,
        augmentations: Sequence[Augmentation],
        mean: Sequence[float] | np.ndarray,
        std: Sequence[float] | np.ndarray,
        subtract_image_mean: bool = False,
        whitening: Whitening | None = None,
    ):
        if len(mean) != len(std):
            raise ValueError(f"mean={mean}, std={std}: must have a number each for every channel")
        self.augmentations = [item if isinstance(item, RandomApply) else RandomApply(item) for item in augmentations]
        self.scale = tuple(1 / float(deviation) if deviation > MIN_STD else 1.0 for deviation in std)
        self.shift = tuple(-float(average) * scale for average, scale in zip(mean, self.scale, strict=True))
        self.subtract_image_mean, self.whitening = subtract_image_mean, whitening

    def train(
        self, images: Tensor, targets: Tensor, rng: np.random.Generator | None, progress: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Return augmented and normalised images, float32 channels_last, and their targets.

        rng may be None without augmentations. progress: the fraction of training that is done.
        """
        if self.augmentations:
            assert rng is not None
            images, targets = self.augment(images, targets, rng, progress)
        return self.evaluate(images), targets

    def augment(
        self, images: Tensor, targets: Tensor, rng: np.random.Generator, progress: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Return augmented images on the scale of 0 to 255, for a preview, and their targets."""
        for augmentation in self.augmentations:
            images, targets = augmentation(images, targets, rng, progress)
        return images, targets

    def evaluate(self, images: Tensor) -> Tensor:
        """Return (images - mean) / std per channel, whitened if set: float32 channels_last, a new tensor."""
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        width, device = images.shape[3], images.device
        shift, scale = (tile_channels(values, width, torch.float32, device) for values in (self.shift, self.scale))
        normalised = torch.empty_like(pixels) if pixels is images else pixels
        torch.addcmul(shift, pixel_rows(pixels), scale, out=pixel_rows(normalised))
        if self.subtract_image_mean:
            normalised -= normalised.mean(dim=(1, 2, 3), keepdim=True)
        return self.whitening(normalised) if self.whitening else normalised

"""CutMix: each image gets a box of another image, and the target follows the areas."""

import numpy as np
import torch
from torch import Tensor

from deeptrain.aug.mixup import NEIGHBOURS, mix_targets
from deeptrain.aug.pixel_rows import box_masks, paste, pixel_rows, sample_boxes
from deeptrain.runtime.upload import upload
from deeptrain.schema import PositiveFloat, validate_call


class CutMix:
    """Paste a box of the partner image at the same position; the target weighs both by area (Yun et al., 2019).

    λ ~ Beta(alpha, alpha). The box has √(1 - λ) of the image's sides and its centre on any pixel. It is clipped at
    the border, and the weights are the areas after clipping. The paper has one box per batch; per_image=True samples
    one per image. In a batch of one the image is its own partner.
    """

    mixes = True

    @validate_call
    def __init__(self, num_classes: int, *, alpha: PositiveFloat = 1.0, per_image: bool = False):
        self.num_classes, self.alpha, self.per_image = num_classes, alpha, per_image

    def __call__(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return new images of the same dtype, and probabilities (N, K)."""
        boxes = self._boxes(images, rng)
        mixed = _paste_per_image(images, boxes) if self.per_image else _paste_all(images, boxes[0])
        top, bottom, left, right = boxes.T
        share = (bottom - top) * (right - left) / (images.shape[2] * images.shape[3])  # the partner's
        weights = upload(share, images.device) if self.per_image else float(share[0])
        return mixed, mix_targets(targets, weights, self.num_classes)

    def _boxes(self, images: Tensor, rng: np.random.Generator) -> np.ndarray:
        count = len(images) if self.per_image else 1
        scale = np.sqrt(1 - rng.beta(self.alpha, self.alpha, size=count))
        size = images.shape[2:]
        return sample_boxes(rng, count, size, [(extent * scale).astype(np.int64) for extent in size])


def _paste_all(images: Tensor, box: np.ndarray) -> Tensor:
    top, bottom, left, right = box.tolist()
    mixed = images.clone()
    for own, partner in NEIGHBOURS:
        mixed[own, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    return mixed


def _paste_per_image(images: Tensor, boxes: np.ndarray) -> Tensor:
    images = images.contiguous(memory_format=torch.channels_last)
    mixed = torch.empty_like(images)
    rows, columns = box_masks(boxes, images)
    image_rows, mixed_rows = pixel_rows(images), pixel_rows(mixed)
    for own, partner in NEIGHBOURS:
        paste(image_rows[own], image_rows[partner], rows[own], columns[own], mixed_rows[own])
    return mixed

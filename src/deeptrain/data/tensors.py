"""From Python: a loader for images and labels that are tensors already."""

import torch

from deeptrain.data.dataset import Samples
from deeptrain.data.loader import ResidentLoader


def tensor_loader(
    images: torch.Tensor,
    labels: torch.Tensor,
    batch_size: int = 128,
    *,
    seed: int = 0,
    train: bool = True,
    crop_padding: int = 0,
    flip: bool = False,
    device: torch.device | str | None = None,
) -> ResidentLoader:
    """Make a Trainer's loader of images uint8 (N, C, H, W) and labels (N,), by default on the images' device.

    train=True shuffles anew in every epoch, by the seed, and applies crop and flip. train=False keeps the order. Raises
    ValueError if the tensors do not fit together.
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(f"images={images.dtype} {tuple(images.shape)}: must be uint8 (N, C, H, W), from 0 to 255")
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        raise ValueError(f"labels={labels.dtype} {tuple(labels.shape)}: must be integers ({len(images)},)")
    if not 1 <= batch_size <= max(1, len(images)):
        raise ValueError(f"batch_size={batch_size}: must be from 1 to {len(images)}, the number of images")
    pixels = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    samples = Samples(pixels, None, labels.to("cpu", torch.int64).numpy())
    return ResidentLoader(samples, batch_size, torch.device(device or images.device), seed, train, crop_padding, flip)

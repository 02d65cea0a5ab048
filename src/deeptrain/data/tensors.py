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

    train=True shuffles anew in every epoch, by the seed, and applies crop and flip. train=False keeps the order, and a
    batch may be larger than the set. Raises ValueError if the tensors do not fit together.
    """
    for name, value in (("images", images), ("labels", labels)):
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"{name}: must be a tensor, is {type(value).__name__}; write torch.as_tensor({name})")
    if images.dtype != torch.uint8 or images.ndim != 4:
        kind = f"images={images.dtype} {tuple(images.shape)}"
        raise ValueError(f"{kind}: must be uint8 (N, C, H, W), from 0 to 255{_how_to_convert(images)}")
    if images.shape[1] > 4 and images.shape[3] in (1, 3, 4):
        raise ValueError(f"images={tuple(images.shape)}: must be (N, C, H, W); write images.permute(0, 3, 1, 2)")
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        hint = "; write labels.flatten()" if labels.numel() == len(images) != len(labels.shape) > 1 else ""
        raise ValueError(f"labels={labels.dtype} {tuple(labels.shape)}: must be integers ({len(images)},){hint}")
    if len(labels) and int(labels.min()) < 0:
        raise ValueError(f"labels: must be class ids from 0 on, the smallest is {int(labels.min())}")
    if not train:
        batch_size = min(batch_size, max(1, len(images)))
    if not 1 <= batch_size <= max(1, len(images)):
        raise ValueError(f"batch_size={batch_size}: must be from 1 to {len(images)}, the number of images")
    pixels = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    samples = Samples(pixels, None, labels.to("cpu", torch.int64).numpy())
    return ResidentLoader(samples, batch_size, torch.device(device or images.device), seed, train, crop_padding, flip)


def _how_to_convert(images: torch.Tensor) -> str:
    """Return what to type so that images become uint8 (N, C, H, W), where it is plain."""
    if images.ndim == 3:
        return "; write images.unsqueeze(1)"
    if images.ndim != 4 or not len(images):
        return ""
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 255:
        return f"; these go from {low:g} to {high:g}"
    if not images.is_floating_point():
        return "; write images.byte()"
    return "; write (images * 255).round().byte()" if high <= 1 else "; write images.round().byte()"

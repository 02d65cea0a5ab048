"""A batch as lines of pixels, (N, H, W·C): long contiguous rows, several times faster than broadcasting over C = 3.

Every operation here works on such lines, uint8 or float32, on any device.
"""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

BITS = {torch.uint8: torch.uint8, torch.float32: torch.int32}  # the integers of the same width


def lines(images: Tensor) -> Tensor:
    """View channels_last images (N, C, H, W) as (N, H, W·C); the memory is shared."""
    count, channels, height, width = images.shape
    return images.permute(0, 2, 3, 1).view(count, height, width * channels)


@functools.lru_cache(maxsize=64)
def repeated(values: tuple[float, ...], width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Lay one value a channel along a line of `width` pixels: (W·C,); rounded where dtype holds integers."""
    line = torch.tensor(values, dtype=torch.float32).repeat(width)
    line = line if dtype.is_floating_point else line.round()
    return line.to(dtype).to(device, non_blocking=True)


def draw_boxes(
    rng: np.random.Generator, count: int, size: Sequence[int], sides: Sequence[int | np.ndarray]
) -> np.ndarray:
    """Draw boxes whose centre falls on any pixel, clipped at the border: (count, 4) top, bottom, left, right.

    `size` is (H, W) of the images; `sides` the boxes' height and width before clipping, one for all or (count,).
    """
    edges = []
    for extent, side in zip(size, sides, strict=True):
        start = rng.integers(extent, size=count) - side // 2
        edges += [np.clip(start, 0, extent), np.clip(start + side, 0, extent)]
    return np.stack(edges, axis=1).astype(np.int32)


def box_bits(boxes: np.ndarray, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows (N, H, 1) and columns (N, 1, W·C) whose bits are all ones inside each image's box, else all zeros."""
    _, channels, height, width = images.shape
    top, bottom, left, right = torch.from_numpy(boxes).to(images.device, non_blocking=True)[:, :, None].unbind(1)
    y = torch.arange(height, device=images.device)
    x = torch.arange(width * channels, device=images.device)
    rows, columns = (top <= y) & (y < bottom), (left * channels <= x) & (x < right * channels)
    kind = BITS[images.dtype]
    return rows[:, :, None].to(kind).neg_(), columns[:, None, :].to(kind).neg_()


def paste(own: Tensor, other: Tensor, rows: Tensor, columns: Tensor, out: Tensor) -> None:
    """Write lines with other's values inside the boxes and own's outside: own ^ ((own ^ other) & box), bit for bit."""
    kind = BITS[own.dtype]
    own, other, out = own.view(kind), other.view(kind), out.view(kind)
    torch.bitwise_xor(own, other, out=out)
    out &= rows
    out &= columns
    out ^= own

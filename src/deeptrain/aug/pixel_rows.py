"""A batch as lines of pixels, (N, H, W·C): long contiguous rows, several times faster than broadcasting over C = 3.

Every operation here works on such lines, uint8 or float32, on any device.
"""

import functools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Border = Literal["zero", "reflect"]
INTEGER_DTYPES = {torch.uint8: torch.uint8, torch.float32: torch.int32}  # the integers of the same width


def pixel_rows(images: Tensor) -> Tensor:
    """View channels_last images (N, C, H, W) as (N, H, W·C); the memory is shared."""
    count, channels, height, width = images.shape
    return images.permute(0, 2, 3, 1).view(count, height, width * channels)


@functools.lru_cache(maxsize=64)
def tile_channels(values: tuple[float, ...], width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Lay one value a channel along a line of `width` pixels: (W·C,); rounded where dtype holds integers."""
    line = torch.tensor(values, dtype=torch.float32).repeat(width)
    line = line if dtype.is_floating_point else line.round()
    return line.to(dtype).to(device, non_blocking=True)


def sample_boxes(
    rng: np.random.Generator, count: int, size: Sequence[int], sides: Sequence[int | np.ndarray]
) -> np.ndarray:
    """Draw boxes whose centre falls on any pixel, clipped at the border: (count, 4) top, bottom, left, right.

    `size` is (H, W) of the images; `sides` the boxes' height and width before clipping, one for all or (count,).
    """
    edges = []
    for extent, side in zip(size, sides, strict=True):
        start = rng.integers(extent, size=count) - side // 2
        edges += [np.maximum(start, 0), np.minimum(start + side, extent)]
    return np.stack(edges, axis=1).astype(np.int32)


def sample_rectangles(
    rng: np.random.Generator, count: int, size: Sequence[int], area: tuple[float, float], aspect: tuple[float, float]
) -> np.ndarray:
    """Draw boxes that lie inside images of `size` (H, W): (count, 4) top, bottom, left, right.

    A box's share of the image is drawn evenly from `area`, its height over its width evenly in the logarithm from the
    part of `aspect` with which it fits, its place evenly; sides are rounded to pixels, and cut to the image's where no
    aspect fits.
    """
    height, width = size
    pixels = np.maximum((area[0] + (area[1] - area[0]) * rng.random(count)) * height * width, 1)
    # the height √(pixels·ratio) and the width √(pixels/ratio) are to fit
    low = np.log(np.maximum(aspect[0], pixels / width**2))
    high = np.log(np.minimum(aspect[1], height**2 / pixels))
    ratio = np.exp(low + (high - low) * rng.random(count))
    tall = np.sqrt(pixels * ratio).round().clip(1, height).astype(np.int32)
    wide = np.sqrt(pixels / ratio).round().clip(1, width).astype(np.int32)
    top, left = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
    return np.stack([top, top + tall, left, left + wide], axis=1).astype(np.int32)


def box_masks(boxes: np.ndarray, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows (N, H, 1) and columns (N, 1, W·C) whose bits are all ones inside each image's box, else all zeros."""
    _, channels, height, width = images.shape
    top, bottom, left, right = torch.from_numpy(boxes).to(images.device, non_blocking=True)[:, :, None].unbind(1)
    y = torch.arange(height, device=images.device)
    x = torch.arange(width * channels, device=images.device)
    rows, columns = (top <= y) & (y < bottom), (left * channels <= x) & (x < right * channels)
    kind = INTEGER_DTYPES[images.dtype]
    return rows[:, :, None].to(kind).neg_(), columns[:, None, :].to(kind).neg_()


def paste(own: Tensor, other: Tensor, rows: Tensor, columns: Tensor, out: Tensor) -> None:
    """Write lines with other's values inside the boxes and own's outside: own ^ ((own ^ other) & box), bit for bit."""
    kind = INTEGER_DTYPES[own.dtype]
    own, other, out = own.view(kind), other.view(kind), out.view(kind)
    torch.bitwise_xor(own, other, out=out)
    out &= rows
    out &= columns
    out ^= own


def select(images: Tensor, chosen: np.ndarray) -> Tensor:
    """Copy the images whose indices (M,) are chosen on the host: (M, C, H, W), channels_last."""
    index = torch.from_numpy(chosen).to(images.device, non_blocking=True)
    return images.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)


def scatter(images: Tensor, chosen: np.ndarray, changed: Tensor) -> Tensor:
    """Return new images (N, C, H, W) in which the chosen ones (M,) are the changed; float32 if either are."""
    order = np.arange(len(images))
    order[chosen] = len(images) + np.arange(len(chosen))
    kind = torch.promote_types(images.dtype, changed.dtype)
    both = [part.to(kind).permute(0, 2, 3, 1) for part in (images, changed)]
    index = torch.from_numpy(order).to(images.device, non_blocking=True)
    return torch.cat(both).index_select(0, index).permute(0, 3, 1, 2)


def to_channels_last(planes: Tensor, dtype: torch.dtype) -> Tensor:
    """Store images (N, C, H, W), a plane a channel, as channels_last: twice as fast as torch's own way."""
    planes = to_dtype(planes, dtype)
    count, channels, height, width = planes.shape
    images = torch.empty((count, height, width, channels), dtype=dtype, device=planes.device)
    for channel in range(channels):
        images[..., channel] = planes[:, channel]
    return images.permute(0, 3, 1, 2)


def to_dtype(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert numbers from 0 to 255, decimals cut off in bytes; by way of int16 the CPU is 3.5 times as fast."""
    return (values.to(torch.int16) if dtype == torch.uint8 and values.is_floating_point() else values).to(dtype)


def pad(images: Tensor, padding: int, border: Border) -> Tensor:
    """Surround images (N, C, H, W) by zeros or their own reflection, the edge not repeated: (N, H + 2p, W + 2p, C)."""
    count, channels, height, width = images.shape
    shape = (count, height + 2 * padding, width + 2 * padding, channels)
    if border == "zero":
        padded = torch.zeros(shape, dtype=images.dtype, device=images.device)
    else:
        padded = torch.empty(shape, dtype=images.dtype, device=images.device)
    inner = padded[:, padding : padding + height, padding : padding + width]
    inner.copy_(images.permute(0, 2, 3, 1))
    if border == "reflect":
        for near in range(1, padding + 1):  # columns of the image, then whole rows
            inner_rows = padded[:, padding : padding + height]
            inner_rows[:, :, padding - near] = inner[:, :, near]
            inner_rows[:, :, padding + width - 1 + near] = inner[:, :, width - 1 - near]
        for near in range(1, padding + 1):
            padded[:, padding - near] = padded[:, padding + near]
            padded[:, padding + height - 1 + near] = padded[:, padding + height - 1 - near]
    return padded


def windows(padded: Tensor, down: np.ndarray, across: np.ndarray, size: Sequence[int]) -> Tensor:
    """Cut a window of `size` (H, W) out of each of whole (N, tall, wide, C), at its own offsets (N,): (N, C, H, W).

    On the host the images are seen as overlapping opaque elements of one row of a window each, so that a window is H
    copies of W·C values instead of H·W·C copies of one; elsewhere it is one gather of pixels.
    """
    count, tall, wide, channels = padded.shape
    height, width = size
    first = (np.arange(count) * tall + down) * wide + across  # pixel of each window's corner
    if padded.device.type == "cpu":
        bytes_ = padded.view(torch.uint8).numpy().reshape(-1)
        pixel = channels * padded.element_size()
        rows = np.ndarray((bytes_.size - width * pixel + 1,), f"V{width * pixel}", buffer=bytes_, strides=(1,))
        cut = rows[(first[:, None] + np.arange(height) * wide) * pixel]
        found = torch.from_numpy(cut.view(np.uint8)).view(padded.dtype).view(count, height, width, channels)
    else:
        corner = torch.from_numpy(first).to(padded.device, non_blocking=True)
        y, x = (torch.arange(extent, device=padded.device) for extent in size)
        found = padded.view(-1, channels)[corner[:, None, None] + y[:, None] * wide + x]
    return found.permute(0, 3, 1, 2)

"""What augmentations draw on the host, and the way of such values to the device, without a wait."""

import math
from collections.abc import Sequence

import numpy as np
import torch


def checked_range(name: str, values: Sequence[float]) -> tuple[float, float]:
    """Return the two ends of a range; ValueError "name=values: ..." if it has not two or they are in disorder."""
    if len(values) != 2 or values[0] > values[1]:
        written = ",".join(f"{value:g}" for value in values)
        raise ValueError(f"{name}=[{written}]: must be [smallest,largest]")
    return values[0], values[1]


def check_fit(area: tuple[float, float], aspect: tuple[float, float], input_shape: tuple[int, int, int] | None) -> None:
    """Raise ValueError "aspect=values: ..." if no box of these areas, shares of the image, and aspects fits into it."""
    height, width = input_shape[1:] if input_shape else (1, 1)
    square, smallest = height / width, area[0]  # the smallest area leaves most aspects: sides √(area·aspect) and so on
    if aspect[1] < smallest * square or smallest * aspect[0] > square:
        wrong = f"aspect=[{aspect[0]:g},{aspect[1]:g}]: no box of area=[{area[0]:g},{area[1]:g}] fits into"
        raise ValueError(f"{wrong} {height}x{width} pixels; choose a smaller area or an aspect nearer to {square:.2g}")


def uniform(rng: np.random.Generator, ends: tuple[float, float], count: int) -> np.ndarray:
    """Draw count values evenly between two ends: float64 (count,)."""
    return ends[0] + (ends[1] - ends[0]) * rng.random(count)


def random_bytes(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw numbers from 0 to 255, eight at a time: uint8 of the shape."""
    count = math.prod(shape)
    words = rng.integers(2**64 - 1, size=-(-count // 8), dtype=np.uint64, endpoint=True)
    return words.astype("<u8", copy=False).view(np.uint8)[:count].reshape(shape)


def to_device(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """Send values to the device; floating-point ones become float32."""
    values = values.astype(np.float32) if values.dtype == np.float64 else values
    return torch.from_numpy(values).to(device, non_blocking=True)

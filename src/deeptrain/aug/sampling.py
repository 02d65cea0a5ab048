"""Random values for augmentations, sampled on the host."""

import math
from collections.abc import Sequence

import numpy as np


def checked_range(name: str, values: Sequence[float]) -> tuple[float, float]:
    """Return the two ends of a range; ValueError "name=values: ..." unless it is [smallest, largest]."""
    if len(values) != 2 or values[0] > values[1]:
        text = ",".join(f"{value:g}" for value in values)
        raise ValueError(f"{name}=[{text}]: must be [smallest,largest]")
    return values[0], values[1]


def check_fit(area: tuple[float, float], aspect: tuple[float, float], input_shape: tuple[int, int, int] | None) -> None:
    """Raise ValueError "aspect=values: ..." if no box of these areas (fractions of the image) and aspects fits."""
    height, width = input_shape[1:] if input_shape else (1, 1)
    square, smallest = height / width, area[0]  # sides √(area·aspect), √(area/aspect): a small area allows most
    if aspect[1] < smallest * square or smallest * aspect[0] > square:
        message = f"aspect=[{aspect[0]:g},{aspect[1]:g}]: no box of area=[{area[0]:g},{area[1]:g}] fits into"
        raise ValueError(
            f"{message} {height}x{width} pixels; choose a smaller area or an aspect nearer to {square:.2g}"
        )


def uniform(rng: np.random.Generator, ends: tuple[float, float], count: int) -> np.ndarray:
    """Sample `count` uniform values between two ends: float64 (count,)."""
    return ends[0] + (ends[1] - ends[0]) * rng.random(count)


def random_bytes(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Sample uniform bytes of a shape: uint8. One draw of 64 bits makes eight of them."""
    count = math.prod(shape)
    words = rng.integers(2**64 - 1, size=-(-count // 8), dtype=np.uint64, endpoint=True)
    return words.astype("<u8", copy=False).view(np.uint8)[:count].reshape(shape)

"""Decoded images in the cache: one flat array that later starts map into memory, with the sums for statistics."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from deeptrain.data.cache import get_or_build

Decode = Callable[[], tuple[Iterable[np.ndarray], np.ndarray]]  # -> chunks uint8 (B, H, W, C) in order, all labels

MAX_CHUNK = 2**25  # values of a chunk of images; their sums take 16 bytes for each


@dataclass
class DecodedImages:
    """Images of one split. Their sums give the exact statistics of any subset without reading pixels."""

    images: np.ndarray  # uint8 (N, H, W, C), perhaps mapped from disk
    labels: np.ndarray  # int64 (N,)
    sums: np.ndarray  # int64 (N, 2, C): of the pixels and of their squares
    fingerprint: str  # of the pixels and labels

    def statistics(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of each channel over some images: float64 (C,), on the scale 0 to 255."""
        pixels = max(len(indices), 1) * self.images.shape[1] * self.images.shape[2]
        mean, square = self.sums[indices].sum(0) / pixels
        return mean, np.sqrt(np.maximum(square - mean**2, 0))


def from_arrays(images: np.ndarray, labels: np.ndarray) -> DecodedImages:
    """Wrap images that are in memory already: uint8 (N, H, W, C) and int64 (N,)."""
    fingerprint = crc32(labels.tobytes(), crc32(np.ascontiguousarray(images).data))
    return DecodedImages(images, labels, sum_pixels(images), f"{fingerprint:08x}")


def from_cache(cache_dir: Path | str | None, name: str, key: dict[str, Any], decode: Decode) -> DecodedImages:
    """Map the images for this key from the cache. decode() is called only if they are not there yet."""
    folder = get_or_build(cache_dir, name, key, lambda folder: _write(folder, *decode()))
    return DecodedImages(
        np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False),
        np.load(folder / "labels.npy", allow_pickle=False),
        np.load(folder / "sums.npy", allow_pickle=False),
        (folder / "fingerprint").read_text("utf-8"),
    )


def chunks(images: Any, size: int = 1024) -> Iterator[np.ndarray]:
    """Yield consecutive slices of an array, of so many images, or as many as have MAX_CHUNK values."""
    size = max(1, min(size, MAX_CHUNK // max(1, math.prod(images.shape[1:]))))
    return (images[start : start + size] for start in range(0, len(images), size))


def _write(folder: Path, parts: Iterable[np.ndarray], labels: np.ndarray) -> None:
    """Write chunk by chunk with ordinary writes: on a full disk a mapped file would kill the process."""
    sums, checksum = [], 0
    with (folder / "images.npy").open("wb") as file:
        for part in parts:
            if not sums:
                shape = (len(labels), *part.shape[1:])
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(data := np.ascontiguousarray(part).data)
            checksum = crc32(data, checksum)
            sums.append(sum_pixels(part))
    if (count := sum(map(len, sums))) != len(labels):
        raise ValueError(f"{count:,} images but {len(labels):,} labels; each image needs one")
    np.save(folder / "labels.npy", labels.astype(np.int64))
    np.save(folder / "sums.npy", np.concatenate(sums))
    checksum = crc32(labels.astype(np.int64).tobytes(), checksum)
    (folder / "fingerprint").write_text(f"{checksum:08x}", "utf-8")


def sum_pixels(images: np.ndarray) -> np.ndarray:
    """Sum pixels and squares of each image: int64 (B, 2, C). Products with ones are exact and five times as fast."""
    return np.concatenate([_sum_chunk(chunk) for chunk in chunks(images)])


def _sum_chunk(images: np.ndarray) -> np.ndarray:
    pixels = images.reshape(len(images), -1, images.shape[3]).astype(np.float64)
    ones = np.ones(pixels.shape[1])
    return np.stack([ones @ pixels, ones @ pixels**2], axis=1).astype(np.int64)

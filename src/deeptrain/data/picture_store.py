"""Whole pictures in the cache as raw pixels, which all processes map: random windows are cut without decoding."""

import logging
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from errno import ENOSPC
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deeptrain.data.cache import CacheError, get_or_build
from deeptrain.data.decode import Decoder, map_pictures
from deeptrain.runtime.memory import format_bytes, free_memory

Caching = Literal["auto", "resized", "none"]  # which pictures the cache keeps
AUTO_BYTES = 2**31  # of pixels that cache=auto keeps: 2,800 pictures of 500 x 375, some seconds of decoding
MODES = {1: "L", 3: "RGBX"}  # Pillow maps pixels of one or four bytes; of three it would copy them
BYTES = {1: 1, 3: 4}

logger = logging.getLogger(__name__)


@dataclass
class PictureStore:
    """Pictures of different sizes, one after the other. A picture that was left out has size 0 x 0.

    An exact one has the pixels that every reading of its file gives, so its windows have the same bits.
    """

    folder: Path
    channels: int
    pixels: np.ndarray  # uint8, all pictures, mapped from disk
    sizes: np.ndarray  # int64 (N, 2): width, height
    starts: np.ndarray  # int64 (N,): the first byte of each
    exact: np.ndarray  # bool (N,)

    def __reduce__(self) -> tuple:
        """Send the folder to a process that is not forked, and not the pixels."""
        return _reopen, (self.folder, self.channels, self.sizes, self.starts, self.exact)

    def select(self, indices: np.ndarray) -> "PictureStore":
        """Return the store of the pictures at these indices."""
        facts = (facts[indices] for facts in (self.sizes, self.starts, self.exact))
        return PictureStore(self.folder, self.channels, self.pixels, *facts)

    def get(self, index: int, exact: bool = False) -> Any:
        """Return a picture as an upright PIL image over the mapped pixels, or None if the file must be read.

        exact: only a picture that has the pixels of its file.
        """
        from PIL import Image

        width, height = self.sizes[index].tolist()
        if not width or (exact and not self.exact[index]):
            return None
        start, mode = self.starts[index], MODES[self.channels]
        data = self.pixels[start : start + width * height * BYTES[self.channels]]
        return Image.frombuffer(mode, (width, height), data, "raw", mode, 0, 1)


def open_store(
    files: Sequence[Path],
    decoder: Decoder,
    caching: Literal["auto", "resized"],
    sizes: Sequence[tuple[int, int]],
    key: dict[str, Any],
    cache_dir: Path | str | None,
) -> PictureStore | None:
    """Return the pictures of some files from the cache, where the first start puts them; None: read the files.

    auto keeps exact pictures alone, and none if they are too many. resized keeps all, the large ones resized to the
    largest short side that training draws. sizes: (width, height) of some files, to estimate. A full disk is a warning.
    """
    only_exact = caching == "auto"
    size = len(files) * int(np.mean([_estimate(decoder, pair, only_exact) for pair in sizes]))
    if only_exact and (not size or size > min(AUTO_BYTES, free_memory() / 4)):
        return None
    key = {**key, "decoder": decoder.cache_key, "only_exact": only_exact}

    def build(folder: Path) -> None:
        if size > (free := shutil.disk_usage(folder).free):
            raise OSError(ENOSPC, f"{format_bytes(size)} are needed, {format_bytes(free)} are free")
        logger.info("decoding %s pictures, once", f"{len(files):,}")
        _write(folder, map_pictures(lambda path: decoder.decode_upright(path, only_exact), files))

    try:
        return _open(get_or_build(cache_dir, "pictures", key, build), decoder.channels)
    except CacheError as error:
        logger.warning("%s. The files are read anew each time", error)
        return None


def _write(folder: Path, chunks: Iterable[list[tuple[np.ndarray, bool] | None]]) -> None:
    """Write picture by picture with ordinary writes: on a full disk a mapped file would kill the process."""
    sizes, exact = [], []
    with (folder / "pixels").open("wb") as file:
        for picture in chain.from_iterable(chunks):
            pixels, is_exact = picture or (np.empty((0, 0), np.uint8), False)
            file.write(np.ascontiguousarray(pixels).data)
            sizes.append(pixels.shape[1::-1])
            exact.append(is_exact)
    np.save(folder / "sizes.npy", np.array(sizes, np.int64))
    np.save(folder / "exact.npy", np.array(exact, bool))


def _open(folder: Path, channels: int) -> PictureStore:
    sizes, exact = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("sizes", "exact"))
    ends = np.cumsum(sizes.prod(1) * BYTES[channels])
    return PictureStore(folder, channels, _map(folder), sizes, np.concatenate([[0], ends[:-1]]), exact)


def _reopen(folder: Path, *facts: Any) -> PictureStore:
    return PictureStore(folder, facts[0], _map(folder), *facts[1:])


def _map(folder: Path) -> np.ndarray:
    path = folder / "pixels"
    return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)  # none was kept


def describe_store(store: PictureStore | None, decoder: Decoder, caching: Caching) -> list[str]:
    """Return a line on what the cache keeps, or why data.cache has no effect."""
    if decoder.short_side_range is None:
        no_effect = "data.cache=resized has no effect: it keeps pictures from which random windows are cut"
        return [no_effect] if caching == "resized" else []
    if store is None:
        hint = "pictures are decoded anew in every epoch; data.cache=resized keeps them, resized, on disk"
        return [hint] if caching == "auto" else []
    kept = int((store.sizes[:, 0] > 0).sum())
    how = f"the large ones at a short side of {decoder.largest_side}" if caching == "resized" else "bits as from files"
    line = f"cache: {kept:,} of {len(store.sizes):,} pictures in {format_bytes(store.pixels.size)}, {how}"
    return [f"{line}; windows are cut from them"]


def _estimate(decoder: Decoder, size: tuple[int, int], only_exact: bool) -> int:
    """Return the bytes that a picture of a size takes."""
    if decoder.is_exact(min(size)):
        return size[0] * size[1] * BYTES[decoder.channels]
    scale = decoder.largest_side / min(size)
    return 0 if only_exact else int(size[0] * size[1] * min(scale, 1) ** 2 * BYTES[decoder.channels])

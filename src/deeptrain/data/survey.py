"""What a data source wants to know of its training pictures before it decodes them: sizes, colours, depth."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deeptrain.data.decode import cores, decode_whole, open_image
from deeptrain.data.pixels import Kind, is_cut_to_8_bit, is_transparent, kind_of
from deeptrain.runtime.watch import map_in_threads

GRAY_MODES = ("1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")
ORIENTATION, QUARTER_TURNS = 0x0112, (5, 6, 7, 8)  # of EXIF
MAX_SMALL_PIXELS = 2**20  # a larger picture is judged by its header, where the pixels would tell more
LARGE_LOADED = 8  # of the larger ones, so many are looked at for transparent pixels
INNER = (0.1, 99.9)  # percentiles: a hot pixel lies outside

logger = logging.getLogger(__name__)


@dataclass
class Survey:
    """What some pictures have in common; a few exceptions among the others may be missed."""

    sizes: list[tuple[int, int]]  # width and height as the picture is seen, turned by EXIF
    gray: bool  # all
    transparent: bool  # any; so too the rest
    deep: bool
    cut_to_8_bit: bool


@dataclass
class ValueRange:
    """The values of all deep pictures of one kind in a data set. The inner range leaves out a few pixels of each."""

    low: float
    high: float
    inner_low: float
    inner_high: float
    pictures: int

    @property
    def ends(self) -> tuple[float, float]:
        """Return the values that become 0 and 255. They differ even if all pixels are the same."""
        return self.low, self.high if self.high > self.low else self.low + max(1.0, abs(self.low))

    def merged(self, other: "ValueRange") -> "ValueRange":
        return ValueRange(
            min(self.low, other.low),
            max(self.high, other.high),
            min(self.inner_low, other.inner_low),
            max(self.inner_high, other.inner_high),
            self.pictures + other.pictures,
        )


def survey(files: Sequence[Path]) -> Survey:
    """Look at pictures. ValueError with the file's name if one is not readable."""
    headers = list(map_in_threads(_read_header, files, cores(), warn=logger.warning))
    sizes, deep, cut, alpha = (list(column) for column in zip(*headers, strict=True))
    transparent = any(map(_is_transparent, _candidates(files, sizes, alpha)))
    gray = all(map(_is_gray, files))  # stops at the first colour image
    return Survey(sizes, gray, transparent, any(deep), any(cut))


def _candidates(files: Sequence[Path], sizes: list[tuple[int, int]], alpha: list[bool]) -> list[Path]:
    """Return the files that may be transparent: all small ones and some large ones."""
    found = [(file, wide * tall) for file, (wide, tall), may_be in zip(files, sizes, alpha, strict=True) if may_be]
    large = [file for file, pixels in found if pixels > MAX_SMALL_PIXELS]
    return [file for file, pixels in found if pixels <= MAX_SMALL_PIXELS] + large[:LARGE_LOADED]


def measure_ranges(files: Sequence[Path]) -> dict[Kind, ValueRange]:
    """Return the range of each kind of deep values. Of a picture with 8 bits only the header is read."""
    found: dict[Kind, ValueRange] = {}
    for measured in map_in_threads(_measure, files, cores(), warn=logger.warning):
        if measured:
            kind, values = measured
            found[kind] = found[kind].merged(values) if kind in found else values
    return found


def _measure(path: Path) -> tuple[Kind, ValueRange] | None:
    with open_image(path) as image:
        kind = kind_of(image)
        values = np.asarray(image) if kind else np.zeros(0)
    values = values[np.isfinite(values)]
    if kind is None or not values.size:
        return None
    low, high = np.percentile(values, INNER)
    return kind, ValueRange(float(values.min()), float(values.max()), float(low), float(high), 1)


def _read_header(path: Path) -> tuple[tuple[int, int], bool, bool, bool]:
    """Return the size, and whether a picture is deep, cut to 8 bits, or perhaps transparent."""
    with open_image(path) as image:
        deep, cut = kind_of(image) is not None, is_cut_to_8_bit(image)  # before EXIF of a PNG reads the pixels
        return _upright_size(image), deep, cut, image.has_transparency_data


def _upright_size(image: Any) -> tuple[int, int]:
    """Return width and height as the picture is seen. Pillow has turned the size of a TIFF already."""
    from PIL import Image

    wide, tall = image.size
    if wide == tall or image.format == "TIFF":
        return wide, tall
    header_only = wide * tall > MAX_SMALL_PIXELS  # a PNG may have its EXIF behind the pixels
    exif = Image.Image.getexif(image) if header_only else image.getexif()
    return (tall, wide) if exif.get(ORIENTATION) in QUARTER_TURNS else (wide, tall)


def _is_transparent(path: Path) -> bool:
    with open_image(path) as image:
        return is_transparent(image)


def _is_gray(path: Path) -> bool:
    with open_image(path) as image:
        if image.mode in GRAY_MODES:
            return True
    pixels = decode_whole(path, 64)
    return bool((pixels == pixels[..., :1]).all())

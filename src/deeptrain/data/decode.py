"""From picture files to arrays of one size: fixed to evaluate and for small pictures, drawn anew for large ones."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from deeptrain.data.path_messages import printable

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")  # PIL would also start Ghostscript for an x.png
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")

warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata, a line a picture; what matters is raised


@dataclass(frozen=True)
class Decoder:
    """How a picture becomes uint8 (height, width, channels): its short side is resized, then a window is cut out."""

    height: int
    width: int
    channels: int
    short_side: int | None = None  # resized to before the centre crop; None: so that the window just fits in
    short_side_range: tuple[int, int] | None = (
        None  # range of the short side in training (ResNet, He et al. 2015); None: as above
    )

    @property
    def cache_key(self) -> dict[str, Any]:
        """Return what a cache entry of decoded images depends on; the names are those of version 0.3."""
        names = {"short_side_range": "drawn"}
        return {names.get(name, name): value for name, value in asdict(self).items()}

    def decode_center(self, path: Path) -> np.ndarray:
        """Resize and cut out the centre; ValueError naming the file if it is no readable picture."""

        def cut(image: Any) -> Any:
            wide, tall = image.size
            fit = max(self.width / wide, self.height / tall)
            scale = self.short_side / min(wide, tall) if self.short_side else fit
            left, top = (wide * scale - self.width) / 2, (tall * scale - self.height) / 2
            return self._window(image, scale, round(left), round(top))

        return _decode(path, self.channels, self.short_side or max(self.height, self.width), cut)

    def decode_random(self, path: Path, rng: np.random.Generator, flip: bool = False) -> np.ndarray:
        """Draw the short side, then the window, then whether to mirror it; errors as in fixed."""
        assert self.short_side_range is not None
        short = int(rng.integers(self.short_side_range[0], self.short_side_range[1] + 1))
        across, down, coin = rng.random(3)

        def cut(image: Any) -> Any:
            wide, tall = image.size
            scale = short / min(wide, tall)
            left = int(across * (round(wide * scale) - self.width + 1))
            top = int(down * (round(tall * scale) - self.height + 1))
            return self._window(image, scale, left, top)

        array = _decode(path, self.channels, short, cut)
        return array[:, ::-1] if flip and coin < 0.5 else array

    def _window(self, image: Any, scale: float, left: int, top: int) -> Any:
        """Cut a window out of the resized image, computing no more of it than that."""
        from PIL.Image import Resampling

        wide, tall = image.size
        box = (left / scale, top / scale, (left + self.width) / scale, (top + self.height) / scale)
        box = (max(box[0], 0), max(box[1], 0), min(box[2], wide), min(box[3], tall))  # rounding may reach outside
        if box == (0, 0, self.width, self.height) == (0, 0, *image.size):
            return image
        return image.resize((self.width, self.height), Resampling.BILINEAR, box=box)


def decode_all(decoder: Decoder, files: Sequence[Path], size: int = 64) -> Iterator[np.ndarray]:
    """Decode in parallel threads, yielding uint8 (B, H, W, C) chunks in the order of the files.

    Whatever breaks it off (Ctrl-C) waits for the pictures in hand alone, not for their chunks.
    """
    broken_off = Event()

    def piece(start: int) -> np.ndarray:
        wanted = takewhile(lambda path: not broken_off.is_set(), files[start : start + size])
        return np.stack([decoder.decode_center(path) for path in wanted])

    threads, starts = _cores(), range(0, len(files), size)
    with ThreadPoolExecutor(threads) as pool:
        try:
            for first in range(0, len(starts), 4 * threads):  # few at a time: what is decoded waits in memory
                yield from pool.map(piece, starts[first : first + 4 * threads])
        finally:
            broken_off.set()


def look(files: Sequence[Path]) -> tuple[list[tuple[int, int]], bool]:
    """Return the width and height of each picture, and whether all of them are grey."""
    with ThreadPoolExecutor(_cores()) as pool:
        sizes = list(pool.map(_size, files))
    return sizes, all(map(_is_grey, files))  # stops at the first picture in colour


def _decode(path: Path, channels: int, short_side: int, cut: Callable[[Any], Any]) -> np.ndarray:
    from PIL import ImageOps

    with open_image(path) as image:
        scale = short_side / min(image.size)
        if scale <= 0.5:  # a large JPEG can be decoded at a half, a quarter or an eighth
            image.draft(None, (int(image.width * scale), int(image.height * scale)))
        array = np.asarray(cut(to_8_bit(ImageOps.exif_transpose(image), channels)))
    return array.reshape(*array.shape[:2], channels)


@contextmanager
def open_image(path: Path) -> Iterator[Any]:
    """Open a picture, of an animation its first frame; all that goes wrong with it is a ValueError naming the file."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(f"{printable(path)}: has more than {most:,} pixels; shrink or remove it") from error
    except Image.UnidentifiedImageError as error:
        kinds = f"none of {' '.join(kind.lower() for kind in FORMATS)}, or damaged"
        raise ValueError(f"{printable(path)}: not a readable picture ({kinds}); repair or remove it") from error
    except Exception as error:  # a broken file can fail in any way
        reason = getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{printable(path)}: not a readable picture ({reason}); repair or remove it") from error


def to_8_bit(image: Any, channels: int) -> Any:
    """Turn any mode into 8-bit RGB or grey; PIL alone would clip 16 bits to white."""
    from PIL import Image

    if image.mode[0] in "IF":
        deep = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0, neginf=0)
        top = deep.max(initial=0)
        full = 65535 if image.mode[0] == "I" and (top > 255 or ";16" in image.mode) else 255 if top > 1 else 1
        image = Image.fromarray((deep / full * 255).clip(0, 255).round().astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB" if channels == 3 else "L")


def _size(path: Path) -> tuple[int, int]:
    with open_image(path) as image:
        return image.size


def _is_grey(path: Path) -> bool:
    with open_image(path) as image:
        if image.mode in GREY_MODES:
            return True
    colours = _decode(path, 3, 64, lambda image: image.resize((64, 64)))
    return bool((colours == colours[..., :1]).all())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

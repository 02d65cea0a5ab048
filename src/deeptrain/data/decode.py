"""From image files to arrays of one size: a centre crop, or a random crop for large images in training."""

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
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")  # with all of its formats PIL may start Ghostscript
GRAY_MODES = ("1", "L", "LA", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")

warnings.filterwarnings("ignore", module=r"PIL\.")  # about odd metadata, one line an image; real problems are raised


@dataclass(frozen=True)
class Decoder:
    """How an image file becomes uint8 (height, width, channels): resize its short side, then crop a window."""

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
        """Resize and crop the centre. ValueError with the file's name if it is no readable image."""

        def crop(image: Any) -> Any:
            wide, tall = image.size
            fit = max(self.width / wide, self.height / tall)
            scale = self.short_side / min(wide, tall) if self.short_side else fit
            left, top = (wide * scale - self.width) / 2, (tall * scale - self.height) / 2
            return self._window(image, scale, round(left), round(top))

        return _decode(path, self.channels, self.short_side or max(self.height, self.width), crop)

    def decode_random(self, path: Path, rng: np.random.Generator, flip: bool = False) -> np.ndarray:
        """Sample the short side, the window and whether to mirror it. Errors as in decode_center."""
        assert self.short_side_range is not None
        short = int(rng.integers(self.short_side_range[0], self.short_side_range[1] + 1))
        x, y, coin = rng.random(3)

        def crop(image: Any) -> Any:
            wide, tall = image.size
            scale = short / min(wide, tall)
            left = int(x * (round(wide * scale) - self.width + 1))
            top = int(y * (round(tall * scale) - self.height + 1))
            return self._window(image, scale, left, top)

        array = _decode(path, self.channels, short, crop)
        return array[:, ::-1] if flip and coin < 0.5 else array

    def _window(self, image: Any, scale: float, left: int, top: int) -> Any:
        """Crop a window from the resized image. Only the window is computed."""
        from PIL.Image import Resampling

        wide, tall = image.size
        box = (left / scale, top / scale, (left + self.width) / scale, (top + self.height) / scale)
        box = (max(box[0], 0), max(box[1], 0), min(box[2], wide), min(box[3], tall))  # rounding may exceed the image
        if box == (0, 0, self.width, self.height) == (0, 0, *image.size):
            return image
        return image.resize((self.width, self.height), Resampling.BILINEAR, box=box)


def decode_all(decoder: Decoder, files: Sequence[Path], size: int = 64) -> Iterator[np.ndarray]:
    """Decode in parallel threads; yield chunks uint8 (B, H, W, C) in the order of the files.

    An interrupt (Ctrl-C) waits only for the images that are being decoded, not for whole chunks.
    """
    stop = Event()

    def decode_chunk(start: int) -> np.ndarray:
        paths = takewhile(lambda path: not stop.is_set(), files[start : start + size])
        return np.stack([decoder.decode_center(path) for path in paths])

    threads, starts = _cores(), range(0, len(files), size)
    with ThreadPoolExecutor(threads) as pool:
        try:
            for first in range(0, len(starts), 4 * threads):  # few at a time: decoded chunks wait in memory
                yield from pool.map(decode_chunk, starts[first : first + 4 * threads])
        finally:
            stop.set()


def inspect_images(files: Sequence[Path]) -> tuple[list[tuple[int, int]], bool]:
    """Return the (width, height) of each image, and whether all images are gray."""
    with ThreadPoolExecutor(_cores()) as pool:
        sizes = list(pool.map(_size, files))
    return sizes, all(map(_is_gray, files))  # stops at the first colour image


def _decode(path: Path, channels: int, short_side: int, crop: Callable[[Any], Any]) -> np.ndarray:
    from PIL import ImageOps

    with open_image(path) as image:
        scale = short_side / min(image.size)
        if scale <= 0.5:  # a large JPEG can be decoded at a half, a quarter or an eighth
            image.draft(None, (int(image.width * scale), int(image.height * scale)))
        array = np.asarray(crop(to_8_bit(ImageOps.exif_transpose(image), channels)))
    return array.reshape(*array.shape[:2], channels)


@contextmanager
def open_image(path: Path) -> Iterator[Any]:
    """Open an image file; the first frame of an animation. Every failure is a ValueError with the file's name."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise ValueError(f"{printable(path)}: has more than {limit:,} pixels; shrink or remove it") from error
    except Image.UnidentifiedImageError as error:
        kinds = f"none of {' '.join(kind.lower() for kind in FORMATS)}, or damaged"
        raise ValueError(f"{printable(path)}: not a readable picture ({kinds}); repair or remove it") from error
    except Exception as error:  # a broken file can fail in any way
        reason = getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{printable(path)}: not a readable picture ({reason}); repair or remove it") from error


def to_8_bit(image: Any, channels: int) -> Any:
    """Convert any mode to 8-bit RGB or gray. PIL alone would clip 16 bits to white."""
    from PIL import Image

    if image.mode[0] in "IF":
        values = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0, neginf=0)
        top = values.max(initial=0)
        full = 65535 if image.mode[0] == "I" and (top > 255 or ";16" in image.mode) else 255 if top > 1 else 1
        image = Image.fromarray((values / full * 255).clip(0, 255).round().astype(np.uint8))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB" if channels == 3 else "L")


def _size(path: Path) -> tuple[int, int]:
    with open_image(path) as image:
        return image.size


def _is_gray(path: Path) -> bool:
    with open_image(path) as image:
        if image.mode in GRAY_MODES:
            return True
    pixels = _decode(path, 3, 64, lambda image: image.resize((64, 64)))
    return bool((pixels == pixels[..., :1]).all())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

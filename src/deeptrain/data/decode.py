"""From image files to arrays of one size: a centre crop, or a random crop for large images in training."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.machinery import PathFinder
from itertools import takewhile
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Annotated, Any, Literal

import numpy as np

from deeptrain.data.path_messages import name_heif_reader, printable, special_file
from deeptrain.data.pixels import WHITE, Color, OutOfRangeError, Ranges, pad, to_8_bit
from deeptrain.errors import SYSTEM_ERRORS, error_line
from deeptrain.runtime.watch import map_in_threads
from deeptrain.schema import Range, type_error


def _pillow_has(module: str) -> bool:
    """Return whether this build of Pillow has a module. Nothing is imported."""
    pillow = PathFinder.find_spec("PIL")
    return bool(pillow and PathFinder.find_spec(module, pillow.submodule_search_locations))


Resize = Literal["crop", "pad", "squash"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
MAX_SIDE = 4096  # pixels of an input that a checkpoint may ask for: a stranger's could fill the memory
EXTENSIONS = (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2")
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM", "JPEG2000")  # others may start Ghostscript
if _pillow_has("_avif"):
    EXTENSIONS, FORMATS = (*EXTENSIONS, ".avif"), (*FORMATS, "AVIF")

Side = Annotated[int, Range(minimum=1, maximum=4 * MAX_SIDE)]
STATE: dict[str, Any] = {  # a decoder in a checkpoint
    "height": Annotated[int, Range(minimum=1, maximum=MAX_SIDE)],
    "width": Annotated[int, Range(minimum=1, maximum=MAX_SIDE)],
    "channels": Literal[1, 3],
    "short_side": Side | None,  # pyright: ignore[reportOperatorIssue]
    "short_side_range": list[Side] | None,
    "ranges": list[list],
    "background": list[Annotated[int, Range(minimum=0, maximum=255)]] | None,
    "resize": Literal["crop", "pad", "squash", "fit"],
    "interpolation": Interpolation,
}

logger = logging.getLogger(__name__)
warnings.filterwarnings("ignore", module=r"PIL\.")  # about odd metadata, one line an image; real problems are raised


class UnreadableImageError(ValueError):
    """A file that is no readable picture. The message is a line that begins with the file's name."""


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
    ranges: Ranges = ()  # of the data set's deep pictures; of the kinds that it names none for, the full range
    background: Color | None = None  # behind transparent pixels and around padded ones; None: white
    resize: Resize | Literal["fit"] = "crop"  # of a picture of other proportions than the window
    # fit: crop from all detail, by Pillow's ImageOps.fit, as map-style datasets do
    interpolation: Interpolation = "bilinear"

    @property
    def resampling(self) -> Any:
        """Return Pillow's name of the interpolation."""
        from PIL.Image import Resampling

        return Resampling[self.interpolation.upper()]

    @property
    def cache_key(self) -> dict[str, Any]:
        """Return what a cache entry of decoded images depends on; names and defaults are those of version 0.3."""
        names = {"short_side_range": "drawn"}
        later = {"ranges": (), "background": None, "resize": "crop", "interpolation": "bilinear"}
        values = {name: value for name, value in asdict(self).items() if name not in later or value != later[name]}
        return {names.get(name, name): value for name, value in values.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint, which `from_state` reads."""
        return {**asdict(self), "ranges": [list(values) for values in self.ranges]}

    @classmethod
    def from_state(cls, state: Any) -> "Decoder":
        """Read what state_dict wrote; ValueError if it is anything else, since it may be a stranger's."""
        state = {"interpolation": "bilinear", **state} if isinstance(state, dict) else {}  # of before there were others
        known = state.keys() == STATE.keys()
        if not known or any(type_error(state[name], kind) for name, kind in STATE.items()):
            raise ValueError("is not how pictures are read")
        sides, color = (state[name] and tuple(state[name]) for name in ("short_side_range", "background"))
        ranges = tuple(map(tuple, state["ranges"]))
        if len(sides or (1, 1)) != 2 or len(color or WHITE) != 3 or not all(map(_is_range, ranges)):
            raise ValueError("is not how pictures are read")
        return cls(**{**state, "short_side_range": sides, "background": color, "ranges": ranges})

    @property
    def largest_side(self) -> int:
        """Return the largest short side to which pictures are resized."""
        return max(self.short_side or 0, *(self.short_side_range or (0,)), min(self.height, self.width))

    def is_exact(self, short_side: int) -> bool:
        """Say whether pictures of this short side are always read in full, and not larger than windows need."""
        least = min(self.short_side or self.largest_side, *(self.short_side_range or (self.largest_side,)))
        return short_side <= self.largest_side and short_side < 2 * least

    def decode_center(self, path: Path, stored: Any = None) -> np.ndarray:
        """Resize and crop the centre. ValueError with the file's name if it is no readable image.

        stored: what decode_upright has read of the file, exact, as a PIL image; then the file is not opened.
        """
        if stored is not None:
            return self._as_array(self._crop_center(stored))
        detail = None if self.resize == "fit" else self.short_side or max(self.height, self.width)
        return self._decode(path, detail, self._crop_center)

    def decode_whole(self, path: Path, scale: float, enlarge: bool = True) -> np.ndarray | None:
        """Return the whole picture, uint8 (H', W', C), in which the window times `scale` just fits.

        enlarge: if not, None for a picture that has fewer pixels. Errors as in decode_center.
        """
        assert self.resize != "fit"
        side = round(scale * min(self.height, self.width))

        def resize(image: Any) -> Any:
            larger = Decoder(round(self.height * scale), round(self.width * scale), self.channels)
            kept = {name: getattr(self, name) for name in ("resize", "background", "interpolation")}
            image, across, down = replace(larger, **kept)._fit(image, None)
            if max(across, down) > 1 and not enlarge:
                return None
            size = max(round(image.width * across), larger.width), max(round(image.height * down), larger.height)
            return image.resize(size, self.resampling)

        array = _read(path, side, lambda image: resize(self._convert(image)))
        return array.reshape(*array.shape[:2], self.channels) if array.ndim else None

    def decode_upright(self, path: Path, only_exact: bool) -> tuple[np.ndarray, bool] | None:
        """Return a whole picture for the cache, uint8 (H', W') or (H', W', 4), and whether it is exact.

        Others are resized to the largest short side; with only_exact they are None. Errors as in decode_center.
        """
        with open_image(path) as image:
            exact = self.is_exact(min(image.size))
            if only_exact and not exact:
                return None
            picture = self._convert(_upright(image, self.largest_side))
            if (scale := self.largest_side / min(picture.size)) < 1:
                size = round(picture.width * scale), round(picture.height * scale)
                picture = picture.resize(size, self.resampling)
            return np.asarray(picture.convert("RGBX") if self.channels == 3 else picture), exact

    def decode_image(self, image: Any) -> np.ndarray:
        """Do with an open PIL image what `decode_center` does with a file."""
        from PIL import ImageOps

        return self._as_array(self._crop_center(self._convert(ImageOps.exif_transpose(image))))

    def _crop_center(self, image: Any) -> Any:
        if self.resize == "fit":
            from PIL import ImageOps

            return ImageOps.fit(image, (self.width, self.height), self.resampling)
        image, across, down = self._fit(image, self.short_side)
        left, top = (image.width * across - self.width) / 2, (image.height * down - self.height) / 2
        return self._window(image, across, down, round(left), round(top))

    def decode_random(self, path: Path, rng: np.random.Generator, flip: bool = False, stored: Any = None) -> np.ndarray:
        """Sample the short side, the window and whether to mirror it. Errors as in decode_center.

        stored: what decode_upright has read of the file, as a PIL image.
        """
        assert self.short_side_range is not None
        short = int(rng.integers(self.short_side_range[0], self.short_side_range[1] + 1))
        x, y, coin = rng.random(3)

        def crop(image: Any) -> np.ndarray:
            image, across, down = self._fit(image, short)
            left = int(x * (round(image.width * across) - self.width + 1))
            top = int(y * (round(image.height * down) - self.height + 1))
            window = image.crop(_whole_pixels(self._box(image, across, down, left, top), image.size))
            return self._resize(window, mirror=flip and coin < 0.5)

        return crop(stored) if stored is not None else _read(path, short, lambda image: crop(self._convert(image)))

    def _fit(self, image: Any, short_side: int | None) -> tuple[Any, float, float]:
        """Return the picture, perhaps padded, and the factors across and down by which it is resized.

        Its short side becomes short_side; None: the window just fits in. Padded or squashed, it has the window's
        proportions.
        """
        if self.resize != "crop":
            grow = short_side / min(self.width, self.height) if short_side else 1
            width, height = round(self.width * grow), round(self.height * grow)
            if self.resize == "pad":
                return pad(image, width, height, self.background or WHITE, self.resampling), 1, 1
            return image, width / image.width, height / image.height
        wide, tall = image.size
        scale = short_side / min(wide, tall) if short_side else max(self.width / wide, self.height / tall)
        return image, scale, scale

    def _decode(self, path: Path, detail: int | None, crop: Callable[[Any], Any]) -> np.ndarray:
        return _read(path, detail, lambda image: self._as_array(crop(self._convert(image))))

    def _convert(self, image: Any) -> Any:
        return to_8_bit(image, self.channels, self.ranges, self.background or WHITE)

    def _as_array(self, image: Any) -> np.ndarray:
        image = image.convert("RGB") if image.mode == "RGBX" else image  # of the cache; cutting arrays is slower
        return np.asarray(image).reshape(self.height, self.width, self.channels)

    def _window(self, image: Any, across: float, down: float, left: int, top: int) -> Any:
        """Crop a window from the resized image. Only the window is computed."""
        box = self._box(image, across, down, left, top)
        if box == (0, 0, self.width, self.height) == (0, 0, *image.size):
            return image
        return image.resize((self.width, self.height), self.resampling, box=box)

    def _box(self, image: Any, across: float, down: float, left: int, top: int) -> tuple[float, float, float, float]:
        """Return where the window lies in the picture before it is resized."""
        box = (left / across, top / down, (left + self.width) / across, (top + self.height) / down)
        return max(box[0], 0), max(box[1], 0), min(box[2], image.width), min(box[3], image.height)  # rounding exceeds

    def _resize(self, image: Any, mirror: bool) -> np.ndarray:
        """Resize a picture to the window by torch, in half of Pillow's time. Few values differ from Pillow's, by 1."""
        if image.size == (self.width, self.height) or self.interpolation not in ("bilinear", "bicubic"):
            from PIL import ImageOps

            image = image.resize((self.width, self.height), self.resampling)
            return self._as_array(ImageOps.mirror(image) if mirror else image)
        import torch

        pixels = torch.from_numpy(np.array(image.convert("RGB") if image.mode == "RGBX" else image))
        planes = pixels.reshape(1, image.height, image.width, self.channels).permute(0, 3, 1, 2)  # channels_last
        size = self.height, self.width
        resized = torch.nn.functional.interpolate(planes, size, mode=self.interpolation, antialias=True)
        resized = resized.flip(3) if mirror else resized  # a flipped view in numpy would be slow to copy
        return resized.permute(0, 2, 3, 1)[0].numpy()


def _whole_pixels(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the nearest box of whole pixels in a picture of this size; not an empty one."""
    width, height = max(round(box[2] - box[0]), 1), max(round(box[3] - box[1]), 1)
    left, top = min(round(box[0]), size[0] - width), min(round(box[1]), size[1] - height)
    return left, top, left + width, top + height


def decode_all(decoder: Decoder, files: Sequence[Path], size: int = 64) -> Iterator[np.ndarray]:
    """Decode in parallel threads; yield chunks uint8 (B, H, W, C) in the order of the files."""
    return map(np.stack, map_pictures(decoder.decode_center, files, size))


def map_pictures(read: Callable[[Path], Any], files: Sequence[Path], size: int = 64) -> Iterator[list[Any]]:
    """Read files in parallel threads; yield lists of so many results, in the order of the files.

    An interrupt (Ctrl-C) waits only for the images that are being decoded, not for whole lists.
    """
    stop = Event()

    def read_chunk(start: int) -> list[Any]:
        return [read(path) for path in takewhile(lambda path: not stop.is_set(), files[start : start + size])]

    threads, starts = cores(), range(0, len(files), size)
    try:  # few at a time: decoded chunks wait in memory
        yield from map_in_threads(read_chunk, starts, threads, ahead=4 * threads, warn=logger.warning)
    finally:
        stop.set()


def decode_whole(path: Path, size: int) -> np.ndarray:
    """Decode a picture as uint8 (size, size, 3); its proportions are not kept."""
    return _read(path, size, lambda image: to_8_bit(image, 3).resize((size, size)))


def _read(path: Path, short_side: int | None, convert: Callable[[Any], Any]) -> np.ndarray:
    """Read a picture, turned upright by its EXIF, in little more detail than short_side needs; None: in full."""
    with open_image(path) as image:
        return np.asarray(convert(_upright(image, short_side)))


def _upright(image: Any, short_side: int | None) -> Any:
    """Turn an open picture by its EXIF, in little more detail than short_side needs; None: in full."""
    from PIL import ImageOps

    scale = short_side / min(image.size) if short_side else 1
    if scale <= 0.5:  # a large JPEG can be decoded at a half, a quarter or an eighth
        image.draft(None, (int(image.width * scale), int(image.height * scale)))
    ImageOps.exif_transpose(image, in_place=True)  # a copy would cost a tenth of the reading
    return image


@contextmanager
def open_image(path: Path) -> Iterator[Any]:
    """Open an image file; the first frame of an animation. What is wrong with it is an UnreadableImageError.

    ValueError for what is wrong with the system: too many open files, a disk that fails. A MemoryError stays one.
    """
    from PIL import Image

    try:
        if kind := special_file(path.stat().st_mode):  # opening a pipe waits for another process
            raise UnreadableImageError(f"{printable(path)}: is {kind}, no picture; remove it")
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except (UnreadableImageError, MemoryError):
        raise
    except OutOfRangeError as error:
        raise UnreadableImageError(f"{printable(path)}: {error}") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise UnreadableImageError(f"{printable(path)}: has more than {limit:,} pixels; shrink or remove it") from error
    except Image.UnidentifiedImageError as error:
        kinds = f"none of {' '.join(kind.lower() for kind in FORMATS)}, or damaged"
        line = f"{printable(path)}: not a readable picture ({kinds}); repair or remove it"
        raise UnreadableImageError(name_heif_reader(line)) from error
    except Exception as error:  # a broken file can fail in any way
        if isinstance(error, OSError) and error.errno in SYSTEM_ERRORS:
            raise ValueError(error_line(OSError(error.errno, error.strerror, printable(path)))) from error
        reason = getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]
        raise UnreadableImageError(
            f"{printable(path)}: not a readable picture ({reason}); repair or remove it"
        ) from error


def find_unreadable(files: Sequence[Path], seconds: float) -> tuple[list[str], int]:
    """Read pictures, for so many seconds at most; return a line for each broken one, and how many were looked at."""
    end = monotonic() + seconds

    def look(path: Path) -> str | None:
        if monotonic() > end:
            return None
        try:
            with open_image(path) as image:
                image.draft(None, (64, 64))  # of a JPEG: an eighth of the work, and all of the file
                image.load()
        except UnreadableImageError as error:
            return str(error)
        return ""

    found = list(map_in_threads(look, files, cores(), warn=logger.warning))
    return [line for line in found if line], sum(line is not None for line in found)


def _is_range(values: Any) -> bool:
    kind, *ends = values if len(values) == 3 else (None,)
    return kind in ("I", "F") and not any(type_error(end, float) for end in ends) and ends[0] < ends[1]


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

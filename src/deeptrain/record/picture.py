"""Sheets of pictures with captions: what the network saw, and what it got wrong."""

import io
import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

CELL = 96  # pixels that a small image is enlarged to, about
LARGEST = 192  # pixels that a large one is reduced to
MARGIN = 8
FONT_SIZE = 12
NEGLIGIBLE = 0.005  # a class with less of a mixed target is not named


def grid(images: np.ndarray, captions: Sequence[str], columns: int = 8, scale: int | None = None) -> np.ndarray:
    """Set images, uint8 (N, H, W, C) with C 1 or 3, in rows with a caption under each; return uint8 (H, W, 3).

    Small images are enlarged by a whole factor (`scale`, chosen for about 96 pixels when None) so that their pixels
    stay visible. A caption may have several lines; where one is too wide all are broken at their " · ", then cut.
    """
    from PIL import Image, ImageDraw

    font, line = _font(), FONT_SIZE + 4
    width, height = _size(images.shape[2], images.shape[1], scale)
    if any(font.getlength(text) > width for caption in captions for text in caption.split("\n")):
        captions = [caption.replace(" · ", "\n") for caption in captions]
    columns = min(columns, len(images))
    step_x, step_y = width + MARGIN, height + MARGIN + line * max(caption.count("\n") + 1 for caption in captions)
    size = MARGIN + columns * step_x, MARGIN + math.ceil(len(images) / columns) * step_y
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = MARGIN + index % columns * step_x, MARGIN + index // columns * step_y
        sheet.paste(_resized(image, width, height), (x, y))
        for number, text in enumerate(caption.split("\n")):
            draw.text((x, y + height + 2 + number * line), _cut(text, width, font), fill="#202020", font=font)
    return np.array(sheet)


def mixed_caption(target: int | np.ndarray, classes: Sequence[str]) -> str:
    """Name the class of a target, a class id or probabilities (K,), or the two likeliest: cat 0.6 · ship 0.4."""
    shares = np.asarray(target)
    if shares.ndim == 0:
        return classes[int(shares)]
    first, second = map(int, np.argsort(-np.append(shares, 0.0), kind="stable")[:2])
    if second == len(shares) or shares[second] < NEGLIGIBLE:
        return classes[first]
    return f"{classes[first]} {shares[first]:.2g} · {classes[second]} {shares[second]:.2g}"


def encode(image: np.ndarray) -> bytes:
    """Return the PNG of a picture, uint8 (H, W, 3)."""
    from PIL import Image

    png = io.BytesIO()
    Image.fromarray(image).save(png, format="PNG")
    return png.getvalue()


def save(path: Path, image: np.ndarray) -> None:
    """Write a picture, uint8 (H, W, 3), as PNG."""
    Path(path).write_bytes(encode(image))


def _size(width: int, height: int, scale: int | None) -> tuple[int, int]:
    side = max(width, height)
    factor = scale or (LARGEST / side if side > LARGEST else max(1, round(CELL / side)))
    return max(1, round(width * factor)), max(1, round(height * factor))


def _resized(image: np.ndarray, width: int, height: int) -> Any:
    from PIL import Image

    pixels = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    smaller = width < pixels.width
    return pixels.resize((width, height), Image.Resampling.BOX if smaller else Image.Resampling.NEAREST)


def _font() -> Any:
    """Load the font that comes with matplotlib, which has accents, Greek and Cyrillic; Pillow's own has ASCII."""
    from PIL import ImageFont

    spec = find_spec("matplotlib")  # found, not imported
    home = Path(spec.origin).parent if spec and spec.origin else Path()
    path = home / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    return ImageFont.truetype(path, FONT_SIZE) if path.is_file() else ImageFont.load_default(FONT_SIZE)


def _cut(text: str, width: int, font: Any) -> str:
    """Shorten a caption until it fits under its image."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"

"""Sheets of pictures with captions: what the network saw, and what it got wrong."""

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from deeptrain.report.formatting import shorten
from deeptrain.runtime.files import write_atomically

CELL = 96  # pixels that a small image is enlarged to, about
LARGEST = 192  # pixels that a large one is reduced to
MARGIN = 8
FONT_SIZE = 12
NAMED = 4  # classes of a mixed target, at most
NEGLIGIBLE = 0.005  # a class with less of a mixed target is not named


def grid(
    images: np.ndarray, captions: Sequence[str], columns: int = 8, cell: int = CELL, titles: Sequence[str] = ()
) -> np.ndarray:
    """Set images, uint8 (N, H, W, C) with C 1 or 3, in rows with a caption under each; return uint8 (H, W, 3).

    Small images are enlarged by a whole factor, to about `cell` pixels, so that their pixels stay visible. A caption
    may have several lines. One that is too wide is broken at its " · ", then between words; a word that is too wide is
    cut in its middle. `titles` stand in front of the rows, and may have several lines too.
    """
    from PIL import Image, ImageDraw

    font, line = _font(), FONT_SIZE + 4
    width, height = _size(images.shape[2], images.shape[1], cell)
    columns = min(columns, len(images))
    left = MARGIN + (
        round(max(font.getlength(part) for title in titles for part in title.split("\n"))) + MARGIN if titles else 0
    )
    texts = [_broken(caption, width, font) for caption in captions]
    rows = [range(start, min(start + columns, len(images))) for start in range(0, len(images), columns)]
    heights = [
        height + MARGIN + line * max(len(texts[index]) if captions[index] else 0 for index in row) for row in rows
    ]
    sheet = Image.new("RGB", (left + columns * (width + MARGIN), MARGIN + sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        y = MARGIN + sum(heights[:number])
        if number < len(titles):
            top = y + (height - line * len(titles[number].split("\n"))) // 2
            draw.text((MARGIN, top), titles[number], fill="#202020", font=font)
        for column, index in enumerate(row):
            x = left + column * (width + MARGIN)
            sheet.paste(_resized(images[index], width, height), (x, y))
            for below, text in enumerate(texts[index]):
                draw.text((x, y + height + 2 + below * line), text, fill="#202020", font=font)
    return np.array(sheet)


def mixed_caption(target: int | np.ndarray, classes: Sequence[str]) -> str:
    """Name the class of a target, a class id or probabilities (K,), or those it is mixed of: cat 0.6 · ship 0.4."""
    shares = np.asarray(target)
    if shares.ndim == 0:
        return classes[int(shares)]
    likeliest = list(map(int, np.argsort(-shares, kind="stable")[:NAMED]))
    named = [index for index in likeliest if shares[index] >= NEGLIGIBLE]
    if len(named) <= 1:
        return classes[likeliest[0]]
    return " · ".join(f"{classes[index]} {round(float(shares[index]), 2):g}" for index in named)


def encode(image: np.ndarray) -> bytes:
    """Return the PNG of a picture, uint8 (H, W, 3)."""
    from PIL import Image

    png = io.BytesIO()
    Image.fromarray(image).save(png, format="PNG")
    return png.getvalue()


def save(path: Path, image: np.ndarray) -> None:
    """Write a picture, uint8 (H, W, 3), as PNG."""
    write_atomically(Path(path), encode(image))


def _size(width: int, height: int, cell: int) -> tuple[int, int]:
    side = max(width, height)
    factor = max(cell, LARGEST) / side if side > max(cell, LARGEST) else max(1, round(cell / side))
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


def _broken(caption: str, width: int, font: Any) -> list[str]:
    """Break a caption into lines that fit under its image: at the " · " between its parts, else between words."""
    lines: list[str] = []
    for text in caption.split("\n"):
        for line in _wrapped(text.split(" · "), " · ", width, font):
            lines += _wrapped(line.split(), " ", width, font) if font.getlength(line) > width else [line]
    return [shorten(line, lambda text: font.getlength(text) <= width) for line in lines]


def _wrapped(pieces: list[str], separator: str, width: int, font: Any) -> list[str]:
    """Set as many pieces as fit into each line, at least one."""
    lines = pieces[:1]
    for piece in pieces[1:]:
        longer = f"{lines[-1]}{separator}{piece}"
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(piece)
    return lines

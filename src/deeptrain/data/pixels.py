"""One picture of any mode as 8-bit gray or RGB: deep values by the range of the data set, transparency on a background.

A picture is deep if it holds integers of more than 8 bits, or floats. What its lowest and highest value mean cannot be
seen in one picture, so the range comes from outside.
"""

from typing import Any, Literal

import numpy as np

Kind = Literal["I", "F"]  # integers of more than 8 bits, or floats
Ranges = tuple[tuple[Kind, float, float], ...]  # the values of each kind that become 0 and 255
Color = tuple[int, int, int]

FULL_RANGES: Ranges = (("I", 0.0, 65535.0), ("F", 0.0, 1.0))  # where the data set has no range of its own
WHITE: Color = (255, 255, 255)


class OutOfRangeError(ValueError):
    """A deep picture has values outside the full range of its kind. The data set has no range of its own."""


def kind_of(image: Any) -> Kind | None:
    """Return the kind of a deep picture's values, from its header; None if it has 8 bits."""
    return image.mode[0] if image.mode[0] in "IF" else None


def is_cut_to_8_bit(image: Any) -> bool:
    """Return whether Pillow drops the lower half of 16 bits a colour. To be asked before the pixels are read."""
    return kind_of(image) is None and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def is_transparent(image: Any) -> bool:
    """Return whether some pixel is not opaque. The pixels are read only if the mode allows it."""
    return kind_of(image) is None and image.has_transparency_data and _to_rgba(image).getextrema()[3][0] < 255


def to_8_bit(image: Any, channels: int, ranges: Ranges = (), background: Color = WHITE) -> Any:
    """Convert a picture of any mode to 8-bit RGB or gray. Pillow alone would clip 16 bits to white."""
    from PIL import Image

    if kind := kind_of(image):
        image = Image.fromarray(_scale(np.asarray(image), kind, ranges))
    elif is_transparent(image):
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), _to_rgba(image))
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    mode = "RGB" if channels == 3 else "L"
    return image if image.mode == mode else image.convert(mode)  # which copies also where nothing changes


def pad(image: Any, width: int, height: int, color: Color, resampling: Any) -> Any:
    """Resize a picture so that it just fits into a canvas of this size, and put it into the middle."""
    from PIL import Image

    if image.size == (width, height):
        return image
    scale = min(width / image.width, height / image.height)
    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    canvas = Image.new("RGB", (width, height), color).convert(image.mode)
    resized = image.resize(size, resampling)
    canvas.paste(resized, ((width - size[0]) // 2, (height - size[1]) // 2))
    return canvas


def _to_rgba(image: Any) -> Any:
    if image.mode == "La":
        image = image.convert("LA")  # Pillow has no shorter way
    return image if image.mode == "RGBA" else image.convert("RGBA")


def _scale(values: np.ndarray, kind: Kind, ranges: Ranges) -> np.ndarray:
    """Scale a range to 0..255 as uint8. Values beyond it are clipped, those that are not finite become 0."""
    values = values.astype(np.float64)
    finite = np.isfinite(values)
    known = next((range_ for range_ in ranges if range_[0] == kind), None)
    _, low, high = known or next(range_ for range_ in FULL_RANGES if range_[0] == kind)
    if known is None and finite.any():
        least, most = float(values[finite].min()), float(values[finite].max())
        if least < low or most > high:
            values_are = f"has values from {least:g} to {most:g}, and no picture of train that was looked at is so deep"
            raise OutOfRangeError(f"{values_are}; write data.range=[{least:g},{most:g}]")
    scaled = (values - low) / (high - low) * 255
    return np.where(finite, scaled, 0).clip(0, 255).round().astype(np.uint8)

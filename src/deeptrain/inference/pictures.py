"""Pictures of any kind to be predicted: paths, folders, PIL images, arrays, tensors."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from deeptrain.data.decode import EXTENSIONS, Decoder
from deeptrain.data.folder_layout import natural_order, pictures_below
from deeptrain.data.path_messages import HEIF, describe_missing, list_contents, printable, visible_folders
from deeptrain.runtime.paths import read_path


def expand(pictures: Any) -> list[Any]:
    """Return a list of pictures of one picture or several, with folders replaced by the pictures in them."""
    single = isinstance(pictures, str | Path) or hasattr(pictures, "getbands") or getattr(pictures, "ndim", 4) < 4
    given: list[Any] = [pictures] if single else [*pictures]  # pyright: ignore[reportGeneralTypeIssues]
    found: list[Any] = []
    for picture in given:
        path = read_path(picture) if isinstance(picture, str) else picture if isinstance(picture, Path) else None
        found += list_pictures(path) if path is not None and path.is_dir() else [path or picture]
    return found


def list_pictures(folder: Path) -> list[Path]:
    """List the pictures in a folder and below it, in the order of a data set's split; ValueError if there are none."""
    others: Counter[str] = Counter()
    endings = (*EXTENSIONS, *HEIF)  # these are said to be unreadable, never passed over
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_file() and entry.name[0] != ".")
        found = [name for name in names if name.lower().endswith(endings)]
        for inner in sorted(visible_folders(folder), key=lambda path: natural_order(path.name)):
            found += pictures_below(inner, others, endings)
    except OSError as error:
        raise ValueError(f"{printable(error.filename or folder)}: cannot be read ({error.strerror})") from error
    if not found:
        kinds = " ".join(extension[1:] for extension in EXTENSIONS)
        holds = f"it holds {list_contents(folder)}; pictures end in {kinds}"
        raise ValueError(f"{printable(folder)}: has no pictures ({holds})")
    return [folder / name for name in found]


def decode_picture(decoder: Decoder, picture: Any) -> np.ndarray | str:
    """Return a picture as the network's input, uint8 (H, W, C); or a line that says why it cannot be read."""
    try:
        if isinstance(picture, str | Path):
            if not os.path.lexists(picture):
                return f"{printable(picture)}: {describe_missing(Path(picture))}"
            return decoder.decode_center(Path(picture))
        return decoder.decode_image(to_image(picture))
    except (ValueError, OSError, SyntaxError) as error:  # a PIL image may be opened, but not yet read
        return str(error)


def to_image(picture: Any) -> Any:
    """Return a PIL image of an array (H, W[, C]), a tensor ([C,] H, W), or a PIL image."""
    from PIL import Image

    if isinstance(picture, Image.Image):
        return picture
    if type(picture).__module__ == "torch":
        picture = picture.detach().cpu().numpy()
        picture = picture.transpose(1, 2, 0) if picture.ndim == 3 else picture
    array = np.asarray(picture)
    array = array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    shapes = "(H, W) or (H, W, C) with 1, 3 or 4 channels; of a tensor (C, H, W)"
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)) or not array.size:
        raise ValueError(f"picture={array.dtype} {array.shape}: must be {shapes}")
    if array.dtype == np.uint8 or (array.ndim == 2 and array.dtype in (np.uint16, np.int32, np.float32)):
        return Image.fromarray(array)
    ends = f"from {array.min():g} to {array.max():g}" if array.dtype.kind in "iuf" else ""
    remedy = "give the pixels themselves, before any normalisation"
    if array.dtype.kind == "f" and array.min() >= 0:
        remedy = f"write {'(array * 255)' if array.max() <= 1 else 'array'}.round() as uint8"
    raise ValueError(f"picture={array.dtype} {ends}: must be uint8 from 0 to 255; {remedy}")


def name_of(picture: Any, index: int) -> str:
    """Return the path of a picture as it was given, or its number."""
    return str(picture) if isinstance(picture, str | Path) else f"picture {index}"

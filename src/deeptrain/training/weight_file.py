"""Files of weights that another program wrote: safetensors, or what torch.save writes, today's archive or the old form.

Such a file may be made to mislead. So it is looked at before torch reads it, and torch reads it without running code.
"""

import io
import pickletools
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeptrain.training import checkpoint
from deeptrain.training.checkpoint import MAX_INDEX_BYTES, OPERATIONS, Content

if TYPE_CHECKING:
    from torch import Tensor

ARCHIVE = b"PK\3\4"
LEGACY = b"\x80\2\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\2M\xe9\3."  # the magic number and version before torch 1.6
LEGACY_PICKLES = 5  # magic number, version, machine, content, keys of the storages
CONTAINERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "model_ema",
    "ema",
    "params",
    "weights",
    "net",
    "module",
)
DEPTH = 3  # containers in containers
SMALL = 2**16  # a number that asks for no memory worth speaking of
SAVE = "save its weights alone: torch.save(model.state_dict(), FILE), or as safetensors"


def read(path: Path) -> "dict[str, Tensor]":
    """Return the tensors of a file of weights by name, on the CPU; ValueError in a line if it holds none, or more.

    Of a training checkpoint it returns the weights, which stand under one of CONTAINERS.
    """
    try:
        with path.open("rb") as file:
            found = _read(Content(file, tail=0), path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # made to mislead, it can fail in any way
        reason = "is no file of weights, or holds more than weights and plain values, so it is not opened"
        raise ValueError(f"{path}: {reason}; {SAVE}") from error
    tensors = _weights_in(found)
    if not tensors:
        raise ValueError(f"{path}: holds no weights by name; {SAVE}")
    return tensors


def _read(content: Content, path: Path) -> Any:
    content.seek(0)
    start = content.read(len(LEGACY))
    if start.startswith(ARCHIVE):
        return _read_archive(content)
    return _read_legacy(content) if start == LEGACY else _read_safetensors(content, path)


def _read_archive(content: Content) -> Any:
    """Read what torch.save writes since version 1.6; the folder in the archive has the name of the file at the time."""
    content.seek(26)
    (length,) = struct.unpack("<H", content.read(2))
    content.seek(30)
    checkpoint.check_archive(content, content.read(length).decode().partition("/")[0])
    return _load(content)


def _read_legacy(content: Content) -> Any:
    """Read what torch.save wrote before version 1.6: five pickles, then the numbers.

    torch takes the memory of a storage before it reads it. So no number in the pickles may exceed the size of the file.
    """
    content.seek(0)
    index = io.BytesIO(content.read(MAX_INDEX_BYTES))
    index.seek(len(LEGACY))
    for _ in range(LEGACY_PICKLES - 2):
        checkpoint.check_operations(_small(pickletools.genops(index), max(content.size, SMALL)), OPERATIONS)
    return _load(content)


def _small(operations: Iterator[tuple[Any, Any, Any]], most: int) -> Iterator[tuple[Any, Any, Any]]:
    """Pass on the operations of a pickle; ValueError at a number above `most`."""
    for operation in operations:
        if isinstance(operation[1], int) and operation[1] > most:
            raise ValueError("a number larger than the file")
        yield operation


def _load(content: Any) -> Any:
    import torch

    content.seek(0)
    found = torch.load(content, map_location="cpu", weights_only=True)
    checkpoint.check_sizes(found if isinstance(found, dict) else {"model": found}, content.size)
    return found


def _read_safetensors(content: Content, path: Path) -> Any:
    """Read a safetensors file: the length of its table, the table, then the numbers."""
    from safetensors.torch import load_file

    content.seek(0)
    (length,) = struct.unpack("<Q", content.read(8))
    if length > min(content.size, MAX_INDEX_BYTES) or content.read(1) != b"{":
        raise ValueError("no safetensors file")
    return load_file(path)


def _weights_in(found: Any, depth: int = DEPTH) -> "dict[str, Tensor]":
    """Return the named tensors of what a file holds, or of the first container in it that has some; {} if none has."""
    import torch

    if not isinstance(found, Mapping):
        return {}
    for name in CONTAINERS if depth else ():
        if inside := _weights_in(found.get(name), depth - 1):
            return inside
    tensors = ((name, value) for name, value in found.items() if isinstance(value, torch.Tensor))
    return {name: value for name, value in tensors if isinstance(name, str) and value.layout is torch.strided}

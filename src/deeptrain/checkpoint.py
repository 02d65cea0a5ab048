"""Checkpoints: plain types and tensors, written whole or not at all, read without running code from them."""

import hashlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

MARK = b"deeptrain-sha256"  # a checkpoint ends in this and the digest of all before; torch.load ignores what trails


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically: until the new file is whole on the disk, the one before stays."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    write_atomically(path, content + MARK + hashlib.sha256(content).digest())


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint; ValueError when it is missing, damaged or holds anything but plain types and tensors."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); is it the path of a checkpoint?") from error
    end = len(MARK) + hashlib.sha256().digest_size
    content, mark, digest = content[:-end], content[-end:][: len(MARK)], content[-end:][len(MARK) :]
    if mark != MARK or hashlib.sha256(content).digest() != digest:
        raise ValueError(f"{path}: damaged or not a checkpoint of deeptrain (its checksum does not fit)")
    try:
        return torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    except Exception as error:
        raise ValueError(f"{path}: holds more than weights and plain values, so it is not opened") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside, flush, rename, flush the folder: a reader finds the old content or the new, after a crash too."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

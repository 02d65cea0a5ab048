"""Checkpoints: plain types and tensors, written whole or not at all, read without running code from them."""

import copy
import hashlib
import io
import pickletools  # only lists what a file would call; nothing is called
import re
import zipfile
from pathlib import Path
from typing import Any

from deeptrain.runtime.files import previous, write_parts

MARK = b"deeptrain-sha256"  # a checkpoint ends in this and the digest of all before; torch.load ignores what trails
TAIL = len(MARK) + hashlib.sha256().digest_size
MAX_INDEX_BYTES = 64 * 2**20  # bytes of a checkpoint that are no tensor: names, shapes, settings
ENTRY = re.compile(r"[^/]+/(data\.pkl|data/\d+|byteorder|version|\.format_version|\.storage_alignment|\.data/\w+)")
TENSOR = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2"}  # besides storages, all that weights need


class Damaged(ValueError):
    """A checkpoint is missing or not as it was written; the message names it."""


class Checkpoints:
    """The checkpoints of a run: last.pt and best.pt in a folder, or without one the last state in memory."""

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self._last: dict[str, Any] | None = None

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write <name>.pt. The old file stays until the new one is whole; of last.pt it stays as last.previous.pt."""
        if self.folder is not None:
            save(self.folder / f"{name}.pt", state, keep=name == "last")
        elif name == "last":
            self._last = copy.deepcopy(state)

    def load_last(self) -> dict[str, Any] | None:
        """Return the last state, None if nothing is saved."""
        return self._last if self.folder is None else load_newest(self.folder / "last.pt")[0]


def save(path: Path, state: dict[str, Any], *, keep: bool = False) -> None:
    """Write a checkpoint atomically: until the new file is whole on the disk, the one before stays.

    With `keep` the one before also stays afterwards, as last.previous.pt beside last.pt. State may hold dicts, lists,
    tuples, numbers, text, None and dense tensors; `load` refuses anything else.
    """
    import torch

    buffer = io.BytesIO()  # torch.save into the file itself would report a full disk as "unexpected pos"
    torch.save(state, buffer)
    content = buffer.getbuffer()
    write_parts(path, [content, MARK + hashlib.sha256(content).digest()], keep=keep)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; Damaged if it is not whole, ValueError if it holds more than save would write.

    What is not `torch.load`'s business is looked at first, since a stranger's file has a fitting checksum too: that
    nothing in it is compressed or larger than the file, and that it calls for tensors alone.
    """
    import torch

    try:
        whole = _is_whole(path)
    except OSError as error:
        raise Damaged(f"{path}: cannot be read ({error.strerror}); is it the path of a checkpoint?") from error
    if not whole:
        raise Damaged(f"{path}: damaged or not a checkpoint of deeptrain (its checksum does not fit)")
    try:
        _check_archive(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        _check_content(state, path.stat().st_size)
    except Exception as error:  # made to mislead, it can fail in any way
        raise ValueError(f"{path}: holds more than weights and plain values, so it is not opened") from error
    return state


def digest(tensors: dict[str, Any]) -> str:
    """Return the SHA-256 of named tensors: the same for the same bits, in whatever order, file or device they are."""
    import torch

    whole = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        whole.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        whole.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return whole.hexdigest()


def load_newest(path: Path) -> tuple[dict[str, Any], str | None]:
    """Read a checkpoint or, where it is damaged or missing, the one before it, with a line that says so."""
    try:
        return load(path), None
    except Damaged as error:
        before = previous(path)
        if not before.is_file():
            raise
        try:
            state = load(before)
        except ValueError:
            raise error from None
        if path.is_file():  # set aside, or the next save would keep it in place of the good one
            path.replace(path.with_name(f"{path.stem}.damaged{path.suffix}"))
        return state, f"{error}; going on from the one before, {before.name}"


# --- reading ---


def _is_whole(path: Path) -> bool:
    """Say whether a file ends in the digest of the rest."""
    digest, left = hashlib.sha256(), path.stat().st_size - TAIL
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 2**20))):
            digest.update(block)
            left -= len(block)
        return left == 0 and file.read() == MARK + digest.digest()


def _check_archive(path: Path) -> None:
    """Raise ValueError if a checkpoint could unfold to more than its size, or asks for anything but tensors."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        total = sum(entry.file_size for entry in entries)
        plain = all(entry.compress_type == zipfile.ZIP_STORED and ENTRY.fullmatch(entry.filename) for entry in entries)
        index = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
        if not plain or total > path.stat().st_size or len(index) != 1 or index[0].file_size > MAX_INDEX_BYTES:
            raise ValueError("not laid out like a checkpoint")
        operations = [(code.name, str(value)) for code, value, _ in pickletools.genops(archive.read(index[0]))]
    for name, value in operations:
        plain = name == "GLOBAL" and (value in TENSOR or (value.startswith("torch ") and value.endswith("Storage")))
        if name in ("GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX", "OBJ") and not plain:
            raise ValueError(f"calls {value}")


def _check_content(state: Any, size: int) -> None:
    """Raise ValueError unless weights are a dict of tensors and no tensor claims to be larger than the file."""
    import torch

    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise ValueError("no weights")
    if not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state["model"].items()):
        raise ValueError("weights that are none")
    waiting, seen = [state], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor) and value.numel() * value.element_size() > size:
            raise ValueError("a tensor larger than the file")
        if isinstance(value, dict | list | tuple) and id(value) not in seen:  # one may hold itself
            seen.add(id(value))
            waiting += [*value.keys(), *value.values()] if isinstance(value, dict) else value

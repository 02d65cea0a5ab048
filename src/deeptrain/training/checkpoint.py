"""Checkpoints: plain types and tensors, written whole or not at all, read without running code from them."""

import copy
import hashlib
import io
import pickletools  # only lists what a file would call; nothing is called
import re
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from deeptrain.runtime.files import previous, write_parts

MARK = b"deeptrain-sha256"  # a checkpoint ends in this and the digest of all before; torch.load ignores what trails
TAIL = len(MARK) + hashlib.sha256().digest_size
MAX_ENTRIES = 2**15  # of an archive: a tensor each, and a few others
MAX_TENSORS = MAX_ENTRIES - 8
MAX_DIRECTORY_BYTES = 96 * MAX_ENTRIES
MAX_INDEX_BYTES = 16 * 2**20  # bytes of a checkpoint that are no tensor: names, shapes, settings
OPERATIONS, OPERATIONS_PER_ENTRY = 200_000, 48  # that an index may have; a tensor of ours takes 31
ENTRY = re.compile(
    r"data\.pkl|data/\d+|byteorder|version|\.format_version|\.storage_alignment|\.data/\w+", re.ASCII
)  # below the one folder of an archive
SHARING = ("model", "average")  # parts of a state in which many names may share one storage
TENSOR = {  # besides storages, all that weights need
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
}


class Damaged(ValueError):
    """A checkpoint is missing or not as it was written; the message names it."""


class Checkpoints:
    """The checkpoints of a run: last.pt and best.pt in a folder, or without one the last state in memory.

    snapshots: the steps after which the weights are kept for good, with the number of each.
    """

    def __init__(self, folder: Path | None = None, snapshots: Mapping[int, int] | None = None):
        self.folder, self.snapshots = folder, snapshots or {}
        self._last: dict[str, Any] | None = None

    def save(self, name: str, state: dict[str, Any]) -> None:
        """Write <name>.pt. The old file stays until the new one is whole; of last.pt it stays as last.previous.pt."""
        if self.folder is not None:
            number = self.snapshots.get(state["progress"]["step"]) if name == "last" and self.snapshots else None
            if number is not None:  # first: a run that is killed in between saves it again
                alone = {"optimizer": None, "average": None, "scaler": None, "weights": "raw"}
                save(self.folder / f"snapshot-{number}.pt", {**state, **alone})
            save(self.folder / f"{name}.pt", state, keep=name == "last")
        elif name == "last":
            self._last = copy.deepcopy(state)

    def load_last(self) -> dict[str, Any] | None:
        """Return the last state, None if nothing is saved."""
        return self._last if self.folder is None else load_newest(self.folder / "last.pt")[0]


def save(path: Path, state: dict[str, Any], *, keep: bool = False) -> None:
    """Write a checkpoint atomically: until the new file is whole on the disk, the one before stays.

    With `keep` the one before also stays afterwards, as last.previous.pt beside last.pt. State may hold dicts, lists,
    tuples, numbers, text, None and dense tensors; `load` refuses anything else. ValueError if they are too many.
    """
    import torch

    check_count(count_tensors(state))
    buffer = io.BytesIO()  # torch.save into the file itself would report a full disk as "unexpected pos"
    torch.save(state, buffer)
    content = buffer.getbuffer()
    write_parts(path, [content, MARK + hashlib.sha256(content).digest()], keep=keep)


def count_tensors(state: Any) -> int:
    """Count the tensors of a state as an archive does: those that share a storage are one."""
    import torch

    dense = (tensor for tensor in _tensors(state) if tensor.layout is torch.strided)  # `load` refuses the others
    return len({tensor.untyped_storage()._cdata for tensor in dense})


def check_count(count: int) -> None:
    """Raise ValueError if a state has more tensors than `load` would read again."""
    if count > MAX_TENSORS:
        reason = f"weights and optimizer state are {count:,} tensors, a checkpoint holds {MAX_TENSORS:,}"
        raise ValueError(f"{reason}; take a model of fewer layers, or an optimizer that keeps less")


def is_whole(path: Path) -> bool:
    """Tell whether there is a file that ends in the digest of the rest, without importing torch."""
    try:
        with path.open("rb") as file:
            return Content(file).is_whole()
    except OSError:
        return False


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; Damaged if it is not whole, ValueError if it holds more than save would write.

    A stranger's file has a fitting checksum too. So its content is looked at first, through the view that torch
    reads it by: one archive from byte 0 on, small in all it lists, that calls for tensors alone.
    """
    import torch

    try:
        with path.open("rb") as file:
            content = Content(file)
            if not content.is_whole():
                raise Damaged(f"{path}: damaged or not a checkpoint of deeptrain (its checksum does not fit)")
            return _read(content, torch)
    except OSError as error:
        raise Damaged(f"{path}: cannot be read ({error.strerror}); is it the path of a checkpoint?") from error
    except Damaged:
        raise
    except Exception as error:  # made to mislead, it can fail in any way
        reason = "holds more than weights and plain values, so it is not opened"
        raise ValueError(f"{path}: {reason}; take a checkpoint that deeptrain wrote") from error


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


class Content(io.RawIOBase):
    """A checkpoint without its checksum, as a file of its own: all that is looked at, and all that torch gets.

    tail: bytes of the checksum at the end; a file of others has none.
    """

    def __init__(self, file: BinaryIO, tail: int = TAIL):
        self._file = file
        self.size = max(0, file.seek(0, io.SEEK_END) - tail)

    def is_whole(self) -> bool:
        """Say whether the file ends in the digest of the rest."""
        found, left = hashlib.sha256(), self.size
        self._file.seek(0)
        while left > 0 and (block := self._file.read(min(left, 2**20))):
            found.update(block)
            left -= len(block)
        return left == 0 and self._file.read() == MARK + found.digest()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            offset, whence = self.size + offset, io.SEEK_SET
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        left = max(0, self.size - self._file.tell())
        return self._file.readinto(memoryview(buffer)[:left])  # pyright: ignore[reportAttributeAccessIssue]


def _read(content: Content, torch: Any) -> dict[str, Any]:
    """Look at a content, then read it; an error of any kind if it is not what save writes."""
    check_archive(content)
    content.seek(0)
    state = torch.load(content, map_location="cpu", weights_only=True)
    _check_weights(state)
    check_sizes(state, content.size)
    return state


def check_archive(content: Content, root: str = "archive") -> None:
    """Raise ValueError if an archive could unfold to more than its size, or asks for anything but tensors.

    root: the folder in it that holds everything.
    """
    count = _count_entries(content)
    with zipfile.ZipFile(content) as archive:
        entries = archive.infolist()
        names = {entry.orig_filename for entry in entries}
        plain = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        inside = all(name.startswith(f"{root}/") and ENTRY.fullmatch(name[len(root) + 1 :]) for name in names)
        if not plain or not inside or not len(entries) == len(names) == count:
            raise ValueError("not laid out like a checkpoint")
        index = archive.getinfo(f"{root}/data.pkl")
        if sum(entry.file_size for entry in entries) > content.size or index.file_size > MAX_INDEX_BYTES:
            raise ValueError("larger than it may be")
        check_operations(pickletools.genops(archive.read(index)), OPERATIONS + OPERATIONS_PER_ENTRY * count)


def _count_entries(content: Content) -> int:
    """Return how many entries an archive has; ValueError if they are too many, or something is around it.

    Readers search for the end of an archive, each in its way. Here it must stand at the end, and nothing in front.
    """
    content.seek(max(0, content.size - 98))
    tail, stop = content.read(98), content.size - 22
    signature, _, _, _, count, length, start, comment = struct.unpack("<4s4H2LH", tail[-22:])
    right = signature == b"PK\5\6" and comment == 0
    if tail[56:60] == b"PK\6\7" and len(tail) == 98:  # over 4 GB: one more end before it, and the place of that one
        stop = content.size - 98
        signature, *_, count, length, start = struct.unpack("<4sQ2H2L4Q", tail[:56])
        right = right and signature == b"PK\6\6" and struct.unpack("<Q", tail[64:72]) == (stop,)
    content.seek(0)
    right = right and content.read(4) == b"PK\3\4" and start + length == stop
    if not right or count > MAX_ENTRIES or length > MAX_DIRECTORY_BYTES:
        raise ValueError("no archive, or not that alone")
    return count


def check_operations(operations: Iterable[tuple[Any, Any, Any]], most: int) -> None:
    """Raise ValueError if a pickle calls for anything but tensors, or is longer than `most` operations."""
    for number, (code, value, _) in enumerate(operations):
        if number >= most:
            raise ValueError("too many values for its tensors")
        if code.name in ("GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX", "OBJ"):
            called = str(value)
            storage = called.startswith("torch ") and called.endswith("Storage")
            if code.name != "GLOBAL" or not (called in TENSOR or storage):
                raise ValueError(f"calls {called}")


def _check_weights(state: Any) -> None:
    """Raise ValueError unless the weights are a dict of tensors."""
    import torch

    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise ValueError("no weights")
    if not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state["model"].items()):
        raise ValueError("weights that are none")


def check_sizes(state: dict[str, Any], size: int) -> None:
    """Raise ValueError if all storages, or all tensors once they are copied, take more than the file.

    A tensor can be larger than its storage, and many can share one. Weights that share are copied into a model that
    shares them too. So of those only what is beyond the storage counts.
    """
    storages, copied = {}, 0
    for part, content in state.items():
        for tensor in _tensors(content):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
            bytes_ = tensor.numel() * tensor.element_size()
            copied += max(0, bytes_ - storage.nbytes()) if part in SHARING else bytes_
    if max(sum(storages.values()), copied) > size:
        raise ValueError("tensors larger than the file")


def _tensors(content: Any) -> Iterator[Any]:
    """Yield every tensor in nested dicts, lists and tuples once."""
    import torch

    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:  # one may hold itself
            continue
        if isinstance(value, torch.Tensor):
            seen.add(id(value))
            yield value
        elif isinstance(value, dict | list | tuple):
            seen.add(id(value))
            waiting += [*value.keys(), *value.values()] if isinstance(value, dict) else value

"""What tells one set of files or images from another: hashes of names, sizes and contents, and how they are compared.

A fingerprint is a text of hashes. Their lengths tell them apart, so that runs of version 0.3 can be compared too:
8 digits are of decoded pixels, 16 of the names and sizes of files, 24 of the content of files.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import adler32, crc32

import numpy as np

from deeptrain.data.cache import get_or_build
from deeptrain.data.path_messages import printable, special_file
from deeptrain.errors import SYSTEM_ERRORS, error_line
from deeptrain.runtime.watch import map_in_threads

PIXELS, FILES, CONTENT = 8, 16, 24  # digits of a hash; the first that two fingerprints share decides in this order:
MOST_EXACT_FIRST = (PIXELS, CONTENT, FILES)
HEXADECIMAL = frozenset("0123456789abcdef")
WHOLE = 2**16  # bytes: of a larger file a sample is read
PIECES, PIECE = 4, 2**12  # so many pieces of so many bytes, evenly spaced from its start to its end
BATCH = 512  # files that a thread reads in a row

Inode = tuple[int, int]  # device, number: of one file on the disk


def is_same(then: Any, now: str) -> bool:
    """Tell whether two fingerprints are of the same images: by the most exact hash that both have."""
    before, after = _hashes(then), _hashes(now)
    for length in MOST_EXACT_FIRST:
        if length in before and length in after:
            return before[length] == after[length]
    return then == now


def _hashes(fingerprint: Any) -> dict[int, str]:
    """Return the hashes of a fingerprint by their length; {} if it is another text, as an own data source may give."""
    parts = str(fingerprint).split("-")
    known = all(len(part) in MOST_EXACT_FIRST and HEXADECIMAL.issuperset(part) for part in parts)
    return {len(part): part for part in parts} if known else {}


def stat_digests(folder: Path, names: Sequence[str], extra: bytes = b"") -> tuple[str, str, str, list[Inode]]:
    """Hash names and sizes of files: alone, with their times, and with all that the system changes with a file.

    The first is the same on any machine. Where a copy keeps size and time, `ctime` and inode are others still. The
    inodes come last: linked files have the same.
    ValueError with the name of a file that is not there.
    """
    portable, timed, changed, inodes = sha256(), sha256(), sha256(), []
    for name in names:
        try:
            status = os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118 - there may be a million
        except OSError as error:
            raise ValueError(f"{printable(folder / name)}: cannot be read ({error.strerror})") from error
        if kind := special_file(status.st_mode):
            raise ValueError(f"{printable(folder / name)}: is {kind}, no picture; remove it")
        entry = f"{name}\0{status.st_size}\n".encode(errors="surrogateescape")
        inodes.append((status.st_dev, status.st_ino))
        portable.update(entry)
        timed.update(entry + b"%d" % status.st_mtime_ns)
        changed.update(entry + b"%d %d %d\n" % (status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
    for digest in (portable, timed):
        digest.update(extra)
    return portable.hexdigest()[:FILES], timed.hexdigest()[:FILES], changed.hexdigest(), inodes


@dataclass(frozen=True)
class Content:
    """The hash of the names, sizes and contents of files, and a key of each file: files of other keys differ."""

    digest: str
    keys: np.ndarray  # int64 (N,): checksums of size and content


def cached_content(folder: Path, names: Sequence[str], changed: str, cache_dir: Path | str | None = None) -> Content:
    """Return what hash_files does; the cache keeps it while `changed`, of stat_digests, stays the same."""

    def build(entry: Path) -> None:
        content = hash_files(folder, names)
        (entry / "digest").write_text(content.digest, "utf-8")
        np.save(entry / "keys.npy", content.keys)

    entry = get_or_build(cache_dir, "content", {"files": changed, "keys": True}, build)
    return Content((entry / "digest").read_text("utf-8"), np.load(entry / "keys.npy", allow_pickle=False))


def read_content(folder: Path, names: Sequence[str]) -> str:
    """Return the hash of the names, sizes and contents of files, as hash_files does."""
    return hash_files(folder, names).digest


def hash_files(folder: Path, names: Sequence[str]) -> Content:
    """Hash names, sizes and contents of files, which are read in threads; of large files a sample.

    ValueError with the name of a file that cannot be read.
    """

    def hash_batch(start: int) -> tuple[bytes, list[int]]:
        digest, keys = sha256(), []
        for name in names[start : start + BATCH]:
            sample = _sample(folder, name)
            digest.update(f"{name}\0".encode(errors="surrogateescape"))
            digest.update(sample)
            keys.append(adler32(sample) % 2**31 << 32 | crc32(sample))
        return digest.digest(), keys

    starts, threads = range(0, len(names), BATCH), min(32, (os.cpu_count() or 1) + 4)
    batches = list(map_in_threads(hash_batch, starts, threads, warn=logging.getLogger(__name__).warning))
    digest = sha256(b"".join(digest for digest, _ in batches)).hexdigest()[:CONTENT]
    return Content(digest, np.array([key for _, keys in batches for key in keys], np.int64))


def _sample(folder: Path, name: str) -> bytes:
    """Return the size of a file and its bytes, or pieces of them."""
    path = os.path.join(folder, name)  # noqa: PTH118
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            size = os.fstat(file.fileno()).st_size
            if size <= WHOLE:
                pieces = [file.read(WHOLE)]
            else:
                starts = [index * (size - PIECE) // (PIECES - 1) for index in range(PIECES)]
                pieces = [_read_at(file, start) for start in starts]
    except OSError as error:
        if error.errno in SYSTEM_ERRORS:
            raise ValueError(error_line(OSError(error.errno, error.strerror, printable(path)))) from error
        remedy = "make it readable, repair or remove it"
        raise ValueError(f"{printable(path)}: cannot be read ({error.strerror}); {remedy}") from error
    return b"%d\0" % size + b"".join(pieces)


def _read_at(file: Any, start: int) -> bytes:
    file.seek(start)
    return file.read(PIECE)

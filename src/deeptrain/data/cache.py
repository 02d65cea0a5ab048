"""The user's cache: one folder for each key, built once and completely, also when several processes start together."""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from deeptrain.runtime.paths import read_path

try:
    import fcntl
except ImportError:  # Windows: two first starts at the same time both build; one wins
    fcntl = None

FORMAT = 1  # raise it when what is stored changes
MAX_CHECKSUM_BYTES = 2**30  # larger files are checked by size only: a checksum takes about a second per 2 GB


class CacheError(ValueError):
    """The cache cannot be written. The message is a line that begins with its folder."""


def cache_root(cache_dir: Path | str | None) -> Path:
    """Return cache_dir, or by default deeptrain's folder in $XDG_CACHE_HOME (~/.cache)."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return read_path(str(cache_dir)) if cache_dir else read_path(home) / "deeptrain"
    except ValueError as error:
        raise ValueError(f"cache_dir={cache_dir or home}: {error}, as in cache_dir=FOLDER") from None


def get_or_build(cache_dir: Path | str | None, name: str, key: dict[str, Any], build: Callable[[Path], None]) -> Path:
    """Return the folder for this key. build(folder) fills it, unless an earlier run did.

    One process builds, others wait. A damaged folder is built again. Raises CacheError if it cannot be written.
    """
    text = json.dumps({"format": FORMAT, **key}, sort_keys=True)
    folder = cache_root(cache_dir) / f"{name}-{sha256(text.encode()).hexdigest()[:16]}"
    if is_intact(folder):
        return folder
    try:
        with locked(cache_dir, folder.name):
            if not is_intact(folder):  # another process may have built it meanwhile
                _build_entry(folder, build)
    except OSError as error:
        raise _cache_error(folder.parent, error) from error
    return folder


def is_intact(folder: Path) -> bool:
    """Return whether each file of an entry has its size and, up to MAX_CHECKSUM_BYTES, its checksum."""
    try:
        files = json.loads((folder / "entry.json").read_text("utf-8"))
        return all(
            (folder / name).stat().st_size == size and (size > MAX_CHECKSUM_BYTES or checksum(folder / name) == crc)
            for name, (size, crc) in files.items()
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def checksum(path: Path) -> int:
    """Return the CRC-32 of a file."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            crc = zlib.crc32(block, crc)
    return crc


@contextmanager
def locked(cache_dir: Path | str | None, name: str) -> Iterator[None]:
    """Hold the lock with this name in the cache. The system frees it if the process dies."""
    path = cache_root(cache_dir) / f"{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise _cache_error(path.parent, error) from error
    with file:
        with suppress(OSError):  # a network disk without locks behaves as Windows
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _cache_error(folder: Path, error: OSError) -> CacheError:
    reason = f"{error.strerror or error}; choose another folder with cache_dir=FOLDER"
    return CacheError(f"cache_dir={folder}: cannot keep decoded images there: {reason}")


def _build_entry(folder: Path, build: Callable[[Path], None]) -> None:
    """Build in a temporary folder beside it, then rename in one step."""
    for leftover in folder.parent.glob(f".{folder.name}.*"):  # from a killed process: we hold the lock
        shutil.rmtree(leftover, ignore_errors=True)
    new = folder.with_name(f".{folder.name}.{os.getpid()}")
    new.mkdir()
    try:
        build(new)
        files = {path.name: (path.stat().st_size, checksum(path)) for path in new.iterdir()}
        (new / "entry.json").write_text(json.dumps(files), "utf-8")
        if folder.exists():  # damaged
            folder.rename(new.with_suffix(".damaged"))
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(new.with_suffix(".damaged"), ignore_errors=True)

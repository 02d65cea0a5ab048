"""The user's cache: folders keyed by what went into them, made once, whole or not at all, also by several processes."""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows: two first starts at once both build, and one wins
    fcntl = None

FORMAT = 1  # raise it when what is stored changes
CHECKED_BYTES = 2**30  # files up to this size have their checksum tested at every start: about a second per 2 GB


def cache_root(cache_dir: Path | str | None) -> Path:
    """Return cache_dir, or by default deeptrain's folder in $XDG_CACHE_HOME (~/.cache)."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache_dir).expanduser() if cache_dir else Path(home).expanduser() / "deeptrain"


def entry(cache_dir: Path | str | None, name: str, key: dict[str, Any], build: Callable[[Path], None]) -> Path:
    """Return the folder that build filled for this key, now or in an earlier run.

    Of several processes one builds and the others wait. A folder whose files are not as they were written is rebuilt.
    """
    words = json.dumps({"format": FORMAT, **key}, sort_keys=True)
    folder = cache_root(cache_dir) / f"{name}-{sha256(words.encode()).hexdigest()[:16]}"
    if is_intact(folder):
        return folder
    try:
        with locked(cache_dir, folder.name):
            if not is_intact(folder):  # another process may have built it meanwhile
                _make(folder, build)
    except OSError as error:
        raise _unusable(folder.parent, error) from error
    return folder


def is_intact(folder: Path) -> bool:
    """Say whether every file of an entry has the length and, up to CHECKED_BYTES, the checksum it was written with."""
    try:
        files = json.loads((folder / "entry.json").read_text("utf-8"))
        return all(
            (folder / name).stat().st_size == size and (size > CHECKED_BYTES or checksum(folder / name) == crc)
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
    """Hold the lock of that name in the cache; the system frees it should the process die."""
    path = cache_root(cache_dir) / f"{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise _unusable(path.parent, error) from error
    with file:
        with suppress(OSError):  # a network disk without locks: as on Windows
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _unusable(folder: Path, error: OSError) -> ValueError:
    reason = f"{error.strerror or error}; choose another folder with cache_dir=FOLDER"
    return ValueError(f"cache_dir={folder}: cannot keep decoded images there: {reason}")


def _make(folder: Path, build: Callable[[Path], None]) -> None:
    """Build beside the folder, then put the whole in its place in one step."""
    for leftover in folder.parent.glob(f".{folder.name}.*"):  # of a process that was killed: we hold the lock
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

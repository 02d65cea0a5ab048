"""One process at a time in a run folder: a lock of the operating system, which a kill frees."""

import os
import platform
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from deeptrain.errors import UsageError
from deeptrain.runtime.files import clear_unfinished

try:
    import fcntl
except ImportError:  # Windows has no flock: every process may enter
    fcntl = None

LOCK = ".lock"
MAX_OWNER_CHARACTERS = 200

_locks: dict[Path, IO[str]] = {}  # of this process, by folder


def lock(folder: Path, key: str) -> None:
    """Lock a run folder until `unlock_all`, or until this process ends in any way.

    Raises UsageError naming the process that holds it. The lock is flock on a file in the folder, so a kill frees it.
    Where there are no locks (Windows, some network disks) every process may enter. Machines that share a disk see each
    other's locks if that disk supports it.
    """
    folder = folder.resolve()
    if folder in _locks:
        return
    try:
        file = locked(folder / LOCK)
    except BlockingIOError:
        raise UsageError([f"{key}: another run is in there{lock_owner(folder)}; wait for its end, or end it"]) from None
    except OSError as error:
        raise UsageError([f"{key}: {folder} cannot be written to ({error.strerror})"]) from None
    with suppress(OSError):  # on a full disk it holds as well
        file.truncate(0)
        owner = f"process {os.getpid()} on {platform.node()}, since {datetime.now():%Y-%m-%d %H:%M:%S}"
        os.write(file.fileno(), owner.encode())
    _locks[folder] = file
    for part in (folder, folder / "checkpoints"):
        clear_unfinished(part)


def unlock_all() -> None:
    """Unlock every folder that this process has locked."""
    for folder in list(_locks):
        unlock(folder)


def unlock(folder: Path) -> None:
    file = _locks.pop(folder.resolve())
    (folder / LOCK).unlink(missing_ok=True)
    file.close()


def locked(path: Path, *, make: bool = True) -> IO[str]:
    """Open and lock a file; BlockingIOError if another process has, FileNotFoundError if none is to be made."""
    follow = getattr(os, "O_NOFOLLOW", 0)  # no link: it could lead to a file of yours
    flags = os.O_RDWR | follow | (os.O_CREAT if make else 0)
    while True:
        file = os.fdopen(os.open(path, flags, 0o666), "r+", encoding="utf-8")
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise
        except OSError:  # a disk without locks
            return file
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()  # whoever held it has just removed it


def lock_owner(folder: Path) -> str:
    """Return " (process ... on ...)" from the lock of a folder, "" if it has none."""
    for _ in range(20):
        try:
            with (folder / LOCK).open(encoding="utf-8", errors="replace") as file:
                owner = "".join(letter for letter in file.read(MAX_OWNER_CHARACTERS) if letter.isprintable())
        except OSError:
            return ""
        if owner:
            return f" ({owner})"
        time.sleep(0.05)  # its owner is about to write
    return ""


def drop_after_fork() -> None:
    """Close the locks in a forked process that reads images: if it outlives its parent, it must not keep the lock."""
    while _locks:
        _locks.popitem()[1].close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=drop_after_fork)


def is_locked(folder: Path) -> bool:
    """Tell whether a process holds the lock of a folder. Changes nothing."""
    try:
        locked(folder / LOCK, make=False).close()
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False

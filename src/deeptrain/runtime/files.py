"""Files written whole or not at all, also when a process is killed or the disk is full."""

import errno
import os
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a disk, what one may use of it, or ulimit -f
UNFINISHED = ".unfinished"  # ends the name of a file that is being written


def clear_unfinished(folder: Path) -> None:
    """Remove what a killed process was writing; only for who holds the folder."""
    for orphan in folder.glob(f".*{UNFINISHED}"):
        orphan.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds the old content or the new, also after a crash."""
    write_parts(path, [content])


def previous(path: Path) -> Path:
    """Name the checkpoint that `save` keeps beside this one."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def write_parts(path: Path, parts: Sequence[bytes | memoryview], *, keep: bool = False) -> None:
    """Write beside, flush, rename, flush the folder. A failure leaves no trace; a full disk's says what is needed."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        with beside.open("xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        if keep:
            _keep(path)
        beside.replace(path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            space = f"{sum(map(len, parts)):,} bytes needed, {shutil.disk_usage(path.parent).free:,} free"
            raise OSError(error.errno, f"{error.strerror} ({space})", str(path)) from error
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Bring the names of a folder's files to the disk."""
    with suppress(OSError):  # Windows opens no folders, some network disks cannot flush them
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _keep(path: Path) -> None:
    """Give a file its second name, of the previous one; by a link, so that it never lacks its first."""
    if not path.exists():  # the first of a run
        return
    spare = path.with_name(f".{path.name}{UNFINISHED}")
    spare.unlink(missing_ok=True)
    try:
        spare.hardlink_to(path)
    except OSError:  # a disk without links
        path.replace(previous(path))
        return
    spare.replace(previous(path))
    spare.unlink(missing_ok=True)  # where both names were the same file already, replace does nothing

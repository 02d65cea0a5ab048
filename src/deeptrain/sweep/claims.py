"""Who works on which job of a sweep: a file for each, so that several terminals and machines share the work."""

import functools
import json
import os
import platform
import tempfile
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from deeptrain.run.lock import locked

REFRESH_SECONDS = 30  # a claim is touched this often
STALE_SECONDS = 600  # without a touch for so long, a claim of another machine counts no longer
BIRTH_SECONDS = 5  # in which a new claim gets its owner's name


class Claims:
    """The jobs that this process holds, by name.

    On one machine the lock of the operating system decides, which a kill frees. Not all disks that several machines
    share know such locks. There the file's exclusive creation decides, and its time says whether its owner lives: by
    the clock of the disk, as those of two machines may differ. Without such locks one case is not decided: two machines
    that take over the claim of a third, dead one in the same instant.
    """

    def __init__(self, folder: Path):
        self.folder, self._refreshed = folder, time.monotonic()
        self._held: dict[str, IO[str]] = {}
        folder.mkdir(exist_ok=True)

    def take(self, name: str, **facts: Any) -> bool:
        """Claim a job; False if somebody else has."""
        path = self.folder / name
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            if self._is_alive_elsewhere(path):
                return False
        try:
            file = locked(path)
        except BlockingIOError:
            return False
        owner = {"host": platform.node(), "process": os.getpid(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
        file.truncate(0)
        os.pwrite(file.fileno(), json.dumps(owner | facts).encode(), 0)
        self._held[name] = file
        return True

    def release(self, name: str) -> None:
        file = self._held.pop(name)
        (self.folder / name).unlink(missing_ok=True)
        file.close()

    def refresh(self) -> None:
        """Say, every half a minute, that this process lives."""
        if time.monotonic() - self._refreshed > REFRESH_SECONDS:
            self._refreshed = time.monotonic()
            for name in self._held:
                with suppress(OSError):
                    os.utime(self.folder / name)

    def owner(self, name: str) -> dict[str, Any] | None:
        """Return who holds a job, in this process or another; None if nobody does."""
        path = self.folder / name
        if name in self._held or self._is_alive_elsewhere(path):
            return self._read(path)
        try:
            locked(path, make=False).close()
        except BlockingIOError:
            return self._read(path)
        except OSError:  # there is none
            return None
        return None

    def owners(self) -> dict[str, dict[str, Any]]:
        """Return who holds which jobs."""
        owners = {path.name: self.owner(path.name) for path in self.folder.iterdir()}
        return {name: owner for name, owner in owners.items() if owner is not None}

    def _is_alive_elsewhere(self, path: Path) -> bool:
        """Tell whether another machine holds a claim, or somebody is just making it."""
        try:
            age = time.time() + self._clock_offset - path.stat().st_mtime
        except OSError:
            return False
        host = self._read(path).get("host")
        return age < BIRTH_SECONDS if host is None else host != platform.node() and age < STALE_SECONDS

    @functools.cached_property
    def _clock_offset(self) -> float:
        """Return how many seconds the clock of the disk is ahead of that of this machine."""
        try:
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".clock-") as file:
                return os.fstat(file.fileno()).st_mtime - time.time()
        except OSError:
            return 0.0

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            owner = json.loads(path.read_text("utf-8")[:1000])
        except (OSError, ValueError):
            return {}
        return owner if isinstance(owner, dict) else {}

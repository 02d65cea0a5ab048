"""A file that grows by whole records, also if the disk fails: under metrics.csv, TensorBoard's events and run.log."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAX_WAITING = 16 << 20  # bytes kept for a disk that is full; records beyond are lost


class AppendOnlyFile:
    """Appends each record as soon as it is known, and never raises when the disk does.

    Logging must not stop a training. The first failure calls `warn` with one line, and the records wait in memory. They
    are written with the next one that can be. What the failed write left behind of them is cut off before. `head` is
    what the file begins with, also when it was removed meanwhile.
    No file is held open: opening costs 40 us, and nothing is lost when the process is killed.
    """

    def __init__(self, path: Path, warn: Callable[[str], Any] = warnings.warn, head: bytes = b""):
        self.path, self._warn, self._head = Path(path), warn, head
        self._waiting = b""
        self._whole: int | None = None  # bytes of whole records, known while a write has failed
        self._failing = False

    @property
    def is_whole(self) -> bool:
        """Tell whether the file ends in a whole record. On a full disk half a one may stand there."""
        return not self._failing

    def add(self, record: bytes) -> None:
        """Append one record, and before it those that are waiting."""
        if len(self._waiting) < MAX_WAITING:
            self._waiting += record
        try:
            with self.path.open("ab") as file:
                size = file.seek(0, os.SEEK_END)
                if self._whole is not None and self._whole < size:
                    size = file.truncate(self._whole)
                self._whole = size
                file.write(self._waiting if size else self._head + self._waiting)
        except OSError as error:
            first, self._failing = not self._failing, True
            if first:
                self._warn(
                    f"{self.path} cannot be written ({error.strerror or error}); the run goes on, will try again"
                )
        else:
            self._waiting, self._whole, self._failing = b"", None, False

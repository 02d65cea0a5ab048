"""The error of a user, whose message says what to type instead."""

import errno
from collections.abc import Iterable
from typing import Any

REMEDIES = {  # for what a system refuses
    errno.EMFILE: "this shell allows too few open files, write ulimit -n 1024 first",
    errno.ENFILE: "this machine has too many open files, end other processes",
    errno.ENOMEM: "end other processes, or set fewer workers",
    errno.EIO: "look at the disk",
    errno.ESTALE: "look at the network disk",
    errno.EFBIG: "this shell allows no larger files, write ulimit -f unlimited first",
    errno.EACCES: "make it readable, or name another",
    errno.EROFS: "name a folder that you may write to",
    errno.ENAMETOOLONG: "shorten the path",
    errno.ELOOP: "its links lead in a circle",
}
SYSTEM_ERRORS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE)  # no fault of the file


class UsageError(ValueError):
    """A user's mistakes, one line each. The command line prints them without a traceback and exits with 2.

    `valid_parts` holds the parts of the command that have no mistake so far.
    """

    def __init__(self, lines: Iterable[str], valid_parts: dict[str, Any] | None = None):
        self.lines, self.valid_parts = list(dict.fromkeys(lines)), valid_parts or {}
        super().__init__("\n".join(self.lines))

    def __reduce__(self) -> tuple[Any, ...]:
        """Let another process raise it here."""
        return type(self), (self.lines, self.valid_parts)


class NothingToDo(Exception):
    """What was asked for is done already. The command line prints the line and exits with 0: a requeued job is over."""


def error_line(error: Exception) -> str:
    """Return one line about an error; of an error with a file, the file's name first."""
    if isinstance(error, OSError) and error.filename is not None:
        remedy = f"; {REMEDIES[error.errno]}" if error.errno in REMEDIES else ""
        return f"{error.filename}: {error.strerror}{remedy}"
    return str(error)

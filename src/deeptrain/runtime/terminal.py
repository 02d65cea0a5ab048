"""The one way to the terminal: every line is cleaned, said in the stream's encoding, and dropped if nobody can read."""

import errno
import os
import sys
from contextlib import suppress
from typing import TextIO

MAX_CHARACTERS = 5000  # of a line that is shown: more than any path has
PLAIN = str.maketrans(
    {"·": "-", "–": "-", "—": "-", "×": "x", "…": "~", "━": "=", "─": "-", "│": "|", "•": "*", "±": "+-", "→": "->"}
)
NO_READER = (errno.EPIPE, errno.EIO, errno.EBADF)  # a closed pipe, a closed terminal: whoever read has had enough


def show(*lines: str) -> None:
    """Write lines to standard output. Each may hold a stranger's words."""
    if reason := write("".join(f"{printable(line)}\n" for line in lines), sys.stdout):
        report(f"warning: standard output: {reason}; the command goes on without it")


def report(*lines: str) -> None:
    """Write lines to standard error. Each may hold a stranger's words."""
    write("".join(f"{printable(line)}\n" for line in lines), sys.stderr)


def write(text: str, stream: TextIO | None) -> str | None:
    """Write text that is clean already; None if that worked. A stream that is gone never stops a command.

    Returns the reason then; "" if nobody reads the stream any longer.
    """
    if stream is None:  # closed before this process started
        return ""
    try:
        stream.write(encodable(text, getattr(stream, "encoding", None) or "utf-8"))
        stream.flush()
    except (OSError, ValueError) as error:  # a ValueError: closed by this process
        _silence(stream)
        return str(error.strerror) if isinstance(error, OSError) and error.errno not in NO_READER else ""
    return None


def encodable(text: str, encoding: str) -> str:
    """Replace what an encoding cannot say: by plain signs, or by the number of the letter."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(PLAIN).encode(encoding, "backslashreplace").decode(encoding)
    return text


def printable(text: str) -> str:
    """Return text as one line that can be shown, whoever wrote it: cut, and no character of it moves the cursor."""
    text = text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]} ..."
    return "".join(letter if letter.isprintable() else " " if letter.isspace() else "\ufffd" for letter in text)


def prepare() -> None:
    """Give this process its three standard streams, and names of files in UTF-8 also where the locale is C.

    Without the streams (a cron job) the next file that is opened gets the number of one of them.
    """
    if sys.getfilesystemencoding() == "ascii":
        _start_again_in_utf8()
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one


def _start_again_in_utf8() -> None:
    """Replace this process by itself in Python's UTF-8 mode (the default of 3.15). Its output keeps its encoding."""
    os.environ["PYTHONUTF8"] = "1"  # for processes that this one starts
    os.environ.setdefault("PYTHONIOENCODING", getattr(sys.stdout, "encoding", "ascii"))
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _silence(stream: TextIO) -> None:
    """Let what a broken stream still holds go nowhere, so that Python does not fail on it at its end."""
    with suppress(OSError, ValueError):  # it may be no file
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)

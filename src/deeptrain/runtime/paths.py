"""Paths: read as a person types them, and written so that they can be typed again."""

import errno
import os
import shlex
import sys
from pathlib import Path

WORDS = ("auto", "null")  # which a setting takes for something else
TOO_LONG = (errno.ENAMETOOLONG, errno.EILSEQ)


def read_path(text: str) -> Path:
    """Return the path that a person typed, with ~ as the home directory. ValueError if no disk can have it."""
    path = os.path.expanduser(text)  # noqa: PTH111 - Path drops the ./ of ./~x
    if text.startswith("~") and path == text:
        raise ValueError("there is no such home directory; write the whole path")
    try:
        os.lstat(path)
    except ValueError:
        raise ValueError("no file name may hold the character NUL; write another path") from None
    except OSError as error:
        if error.errno in TOO_LONG:
            raise ValueError(f"no disk takes this path ({error.strerror}); write another one") from None
    return Path(path)


def path_exists(text: str) -> bool:
    """Tell whether there is something at the path that a person typed."""
    try:
        return read_path(text).exists()
    except (ValueError, OSError):
        return False


def quote_setting(key: str, path: Path | str) -> str:
    """Write key=path for a command line."""
    return quote(f"{key}={as_typed(path)}")


def as_typed(path: Path | str) -> str:
    """Write a path so that it is not read as anything else."""
    text = str(path)
    return f"./{text}" if text[:1] in ("~", "-") or text in WORDS or text.startswith("split=") else text


def quote(word: str) -> str:
    """Quote a word for bash and zsh, so that it can be pasted. What the terminal cannot show is written as bytes."""
    if word.isprintable() and _is_encodable(word):
        return shlex.quote(word)
    plain = (letter if " " <= letter <= "~" and letter not in "\\'" else _escape(letter) for letter in word)
    return f"$'{''.join(plain)}'"


def _escape(letter: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter))


def _is_encodable(word: str) -> bool:
    try:
        word.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True

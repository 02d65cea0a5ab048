"""A file from the network: whole or not at all, and an answer within seconds where there is no way to it."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from queue import Empty, Queue
from tempfile import NamedTemporaryFile
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

SECONDS = 5.0  # to wait for the first answer; a name server that is silent may take minutes
STALLED = 30.0  # seconds without a byte, after which a download is given up
BLOCK = 2**20


class Unreachable(OSError):
    """A file cannot be fetched; the message is the reason."""


def open_url(url: str, seconds: float = SECONDS) -> Any:
    """Open an http address for reading; Unreachable within `seconds`, whatever the network does."""
    from urllib.request import urlopen

    if urlsplit(url).scheme not in ("http", "https"):
        raise Unreachable("is no http address")
    answers: Queue[Any] = Queue()

    def connect() -> None:
        try:
            answers.put(urlopen(url, timeout=STALLED))
        except Exception as error:
            answers.put(error)

    Thread(target=connect, daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except Empty:
        raise Unreachable(f"no answer within {seconds:g} s") from None
    if isinstance(answer, Exception):
        reason = getattr(answer, "reason", None) or answer
        raise Unreachable(str(getattr(reason, "strerror", None) or reason)) from answer
    return answer


def fetch(url: str, path: Path, sha256: str = "", started: Callable[[int], None] = lambda size: None) -> None:
    """Write what an address holds into a file, which is there only when it is whole; Unreachable if it is not.

    sha256: the first digits that the digest must have. started: takes the size in bytes, 0 if the server keeps it.
    """
    with open_url(url) as answer:
        size, digest = int(answer.headers.get("Content-Length") or 0), hashlib.sha256()
        started(size)
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
            try:
                received = _copy(answer, file, digest)
                if size and received != size:
                    raise Unreachable(f"broke off after {received:,} of {size:,} bytes")
                if not digest.hexdigest().startswith(sha256):
                    raise Unreachable("arrived with another digest than its name says")
                file.close()
                Path(file.name).chmod(0o644)
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise


def _copy(answer: Any, file: Any, digest: Any) -> int:
    received = 0
    try:
        while block := answer.read(BLOCK):
            digest.update(block)
            file.write(block)
            received += len(block)
    except TimeoutError as error:
        raise Unreachable(f"no byte for {STALLED:g} s") from error
    return received

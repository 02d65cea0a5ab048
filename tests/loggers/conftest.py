"""A disk that can be full."""

import errno
from contextlib import contextmanager
from pathlib import Path

import pytest


class HalfWritten:
    """A file on a full disk: half of what is written arrives, then OSError."""

    def __init__(self, file):
        self.file = file

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        self.file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def full_disk(monkeypatch):
    """Return a context in which every file that is written to through pathlib is on a full disk."""

    @contextmanager
    def full():
        real = Path.open
        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", lambda path, *args, **kwargs: HalfWritten(real(path, *args, **kwargs)))
            yield

    return full

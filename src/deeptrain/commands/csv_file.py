"""csv=FILE of a command: a table that gets its name when all of it is written."""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from deeptrain.runtime.paths import read_path


def as_csv(cells: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


@contextmanager
def csv_file(name: str | None) -> Iterator[TextIO | None]:
    """Open a file that gets its name when all is written; UsageError if it cannot be written."""
    from deeptrain.errors import UsageError, error_line

    if name is None:
        yield None
        return
    try:
        path = read_path(name)
    except ValueError as error:
        raise UsageError([f"csv={name}: {error}"]) from error
    beside = path.with_name(f".{path.name}.unfinished")
    try:
        file = beside.open("w", encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise UsageError([f"csv={name}: cannot be written ({error.strerror}); name another file"]) from error
    try:
        with file:
            yield file
        beside.replace(path)
    except OSError as error:
        raise UsageError([f"csv={name}: {error_line(error)}"]) from error
    finally:
        beside.unlink(missing_ok=True)

"""metrics.csv: one header, one row an evaluation, on disk as soon as it is known."""

import csv
import io
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import Any, TextIO

from deeptrain.loggers.append_only_file import AppendOnlyFile
from deeptrain.loggers.logger import Logger
from deeptrain.runtime.files import write_atomically

MAX_BYTES = 32 * 2**20  # of a file: a hundred thousand validations
MAX_LINE, MAX_CELLS = 2**16, 2**21  # characters of a line, and cells of a file: they take 60 bytes each
TIME_COLUMNS = ("seconds", "images_per_second")  # a resumed run repeats every column but these bit for bit

MAX_ROWS = 2**18  # that are looked at for damage

Row = dict[str, int | float]


class Table(Logger):
    """A table of a run, with columns epoch and step; a file that exists is continued.

    A last line torn by a kill is dropped; columns that are new since (a resumed run may average its weights) are added.
    """

    def __init__(self, path: Path, columns: Sequence[str], warn: Callable[[str], Any] = warnings.warn):
        self.path = Path(path)
        found, rows = self._read()
        self.columns = [*found, *(name for name in columns if name not in found)]
        if found and not {"epoch", "step"} <= set(found):
            raise ValueError(f"{self.path}: is not the table of a run (no columns epoch and step); move it away")
        self._file = AppendOnlyFile(self.path, warn, self._header())
        if self.columns != found:
            self._rewrite(rows)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row; a column left out stays empty. ValueError on a column that the table does not have."""
        self._file.add(self._line(row))

    def close(self) -> None:
        """Try once more to write what a full disk has kept waiting; nothing else is held."""
        self._file.add(b"")

    def rows(self) -> list[Row]:
        """Read the table back: whole numbers as int, others as float, empty cells left out."""
        self._file.add(b"")  # those that wait too
        return self._read()[1]

    def truncate(self, step: int) -> None:
        """Drop the rows of later steps: what a killed run wrote after the checkpoint it is resumed from."""
        rows = self.rows()
        remaining = [row for row in rows if row.get("step", 0) <= step]
        if len(remaining) < len(rows):
            self._rewrite(remaining)

    def files(self) -> list[Path]:
        return [self.path] if self._file.is_whole and self.path.exists() else []

    def _read(self) -> tuple[list[str], list[Row]]:
        """Return the columns and rows on disk, less a torn last line; ValueError if that is no table of a run."""
        if not self.path.exists():
            return [], []
        with self.path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"{self.path}: is too large to be of a run of deeptrain; move it away")
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)
        try:
            return _parse(io.TextIOWrapper(io.BytesIO(content[:whole]), "utf-8", "replace", newline=""))
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{self.path}: is not the table of a run ({error}); move it away") from error

    def _rewrite(self, rows: Sequence[Row]) -> None:
        """Replace the file by the header and these rows in one step: a kill leaves the old or the new one."""
        write_atomically(self.path, b"".join([self._header(), *map(self._line, rows)]))

    def _header(self) -> bytes:
        return (",".join(self.columns) + "\n").encode()

    def _line(self, row: Mapping[str, Any]) -> bytes:
        if unknown := row.keys() - set(self.columns):
            raise ValueError(
                f"{self.path.name}: no column {', '.join(sorted(unknown))} among {', '.join(self.columns)}"
            )
        return (",".join(_cell(row[name]) if name in row else "" for name in self.columns) + "\n").encode()


class MetricsTable(Table):
    """metrics.csv: what each validation has measured."""

    def log_validation(self, row: Mapping[str, float], step: int) -> None:
        self.append(row)


def _parse(text: TextIO) -> tuple[list[str], list[Row]]:
    """Return columns and rows, read line by line; ValueError if there are more than a run has."""
    lines = csv.reader(_lines(text))
    header, rows, cells = next(lines, []), [], 0
    for line in lines:
        cells += len(line)
        if cells > MAX_CELLS:
            raise ValueError(f"more than {MAX_CELLS:,} cells")
        rows.append({name: _number(cell) for name, cell in zip(header, line, strict=True) if cell})
    return header, rows


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a table that a run may still write: those that are whole; [] if there is no such table."""
    try:
        with path.open("rb") as file:
            header, *lines = readable_lines(file.read(MAX_BYTES)) or [b""]
    except OSError:
        return []
    names = header.decode(errors="replace").strip().split(",")
    cells = [line.decode(errors="replace").strip().split(",") for line in lines]
    return [{name: _number(cell) for name, cell in zip(names, row, strict=True) if cell} for row in cells]


def readable_lines(content: bytes) -> list[bytes]:
    """Return the header of a table and its readable rows: whole, made of numbers, in the order of their steps.

    [] if the header has no columns epoch and step. They stay bytes, so that nothing changes on the way.
    """
    header, *lines = first_lines(content, MAX_ROWS) or [b""]
    names = header.rstrip().split(b",") if len(header) <= MAX_LINE else []
    if not {b"epoch", b"step"} <= set(names):
        return []
    readable, last = [b",".join(names) + b"\n"], -1
    for line in lines:
        step = _step(line, names)
        if step is not None and step > last:
            readable.append(line.rstrip() + b"\n")
            last = step
    return readable


def first_lines(content: bytes, count: int) -> list[bytes]:
    """Return the first lines, with their ends; at most as many as the table of a run has."""
    return list(islice(io.BytesIO(content), min(count, MAX_ROWS)))


def _step(line: bytes, names: Sequence[bytes]) -> int | None:
    """Return the step of a row; None if it is cut off, or not made of numbers."""
    cells = line.rstrip().split(b",") if len(line) <= MAX_LINE else []
    try:
        numbers = [float(cell) for cell in cells if cell]
    except ValueError:
        return None
    if not numbers or len(cells) != len(names) or not line.endswith(b"\n"):
        return None
    step = cells[names.index(b"step")]
    return int(step) if step.isdigit() else None


def _lines(text: TextIO) -> Iterator[str]:
    while line := text.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise ValueError("a line is too long")
        yield line


def _cell(value: Any) -> str:
    """Write a number (Python's, numpy's, a tensor of one) so that reading it back gives the same."""
    return str(int(value)) if isinstance(value, Integral) else repr(float(value))


def _number(cell: str) -> int | float:
    return int(cell) if cell.removeprefix("-").isdecimal() else float(cell)

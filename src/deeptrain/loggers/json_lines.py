"""log.jsonl: a JSON object for every log point and every validation, on disk as soon as it is known."""

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deeptrain.loggers.append_only_file import AppendOnlyFile
from deeptrain.loggers.logger import Logger
from deeptrain.runtime.files import write_atomically

MAX_BYTES = 256 * 2**20  # a million log points


class JsonLines(Logger):
    """Each line has `kind` (step or validation), `step` and the values by tag. pandas reads it (lines=True)."""

    def __init__(self, run_dir: Path, step: int = 0, warn: Callable[[str], Any] = warnings.warn):
        self.path = Path(run_dir) / "log.jsonl"
        self._warn, self._file = warn, AppendOnlyFile(self.path, warn)
        self.truncate(step)

    def log_step(self, values: Mapping[str, float], step: int) -> None:
        self._add("step", values, step)

    def log_validation(self, row: Mapping[str, float], step: int) -> None:
        self._add("validation", row, step)

    def truncate(self, step: int) -> None:
        """Drop the lines of later steps, and a last line that a kill has cut off."""
        self._file.add(b"")  # what waits is written first
        if not self.path.exists():
            return
        if self.path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{self.path}: is too large to be of a run of deeptrain; move it away")
        lines = self.path.read_bytes().splitlines(keepends=True)
        steps = [_step(line) for line in lines]
        remaining = [line for line, at in zip(lines, steps, strict=True) if at is not None and at <= step]
        if damaged := steps[:-1].count(None):
            self._warn(f"{self.path}: {damaged} lines could not be read and were left out")
        if len(remaining) < len(lines):
            write_atomically(self.path, b"".join(remaining))

    def files(self) -> list[Path]:
        return [self.path] if self._file.is_whole and self.path.exists() else []

    def close(self) -> None:
        self._file.add(b"")  # try once more to write what a full disk has kept waiting

    def _add(self, kind: str, values: Mapping[str, float], step: int) -> None:
        record = {"kind": kind, "step": step} | {name: float(value) for name, value in values.items() if name != "step"}
        self._file.add(f"{json.dumps(record)}\n".encode())


def _step(line: bytes) -> int | float | None:
    """Return the step of a line; None if it is cut off or damaged."""
    try:
        step = json.loads(line)["step"] if line.endswith(b"\n") else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return step if isinstance(step, int | float) else None

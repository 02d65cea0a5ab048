"""What a checkpoint knows of the logs: how long they are and what they hold, so that a resume sees damage."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from deeptrain.loggers.metrics_csv import MAX_BYTES, MAX_LINE, first_lines, readable_lines
from deeptrain.runtime.files import sync_folder, write_atomically

BLOCK = 2**20
TABLES = ("metrics.csv", "steps.csv", "layers.csv")


class LogDigests:
    """Measures files that grow. What is new since the last time is read, and brought to the disk."""

    def __init__(self):
        self._known: dict[Path, tuple[int, int, Any]] = {}  # bytes, lines, and the hash that goes on

    def measure(self, paths: Iterable[Path]) -> dict[str, dict[str, Any]]:
        """Return by name the bytes, lines and digest of each file; one that cannot be read is left out."""
        measured = {}
        for path in paths:
            with suppress(OSError):  # logging never stops a training
                measured[path.name] = self._measure(path)
        return measured

    def forget(self) -> None:
        """Read the files from their start again: they have been written anew."""
        self._known = {}

    def _measure(self, path: Path) -> dict[str, Any]:
        size, lines, digest = self._known.get(path, (0, 0, sha256()))
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < size:
                size, lines, digest = 0, 0, sha256()
            start, _ = size, file.seek(size)
            while block := file.read(BLOCK):
                digest.update(block)
                size, lines = size + len(block), lines + block.count(b"\n")
            if size > start:
                os.fsync(file.fileno())
        if path not in self._known:
            sync_folder(path.parent)
        self._known[path] = size, lines, digest
        return {"bytes": size, "lines": lines, "sha256": digest.hexdigest()}


def repair(run_dir: Path, logs: Any) -> list[str]:
    """Compare the logs of a run with what its checkpoint knows of them; return a line for each that is damaged.

    Of tables what can be read is kept. logs: what LogDigests has measured, but it may be a stranger's.
    """
    warnings = []
    for name, known in logs.items() if isinstance(logs, dict) else ():
        if not isinstance(name, str) or Path(name).name != name or not _is_record(known):
            continue
        path = run_dir / name
        if not path.is_file():
            lost = f": its {known['lines'] - 1:,} rows are lost" if name in TABLES else ""
            warnings.append(f"{path} is missing{lost}; the run goes on")
        elif name in TABLES:
            warnings += _repair_table(path, known)
        elif _prefix_digest(path, known["bytes"]) != known["sha256"]:
            size = path.stat().st_size
            state = f"{size:,} of {known['bytes']:,} bytes are left" if size < known["bytes"] else "bytes were changed"
            warnings.append(f"{path} is damaged ({state}): a part of what was logged is lost; the run goes on")
    return warnings


def _is_record(known: Any) -> bool:
    return (
        isinstance(known, Mapping)
        and all(isinstance(known.get(name), int) and 0 <= known[name] < 2**50 for name in ("bytes", "lines"))
        and isinstance(known.get("sha256"), str)
    )


def _prefix_digest(path: Path, size: int) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, BLOCK))):
            digest.update(block)
            size -= len(block)
    return digest.hexdigest()


def _repair_table(path: Path, known: Mapping[str, Any]) -> list[str]:
    """Cut a table after the rows that its checkpoint knows; if they are not as they were, keep what can be read."""
    if path.stat().st_size > MAX_BYTES:
        return []  # it is refused later on
    content = path.read_bytes()
    lines = first_lines(content, known["lines"])
    if _is_intact(lines, known):
        os.truncate(path, sum(map(len, lines)))
        return []
    readable, aside = readable_lines(content), path.with_name(f"{path.stem}.damaged.csv")
    write_atomically(aside, content)
    write_atomically(path, b"".join(readable))
    rows = f"{max(0, len(readable) - 1):,} rows can be read, the checkpoint knows {max(0, known['lines'] - 1):,}"
    return [f"{path} was damaged or changed: {rows}; the run goes on, and the file as it was is {aside.name}"]


def _is_intact(lines: list[bytes], known: Mapping[str, Any]) -> bool:
    """Tell whether lines are as they were measured. A resume may have added columns, which are empty in old rows."""
    if not lines or len(lines[0]) > MAX_LINE:
        return not lines and known["bytes"] == 0
    names, surplus = lines[0].rstrip(b"\n").split(b","), sum(map(len, lines)) - known["bytes"]
    added = 0
    while surplus > 0 and added < len(names) - 1:
        added += 1
        surplus -= len(names[-added]) + len(lines)  # a name, and a comma in every line
    ends = b"," * added + b"\n"
    header = b",".join(names[: len(names) - added]) + b"\n"
    digest = sha256(header)
    for line in lines[1:]:
        digest.update(line.removesuffix(ends) + b"\n" if added else line)
    return surplus == 0 and digest.hexdigest() == known["sha256"]

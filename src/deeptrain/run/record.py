"""What a run's folder says of it, for the reader: its rows, its settings, its numbers of images. Without torch."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deeptrain.analysis import reader
from deeptrain.analysis.run_record import Record, Row
from deeptrain.config.override import override_key
from deeptrain.config.settings import LISTS
from deeptrain.errors import UsageError
from deeptrain.loggers.metrics_csv import MAX_BYTES, readable_lines
from deeptrain.run import saved
from deeptrain.runtime.paths import quote
from deeptrain.runtime.resources import command

STEPS_BYTES = 2**18  # of steps.csv: the first thousands of log points, in a few milliseconds
HEAD_BYTES = 4096  # of run.log, in which its head is
REPLACED = {"model.initialization": ("model.init_std",), "overfit": ("validate.images", "data.train_images")}
NOT_REPEATED = ("dir", "resume", "resume_changed", "rerun", "init_from", "cache_dir")


def find(text: str) -> Path:
    """Return the run folder that is named, also by a file or a folder in it; UsageError if it is none."""
    path = saved.read_path(text)
    for folder in (path, path.parent, path.parent.parent):
        if (folder / "metrics.csv").is_file() and (folder / "config.yaml").is_file():
            return folder
    what = "is no run's folder (it has no metrics.csv and config.yaml)" if path.exists() else "is not there"
    raise UsageError([f"{text}: {what}; name one, as in outputs/DATE/TIME-ID"])


def load(folder: Path, result: Mapping[str, Any] | None = None) -> Record:
    """Read a run's folder, whether the run is over or not. result: that of result.json if it is not written yet."""
    known: Mapping[str, Any] = saved.read_json(folder / "result.json", dict, {}) if result is None else result
    table, config = rows(folder / "metrics.csv"), saved.load_config(folder)
    steps = rows(folder / "steps.csv", STEPS_BYTES)
    return Record(table, config, result=known, steps=steps, **_images(folder, known))


def rows(path: Path, most: int = MAX_BYTES + 1) -> list[Row]:
    """Read the whole rows in the first `most` bytes of a table; the last one may be half written."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        content = file.read(most)
    if len(content) > MAX_BYTES:
        raise UsageError([f"{path}: is too large to be of a run of deeptrain; {saved.REMEDY}"])
    header, *lines = readable_lines(content) or [b""]
    names = header.decode("utf-8", "replace").rstrip().split(",")
    cells = (line.decode("utf-8", "replace").rstrip("\n").split(",") for line in lines)
    return [{name: float(cell) for name, cell in zip(names, line, strict=True) if cell} for line in cells]


def reading(folder: Path, result: Mapping[str, Any] | None = None) -> list[str]:
    """Return what a run's curves show, in at most three lines, [] if nothing. result: if it is not written yet."""
    found = reader.read(load(folder, result))
    overrides = saved.read_overrides(folder) if (folder / "overrides.yaml").is_file() else []
    return reader.lines(found, lambda override: trial(overrides, override))


def trial(overrides: list[str], override: str) -> str:
    """Return the command that repeats a run with one setting changed."""
    key, keys = override_key(override.strip("'")), [override_key(word) for word in overrides]
    gone = (key, *NOT_REPEATED, *REPLACED.get(key, ()))
    inner = "/" if key in LISTS else f"{key}."  # settings of the option that is replaced; a list is only added to
    other = [
        word
        for index, (word, name) in enumerate(zip(overrides, keys, strict=True))
        if name not in gone and not name.startswith(inner) and name not in keys[index + 1 :]
    ]
    return " ".join([command("train"), *map(quote, other), override])


def _images(folder: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of images and classes: of result.json, else as the head of run.log names them."""
    counts = result.get("images")
    if isinstance(counts, Mapping) and all(isinstance(value, int) for value in counts.values()):
        return dict(counts) | {"largest_class": result.get("largest_class")}
    if not (folder / "run.log").is_file():
        return {}
    with (folder / "run.log").open("rb") as file:
        head = file.read(HEAD_BYTES).decode("utf-8", "replace")
    patterns = {"num_classes": r"([\d,]+) classes", "train": r"train ([\d,]+)", "val": r"val ([\d,]+)"}
    found = {name: re.search(pattern, head) for name, pattern in patterns.items()}
    return {name: int(match[1].replace(",", "")) for name, match in found.items() if match}

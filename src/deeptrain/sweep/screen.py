"""What a sweep shows while it runs: on a terminal all running jobs at once, else a line for each that has ended."""

import csv
import os
import shutil
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from deeptrain.report import formatting
from deeptrain.runtime import terminal
from deeptrain.sweep.plan import Job


@dataclass(frozen=True)
class Standing:
    """How far a job has come: the last row of its metrics.csv."""

    step: int
    epoch: float
    loss: float | None
    accuracy: float | None
    seconds: float  # of training

    @classmethod
    def read(cls, job: Job) -> "Standing | None":
        """Read how far a job has come; None before its first validation."""
        try:
            with (job.folder / "metrics.csv").open(newline="") as file:
                *_, row = csv.DictReader(file)
            numbers = {key: float(value) for key, value in row.items() if key and value}
            loss, accuracy = numbers.get("loss/train"), numbers.get("accuracy/val")
            return cls(int(numbers["step"]), numbers["epoch"], loss, accuracy, numbers["seconds"])
        except (OSError, ValueError, TypeError, KeyError, csv.Error):  # none yet, or just being written
            return None

    def seconds_left(self, job: Job) -> float | None:
        return self.seconds / self.step * max(0, job.steps - self.step) if job.steps and self.step else None


def seconds_left(
    jobs: Sequence[Job],
    results: Mapping[str, Mapping[str, Any]],
    standings: Mapping[str, Standing | None],
    at_once: int,
    more: int = 0,
) -> float | None:
    """Estimate how long the open ones of the jobs take: as long as done ones of their setting, else as any.

    Before the first is done, as long as those that run will have taken. more: jobs that are still to be made. None if
    nothing is known yet.
    """
    known: dict[str, list[float]] = defaultdict(list)
    for job in jobs:
        if job.name in results:
            known[job.setting].append(results[job.name]["seconds"])
        elif (standing := standings.get(job.name)) and (left := standing.seconds_left(job)) is not None:
            known[job.setting].append(standing.seconds + left)
    if not known:
        return None
    everything = statistics.fmean(value for values in known.values() for value in values)
    total = more * everything
    for job in jobs:
        if job.name not in results:
            standing = standings.get(job.name)
            done = standing.step / job.steps if standing and job.steps else 0.0
            total += statistics.fmean(known.get(job.setting, [everything])) * (1 - done)
    return total / max(1, at_once)


def describe(job: Job, standing: Standing | None, width: int, note: str = "") -> str:
    """Write the line of a running job."""
    facts = []
    if standing is None:
        facts.append("first epoch")
    else:
        facts.append(f"epoch {standing.epoch:g}")
        facts += [] if standing.loss is None else [f"loss {formatting.format_loss(standing.loss)}"]
        facts += [] if standing.accuracy is None else [f"val {formatting.percent(standing.accuracy)}"]
        left = standing.seconds_left(job)
        facts += [] if left is None else [f"{formatting.duration(left)} left"]
    return f"  {job.name:<{width}}  {'  '.join([*facts, *([note] if note else [])])}"


def outcome(result: Mapping[str, Any]) -> str:
    """Say in a few words what came of a job that is done."""
    best = formatting.metric_format(result["as_percent"])(result["best"]) if result["best"] is not None else "no value"
    pruned = f"pruned after epoch {result['epochs']:g}: " if result["status"] == "pruned" else ""
    return f"{pruned}{result['monitor']} {best}   {formatting.duration(result['seconds'])}"


class Screen:
    """A block of lines at the bottom of a terminal, redrawn in place; ordinary lines pass above it."""

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream or sys.stdout
        self.is_live = self._stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._height = 0

    def show(self, *lines: str) -> None:
        """Show lines that stay."""
        self._erase()
        self._write("".join(f"{terminal.printable(line)}\n" for line in lines))

    def draw(self, lines: Sequence[str]) -> None:
        """Replace the block; what does not fit the terminal is left out."""
        if not self.is_live:
            return
        columns, rows = shutil.get_terminal_size()
        room = max(1, rows - 2)
        visible = list(lines) if len(lines) <= room else [*lines[: room - 1], f"  and {len(lines) - room + 1} more"]
        self._erase()
        self._write("".join(f"{terminal.printable(line)[: columns - 1]}\n" for line in visible))
        self._height = len(visible)

    def close(self) -> None:
        self._erase()

    def _erase(self) -> None:
        if self._height:
            self._write(f"\x1b[{self._height}A\r\x1b[J")
            self._height = 0

    def _write(self, text: str) -> None:
        if terminal.write(text, self._stream) is not None:  # nobody reads it any longer
            self.is_live, self._height = False, 0

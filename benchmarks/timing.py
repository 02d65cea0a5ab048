"""Timing several ways of doing the same work side by side, so that a slow spell of the machine hits them all alike."""

import gc
import multiprocessing
import os
import platform
import resource
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

Work = Callable[[], object]


@dataclass(frozen=True)
class Way:
    """One way of doing the work: `prepare(units)` sets it up, off the clock, and returns what is put on the clock.

    It is run at two lengths, in units (steps, images). The slope between them is what a unit costs once everything is
    warm: starting workers, the first batch, a validation at the end cancel out.
    """

    prepare: Callable[[int], Work]
    short: int
    long: int

    def seconds(self, units: int) -> np.ndarray:
        """Return the wall and CPU seconds that so many units take."""
        return clock(self.prepare(units))


class Apart:
    """A way in a process of its own, which sleeps while others run: what one sets process-wide, another does not get.

    `make(*arguments)` returns the way; it is called in that process, so it must be importable from there.
    """

    def __init__(self, make: Callable[..., Way], *arguments: object):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, make, arguments))
        self.process.start()
        theirs.close()
        self.short, self.long = self.pipe.recv()

    def seconds(self, units: int) -> np.ndarray:
        self.pipe.send(units)
        return self.pipe.recv()

    def close(self) -> None:
        self.pipe.send(None)
        self.process.join()


def _serve(pipe: Connection, make: Callable[..., Way], arguments: tuple) -> None:
    way = make(*arguments)
    pipe.send((way.short, way.long))
    gc.freeze()
    while (units := pipe.recv()) is not None:
        pipe.send(way.seconds(units))
    os._exit(0)  # some libraries would tell at length what they have not tidied up


@dataclass(frozen=True)
class Timing:
    """Seconds a unit of one way, (rounds, 2): wall and CPU, of this process and of the children that it has reaped."""

    steady: np.ndarray  # the slope between the two lengths
    whole: np.ndarray  # the long run, its start and its end included


def measure(ways: Mapping[str, Way | Apart], rounds: int = 5, warmup: int = 1) -> dict[str, Timing]:
    """Run every way once a round, in rotating order, so that none always follows the same neighbour."""
    names, taken = list(ways), {name: [] for name in ways}
    gc.freeze()  # so that collecting before every measurement takes microseconds
    for turn in range(-warmup, rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            way = ways[name]
            short, long = way.seconds(way.short), way.seconds(way.long)
            if turn >= 0:
                taken[name].append(((long - short) / (way.long - way.short), long / way.long))
    gc.unfreeze()
    for way in ways.values():
        if isinstance(way, Apart):
            way.close()
    return {name: Timing(*np.array(pairs).swapaxes(0, 1)) for name, pairs in taken.items()}


def clock(work: Work) -> np.ndarray:
    gc.collect()  # nobody pays for another's garbage
    before = _now()
    work()
    return _now() - before


def _now() -> np.ndarray:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return np.array([time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime])


def median(samples: np.ndarray) -> np.ndarray:
    """Return the medians over rounds, (2,): wall and CPU."""
    return np.median(samples, axis=0)


def spread(samples: np.ndarray) -> np.ndarray:
    """Return half the distance between the quartiles over rounds, (2,): how noisy the medians' rounds were."""
    low, high = np.percentile(samples, [25, 75], axis=0)
    return (high - low) / 2


def times_faster(samples: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the median over rounds of the ratio within a round, (2,): above 1 is faster than the reference."""
    return median(reference / np.where(samples == 0, np.nan, samples))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table that Markdown understands, the first column to the left and figures to the right."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    marks = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    for line in [head, marks, *lines[1:]]:
        cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
        print("| " + " | ".join([line[0].ljust(widths[0]), *cells[1:]]) + " |")
    print()


@dataclass(frozen=True)
class Goal:
    """A figure beside what it must be and what it should once be; None: no such bar."""

    row: str  # of the table of goals, as C5
    text: str
    value: float
    must: float
    stretch: float | None = None
    at_most: bool = False
    ours: str = ""  # of what the value is the ratio or the difference
    peer: str = ""

    def holds(self, bar: float | None) -> bool:
        return bar is not None and (self.value <= bar if self.at_most else self.value >= bar)


GOALS: list[Goal] = []  # of this process, in the order in which they were measured


def goal(row: str, text: str, value: float, must: float, stretch: float | None = None, **more: Any) -> None:
    """Print a figure beside what it must be, and note it for benchmarks/run.py. more: of Goal."""
    GOALS.append(found := Goal(row, text, value, must, stretch, **more))
    bar = f"{'at most' if found.at_most else 'at least'} {must:,g}"
    print(f"goal: {text}: {value:,.2f} ({bar}), {'held' if found.holds(must) else 'MISSED'}")


def write_between(page: Path, begin: str, end: str, lines: Sequence[str]) -> None:
    """Put lines between two marks of a page."""
    before, _, rest = page.read_text("utf-8").partition(begin)
    page.write_text(f"{before}{begin}\n\n" + "\n".join(lines).rstrip() + f"\n\n{end}{rest.partition(end)[2]}", "utf-8")


def circumstances(*packages: str, quick: bool) -> str:
    """Say what the figures depend on besides the code: cores, other work on them, versions."""
    versions = []
    for package in packages:
        with suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    load = os.getloadavg()[0]
    known = f"{os.cpu_count()} cores, load {load:.1f}; Python {platform.python_version()}, {', '.join(versions)}"
    return known + ("; quick: the figures mean nothing" if quick else "")

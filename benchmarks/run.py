"""Every goal of speed in one table: ours, the others, their ratio, what it must and what it should be.

    uv run --group peers benchmarks/run.py --cifar10 DIR   # all, 45 minutes; writes docs/benchmarks.md
    uv run --group peers benchmarks/run.py --quick   # the exact rows alone; exit code 1 if one is missed
    uv run --group peers benchmarks/run.py --only step loader   # these scripts anew; the others' rows stay
    uv run benchmarks/run.py --only                  # writes the table anew from the rows that are there

Each script runs in a process of its own, one after the other. Its rows go into benchmarks/results.json at once, with
the day and the machine, so the scripts need not run in one go. What is not installed is named, and its rows are
left out.
"""

import argparse
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import accuracy
import augment
import convolutions
import exact
import growth
import loader
import optimizer
import photographs
import startup
import step
import timing
import train
from timing import Goal, circumstances, write_between

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
RESULTS = Path(__file__).with_name("results.json")
BEGIN, END = "<!-- the table of benchmarks/run.py -->", "<!-- its end -->"
EXACT = ("exact", "startup")
MODULES = (exact, startup, loader, photographs, augment, step, train, optimizer, convolutions, growth, accuracy)
SCRIPTS = {each.__name__: each for each in MODULES}
PEERS = ("lightning", "timm", "kornia", "accelerate", "ignite")
PACKAGES = ("torch", "torchvision", "lightning", "timm", "kornia", "accelerate", "pytorch-ignite")
GPU = "needs a GPU: `benchmarks/train.py` and `benchmarks/augment.py` measure G1, G2 and G5 where there is one"


@dataclass(frozen=True)
class Result:
    """The rows of one script, when and on what they were measured, and how long it took."""

    rows: list[dict[str, Any]]  # the fields of Goal
    day: str
    machine: str
    versions: str
    minutes: float

    @property
    def goals(self) -> list[Goal]:
        return [Goal(**row) for row in self.rows]


def goals_of(name: str, words: list[str]) -> tuple[list[Goal], float]:
    """Run a script in this process; return what it noted, and its seconds."""
    print(f"\n== {name}.py {' '.join(words)}", flush=True)
    if sys.platform == "linux":  # in a spawned process the workers of the others' loaders would be spawned too
        multiprocessing.set_start_method("fork", force=True)
    taken = timing.clock(lambda: _run(name, words))
    print(f"{name}.py took {taken[0]:.0f} s, {taken[1]:.0f} s of CPU", flush=True)
    return timing.GOALS, float(taken[0])


def _run(name: str, words: list[str]) -> None:
    try:
        SCRIPTS[name].main(words)
    except SystemExit as error:  # which would end this process without a word
        raise RuntimeError(f"ended with {error}") from error


def measured(name: str, words: list[str]) -> Result | str:
    """Return the rows of a script, or the error that ended it."""
    machine, _, versions = circumstances(*PACKAGES, quick=False).partition("; ")
    if absent := [peer for peer in PEERS if find_spec(peer) is None]:
        versions += f"; not installed: {', '.join(absent)}"
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:  # a Pool's may have no children
        try:
            goals, seconds = alone.submit(goals_of, name, words).result()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return Result([asdict(goal) for goal in goals], str(date.today()), machine, versions, round(seconds / 60, 1))


def read_results() -> dict[str, Result]:
    """Return what earlier runs measured, by script."""
    found = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    return {name: Result(**found[name]) for name in SCRIPTS if name in found}


def write_results(results: dict[str, Result]) -> None:
    results = {name: results[name] for name in SCRIPTS if name in results}
    RESULTS.write_text(json.dumps({name: asdict(result) for name, result in results.items()}, indent=1) + "\n", "utf-8")
    write_between(PAGE, BEGIN, END, page(results))


def page(results: dict[str, Result]) -> list[str]:
    """Write the table, then when each script ran."""
    lines = [*table([goal for result in results.values() for goal in result.goals]), *missing(results), ""]
    for versions in dict.fromkeys(result.versions for result in results.values()):
        lines += [f"Measured with {versions}:", ""]
        for name, result in results.items():
            if result.versions == versions:
                lines.append(f"- `{name}`: {result.day}, {result.machine}; {result.minutes:g} minutes.")
        lines.append("")
    return lines


def table(goals: list[Goal]) -> list[str]:
    """Write goals as a table in Markdown, in the order of their rows."""
    lines = ["| row | what | ours | peer | value | must | stretch | holds |", "|---|---|---:|---:|---:|---:|---:|---|"]
    for goal in sorted(goals, key=lambda goal: (int(goal.row[1:].rstrip("bcd")), goal.row)):
        sign = "≤" if goal.at_most else "≥"
        holds = "stretch" if goal.holds(goal.stretch) else "must" if goal.holds(goal.must) else "**no**"
        bars = [f"{sign} {bar:g}" if bar is not None else "" for bar in (goal.must, goal.stretch)]
        cells = [goal.row, goal.text, goal.ours, goal.peer, f"{goal.value:.3g}", *bars, holds]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def missing(results: dict[str, Result]) -> list[str]:
    """Write a row for each script that has not run."""
    rows = [f"| | `benchmarks/{name}.py` has not run |" for name in SCRIPTS if name not in results]
    return [f"{row} | | | | | not measured |" for row in [*rows, f"| G1-G10 | {GPU} |"]]


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the exact rows alone; the page is left as it is")
    parser.add_argument("--rounds", type=int, help="of each script; its own number if this is left out")
    parser.add_argument("--only", nargs="*", choices=SCRIPTS, metavar="SCRIPT", help=", ".join(SCRIPTS))
    parser.add_argument("--cifar10", type=Path, help="folder with CIFAR-10's pictures, for accuracy.py")
    options = parser.parse_args(words)
    names = list(EXACT if options.quick else SCRIPTS) if options.only is None else options.only
    common = ["--quick"] if options.quick else [] if options.rounds is None else ["--rounds", str(options.rounds)]
    more = {"growth": ["--write"], "accuracy": ["--root", str(options.cifar10)] if options.cifar10 else []}
    results, held = read_results(), True
    for name in names:
        found = measured(name, [*common, *([] if options.quick else more.get(name, []))])
        if isinstance(found, str):
            print(f"{name}.py: {found}; its rows stay as they were")
            held = False
            continue
        held &= all(goal.holds(goal.must) for goal in found.goals)
        print("\n" + "\n".join(table(found.goals)))
        results[name] = found
        if not options.quick:
            write_results(results)
    if not names:
        write_results(results)
    return int(not held)


if __name__ == "__main__":
    sys.exit(main())

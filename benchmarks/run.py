"""Every goal of speed in one table: ours, the others, their ratio, what it must and what it should be.

    uv run --group peers benchmarks/run.py           # about 45 minutes, writes docs/benchmarks.md
    uv run --group peers benchmarks/run.py --quick   # the exact rows alone; exit code 1 if one is missed
    uv run --group peers benchmarks/run.py --only step loader

Each script of the table runs in a process of its own, one after the other. What is not installed is named, and its rows
are left out.
"""

import argparse
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

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
BEGIN, END = "<!-- the table of benchmarks/run.py -->", "<!-- its end -->"
EXACT = ("exact", "startup")
MODULES = (exact, startup, loader, photographs, augment, step, train, optimizer, convolutions, growth)
SCRIPTS = {each.__name__: each for each in MODULES}
PEERS = ("lightning", "timm", "kornia", "accelerate", "ignite")
PACKAGES = ("torch", "torchvision", "lightning", "timm", "kornia", "accelerate", "pytorch-ignite")
NOT_HERE = {
    "C10": "accuracy after 45 s and after 180 s: `experiment=quick/*`, needs CIFAR-10's files",
    "G1-G10": "needs a GPU: `benchmarks/train.py` and `benchmarks/augment.py` measure G1, G2 and G5 where there is one",
}


def goals_of(name: str, words: list[str]) -> list[Goal]:
    """Run a script in this process; return what it noted."""
    print(f"\n== {name}.py {' '.join(words)}", flush=True)
    if sys.platform == "linux":  # in a spawned process the workers of the others' loaders would be spawned too
        multiprocessing.set_start_method("fork", force=True)
    taken = timing.clock(lambda: _run(name, words))
    print(f"{name}.py took {taken[0]:.0f} s, {taken[1]:.0f} s of CPU", flush=True)
    return timing.GOALS


def _run(name: str, words: list[str]) -> None:
    try:
        SCRIPTS[name].main(words)
    except SystemExit as error:  # which would end this process without a word
        raise RuntimeError(f"ended with {error}") from error


def measured(names: list[str], words: list[str]) -> dict[str, list[Goal] | str]:
    """Return the goals of each script, or the error that ended it."""
    found: dict[str, list[Goal] | str] = {}
    for name in names:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:  # a Pool's may have no children
            try:
                found[name] = alone.submit(goals_of, name, words).result()
            except Exception as error:
                found[name] = f"{type(error).__name__}: {error}"
                print(found[name])
    return found


def table(found: dict[str, list[Goal] | str]) -> list[str]:
    """Write the goals as a table in Markdown, in the order of their rows."""
    lines = ["| row | what | ours | peer | value | must | stretch | holds |", "|---|---|---:|---:|---:|---:|---:|---|"]
    goals = [goal for each in found.values() if not isinstance(each, str) for goal in each]
    for goal in sorted(goals, key=lambda goal: (not goal.row, len(goal.row.rstrip("bcd")), goal.row)):
        sign = "≤" if goal.at_most else "≥"
        holds = "stretch" if goal.holds(goal.stretch) else "must" if goal.holds(goal.must) else "**no**"
        bars = [f"{sign} {bar:g}" if bar is not None else "" for bar in (goal.must, goal.stretch)]
        cells = [goal.row, goal.text, goal.ours, goal.peer, f"{goal.value:.3g}", *bars, holds]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"| {row} | {why} | | | | | | not measured |" for row, why in NOT_HERE.items()]
    lines += [
        f"| | {name}.py: {error} | | | | | | not measured |" for name, error in found.items() if isinstance(error, str)
    ]
    return lines


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the exact rows alone; the page is left as it is")
    parser.add_argument("--rounds", type=int, help="of each script; its own number if this is left out")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, help="these scripts; the page is left as it is")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args(words)
    names = list(options.only or (EXACT if options.quick else SCRIPTS))
    rounds = [] if options.rounds is None else ["--rounds", str(options.rounds)]
    known = circumstances(*PACKAGES, quick=False)
    absent = [name for name in PEERS if find_spec(name) is None]
    found = measured(names, ["--quick"] if options.quick else rounds)
    lines = [f"Measured on {known}.", *([f"Not installed: {', '.join(absent)}."] if absent else []), "", *table(found)]
    print("\n" + "\n".join(lines))
    if options.json:
        rows = [asdict(goal) for each in found.values() if not isinstance(each, str) for goal in each]
        options.json.write_text(json.dumps(rows, indent=1), "utf-8")
    if not options.quick and not options.only:
        write_between(PAGE, BEGIN, END, lines)
    wrong = [
        each for each in found.values() if isinstance(each, str) or not all(goal.holds(goal.must) for goal in each)
    ]
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

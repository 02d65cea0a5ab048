"""Kill a whole sweep at random moments, go on with one or two terminals, and compare with one that was left alone.

    python scripts/torture_sweep.py                  20 kills of everything in a sweep of 24 jobs
    python scripts/torture_sweep.py --search 12      20 kills of everything in a search of 12 trials, one at a time
    python scripts/torture_sweep.py --server         the same with the fork server of the product

What must hold: every job arrives at the same bits, and no job that is done is ever run again. Reports are equal but for
clocks; so are the trials of a search. Without --server each sweep is forked from this process, which has imported
everything, so that kills hit the work. Linux only.
"""

import argparse
import csv
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import torture

from deeptrain.commands.tune import tune
from deeptrain.runtime.watch import children
from deeptrain.sweep import server

WORDS = [
    "device=cpu",
    "threads=1",
    "data=synthetic",
    "data.size=320",
    "batch_size=32",
    "epochs=2",
    "validate.every_steps=7",
    "validate.clean_images=64",
    "checkpoint.every_steps=3",
    "model=fcn",
    "model.hidden=[16]",
    "model.dropout=0.2",
]
AXES = ["aug=none,[mixup],[cutout,mixup]", "average=none,ema"]
RANGES = ["optimizer.lr=log(1e-4,1e-1)", "model.dropout=interval(0,0.5)"]
CLOCKS = ("seconds", "train_seconds", "images_per_second", "peak_memory")  # what no two sweeps have in common


def fork_directly() -> None:
    """Fork jobs from the process of the sweep itself, which has everything imported already."""
    server.start = lambda: multiprocessing.get_context("fork")


def start(words: list[str], log: Path, options: argparse.Namespace, *, with_server: bool) -> int:
    """Start a sweep or a search in a process of its own; return its number."""
    sys.stdout.flush()
    if number := os.fork():
        return number
    os.setsid()
    if not with_server:
        fork_directly()
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", 1, closefd=False), os.fdopen(2, "w", 1, closefd=False)
    code = 1
    try:
        code = tune(words) if options.search else torture.cli.train(words)
    finally:
        os._exit(code)


def descendants(number: int) -> list[int]:
    below = [each for child in children(number) for each in (child, *descendants(child))]
    return list(dict.fromkeys(below))


def kill_all(numbers: list[int]) -> None:
    """Kill processes and all that they have started, at one moment as far as that goes."""
    everything = [*numbers, *(each for number in numbers for each in descendants(number))]
    for number in everything:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    for number in numbers:
        os.waitpid(number, 0)


def done(base: Path) -> dict[str, bytes]:
    """Return the results of the jobs that are done."""
    files = {path.parent.name: path.read_bytes() for path in base.glob("*/result.json")}
    return {name: content for name, content in files.items() if b'"status": "finished"' in content}


def wait_until(numbers: list[int], end: float) -> list[int]:
    """Wait until all processes have ended, at most until then; return their exit codes, [] if one still runs."""
    codes: dict[int, int] = {}
    while len(codes) < len(numbers):
        for number in [number for number in numbers if number not in codes]:
            ended, status = os.waitpid(number, os.WNOHANG)
            if ended:
                codes[number] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            for number in [number for number in numbers if number in codes]:
                numbers.remove(number)
            return []
        time.sleep(0.01)
    return list(codes.values())


def torture_sweep(
    words: list[str], base: Path, seconds: float, kills: int, rng: random.Random, options: argparse.Namespace
) -> int:
    """Start a sweep and kill it at most that often until it has finished; return how often it was killed."""
    killed, log, before = 0, base.with_suffix(".txt"), {}
    jobs = jobs_at_once(options)
    while True:
        begun = (base / "sweep.json").is_file()
        given = [f"resume={base}", jobs] if begun else [*words, f"dir={base}", jobs]
        terminals = rng.choice((1, 2)) if begun and not options.search else 1
        numbers = [start(given, log, options, with_server=options.server) for _ in range(terminals)]
        wanted = rng.uniform(0, seconds * 2 / options.kills) + (4 if options.server else 0)
        codes = wait_until(numbers, time.monotonic() + (wanted if killed < kills else 1e9))
        if codes:
            if any(codes):
                sys.exit(f"a sweep failed: exit codes {codes}\n{log.read_text()}")
            if missing := [name for name, content in before.items() if done(base).get(name) != content]:
                sys.exit(f"run again although they were done: {missing}")
            return killed
        kill_all(numbers)
        killed += 1
        now = done(base)
        if again := [name for name, content in before.items() if now.get(name) != content]:
            sys.exit(f"run again although they were done: {again}")
        before = now


def jobs_at_once(options: argparse.Namespace) -> str:
    """Return jobs=1 for a search: with more it sees its trials end in another order each time."""
    return "jobs=1" if options.search else "jobs=2"


def report(base: Path) -> list[dict[str, str]]:
    """Read what a sweep or a search says of its runs, without clocks."""
    path = next(path for name in ("trials.csv", "report.csv") if (path := base / name).is_file())
    with path.open(newline="") as file:
        rows = [{key: cell for key, cell in row.items() if key not in CLOCKS} for row in csv.DictReader(file)]
    return [row | {"folder": Path(row["folder"]).name} for row in rows]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=4, help="of each setting")
    parser.add_argument("--search", type=int, default=0, metavar="TRIALS", help="a search instead of a sweep")
    parser.add_argument("--seed", type=int, default=0, help="of the moments to kill at")
    parser.add_argument("--server", action="store_true", help="with the fork server of the product")
    parser.add_argument("axes", nargs="*")
    options = parser.parse_args(arguments)
    words = [*WORDS, *(options.axes or RANGES), f"trials={options.search}"]
    if not options.search:
        words = ["-m", *WORDS, *(options.axes or AXES), f"seed=range({options.seeds})"]
    torture.import_everything()
    with tempfile.TemporaryDirectory() as home:
        whole = Path(home) / "whole"
        began, log = time.monotonic(), Path(home) / "whole.txt"
        alone = start([*words, f"dir={whole}", jobs_at_once(options)], log, options, with_server=False)
        if any(wait_until([alone], 1e18)):
            sys.exit(log.read_text())
        seconds, kills, rounds, rng, different = time.monotonic() - began, 0, 0, random.Random(options.seed), {}
        names = sorted(path.parent.name for path in whole.glob("*/result.json"))
        while kills < options.kills and not different:  # a sweep that ended before its last kill is followed by another
            rounds, began, killed_base = rounds + 1, time.monotonic(), Path(home) / f"killed{rounds}"
            kills += torture_sweep(words, killed_base, seconds, options.kills - kills, rng, options)
            seconds = min(seconds, time.monotonic() - began)
            found = {name: torture.differences(whole / name, killed_base / name) for name in names}
            different = {name: parts for name, parts in found.items() if parts}
            if report(whole) != report(killed_base):
                different["the report"] = ["what it says of the runs"]
        print(f"{len(names)} jobs, {kills} kills of everything: {different or 'all bits agree, none was run again'}")
        return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())

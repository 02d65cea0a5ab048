"""Measure two checkouts in turn: what a step costs, and how long the command line takes to answer.

    python benchmarks/alternate.py OLD NEW [--repeat 10] [--python-old P] [--python-new P] [--quick]

Each checkout runs its own benchmarks/step.py and train.py. Prints medians, and the median of NEW minus OLD.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROWS = {"deeptrain": "batches lie ready", "deeptrain, its loader": "with our loader"}
SMALL = "data=synthetic data.size=2000 model=fcn threads=1 device=cpu limit_steps=1 log.tensorboard=false"
COMMANDS = {"--help": (["--help"], 0), "a mistake": (["modle=vgg"], 2), "first step": (SMALL.split(), 0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--python-old", type=Path)
    parser.add_argument("--python-new", type=Path)
    parser.add_argument("--quick", action="store_true", help="a few steps: does it run at all?")
    options = parser.parse_args()
    old, new = options.old.resolve(), options.new.resolve()
    sides = [
        (old, options.python_old or old / ".venv/bin/python"),
        (new, options.python_new or new / ".venv/bin/python"),
    ]
    results: list[list[dict[str, float]]] = [[], []]
    for number in range(options.repeat):
        for side in (0, 1) if number % 2 == 0 else (1, 0):
            results[side].append(measure(*sides[side], options.quick))
    report(*results)


def measure(checkout: Path, python: Path, quick: bool) -> dict[str, float]:
    """Return a checkout's microseconds a step and seconds a command, by name."""
    step = ["benchmarks/step.py", *(["--quick"] if quick else ["--rounds", "3"])]
    measures = step_times(run(checkout, python, step, 0)[1])
    for name, (words, code) in COMMANDS.items():
        with tempfile.TemporaryDirectory() as folder:
            extra = [f"dir={folder}/run"] if name == "first step" else []
            measures[f"{name}, s"] = run(checkout, python, ["train.py", *words, *extra], code)[0]
    return measures


def step_times(output: str) -> dict[str, float]:
    """Read the wall and CPU columns of our rows in the table of step.py."""
    times = {}
    for line in output.splitlines():
        cells = [cell for cell in re.split(r"\s*\|\s*|\s{2,}", line.strip()) if cell]
        if len(cells) >= 3 and cells[0] in ROWS:
            for column, cell in zip(("wall", "CPU"), cells[1:3], strict=True):
                times[f"{ROWS[cells[0]]}, {column}, us a step"] = float(cell.replace(",", ""))
    if len(times) != 2 * len(ROWS):
        sys.exit(f"step.py printed no table with the rows {', '.join(ROWS)}:\n{output}")
    return times


def run(checkout: Path, python: Path, words: list[str], code: int) -> tuple[float, str]:
    """Run a script of a checkout; return its seconds and its output."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    line = [str(python), str(checkout / words[0]), *words[1:]]
    start = time.perf_counter()
    done = subprocess.run(line, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode != code:
        sys.exit(f"{' '.join(line)}\nexit code {done.returncode} and not {code}\n{done.stdout}\n{done.stderr}")
    return seconds, done.stdout


def report(old: list[dict[str, float]], new: list[dict[str, float]]) -> None:
    print(f"{'median of ' + str(len(old)):<36}{'OLD':>10}{'NEW':>10}{'NEW - OLD':>12}")
    for name in old[0]:
        before, after = [row[name] for row in old], [row[name] for row in new]
        difference = median(b - a for a, b in zip(before, after, strict=True))
        print(f"{name:<36}{median(before):>10.2f}{median(after):>10.2f}{difference:>+12.2f}")


if __name__ == "__main__":
    main()

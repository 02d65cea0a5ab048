"""Kill a run at random moments, resume it each time, and compare with the run that was left alone: all bits must agree.

    python scripts/torture.py                    20 kills of a small run with everything random switched on
    python scripts/torture.py --kills 200        the figure in docs/reliability.md
    python scripts/torture.py --kills 5 -- data=image_folder data.root=DIR data.loader=stream 'workers=0|1|2'

Settings after -- are a run's own; of `key=a|b` each start takes another value. Runs are forked from one process that
has imported everything, so that kills hit the work and not the imports. Needs a system with fork; the CPU only.
"""

import argparse
import csv
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deeptrain.commands import cli
from deeptrain.loggers.metrics_csv import TIME_COLUMNS
from deeptrain.run import folder as run_folder
from deeptrain.training import checkpoint

WORDS = [
    "device=cpu",
    "threads=1",
    "aug=[cutout,mixup]",
    "average=ema",
    "validate.every_steps=11",
    "validate.clean_images=200",
    "log.every_steps=4",
    "checkpoint.every_steps=5",
]
SETTINGS = [  # unless others are given
    "model=wide_resnet",
    "model.depth=10",
    "model.width=1",
    "model.dropout=0.2",
    "model.stochastic_depth=0.3",
    "epochs=3",
]
CLOCKS = (*TIME_COLUMNS, "speed/images_per_second")  # what no two runs have in common
TIMES = ("train_seconds",)


def import_everything() -> None:
    """Import what a run imports, so that its forks need not."""
    import deeptrain.sweep.preload  # noqa: F401


def start(words: list[str], log: Path) -> int:
    """Fork a process that trains, its output into a file; return its number."""
    sys.stdout.flush()
    number = os.fork()
    if number:
        return number
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    code = 1
    try:
        code = cli.train(words)
    finally:
        sys.stdout.flush()
        os._exit(code)


def finish(words: list[str], log: Path) -> float:
    """Train without a disturbance; return the seconds that it took."""
    began = time.monotonic()
    _, status = os.waitpid(start(words, log), 0)
    if status:
        sys.exit(f"the run failed by itself\n{log.read_text()}")
    return time.monotonic() - began


def torture(
    fixed: list[str], varied: Callable[[int], list[str]], folder: Path, seconds: float, rng: random.Random, log: Path
) -> int:
    """Start a run and kill it again and again until it has finished; return how often it was killed."""
    kills = 0
    while True:
        begun = (folder / "overrides.yaml").is_file()
        if not begun and folder.exists():
            shutil.rmtree(folder)  # killed before it had said what it is: the same command again
        given = [f"resume={folder}"] if begun else [*fixed, f"dir={folder}"]
        number = start([*given, *varied(kills)], log)
        end = time.monotonic() + rng.uniform(0, seconds * (1 + kills / 10))  # a resume may need longer than a whole run
        while time.monotonic() < end:
            done, status = os.waitpid(number, os.WNOHANG)
            if done:
                if status:
                    sys.exit(f"a resumed run failed\n{log.read_text()}")
                return kills
            time.sleep(0.002)
        os.kill(number, signal.SIGKILL)
        _, status = os.waitpid(number, 0)
        if status == 0 or run_folder.is_complete(folder):  # it had just finished
            return kills
        kills += 1


def differences(one: Path, other: Path) -> list[str]:
    """Say in what two finished runs differ, in their checkpoints, metrics.csv and TensorBoard's points."""
    found = []
    for name in ("last", "best"):
        states = [checkpoint.load(folder / "checkpoints" / f"{name}.pt") for folder in (one, other)]
        for part in ("model", "optimizer", "average", "scaler", "progress", "meters"):
            if not same(*(without_clocks(state[part]) for state in states)):
                found.append(f"{name}.pt: {part}")
    if table(one / "metrics.csv") != table(other / "metrics.csv"):
        found.append("metrics.csv")
    if points(one) != points(other):
        found.append("TensorBoard's points")
    return found


def same(one: Any, other: Any) -> bool:
    """Compare nested values bit for bit."""
    import torch

    if isinstance(one, torch.Tensor):
        return (
            one.dtype == other.dtype and one.shape == other.shape and one.numpy().tobytes() == other.numpy().tobytes()
        )
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def without_clocks(part: Any) -> Any:
    return {key: value for key, value in part.items() if key not in TIMES} if isinstance(part, dict) else part


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{key: cell for key, cell in row.items() if key not in CLOCKS} for row in csv.DictReader(file)]


def points(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """Read TensorBoard's points and pictures as TensorBoard itself does: (step, value) of each tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag not in CLOCKS]
    scalars = {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in tags}
    pictures = {tag: events.Images(tag) for tag in events.Tags()["images"]}
    return scalars | {tag: [(one.step, one.encoded_image_string) for one in images] for tag, images in pictures.items()}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments to kill at")
    parser.add_argument("settings", nargs="*")
    options = parser.parse_args(arguments)
    settings = options.settings or SETTINGS
    fixed = [*WORDS, *(word for word in settings if "|" not in word)]
    varying = [word.partition("=") for word in settings if "|" in word]

    def varied(index: int) -> list[str]:
        return [f"{key}={choices[index % len(choices)]}" for key, _, text in varying if (choices := text.split("|"))]

    import_everything()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as home:
        place, log = Path(home), Path(home) / "output.txt"
        finish([*fixed, *varied(0), f"dir={place / 'warm'}"], log)  # fills the cache
        seconds = finish([*fixed, *varied(0), f"dir={place / 'whole'}"], log)
        kills = runs = 0
        while kills < options.kills:
            folder = place / f"killed-{runs}"
            here = torture(fixed, varied, folder, seconds, rng, log)
            wrong = differences(place / "whole", folder)
            kills, runs = kills + here, runs + 1
            print(
                f"run {runs}: killed {here} times ({kills} of {options.kills}), {', '.join(wrong) or 'all bits agree'}"
            )
            if wrong:
                return 1
            shutil.rmtree(folder)
    print(f"{kills} kills in {runs} runs of {seconds:.1f} s: every run arrived at the same bits")
    return 0


if __name__ == "__main__":
    sys.exit(main())

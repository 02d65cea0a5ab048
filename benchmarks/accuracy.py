"""Accuracy on CIFAR-10's test split after 45 s and after 180 s of training, with the experiments as they are.

    uv run benchmarks/accuracy.py --root DIR    # a folder with train/<class>/ and test/<class>/, 4 minutes a seed

Seconds count here, so nothing else may run. A copy of CIFAR-10 that is stored as JPEG is a little harder.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean, stdev

from timing import circumstances, goal

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ["data=image_folder", "data.image_size=32", "data.crop_padding=4", "data.flip=true"]
EXPERIMENTS = {"cifar10_45s": ("C10", 72, 78), "cifar10_180s": ("C10b", 80, 84)}  # row, must, stretch


def accuracy(words: list[str]) -> float:
    """Train in a process of its own; return the accuracy on the test split in percent."""
    with tempfile.TemporaryDirectory() as folder:
        call(["train.py", *words, f"dir={folder}/run"])
        call(["scripts/evaluate.py", f"{folder}/run", "split=test"])
        evaluations = json.loads(Path(folder, "run", "evaluation.json").read_text("utf-8"))
    return 100 * evaluations[-1]["metrics"]["accuracy"]


def call(words: list[str]) -> None:
    subprocess.run([sys.executable, str(ROOT / words[0]), *words[1:]], check=True, stdout=subprocess.DEVNULL)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT / "data" / "cifar10", help="where the pictures are")
    parser.add_argument("--rounds", type=int, default=2, help="how many seeds")
    parser.add_argument("--quick", action="store_true", help="one step: does it run at all?")
    options = parser.parse_args(words)
    if not (options.root / "test").is_dir():
        raise FileNotFoundError(f"{options.root}: has no folder test/; write --root DIR")
    print(circumstances("torch", quick=options.quick))
    short = ["limit_steps=1"] if options.quick else []
    for name, (row, must, stretch) in EXPERIMENTS.items():
        setting = [f"experiment={name}", *FOLDER, f"data.root={options.root.resolve()}", *short]
        found = [accuracy([*setting, f"seed={seed}"]) for seed in range(1 if options.quick else options.rounds)]
        spread = f" ± {stdev(found):.2f}" if len(found) > 1 else ""
        by_seed = f"{fmean(found):.2f}{spread} %, {len(found)} seeds"
        goal(row, f"`experiment={name}`: percent right on test", fmean(found), must, stretch, ours=by_seed)


if __name__ == "__main__":
    main()

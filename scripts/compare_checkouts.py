"""Compare two checkouts: the same runs must have the same weights, bit for bit, and the same metrics.

    python scripts/compare_checkouts.py OLD NEW [--only NAME ...] [--keep DIR]

OLD and NEW are checkouts with an environment in .venv (or give --python-old, --python-new). Prints a line a setting;
exit code 1 if any differs. --keep DIR: keep OLD's results there, and reuse them.
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

# 0.3.0 took the higher accuracy where it differed by noise; by monitor=loss/val both choose the same best weights.
SMALL = "threads=1 device=cpu log.tensorboard=false log.every_steps=5 precision=fp32 monitor=loss/val"
DIGITS = f"{SMALL} data=digits epochs=2 limit_steps=100"
RESNET = "model=resnet model.widths=[8,8,16] model.blocks=[1,1,1]"
# 0.3.0 validated the first 50 steps with the running statistics as they were; these have settled after 5 steps.
SETTLED = "model.norm_momentum=0.7"
# It also counted a shorter last batch like a whole one in SWA's batch norms: 192 images are 12 whole batches.
SETTINGS = {
    "resnet": f"{DIGITS} {RESNET}",
    "cutout, mixup, ema, stochastic depth": (
        f"{DIGITS} model=wide_resnet model.depth=10 model.width=1 aug=[cutout,mixup] average=ema"
        " model.stochastic_depth=0.3 model.dropout=0.2"
    ),
    "sam, l2, clipping, max norm, accumulation": (
        f"{DIGITS} model=fcn sam=0.05 penalty=l2 clip_norm=1 max_norm=3 accumulate=2"
    ),
    "swa": f"{DIGITS} {RESNET} average=swa average.start=0.5 average.norm_images=192 optimizer=sgd epochs=4",
    "early stopping": f"{DIGITS} model=fcn epochs=9 limit_steps=null early_stop.patience=1 early_stop.min_delta=0.05",
    "bf16": f"{DIGITS} {RESNET} precision=bf16",
    "fp16": f"{DIGITS} model=fcn precision=fp16",
    "vgg, elastic net": (
        f"{DIGITS} model=vgg model.depth=11 {SETTLED} penalty=elastic limit_steps=12 log.every_steps=3"
    ),
    "rnn, hinge, class weights": f"{DIGITS} model=rnn loss=hinge loss.class_weights=auto",
    "fractional max pooling": f"{DIGITS} model=vgg model.pool=fractional {SETTLED} limit_steps=8 log.every_steps=2",
    "streamed folder, 2 workers": (
        f"{SMALL} data=image_folder data.root=ROOT data.loader=stream workers=2 epochs=2 {RESNET} {SETTLED}"
    ),
    "two processes": f"{DIGITS} {RESNET} {SETTLED} aug=[cutmix] batch_size=63",
    "interrupted and resumed": (
        f"{DIGITS} {RESNET} {SETTLED} aug=[randaugment,mixup] average=ema epochs=3 limit_steps=90"
    ),
}
PROCESSES = {"two processes": 2}
RESUMED = {"interrupted and resumed": 40}  # stopped by limit_steps at this step, then resumed
CLOCKS = ("seconds", "images_per_second")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--python-old", type=Path)
    parser.add_argument("--python-new", type=Path)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args()
    old = given.old.resolve(), given.python_old or given.old.resolve() / ".venv/bin/python"
    new = given.new.resolve(), given.python_new or given.new.resolve() / ".venv/bin/python"
    differences = 0
    with tempfile.TemporaryDirectory() as scratch:
        kept, runs = given.keep or Path(scratch, "old"), Path(scratch, "new")
        make_pictures(kept / "pictures")
        for name in given.only:
            folder = kept / name.replace(", ", "-").replace(" ", "_")
            done = folder / "done"  # holds the words that made the folder
            if not done.exists() or done.read_text() != SETTINGS[name]:
                shutil.rmtree(folder, ignore_errors=True)
                train(name, *old, folder, kept / "pictures")
                done.write_text(SETTINGS[name])
            fresh = runs / folder.name
            train(name, *new, fresh, kept / "pictures")
            verdicts = [compare(folder / "run", fresh / "run")]
            if name in RESUMED:  # NEW goes on from where OLD stopped
                shutil.copytree(folder / "stopped", runs / "handed_over")
                resume(name, *new, runs / "handed_over")
                verdicts.append(f"resumed from OLD: {compare(folder / 'run', runs / 'handed_over')}")
            differences += any("DIFFER" in verdict for verdict in verdicts)
            print(f"{name:<42} {'; '.join(verdicts)}", flush=True)
    return int(differences > 0)


def train(name: str, checkout: Path, python: Path, folder: Path, pictures: Path) -> None:
    """Train a setting into folder/run; an interrupted one also leaves folder/stopped as it was when it stopped."""
    words = SETTINGS[name].replace("ROOT", str(pictures)).split()
    if name not in RESUMED:
        command(checkout, python, [*words, f"dir={folder / 'run'}"], PROCESSES.get(name, 1))
        return
    command(checkout, python, [*words, f"dir={folder / 'run'}", f"limit_steps={RESUMED[name]}"])
    shutil.copytree(folder / "run", folder / "stopped")
    resume(name, checkout, python, folder / "run")


def resume(name: str, checkout: Path, python: Path, run: Path) -> None:
    limit = next(word for word in SETTINGS[name].split()[::-1] if word.startswith("limit_steps="))
    command(checkout, python, [f"resume={run}", limit, "resume_changed=true"])


def command(checkout: Path, python: Path, words: list[str], processes: int = 1) -> None:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
    line = [str(python), *launcher, str(checkout / "train.py"), *words]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(line)}\n{done.stdout}\n{done.stderr}")


def compare(old: Path, new: Path) -> str:
    """Say whether two run folders hold the same tensors and the same metrics."""
    verdicts = []
    for name in ("last", "best"):
        states = [dict(tensors(torch.load(run / f"checkpoints/{name}.pt", weights_only=True))) for run in (old, new)]
        same = states[0].keys() == states[1].keys() and all(
            torch.equal(tensor, states[1][path]) for path, tensor in states[0].items()
        )
        verdicts.append(f"{name}.pt {'same' if same else 'DIFFERS'} ({len(states[0])} tensors)")
    tables = [without_clocks(run / "metrics.csv") for run in (old, new)]
    verdicts.append(f"metrics.csv {'same' if tables[0] == tables[1] else 'DIFFERS'} ({len(tables[0]) - 1} rows)")
    return ", ".join(verdicts)


def tensors(state: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of nested dicts and lists by path."""
    if isinstance(state, torch.Tensor):
        yield path, state
    elif isinstance(state, dict):
        for key, value in state.items():
            yield from tensors(value, f"{path}.{key}")
    elif isinstance(state, list | tuple):
        for number, value in enumerate(state):
            yield from tensors(value, f"{path}.{number}")


def without_clocks(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    columns = [index for index, name in enumerate(rows[0]) if name not in CLOCKS]
    return [[row[index] for index in columns] for row in rows]


def make_pictures(folder: Path, classes: int = 3, count: int = 40) -> None:
    """Write a small image folder, the same at every call."""
    if folder.exists():
        return
    rng = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (36, 32, 3), dtype=np.uint8) // (1 + label)
            Image.fromarray(pixels).save(folder / f"class{label}/{number}.png")


if __name__ == "__main__":
    sys.exit(main())

"""How time and memory of a step, an epoch and a run grow with the batch, the image, the depth, the classes, the set.

    uv run benchmarks/growth.py --write    # also draws docs/growth.png and writes its tables in docs/benchmarks.md

Every point is measured in a process of its own, forked when everything is imported. Figures are CPU time on one thread.
"""

import argparse
import gc
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ours import build_trainer, repeatable
from timing import circumstances, clock, goal, write_between

from deeptrain.runtime.resources import ROOT

PLOT, BEGIN, END = ROOT / "docs" / "growth.png", "<!-- the tables of benchmarks/growth.py -->", "<!-- their end -->"
KNEE = 0.2  # an exponent larger by so much than what must be is a knee
RESNET = ["model=resnet", "model.widths=[16,32,64]", "model.stem=small", "optimizer=sgd"]
SMALL = ["model=fcn", "model.hidden=[64]", "data.shape=[1,8,8]"]
COMMON = ["data=synthetic", "device=cpu", "threads=1", "validate.clean_images=0", "precision=fp32"]
ROUNDS, SHORT = 3, 0.3  # seconds of CPU of the shorter length
BATCH = 500  # where the number of images grows
Point = tuple[float, float, float]  # ms of CPU a step or epoch, MiB above the start, CPU seconds to build the trainer


@dataclass(frozen=True)
class Axis:
    """One thing that grows, and the words of a run of each value. exponent: by which time may grow."""

    name: str
    values: tuple[int, ...]
    words: Callable[[int], list[str]]
    exponent: float
    unit: str = "step"  # or epoch


def spare(batch: int, steps: int = 4) -> list[str]:
    """Return the words for a set of so many batches; the fewest images are held out."""
    size = batch * steps
    return [f"batch_size={batch}", f"data.size={size + 20}", f"data.val_fraction={20 / (size + 20)}"]


AXES = (
    Axis("batch", (8, 32, 128, 256), lambda n: [*RESNET, "model.depth=20", "data.shape=[3,16,16]", *spare(n)], 1),
    Axis(
        "image side", (16, 32, 64, 96), lambda n: [*RESNET, "model.depth=20", f"data.shape=[3,{n},{n}]", *spare(16)], 2
    ),
    Axis("depth", (20, 32, 56, 110), lambda n: [*RESNET, f"model.depth={n}", "data.shape=[3,16,16]", *spare(16)], 1),
    Axis("classes", (10, 100, 1000, 10000), lambda n: [*SMALL, f"data.num_classes={n}", *many(n)], 1),
    Axis("images", (1000, 10_000, 100_000, 1_000_000), lambda n: [*SMALL, *spare(BATCH, n // BATCH)], 1, "epoch"),
)


def many(classes: int) -> list[str]:
    """Return the words for two images a class, in batches of 128; few are held out, since the end validates them."""
    size = max(2 * classes, 1024)
    return ["batch_size=128", f"data.size={size}", f"data.val_fraction={20 / size}"]


def an(unit: str) -> str:
    return f"an {unit}" if unit[0] in "aeiou" else f"a {unit}"


def memory(name: str) -> float:
    """Return VmRSS or VmHWM (the peak) of this process in MiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def serve(pipe: Connection, words: list[str], unit: int) -> None:
    torch.set_num_threads(1)
    gc.freeze()
    start = memory("VmRSS")
    before = time.process_time()
    prepare = repeatable(build_trainer([*COMMON, *words]))
    built = time.process_time() - before
    prepare(1)()
    guess = clock(prepare(unit))[1]
    count = int(np.clip(SHORT / guess, 1 if unit > 1 else 5, 200))  # the first steps touch fresh memory
    taken = []
    for _ in range(ROUNDS):
        short, long = (clock(prepare(times * count * unit))[1] for times in (1, 3))
        taken.append((long - short) / (2 * count))
    pipe.send((1e3 * float(np.median(taken)), memory("VmHWM") - start, built))
    os._exit(0)


def point(words: list[str], unit: int) -> Point:
    """Measure one point in a forked process. unit: steps; the slope between two lengths counts."""
    pipe, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=serve, args=(theirs, words, unit))
    process.start()
    theirs.close()
    found = pipe.recv()
    process.join()
    return found


def measure_axis(axis: Axis, values: tuple[int, ...]) -> list[Point]:
    found = []
    for value in values:
        found.append(point(axis.words(value), value // BATCH if axis.unit == "epoch" else 1))
        ms, mib, built = found[-1]
        print(f"{axis.name} {value:,}: {ms:.2f} ms {an(axis.unit)}, {mib:,.0f} MiB, built in {built:.2f} s", flush=True)
    return found


def exponents(values: tuple[int, ...], figures: list[float]) -> np.ndarray:
    """Return the exponent between each two neighbours: 1 is linear."""
    return np.diff(np.log(np.maximum(figures, 1e-9))) / np.diff(np.log(values))


def describe(axis: Axis, values: tuple[int, ...], points: list[Point]) -> list[str]:
    """Note the steepest exponent as a goal; return the lines of a table, one a value."""
    milliseconds, mebibytes, built = ([each[column] for each in points] for column in range(3))
    local = exponents(values, milliseconds)
    steepest = float(local.max())
    fitted = float(np.polyfit(np.log(values), np.log(milliseconds), 1)[0])
    text = f"growth: CPU of {an(axis.unit)} with {axis.name}: steepest exponent ({axis.exponent:g} expected)"
    goal("C14", text, steepest, axis.exponent + KNEE, axis.exponent, at_most=True, ours=f"fitted {fitted:.2f}")
    at = values[int(local.argmax()) + 1]
    knee = f"a knee at {at:,}" if steepest > axis.exponent + KNEE else "no knee"
    grown = float(exponents(values, mebibytes).max())
    lines = [
        f"**{axis.name}**: time grows by an exponent of {fitted:.2f} (fitted; steepest {steepest:.2f}, {knee}), "
        f"memory by at most {grown:.2f}.",
        "",
        f"| {axis.name} | CPU, ms {an(axis.unit)} | peak above the start, MiB | building the trainer, CPU-s |",
        "|---:|---:|---:|---:|",
    ]
    rows = zip(values, milliseconds, mebibytes, built, strict=True)
    return [*lines, *(f"| {value:,} | {ms:,.2f} | {mib:,.0f} | {start:.2f} |" for value, ms, mib, start in rows), ""]


def follow(epochs: int, folder: Path) -> dict[str, Any]:
    """Train for many epochs from the command line; return CPU seconds by epoch, of the start and end, and sizes."""
    words = [*COMMON, *SMALL, "data.size=600", f"epochs={epochs}", f"dir={folder}"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, str(ROOT / "train.py"), *words]
    before = os.times()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    seen, table = [], folder / "metrics.csv"
    while process.poll() is None:
        time.sleep(0.05)
        try:
            ticks = sum(map(int, Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
            rows = table.read_bytes().count(b"\n") - 1
        except (OSError, ValueError):
            continue
        seen.append((rows, ticks / os.sysconf("SC_CLK_TCK")))
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    events = sum(path.stat().st_size for path in folder.rglob("events*"))
    sizes = {name: (folder / name).stat().st_size for name in ("metrics.csv", "steps.csv", "card.html", "run.log")}
    return {"seen": np.array(seen), "cpu": cpu, "sizes": sizes | {"events": events}}


def long_run(epochs: int) -> list[str]:
    """Compare the first and the last tenth of a run, and what it leaves behind, with a run of a tenth of its length."""
    tenth = epochs // 10
    with tempfile.TemporaryDirectory() as name:
        short, long = (follow(count, Path(name) / f"run{count}") for count in (tenth, epochs))
    rows, seconds = long["seen"].T
    first, last = (rows >= 1) & (rows <= tenth), rows >= epochs - tenth
    last &= rows < epochs
    rates = [1e3 * float(np.polyfit(rows[part], seconds[part], 1)[0]) for part in (first, last)]
    closing = [
        each["cpu"] - each["seen"][each["seen"][:, 0] < count][-1, 1]
        for each, count in ((short, tenth), (long, epochs))
    ]
    text = f"growth: CPU of the last {tenth} of {epochs:,} epochs over the first {tenth}"
    figures = {"ours": f"{rates[1]:.1f} ms", "peer": f"{rates[0]:.1f} ms"}
    goal("C14", text, rates[1] / rates[0], 1.2, 1.05, at_most=True, **figures)
    lines = [
        f"**epochs**: one took {rates[0]:.1f} ms of CPU among the first {tenth} of a run, "
        f"{rates[1]:.1f} ms among the last {tenth} of {epochs:,}.",
        "",
        f"| of a run | {tenth} epochs | {epochs:,} epochs | times |",
        "|---|---:|---:|---:|",
        "| the end, after the last epoch, CPU-s "
        + f"| {closing[0]:.2f} | {closing[1]:.2f} | {closing[1] / closing[0]:.1f} |",
    ]
    for name, size in short["sizes"].items():
        more = long["sizes"][name]
        lines.append(f"| {name}, KB | {size / 1000:,.1f} | {more / 1000:,.1f} | {more / size:.1f} |")
        if name != "card.html":
            goal("C14", f"growth: {name} of ten times as many epochs, times", more / size, 11, 10.5, at_most=True)
    return [*lines, ""]


def draw(measured: dict[Axis, tuple[tuple[int, ...], list[Point]]]) -> None:
    """Draw time and memory of each axis over its values, on logarithmic scales, with the expected slope."""
    from matplotlib.figure import Figure

    figure = Figure((11, 5.4), layout="constrained")
    places: Any = figure.subplots(2, len(measured), sharex="col")
    for (axis, (values, points)), (above, below) in zip(measured.items(), places.T, strict=True):
        milliseconds, mebibytes = ([each[column] for each in points] for column in (0, 1))
        expected = milliseconds[-1] * (np.array(values) / values[-1]) ** axis.exponent
        above.loglog(values, expected, "--", color="0.7", linewidth=1, label=f"exponent {axis.exponent:g}")
        above.loglog(values, milliseconds, "o-", color="tab:blue", markersize=4, label="measured")
        above.set_title(an(axis.unit), fontsize=9)
        above.legend(fontsize=7, frameon=False)
        below.loglog(values, mebibytes, "o-", color="tab:orange", markersize=4)
        below.set_xlabel(axis.name)
        for place in (above, below):
            place.grid(color="0.92")
            place.spines[["top", "right"]].set_visible(False)
            place.set_xticks(values, [f"{value:,}" for value in values], rotation=30)
            low, high = np.log10(place.get_ylim())
            place.set_ylim(10 ** np.floor(low), 10 ** np.ceil(high))
            place.minorticks_off()
            place.tick_params(labelsize=7)
    places[0, 0].set_ylabel("CPU time, ms")
    places[1, 0].set_ylabel("peak memory, MiB")
    figure.savefig(PLOT, dpi=90)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest values: does it run at all?")
    parser.add_argument("--rounds", type=int, help="always three")
    parser.add_argument(
        "--write", action="store_true", help="draw docs/growth.png, and write the tables in docs/benchmarks.md"
    )
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    print(known := circumstances("torch", quick=options.quick))
    for axis in AXES:
        build_trainer([*COMMON, *axis.words(axis.values[0])])  # imports what the points then share
    measured = {}
    for axis in AXES:
        values = axis.values[:2] if options.quick else axis.values
        measured[axis] = values, measure_axis(axis, values)
    lines = [line for axis, (values, points) in measured.items() for line in describe(axis, values, points)]
    lines += long_run(100 if options.quick else 1000)
    print("\n".join(lines))
    if options.write:
        draw(measured)
        head = [f"Measured on {known}, one thread.", "", "![CPU time and memory over what grows](growth.png)", ""]
        write_between(ROOT / "docs" / "benchmarks.md", BEGIN, END, [*head, *lines])


if __name__ == "__main__":
    main()

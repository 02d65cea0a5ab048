"""What a job of a sweep costs besides its training, and what a second slot saves.

    uv run benchmarks/sweep.py            8 runs of a second: one at a time, two at a time, and each as a command

CPU seconds are those of the processes of the jobs. They hardly depend on what else the machine does; seconds do.
"""

import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from deeptrain.commands.cli import train
from deeptrain.runtime.resources import train_process
from deeptrain.sweep import launch, server
from deeptrain.sweep.check import check
from deeptrain.sweep.options import Options
from deeptrain.sweep.plan import lay_out, moved, save

WORDS = ["data=digits", "model=fcn", "device=cpu", "loggers=tensorboard", "threads=1", "seed=range(8)"]
SHORT, LONG = "epochs=1", "epochs=200"


def timed(times: str, words: list[str]) -> int:
    """Train, and note the CPU seconds of this process."""
    code = train(words)
    own, below = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    with Path(times).open("a") as file:
        file.write(f"{own.ru_utime + own.ru_stime + below.ru_utime + below.ru_stime}\n")
    return code


def sweep(epochs: str, slots: int) -> tuple[float, list[float]]:
    """Return the seconds of a sweep, its server running, and the CPU seconds of each of its jobs."""
    with tempfile.TemporaryDirectory() as home:
        times = f"{home}/times"
        checked, _, _ = check(lay_out([*WORDS, epochs]))
        (base := Path(home) / "sweep").mkdir()
        save(plan := moved(checked, base))
        began = time.perf_counter()
        if launch.work(plan, partial(timed, times), slots, [], Options()):
            sys.exit("a job failed")
        return time.perf_counter() - began, [float(line) for line in Path(times).read_text().split()]


def alone(epochs: str) -> float:
    """Return the CPU seconds of a run as a command of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as home:
        words = [*WORDS[:-1], epochs, f"dir={home}/run"]
        subprocess.run([*train_process(), *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    server.start()
    sweep(SHORT, 1)  # warms caches up
    _, short = sweep(SHORT, 1)
    print(f"{SHORT}: {sum(short) / len(short):.2f} CPU s a job, as a command {alone(SHORT):.2f}")
    (one, cpu), (two, cpu_two) = sweep(LONG, 1), sweep(LONG, 2)
    print(f"{LONG}: jobs=1 {one:.1f} s ({sum(cpu):.1f} CPU s), jobs=2 {two:.1f} s ({sum(cpu_two):.1f} CPU s)")
    print(f"jobs=2 takes {two / one:.2f} of the time of jobs=1")


if __name__ == "__main__":
    main()

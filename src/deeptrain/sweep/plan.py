"""A sweep: every combination as a run of its own in a process of its own, then one table of means and spreads."""

import json
import math
import os
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

from deeptrain.config.compose import compose_run, compose_sweep, declares_multirun, renamed_in
from deeptrain.config.override import last_value, override_key, quote_value, unquote_path
from deeptrain.errors import UsageError
from deeptrain.loggers.console import Console
from deeptrain.report import formatting
from deeptrain.run import dry_run, folder
from deeptrain.run.launch import log_to_console
from deeptrain.runtime import signals, terminal
from deeptrain.runtime.paths import as_typed, quote
from deeptrain.runtime.resources import train_process

SEED_KEY = "seed"  # runs that differ in nothing else are repeats of one setting


@dataclass
class Job:
    """One run of a sweep: its words, the part of them that is swept, and what came of it."""

    words: list[str]
    swept: dict[str, str]
    folder: Path
    result: dict[str, Any] | None = None
    error: str | None = None

    @property
    def name(self) -> str:
        return ",".join(f"{key}={value}" for key, value in self.swept.items())

    @property
    def setting(self) -> str:
        """Name the setting that this run repeats: what is swept, the seed left out."""
        return " ".join(f"{key}={value}" for key, value in self.swept.items() if key != SEED_KEY) or "all"


def is_declared(words: list[str]) -> bool:
    """Tell whether an experiment's file makes this command a sweep without -m (hydra.mode: MULTIRUN)."""
    return any(word.startswith("experiment=") for word in words) and declares_multirun(words)


def sweep(words: list[str]) -> int:
    """Check every run, then train one after the other; the exit code is 1 if any failed."""
    with signals.handle_signals(signals.first_then_exit(signals.raise_interrupt)):
        return _sweep(words)


def _sweep(words: list[str]) -> int:
    named, words = last_value(words, "dir"), [word for word in words if override_key(word) != "dir"]
    folder.check_new(named)
    all_words, keys = compose_sweep(words)
    warnings = [*renamed_in(words), *check(all_words)]
    base = folder.new_sweep_folder(named)
    jobs = [_job(job_words, keys, base) for job_words in all_words]
    for index, job in enumerate(jobs):  # values that differ only in signs that a folder's name cannot have
        if job.folder in [earlier.folder for earlier in jobs[:index]]:
            job.folder = job.folder.with_name(f"{job.folder.name}-{index}")
    width = max(len(job.name) for job in jobs)
    terminal.show(f"sweep   {len(jobs)} runs over {', '.join(keys) or 'nothing'}, a process each", f"folder  {base}")
    terminal.show(*(f"warning: {sentence}" for sentence in dict.fromkeys(warnings)))
    started = perf_counter()
    try:
        for done, job in enumerate(jobs, start=1):
            _run(job)
            estimate = time_left(done, len(jobs), perf_counter() - started)
            terminal.show(f"{done:>3}/{len(jobs)}  {job.name:<{width}}  {_outcome(job)}{estimate}")
    finally:
        terminal.show(*summary(jobs, base))
    return 1 if any(job.error for job in jobs) else 0


def check(all_words: list[list[str]]) -> list[str]:
    """Build every run, first what needs no torch; return the warnings, or raise the UsageError of all runs at once.

    Runs that differ in their seed alone are checked once. What else goes wrong is for the run itself to tell.
    """
    distinct = {tuple(word for word in words if not word.startswith(f"{SEED_KEY}=")): words for words in all_words}
    runs = [compose_run(words) for words in distinct.values()]
    warnings, mistakes = [], []
    for build_one in (dry_run.check_settings, dry_run.check_by_building):
        for run in runs:
            try:
                with log_to_console(Console(sys.stdout)):
                    warnings += build_one(run)
            except UsageError as error:
                mistakes += error.lines
            except Exception:  # such as too little memory here and now
                continue
        if mistakes:
            raise UsageError(mistakes)
    return warnings


def _job(words: list[str], keys: list[str], base: Path) -> Job:
    swept = {key: _value(words, key) for key in keys}
    job = Job(words, swept, base)
    job.folder = base / folder_name(job.name)
    return job


def _value(words: list[str], key: str) -> str:
    values = [unquote_path(word).partition("=")[2] for word in words if word.lstrip("+").partition("=")[0] == key]
    return values[-1]  # which counts


def folder_name(name: str) -> str:
    """Turn the swept settings into the name of a folder: TensorBoard shows it as the name of the run."""
    listed = re.sub(r"\[([^]]*)\]", lambda match: match[1].replace(",", "+") or "none", name)
    safe = re.sub(r"[^\w=+,.-]", "_", listed)
    return safe if len(safe) <= 180 else f"{safe[:170]}-{sha256(name.encode()).hexdigest()[:8]}"


def _run(job: Job) -> None:
    """Train in a process of its own, so that no run sees what another left behind in memory.

    A signal to stop is passed on. Then it waits until the run has saved, and raises KeyboardInterrupt. The run
    is no part of the terminal's processes, so that Ctrl-C reaches it once. It saves and ends if this process is killed.
    """
    command = [*train_process(), *job.words, f"dir={quote_value(str(job.folder))}"]
    process: subprocess.Popen | None = None
    received: list[int] = []

    def pass_on(number: int) -> None:
        received.append(number)
        if process is not None:
            process.send_signal(number)

    environment = {**os.environ, signals.LEADER: str(os.getpid())}
    with signals.handle_signals(pass_on):
        process = subprocess.Popen(
            command,
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            errors="replace",
        )
        if received:  # while it was being started
            process.terminate()
        _, errors = process.communicate()
    result = job.folder / "result.json"
    job.result = json.loads(result.read_text()) if result.is_file() else None
    if process.returncode:
        lines = [line.removeprefix("error: ") for line in errors.strip().splitlines()]
        job.error = (job.result or {}).get("reason") or (lines[-1] if lines else f"exit code {process.returncode}")
    if received or process.returncode == signals.EXIT_CODE or -process.returncode in signals.SIGNALS:
        raise KeyboardInterrupt


def _outcome(job: Job) -> str:
    if job.error or job.result is None:
        return f"failed: {job.error}"
    best = _format(job.result)(job.result["best"])
    return f"{job.result['monitor']} {best}   {formatting.duration(job.result['seconds'])}"


def time_left(done: int, total: int, seconds: float) -> str:
    """Estimate from the runs that are done how long the others take; once, say what the estimate assumes."""
    if done == total:
        return ""
    left = formatting.duration(seconds / done * (total - done))
    return f"   about {left} left" + (", if all runs take as long as this one" if done == 1 else "")


def _format(result: Mapping[str, Any]) -> Callable[[float], str]:
    return formatting.metric_format(result["as_percent"])


def summary(jobs: list[Job], base: Path) -> list[str]:
    """Compose the table: mean and spread (standard deviation over the seeds) of each setting, best first."""
    by_setting: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        if job.result is not None and job.result["best"] is not None and not job.error:
            by_setting[job.setting].append(job)
    waiting = [job for job in jobs if job.result is None and job.error is None]
    left = [f"not run {len(waiting)} of {len(jobs)}"] if waiting else []
    if not by_setting:
        return ["", "no run finished", *_failures(jobs), *left]
    rows, finished = [], [job for repeats in by_setting.values() for job in repeats]
    monitor, higher = (finished[0].result[key] for key in ("monitor", "higher_is_better"))  # pyright: ignore
    sign = -1 if higher else 1
    for setting, repeats in by_setting.items():
        results: list[Any] = [job.result for job in repeats]
        mean, spread = mean_spread([result["best"] for result in results])
        gap, _ = mean_spread([train_val_gap(result["metrics"]) for result in results])
        seconds, _ = mean_spread([result["seconds"] for result in results])
        step, _ = mean_spread([1000 * result["train_seconds"] / max(1, result["steps"]) for result in results])
        deviation = f" ± {_format_spread(results[0], spread)}" if len(repeats) > 1 else ""
        measured = _format(results[0])(mean) + deviation
        points = formatting.format_points(gap)
        cells = [setting, f"{len(repeats)}", measured, points, f"{step:.3g}", formatting.duration(seconds)]
        rows.append((sign * mean, cells))
    best = min(finished, key=lambda job: sign * job.result["best"])  # pyright: ignore
    table = [["setting", "runs", monitor, "gap", "ms/step", "time"], *(row for _, row in sorted(rows))]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        f"{row[0]:<{widths[0]}}" + "".join(f"  {c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True))
        for row in table
    ]
    curves = f"curves  tensorboard --logdir {quote(as_typed(base))}"
    return ["", *lines, f"best    {best.folder}", *_failures(jobs), *left, curves]


def _format_spread(result: Mapping[str, Any], spread: float) -> str:
    """Write the standard deviation of a metric in its unit: in points of per cent, or like a loss."""
    return f"{100 * spread:.2f}" if result["as_percent"] else formatting.format_loss(spread)


def _failures(jobs: list[Job]) -> list[str]:
    return [f"failed  {job.folder}: {job.error}" for job in jobs if job.error]


def mean_spread(values: list[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation (nan for a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def train_val_gap(metrics: dict[str, float]) -> float:
    """Return how much better the network is on its training images, un-augmented, than on val (accuracy)."""
    train = metrics.get("accuracy/train_clean", metrics.get("accuracy/train", math.nan))
    return train - metrics.get("accuracy/val", math.nan)

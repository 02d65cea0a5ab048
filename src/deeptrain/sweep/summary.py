"""What a sweep says at its end: mean and spread of each setting, the best setting, what failed, what to type next."""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deeptrain.config.override import override_key
from deeptrain.report import formatting
from deeptrain.runtime.paths import as_typed, quote
from deeptrain.runtime.resources import command
from deeptrain.sweep.plan import SEED, Job

Repeats = Sequence[tuple[Job, Mapping[str, Any]]]  # the runs of one setting, with their results


def summary(
    jobs: Sequence[Job], base: Path, results: Mapping[str, Mapping[str, Any]], failures: Mapping[str, str]
) -> list[str]:
    """Compose the table: mean and spread (standard deviation over the seeds) of each setting, best first."""
    by_setting: dict[str, list[tuple[Job, Mapping[str, Any]]]] = defaultdict(list)
    for job in jobs:
        if results.get(job.name, {}).get("best") is not None:
            by_setting[job.setting].append((job, results[job.name]))
    left = sum(job.name not in results and job.name not in failures for job in jobs)
    failed = [f"failed  {job.folder}: {failures[job.name]}" for job in jobs if job.name in failures]
    ending = [*failed, *([f"left    {left} of {len(jobs)} runs"] if left else [])]
    if not by_setting:
        return ["", "no run finished", *ending]
    first = next(iter(by_setting.values()))[0][1]
    sign = -1 if first["higher_is_better"] else 1
    ranked = sorted(by_setting.values(), key=lambda repeats: sign * _best(repeats)[0])
    table = [["setting", "runs", first["monitor"], "gap", "ms/step", "time"], *map(_row, ranked)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [
        f"{row[0]:<{widths[0]}}" + "".join(f"  {c:>{w}}" for c, w in zip(row[1:], widths[1:], strict=True))
        for row in table
    ]
    curves = f"curves  tensorboard --logdir {quote(as_typed(base))}"
    return ["", *lines, *_best_setting(ranked), *ending, curves]


def _best(repeats: Repeats) -> tuple[float, float]:
    return mean_spread([result["best"] for _, result in repeats])


def _row(repeats: Repeats) -> list[str]:
    results = [result for _, result in repeats]
    mean, spread = _best(repeats)
    gap = statistics.fmean(train_val_gap(result["metrics"]) for result in results)
    seconds = statistics.fmean(result["seconds"] for result in results)
    step = statistics.fmean(1000 * result["train_seconds"] / max(1, result["steps"]) for result in results)
    deviation = f" ± {_format_spread(results[0], spread)}" if len(repeats) > 1 else ""
    measured = _format(results[0])(mean) + deviation
    points = formatting.format_points(gap)
    return [repeats[0][0].setting, f"{len(repeats)}", measured, points, f"{step:.3g}", formatting.duration(seconds)]


def _best_setting(ranked: Sequence[Repeats]) -> list[str]:
    """Name the setting with the best mean, by how many runs, and the command that repeats it."""
    jobs = [job for job, _ in ranked[0]]
    seeds = [job.swept[SEED] for job in jobs if SEED in job.swept]
    words = [word for word in jobs[0].words if not (seeds and override_key(word) == SEED)]
    if len(seeds) > 1:
        words = ["-m", *words, f"{SEED}={','.join(seeds)}"]
    elif seeds:
        words.append(f"{SEED}={seeds[0]}")
    mean = f", the best mean of {len(jobs)} runs" if len(jobs) > 1 else ", one run"
    return [f"best    {jobs[0].setting}{mean}", f"again   {' '.join([command('train'), *map(quote, words)])}"]


def outcome(result: Mapping[str, Any]) -> str:
    """Say in a few words what came of a job that is done."""
    best = _format(result)(result["best"]) if result["best"] is not None else "no value"
    return f"{result['monitor']} {best}   {formatting.duration(result['seconds'])}"


def _format(result: Mapping[str, Any]) -> Callable[[float], str]:
    return formatting.metric_format(result["as_percent"])


def _format_spread(result: Mapping[str, Any], spread: float) -> str:
    """Write the standard deviation of a metric in its unit: in points of per cent, or like a loss."""
    return f"{100 * spread:.2f}" if result["as_percent"] else formatting.format_loss(spread)


def mean_spread(values: list[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation (nan for a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def train_val_gap(metrics: dict[str, float]) -> float:
    """Return how much better the network is on its training images, un-augmented, than on val (accuracy)."""
    train = metrics.get("accuracy/train_clean", metrics.get("accuracy/train", math.nan))
    return train - metrics.get("accuracy/val", math.nan)

"""From runs to a comparison: which value of each run counts, what is the baseline, and what makes it weaker."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from deeptrain.compare.collect import Run
from deeptrain.compare.comparison import Comparison, Row
from deeptrain.compare.estimates import estimate
from deeptrain.compare.settings import NEUTRAL, Setting, group, matches
from deeptrain.data.fingerprint import is_same
from deeptrain.errors import UsageError
from deeptrain.schema import suggest

ENDS_AT_ZERO = 0.05  # of the largest rate: a schedule whose last one is below it ends at zero


def compare_runs(
    runs: Sequence[Run],
    baseline: str | None = None,
    value: str = "auto",
    smallest: float | None = None,
    looks: int | None = None,
) -> Comparison:
    """Compare runs; UsageError if there is nothing to compare, or no such baseline."""
    settings = group(runs)
    monitor = _monitor(runs)
    value = _kind(runs) if value == "auto" else value
    is_higher, scale = _direction(runs, monitor)
    any_learned = any(run.is_done and run.has_learned for run in runs)
    rows = [_row(setting, value, monitor, any_learned) for setting in settings]
    found = Comparison([row for row in rows if row.values], None, monitor, value, is_higher, scale, list(runs))
    found.left_out = [row for row in rows if not row.values]
    found.looks = looks or _looks(settings)
    found.smallest = smallest
    if found.rows:
        found.baseline = _baseline(found.rows, baseline, settings)
        found.folds = found.baseline.setting.runs[0].folds
        estimate(found)
    found.rows.sort(key=lambda row: -row.mean if is_higher else row.mean)
    found.notes = _notes(found)
    return found


# --- which value counts ---


def _monitor(runs: Sequence[Run]) -> str:
    """Return the metric that most runs were judged by."""
    counts = Counter(run.monitor for run in runs if run.monitor)
    return counts.most_common(1)[0][0] if counts else "accuracy/val"


def _kind(runs: Sequence[Run]) -> str:
    """Return "best" if all runs stop early: then the best weights are the result; else "final"."""
    done = [run for run in runs if run.is_done]
    stops = [run.config.get("early_stop.patience", "null") != "null" for run in done]
    return "best" if done and all(stops) else "final"


def _direction(runs: Sequence[Run], monitor: str) -> tuple[bool, float]:
    """Return whether larger is better, and 100 for a share. Runs of 0.3.0 do not say so."""
    for run in runs:
        if run.monitor == monitor and "higher_is_better" in run.result:
            return bool(run.result["higher_is_better"]), 100.0 if run.result.get("as_percent") else 1.0
    return (False, 1.0) if monitor.startswith("loss") else (True, 100.0)


def _row(setting: Setting, kind: str, monitor: str, any_learned: bool) -> Row:
    """Read the values of a setting. Runs that have learned nothing are named apart, if any other run has learned."""
    collapsed = [run for run in setting.runs if any_learned and not run.has_learned]
    counted = [run for run in setting.runs if run not in collapsed]
    values, others = (
        {run.repeat: found for run in counted if (found := run.value(each, monitor)) is not None}
        for each in (kind, "best" if kind == "final" else "final")
    )
    return Row(setting, values, {seed: others[seed] for seed in values if seed in others}, collapsed)


def _looks(settings: Sequence[Setting]) -> int:
    """Count how often seeds were added to a setting: by how many sweeps its seeds were run."""
    sweeps = [{run.path.parent for run in setting.runs if run.planned} for setting in settings]
    return max([1, *map(len, sweeps)])


def _baseline(rows: Sequence[Row], named: str | None, settings: Sequence[Setting]) -> Row:
    if named is None:
        return max(rows, key=lambda row: sum(value in NEUTRAL for value in row.setting.values.values()))
    words = named.split()
    found = [row for row in rows if row.label == named or matches(row.setting, words)]
    if len(found) == 1:
        return found[0]
    labels = [setting.label for setting in settings]
    if not found:
        raise UsageError([f"baseline='{named}': {suggest(named, labels)}"])
    several = ", ".join(f"'{row.label}'" for row in found[:3])
    raise UsageError([f"baseline='{named}': fits {len(found)} settings ({several}, ...); name one of them whole"])


# --- what the reader should know ---


def _notes(found: Comparison) -> list[str]:
    """Say what makes a comparison weaker than it looks."""
    done = [run for run in found.runs if run.is_done]
    notes = []
    if other := sum(run.monitor != found.monitor for run in done):
        notes.append(f"{other} of {len(done)} runs were judged by another metric than {found.monitor}")
    if len({run.version for run in done}) > 1:
        notes.append("the runs are of different versions of deeptrain or of its code")
    first = next((run for run in done if run.result.get("data")), None)
    if first and not all(is_same(first.result["data"], str(run.result.get("data"))) for run in done):
        notes.append("the runs have not all been trained on the same images, so the differences may come from the data")
    if any(run.config.get("overfit", "null") != "null" for run in done):
        notes.append("some runs were measured on the images that they were trained on (overfit)")
    if found.value == "final" and (steep := [row.label for row in found.rows if not _ends_at_zero(row)]):
        what = "the learning rate" if len(steep) == len(found.rows) else f"the learning rate of {_listed(steep)}"
        notes.append(f"{what} does not end near zero, so the final weights swing from step to step")
    if found.value == "best":
        notes.append(
            "the best epoch is chosen on the same images, which favours noisy settings by some tenths of a point"
        )
    correlations = [row.correlation for row in found.compared if math.isfinite(row.correlation)]
    if correlations and float(np.mean(correlations)) < 0:
        notes.append(f"equal {found.repeats} do not give alike values, so comparing them in pairs does not help here")
    if opened := sum(run.test_openings for run in found.runs):
        notes.append(f"the test split was opened {opened} times for these runs: what was chosen by it is flattered")
    if repeated := [run for row in found.rows for run in row.setting.repeated]:
        what = "fold" if found.folds else "seed"
        notes.append(f"{len(repeated)} runs repeat a {what} that their setting has already; they are left out")
    if found.looks > 1:
        notes.append(
            f"seeds were added {found.looks - 1} times, so each look has {100 * found.level:.1f} % instead of 95 %"
        )
    return notes


def _ends_at_zero(row: Row) -> bool:
    """Tell whether the learning rate has come down at the end, as far as metrics.csv tells."""
    run = next((run for run in row.setting.runs if run.repeat in row.values), None)
    rates = [row["rate/lr"] for row in run.rows if "rate/lr" in row] if run else []
    return not rates or rates[-1] <= ENDS_AT_ZERO * max(rates)


def _listed(labels: Sequence[str], most: int = 3) -> str:
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return ", ".join(labels[:most]) + more

"""The trials of a search as the folders tell them: settings, status, value, and how each counts for the next draw."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deeptrain.config.repeats import SEED
from deeptrain.run.pruning import FINISHED, curve
from deeptrain.search.space import Space, Values
from deeptrain.sweep.ledger import Ledger
from deeptrain.sweep.plan import Job


@dataclass(frozen=True)
class Trial:
    """One run of a search. value: of the monitored metric at its end, larger or smaller is better.

    status: finished, stopped_early, pruned, failed, or open. curve: the metric by epoch, of runs that are over.
    """

    number: int
    job: Job
    values: Values
    status: str = "open"
    value: float | None = None
    curve: dict[float, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def epochs(self) -> float:
        return max(self.curve, default=0.0)

    @property
    def is_finished(self) -> bool:
        return self.value is not None


@dataclass(frozen=True)
class Objective:
    """What a search improves, as the results of its runs say."""

    monitor: str = "accuracy/val"
    higher_is_better: bool = True
    as_percent: bool = True

    def best_first(self, trials: Sequence[Trial]) -> list[Trial]:
        """Sort finished trials, the best first; of equal ones the earlier."""
        sign = -1 if self.higher_is_better else 1
        finished = [trial for trial in trials if trial.value is not None]
        return sorted(finished, key=lambda trial: sign * (trial.value or 0.0))


def read(ledger: Ledger) -> tuple[list[Trial], Objective]:
    """Read all trials in the order in which they were drawn."""
    results, failures = ledger.results(), ledger.failures()
    objective = _objective(results)
    return [
        _trial(number, job, results.get(job.name), failures.get(job.name), objective)
        for number, job in enumerate(ledger.plan.jobs)
    ], objective


def _objective(results: Mapping[str, Mapping[str, Any]]) -> Objective:
    known = [result for result in results.values() if "monitor" in result]
    if not known:
        return Objective()
    return Objective(known[0]["monitor"], bool(known[0]["higher_is_better"]), bool(known[0]["as_percent"]))


def _trial(number: int, job: Job, result: Mapping[str, Any] | None, failure: str | None, objective: Objective) -> Trial:
    values = {key: value for key, value in job.swept.items() if key != SEED}
    if result is None:
        return Trial(number, job, values, "failed" if failure else "open", reason=failure or "")
    found = curve(job.folder, objective.monitor, objective.higher_is_better)
    value = _value(result, job) if result["status"] in FINISHED else None
    status = "failed" if result["status"] in FINISHED and value is None else result["status"]
    return Trial(number, job, values, status, value, found, str(result.get("reason", "")))


def _value(result: Mapping[str, Any], job: Job) -> float | None:
    """Return the value of the final weights; of the best ones if the run may stop early, as a report does."""
    stops = any(word.startswith("early_stop.patience=") for word in job.words)
    final = (result.get("final") or {}).get(result["monitor"])
    value = result.get("best") if stops or final is None else final
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


@dataclass(frozen=True)
class Told:
    """What a sampler is told of a trial. value: None while it runs."""

    parameters: dict[str, Any]
    value: float | None


def as_told(space: Space, trials: Sequence[Trial], objective: Objective) -> list[Told]:
    """Return what counts for the next draw: trials inside the space, each with a value but for those that run.

    A pruned trial counts as the finished one that stood nearest to it at the same epoch. A failed one counts as the
    worst, so that the search goes elsewhere. Before the first has finished, neither is told.
    """
    finished = objective.best_first(trials)
    told = []
    for trial in trials:
        parameters = space.parameters(trial.values)
        value = _worth(trial, finished)
        if parameters is not None and (value is not None or trial.status == "open"):
            told.append(Told(parameters, value))
    return told


def _worth(trial: Trial, finished: Sequence[Trial]) -> float | None:
    if trial.value is not None or trial.status == "open" or not finished:
        return trial.value
    worst = finished[-1].value
    if trial.status != "pruned" or not trial.curve:
        return worst
    epoch = trial.epochs
    standing = trial.curve[epoch]
    known = [other for other in reversed(finished) if epoch in other.curve]  # of equally near ones the worst
    nearest = min(known, key=lambda other: abs(other.curve[epoch] - standing), default=None)
    return nearest.value if nearest is not None else worst


def settings(trials: Sequence[Trial]) -> list[tuple[Values, list[Trial]]]:
    """Group the finished trials by their settings, repeats with other seeds together."""
    groups: dict[tuple[tuple[str, str], ...], list[Trial]] = {}
    for trial in trials:
        if trial.value is not None:
            groups.setdefault(tuple(sorted(trial.values.items())), []).append(trial)
    return [(same[0].values, same) for same in groups.values()]

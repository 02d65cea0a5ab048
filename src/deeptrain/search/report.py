"""What a search says at its end: its best trials, the best setting, and what to type next."""

import csv
import io
from collections.abc import Callable, Sequence

from deeptrain.config.compose import compose_run
from deeptrain.config.override import override_key
from deeptrain.config.repeats import SEED
from deeptrain.errors import UsageError
from deeptrain.report import formatting
from deeptrain.runtime.files import write_atomically
from deeptrain.runtime.paths import quote, quote_setting
from deeptrain.runtime.resources import command
from deeptrain.search import findings, trials
from deeptrain.search.space import Space, Values, seed_of
from deeptrain.search.study import PRUNE, Study
from deeptrain.search.trials import Objective, Trial
from deeptrain.sweep.ledger import Ledger
from deeptrain.sweep.plan import Plan

SHOWN = 10  # trials in the terminal
FILE = "trials.csv"


def lines(study: Study, plan: Plan) -> list[str]:
    """Return what the terminal shows, and write trials.csv."""
    known, objective = trials.read(Ledger(plan))
    write_atomically(plan.folder / FILE, table(study, known, objective).encode())
    finished = objective.best_first(known)
    if not finished:
        return ["no trial has come to its end yet", *_failures(known)]
    return [
        *_table(study, known, objective),
        "",
        counts(known),
        *_failures(known),
        *_best(plan, known, objective),
        *_next(study, plan, known, objective),
        f"trials   {plan.folder / FILE}",
    ]


def best_settings(known: Sequence[Trial], objective: Objective) -> list[tuple[Values, list[Trial]]]:
    """Return the settings with their trials, the best mean first."""
    sign = -1 if objective.higher_is_better else 1
    return sorted(trials.settings(known), key=lambda setting: sign * mean(setting[1]))


def mean(same: Sequence[Trial]) -> float:
    return sum(trial.value or 0.0 for trial in same) / len(same)


def repeat_command(trial: Trial) -> str:
    """Return the command that trains a setting again, alone: nothing beside it prunes it."""
    words = [word for word in trial.job.words if override_key(word) not in (PRUNE, "dir")]
    return " ".join([command("train"), *map(quote, words)])


def table(study: Study, known: Sequence[Trial], objective: Objective) -> str:
    """Write every trial as a row of a CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "status", objective.monitor, "epochs", *study.keys, SEED, "folder", "reason"])
    for trial in known:
        values = [trial.values.get(key, "") for key in study.keys]
        value = "" if trial.value is None else repr(trial.value)
        row = [trial.number, trial.status, value, f"{trial.epochs:g}", *values, trial.job.swept.get(SEED, "")]
        writer.writerow([*row, trial.job.folder.name, trial.reason])
    return text.getvalue()


def counts(known: Sequence[Trial]) -> str:
    """Count the trials by their ends, and the epochs that pruning has saved."""
    names = {"finished": "finished", "stopped_early": "stopped early", "pruned": "pruned", "failed": "failed"}
    found = {name: sum(trial.status == status for trial in known) for status, name in names.items()}
    said = ", ".join(f"{count} {name}" for name, count in found.items() if count)
    full = max((trial.epochs for trial in known if trial.is_finished), default=0.0)
    over = [trial for trial in known if trial.is_finished or trial.status == "pruned"]
    used = sum(trial.epochs for trial in over) / (full * len(over)) if full else 1.0
    saved = f"; pruning saved {100 * (1 - used):.0f} % of the epochs" if found["pruned"] else ""
    return f"search   {len(known)} trials: {said}{saved}"


def _table(study: Study, known: Sequence[Trial], objective: Objective) -> list[str]:
    """Return the best trials as a table, and trial 0, the user's own settings."""
    text = formatting.metric_format(objective.as_percent)
    finished = objective.best_first(known)
    shown = finished[:SHOWN]
    shown += [trial for trial in finished[SHOWN:] if trial.number == 0]
    keys = [*study.keys, *([SEED] if len({trial.job.swept.get(SEED) for trial in finished}) > 1 else [])]
    rows = [["trial", objective.monitor, *keys]]
    for trial in shown:
        mark = "  (your settings)" if trial.number == 0 else ""
        values = [trial.job.swept.get(key, "-") for key in keys]
        rows.append([str(trial.number), text(trial.value or 0.0), *values[:-1], values[-1] + mark])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _failures(known: Sequence[Trial]) -> list[str]:
    failed = [trial for trial in known if trial.status == "failed"]
    more = [f"failed   {len(failed) - 3} more"] if len(failed) > 3 else []
    return [f"failed   trial {trial.number}: {trial.reason}" for trial in failed[:3]] + more


def _best(plan: Plan, known: Sequence[Trial], objective: Objective) -> list[str]:
    values, same = best_settings(known, objective)[0]
    text = formatting.metric_format(objective.as_percent)
    what = " ".join(f"{key}={value}" for key, value in values.items())
    basis = f"the mean of {len(same)} runs" if len(same) > 1 else "by one run"
    chosen = sum(trial.is_finished for trial in known)
    flattery = f", the best of {chosen}, so it is flattered" if chosen > 1 else ""
    return [
        f"best     {what}: {objective.monitor} {text(mean(same))} {basis}{flattery}",
        f"again    {repeat_command(same[0])}",
    ]


def _next(study: Study, plan: Plan, known: Sequence[Trial], objective: Objective) -> list[str]:
    """Return what to type next: to confirm, to widen a range, to go on in smaller ones."""
    best = findings.best_trials(known, objective)
    at_edge = findings.edges(study.space, best, _is_allowed(study.space)) if best else {}
    said = [
        f"edge     {key}: the best trials lie at the {end} end; type {quote(f'{key}={wider}')}"
        for key, (end, wider) in at_edge.items()
    ]
    smaller = findings.refined(study.space, best, list(at_edge)) if best else {}
    if smaller:
        said.append(f"refine   smaller ranges: {' '.join(quote(f'{key}={axis}') for key, axis in smaller.items())}")
    for key in findings.did_not_matter(study.space, known, objective, seed_of(plan.words)):
        said.append(f"note     {key}: no sign that it matters; shuffled among the trials, its values fit as well")
    if not plan.facts.get("confirm"):
        said.append(f"confirm  {tune_command(plan, 'confirm=5x3')}   (the best 5 with 3 other seeds)")
    return [*said, f"go on    {tune_command(plan, 'trials=+20')}"]


def tune_command(plan: Plan, *words: str) -> str:
    """Return what to type to go on with a search."""
    return " ".join([command("tune"), quote_setting("resume", plan.folder), *words])


def _is_allowed(space: Space) -> Callable[[str, float], bool]:
    def is_allowed(key: str, value: float) -> bool:
        group, options = space.under.get(key, ("", frozenset()))
        try:
            compose_run([*space.fixed, *([f"{group}={min(options)}"] if group else []), f"{key}={value:g}"])
        except UsageError:
            return False
        return True

    return is_allowed

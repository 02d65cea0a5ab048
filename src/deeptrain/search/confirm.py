"""The best settings of a search and the user's own on fresh seeds: an ordinary sweep in the folder of the search."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deeptrain.config.override import override_key
from deeptrain.config.repeats import SEED
from deeptrain.errors import UsageError
from deeptrain.report import formatting
from deeptrain.runtime import terminal
from deeptrain.runtime.resources import command as typed_command
from deeptrain.search import report, trials
from deeptrain.search.study import PRUNE, Study
from deeptrain.search.trials import Objective, Trial
from deeptrain.sweep import launch as sweeps
from deeptrain.sweep import plan as plans
from deeptrain.sweep import server
from deeptrain.sweep.ledger import Ledger
from deeptrain.sweep.options import Options
from deeptrain.sweep.plan import Plan

NAME = "confirm"


def parse(text: str) -> tuple[int, int]:
    """Read 5x3: settings and seeds; UsageError if it is something else."""
    found = re.fullmatch(r"([1-9]\d?)x([2-9]|[1-9]\d)", text)
    if found is None:
        raise UsageError([f"confirm={text}: write confirm=5x3, the best 5 settings on 3 other seeds (at least 2)"])
    return int(found[1]), int(found[2])


def run(
    own: Study, plan: Plan, text: str, command: server.Command, slots: int, gpus: list[str], options: Options
) -> int:
    """Train the finalists on fresh seeds and report the winner by these runs alone; return the exit code."""
    finalists = make(own, plan, *parse(text))
    if not finalists.jobs:
        terminal.show("confirm  nothing to confirm: no trial has come to its end")
        return 1
    if not plans.is_sweep(finalists.folder):
        finalists.folder.mkdir(exist_ok=True)
        plans.save(finalists)
    settings = len({job.setting for job in finalists.jobs})
    terminal.show("", f"confirm  {settings} settings on seeds that chose none of them, in {finalists.folder}")
    laid_out = plans.load(finalists.folder, own.now)
    code = sweeps.work(laid_out, command, slots, gpus, options)
    chosen = len(report.best_settings(*trials.read(Ledger(plan))))
    terminal.show(
        *_winner(*trials.read(Ledger(laid_out))),
        f"chosen   among {chosen} settings by other seeds; the table is of the fresh seeds alone",
        "note     the same validation images chose the settings, so its values are still a little flattered; "
        f"{typed_command('evaluate')} RUN split=test is not",
    )
    return code


def expected(values: np.ndarray, higher_is_better: bool) -> float:
    """Return what the best of several settings can be expected to reach with another seed.

    values: (settings, seeds). The best of several means is also the luckiest. So each seed counts with the setting that
    the other seeds choose (leave-one-out cross-validation).
    """
    others = (values.sum(1, keepdims=True) - values) * (1 if higher_is_better else -1)
    return float(values[others.argmax(0), np.arange(values.shape[1])].mean())


def _winner(known: Sequence[Trial], objective: Objective) -> list[str]:
    """Name the best of the settings that have a value for every seed; nothing where a seed chooses alone."""
    seeds = {trial.job.swept[SEED] for trial in known}
    whole = [each for each in report.best_settings(known, objective) if len(each[1]) == len(seeds) > 1]
    if not whole:
        return []
    values = np.array([[trial.value for trial in sorted(same, key=lambda t: t.job.swept[SEED])] for _, same in whole])
    text = formatting.metric_format(objective.as_percent)
    what = " ".join(f"{key}={value}" for key, value in whole[0][0].items())
    reached = text(expected(values, objective.higher_is_better))
    return [f"winner   {what}: {objective.monitor} {reached} with another seed; its mean in the table is partly luck"]


def make(own: Study, plan: Plan, count: int, seeds: int) -> Plan:
    """Lay out the sweep: the user's own settings and the best ones, on seeds that no trial has had."""
    known, objective = trials.read(Ledger(plan))
    best = [same[0] for _, same in report.best_settings(known, objective)[:count]]
    first = known[0]
    finalists = [first, *(trial for trial in best if trial.values != first.values)] if best else []
    last = max((int(trial.job.swept[SEED]) for trial in known), default=0)
    fresh = [str(last + 1 + index) for index in range(seeds)]
    jobs = [(_words(trial, seed), trial.values | {SEED: seed}) for seed in fresh for trial in finalists]
    words = (*plan.words, f"{NAME}={count}x{seeds}")
    laid_out = plans.make(words, [*own.keys, SEED], jobs, Path())
    baseline = " ".join(_changed(first, own)) or None
    found = plans.moved(laid_out, _folder(plan, laid_out))
    found.facts.update(sweeps.origin(), baseline=baseline)
    return found


def _words(trial: Trial, seed: str) -> list[str]:
    kept = [word for word in trial.job.words if override_key(word) not in (SEED, PRUNE)]
    return [*kept, f"{SEED}={seed}"]


def _changed(first: Trial, own: Study) -> list[str]:
    """Name the user's own settings as a report finds them."""
    return [f"{key}={value}" for key, value in first.values.items() if own.space.exists(key, first.values)]


def _folder(plan: Plan, wanted: Plan) -> Path:
    """Return the folder of the confirmation with these jobs, or a new one: a longer search has other finalists."""
    number = 1
    while plans.is_sweep(path := plan.folder / (NAME if number == 1 else f"{NAME}-{number}")):
        if [job.words for job in plans.load(path, plan.words).jobs] == [job.words for job in wanted.jobs]:
            break
        number += 1
    return path

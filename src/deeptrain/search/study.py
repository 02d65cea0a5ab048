"""A search in its folder: what sweep.json says of it, and its next trial."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, get_type_hints

from deeptrain.config.override import override_key
from deeptrain.config.repeats import SEED
from deeptrain.errors import UsageError
from deeptrain.run.lock import LOCK, locked
from deeptrain.schema import PositiveInt, type_error
from deeptrain.search import sampler, trials
from deeptrain.search.space import Space, Values, seed_of
from deeptrain.search.space import read as read_space
from deeptrain.search.trials import Trial
from deeptrain.sweep import plan as plans
from deeptrain.sweep import server
from deeptrain.sweep.ledger import Ledger
from deeptrain.sweep.plan import Job, Plan, folder_name

PRUNE = "early_stop.prune"
REDRAWS = 2  # draws until a setting may be repeated, with another seed
HOPELESS = 5  # first trials that have all failed: the search ends
LENGTH_KEYS = (
    "epochs",
    "batch_size",
    "limit_steps",
    "data",
    "accumulate",
    "experiment",
)  # decide how many steps a run has
CLOCK = "%Y-%m-%d %H:%M:%S"


@dataclass
class Facts:
    """What a search is to do, in sweep.json."""

    sampler: sampler.Kind
    trials: PositiveInt | None
    until: str | None
    confirm: str | None
    threads: PositiveInt | None
    steps: PositiveInt | None


FACTS = get_type_hints(Facts, include_extras=True)


@dataclass
class Study:
    """What a search varies, and the words typed now. own: the user's values, which trial 0 has."""

    space: Space
    own: Values
    now: tuple[str, ...] = ()

    @classmethod
    def of(cls, words: Sequence[str], now: Sequence[str] = ()) -> "Study":
        space, own = read_space(words)
        return cls(space, own, tuple(now))

    @property
    def keys(self) -> list[str]:
        return list(self.space.axes)

    def grow(self, ledger: Ledger) -> Plan | None:
        """Return the plan with another trial, which this or another terminal has drawn; None if there are enough."""
        folder = ledger.plan.folder
        with alone(folder):
            plan = plans.load(folder, self.now)
            if len(plan.jobs) > len(ledger.plan.jobs):
                return plan
            if why_over(plan):
                return None
            known, objective = trials.read(Ledger(plan))
            if len(known) >= HOPELESS and all(trial.status == "failed" for trial in known):
                return None
            values, seed = self._next(plan, known, objective.higher_is_better)
            job = self.job(plan, len(known), values, self.space.words(values), seed)
            plans.save(plan := replace(plan, jobs=(*plan.jobs, job)))
            return plan

    def first_job(self, plan: Plan) -> Job:
        """Return trial 0: the user's own settings."""
        return self.job(plan, 0, self.own, self.space.fixed, seed_of(plan.words))

    def job(self, plan: Plan, number: int, values: Values, words: Sequence[str], seed: int) -> Job:
        """Return a trial as a job of the plan."""
        typed = {override_key(word) for word in words}
        prune = [] if PRUNE in typed else [f"{PRUNE}=median"]
        known = plan.facts.get("threads")
        threads = [] if "threads" in typed or known is None else [f"threads={known}"]
        others = [word for word in words if override_key(word) != SEED]
        named = folder_name(",".join(f"{key}={value}" for key, value in values.items()))
        folder = plan.folder / f"{number:03}-{named}"
        swept = {**values, SEED: str(seed)}
        return Job(folder, (*others, f"{SEED}={seed}", *prune, *threads), swept, plan.facts.get("steps"))

    def _next(self, plan: Plan, known: Sequence[Trial], higher_is_better: bool) -> tuple[Values, int]:
        """Draw values, once more if they were tried before; then they are repeated, with another seed."""
        seed, number = seed_of(plan.words), len(known)
        objective = trials.Objective(higher_is_better=higher_is_better)
        told = trials.as_told(self.space, known, objective)
        kind = kind_of(plan, self.space)
        values: Values = {}
        for attempt in range(REDRAWS):
            values = server.call(sampler.draw_alone, self.space, told, higher_is_better, kind, seed, number, attempt)
            if all(trial.values != values for trial in known):
                return values, seed
        return values, seed + sum(trial.values == values for trial in known)


def check_facts(plan: Plan) -> None:
    """Raise UsageError if sweep.json does not say what a search is to do: it may be a stranger's."""
    wanted = {key: plan.facts.get(key) for key in FACTS}
    is_clock = wanted["until"] is None or _read_clock(wanted["until"]) is not None
    if any(type_error(value, FACTS[key]) for key, value in wanted.items()) or not is_clock or not plan.jobs:
        raise UsageError([f"{plan.folder / plans.FILE}: is damaged; start a new search"])


def _read_clock(text: Any) -> datetime | None:
    try:
        return datetime.strptime(str(text), CLOCK)
    except ValueError:
        return None


def kind_of(plan: Plan, space: Space) -> str:
    """Return the sampler of a search."""
    named = plan.facts.get("sampler", "auto")
    return sampler.kind_for(space, max(plan.total, len(plan.jobs) + 1)) if named == "auto" else str(named)


def why_over(plan: Plan) -> str:
    """Say why no further trial is drawn, "" if one is."""
    wanted, until = plan.facts.get("trials"), plan.facts.get("until")
    if wanted is not None and len(plan.jobs) >= wanted:
        return f"{len(plan.jobs)} trials were drawn"
    if until is not None and datetime.now() >= (_read_clock(until) or datetime.max):
        return "the time is over"
    return ""


def until(hours: float) -> str:
    return f"{datetime.now() + timedelta(hours=hours):{CLOCK}}"


def update(folder: Path, now: Sequence[str], **facts: Any) -> Plan:
    """Change what a search is to do; return its plan."""
    with alone(folder):
        plan = plans.load(folder, now)
        changed = replace(plan, facts=plan.facts | facts)
        if changed != plan:
            plans.save(changed)
        return changed


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Wait until no other terminal draws a trial of this search."""
    path = folder / LOCK
    while True:
        try:
            file = locked(path)
            break
        except BlockingIOError:
            time.sleep(0.1)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()

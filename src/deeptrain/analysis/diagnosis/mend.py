"""After a fault: what the run itself makes of its remedy, and what else it needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from deeptrain.analysis import remedies
from deeptrain.analysis.curves import share_error
from deeptrain.analysis.diagnosis.budget import RUNS, TESTS
from deeptrain.analysis.diagnosis.judge_memory import cause_of
from deeptrain.analysis.diagnosis.judgements import FEW_ERRORS, MANY_ERRORS, Reading, how_sure, is_specific
from deeptrain.analysis.diagnosis.subject import without
from deeptrain.analysis.diagnosis.trial import Trial, Trials, errors_ahead
from deeptrain.analysis.find_lr import excess
from deeptrain.analysis.verdicts import Verdict
from deeptrain.errors import UsageError
from deeptrain.report.formatting import percent

Longer = Callable[[Trial], str]
MOST = 0.8  # of what is lost
ROOM = RUNS + TESTS  # whole runs: those of the steps that a fault leaves out


@dataclass(frozen=True)
class Mended:
    """How a fault is read after its remedy was tried, and the runs that were made for it, the run as typed first."""

    reading: Reading
    runs: list[Trial]


def mend(
    reading: Reading, trials: Trials, candidates: Sequence[str], linear: np.ndarray, chance: float, longer: Longer
) -> Mended:
    """Try a fault's remedy in the run itself; while a straight line is better, add other changes that help.

    linear: 1 for each image of val that a straight line gets right. chance: the accuracy of guessing. longer: how to
    make a run longer that has few steps. A fault whose remedy does not help becomes a remark where the run learns all
    the same.
    """
    fault = reading.verdicts[0]
    own = trials.whole(trials.subject.rate, trials.subject.decay)
    course = _Course(fault, trials, own)
    queue = [fault.override, *candidates]
    for _ in range(ROOM - 1):
        if not queue:
            break
        change = queue.pop(0)
        if course.take(change) and len(course.found) == 1 and course.best.steps < remedies.ENOUGH:
            queue.insert(0, longer(course.best))
        if not course.found and change == fault.override and _learns(own, chance):
            break
        if course.found and _is_enough(course.best, linear, chance):
            break
    found = course.found or [_unmended(fault, own, chance)]
    is_regularized = course.found and found[0].name == "regularized"
    if is_regularized and not _kept_from(trials.beside(own, fault.override), own, linear, chance):
        found[0] = replace(found[0], kind="remark", confidence="")
    return Mended(Reading(found, [*reading.excluded, *course.excluded]), course.runs)


@dataclass
class _Course:
    """Changes that are tried in the run, each on top of those that helped. best: the run with these."""

    fault: Verdict
    trials: Trials
    own: Trial
    best: Trial = field(init=False)
    words: list[str] = field(default_factory=list)
    found: list[Verdict] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    runs: list[Trial] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.best, self.runs = self.own, [self.own]

    def take(self, change: str) -> bool:
        """Try one more change; keep it, and return True, if the run is better with it."""
        words, named = [*without(self.words, change.split()), *change.split()], self.trials.subject.named
        try:
            tried = self.trials.beside(self.own, " ".join(words))
        except UsageError:
            return False
        self.runs.append(tried)
        errors = errors_ahead(tried, self.best)
        if errors < (MANY_ERRORS if self.found else FEW_ERRORS):
            gain = f"{100 * (tried.accuracy - self.best.accuracy):+.1f} points on val"
            self.excluded.append(f"{named(change)} (tried in the run: {gain})")
            return False
        shares = f"{percent(tried.accuracy)} on val, else {percent(self.best.accuracy)}"
        evidence = f"with {named(change)} the run itself has {shares}"
        self.found.append(_told(self.fault, change, evidence, errors, not self.found))
        self.words, self.best = words, tried
        return True


def _told(fault: Verdict, change: str, evidence: str, errors: float, is_first: bool) -> Verdict:
    """Return the fault itself, or what the run needs besides."""
    if change == fault.override:
        sure = how_sure(errors, is_specific(fault))
        return replace(fault, confidence=sure, evidence=f"{fault.evidence}; {evidence}")
    name = "train_longer" if change.startswith(("epochs=", "limit_steps=")) else cause_of(None, change)[0]
    kind = "fault" if is_first else "advice"
    return Verdict(name, kind, how_sure(errors, is_specific=False), evidence, change)


def _learns(trial: Trial, chance: float) -> bool:
    return trial.accuracy > chance + MANY_ERRORS * share_error(chance, len(trial.right))


def _is_enough(best: Trial, linear: np.ndarray, chance: float) -> bool:
    """Tell whether a run learns as much as a straight line, within the noise."""
    is_level = len(linear) != len(best.right) or excess(linear, best.right) < FEW_ERRORS
    return is_level and _learns(best, chance)


def _kept_from(after: Trial, before: Trial, linear: np.ndarray, chance: float) -> bool:
    """Tell whether a regularizer kept a run from learning: in a short run all networks learn faster without.

    It learned nothing, and without it learns most of what a straight line does.
    """
    return not _learns(before, chance) and after.accuracy - before.accuracy >= MOST * (
        float(linear.mean()) - before.accuracy
    )


def _unmended(fault: Verdict, own: Trial, chance: float) -> Verdict:
    evidence = f"{fault.evidence}; the run itself has {percent(own.accuracy)} on val, and the change adds nothing"
    if _learns(own, chance):
        return replace(fault, kind="remark", confidence="", evidence=evidence)
    return replace(fault, confidence="possible", evidence=evidence)

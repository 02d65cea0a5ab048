"""Leading a set-up through the seven steps of the lecture. The first that fails ends it.

Start, memorise, rate, coarse grid of rate and decay, refine, read the curves, what next. Every test is a short run of
the user's own set-up with a change. All start from the same weights and take the same batches.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from deeptrain.analysis import remedies
from deeptrain.analysis.curves import share_error
from deeptrain.analysis.diagnosis import advice, grid
from deeptrain.analysis.diagnosis.advice import Curves
from deeptrain.analysis.diagnosis.budget import Lengths, Speed, measure_speed, plan_lengths
from deeptrain.analysis.diagnosis.controls import Controls, measure_controls
from deeptrain.analysis.diagnosis.grid import Grid, Refined
from deeptrain.analysis.diagnosis.judge_memory import Attempt, Signal, read_memory
from deeptrain.analysis.diagnosis.judge_rates import Rates, read_rates
from deeptrain.analysis.diagnosis.judge_start import Start, read_start
from deeptrain.analysis.diagnosis.judgements import Reading
from deeptrain.analysis.diagnosis.labels import Surest
from deeptrain.analysis.diagnosis.ledger import Ledger
from deeptrain.analysis.diagnosis.memorise import memorise
from deeptrain.analysis.diagnosis.mend import mend
from deeptrain.analysis.diagnosis.outcome import NAMES, Diagnosis, Step, plain
from deeptrain.analysis.diagnosis.rate import Searches, measure_rates
from deeptrain.analysis.diagnosis.start import measure_start
from deeptrain.analysis.diagnosis.subject import Subject, accuracy_of_guessing
from deeptrain.analysis.diagnosis.trial import VAL_IMAGES, Trial, Trials
from deeptrain.analysis.find_lr import Race, RateSearch
from deeptrain.analysis.initial_loss import initial_loss
from deeptrain.analysis.run_record import Record
from deeptrain.analysis.verdicts import Verdict
from deeptrain.errors import UsageError
from deeptrain.report import formatting
from deeptrain.report.formatting import format_loss, percent

FIRST_IMAGES = 64  # of the first loss

Report = Callable[[str], None]


@dataclass(frozen=True)
class Facts:
    """What step 1 has seen of the data, and how fast steps are.

    largest_class: its share of the training images. guessed: its share of val, which answering it always gets right.
    """

    start: Start
    train: int
    val: int
    classes: int
    largest_class: float
    first: dict[str, float]
    total_steps: int
    optimizer: str
    speed: Speed
    guessed: float = math.nan


TYPES = (
    Facts,
    Start,
    Attempt,
    Rates,
    Signal,
    RateSearch,
    Race,
    Trial,
    Surest,
    Controls,
    Speed,
    Lengths,
)  # of the ledger


class Procedure:
    """Takes the steps. report: gets what is being done, at every training step. budget: seconds, None for no limit."""

    def __init__(self, subject: Subject, ledger: Ledger, report: Report, last: int, budget: float | None):
        self.subject, self.ledger, self.report, self.last, self.budget = subject, ledger, report, last, budget
        self.diagnosis = Diagnosis(subject)
        self.search: RateSearch | None = None
        self.grid: Grid | None = None
        self.refined: Refined | None = None
        self.curves: Curves | None = None

    def take(self, number: int) -> Step:
        """Take a step, those before it being done."""
        if number > max(1, self.lengths.last):
            reason = f"{formatting.duration(self.budget or 0.0)} are too short for it"
            return Step(number, reason, None, Reading(), left_out=True)
        return getattr(self, f"_{NAMES[number - 1]}")()

    # --- what several steps need ---

    @cached_property
    def facts(self) -> Facts:
        return self.ledger.once("start", self._measure_facts)

    @cached_property
    def lengths(self) -> Lengths:
        facts = self.facts
        given = facts.total_steps, self.budget, self.last
        name = f"lengths for steps 1-{self.last}, budget {self.budget}"
        return self.ledger.once(name, lambda: plan_lengths(facts.speed, *given))

    @cached_property
    def controls(self) -> Controls:
        return self.ledger.once("controls", self._measure_controls)

    @property
    def searches(self) -> Searches:
        return Searches(self.subject, self.ledger, self.report, self.lengths.planned)

    @property
    def trials(self) -> Trials:
        planned = self.lengths.planned
        part, most = planned / self.facts.total_steps, remedies.times_longer(planned) * planned
        return Trials(self.subject, self.ledger, self.report, part, most)

    def _measure_facts(self) -> Facts:
        self.report("start: looking at images, labels, outputs and loss")
        with self.subject.opened() as opened:
            found, trainer = measure_start(opened, opened.leaks()), opened.trainer
            first = initial_loss(trainer, *opened.first(opened.train.evenly_spaced(FIRST_IMAGES)))
            is_broken = read_start(found).failed
            speed = Speed(math.nan, math.nan) if is_broken else measure_speed(opened)
            share = accuracy_of_guessing(opened.train.labels, opened.classes)
            kind, steps = type(trainer.optimizer).__name__, trainer.plan.total_steps
            sizes = len(opened.train), len(opened.val), opened.classes
            guessed = float((opened.val.labels == np.bincount(opened.train.labels).argmax()).mean())
        return Facts(found, *sizes, share, first or {}, steps, kind, speed, guessed)

    # --- the steps ---

    def _start(self) -> Step:
        start = self.facts.start
        line = f"loss {format_loss(start.loss)}, guessing gives {format_loss(start.guess)}; "
        line += f"inputs have mean {start.scale[0]:.2f}, standard deviation {start.scale[1]:.2f}"
        return Step(1, line, start, read_start(start))

    def _memorise(self) -> Step:
        searches = self.searches
        try:
            seen = [verdict.override for verdict in self._remarked()]
            run = searches.errors_of_the_run
            memory = memorise(self.subject, self.ledger, self.report, searches.found, run, seen)
        except UsageError as error:  # such as a data source of one's own without train_images
            return Step(2, f"{error.lines[0]}", None, Reading(), left_out=True)
        own = memory.own
        modes = f"{percent(own.eval_accuracy)} in evaluation, {percent(own.train_accuracy)} in training mode"
        line = f"of {memory.images} images it knows {modes}, after {own.steps} steps"
        return Step(2, line, memory, self._mended(read_memory(memory, self.subject.named)))

    def _rate(self) -> Step:
        if self.subject.rate is None:
            return Step(3, "the optimizer has no setting lr", None, Reading(), left_out=True)
        seen = [verdict.override for verdict in self._remarked()]
        seen += [advice.EVEN] * advice.is_uneven(self.facts.largest_class, self.facts.classes)
        rates = measure_rates(self.searches, self.facts.val, seen)
        self.search = self.searches.search(own=rates.own)
        self.diagnosis.pictures["find_lr"] = self.search.summary()
        return Step(3, _rate_line(rates), rates, self._mended(read_rates(rates, self.subject.named)))

    def _mended(self, reading: Reading) -> Reading:
        """Try the remedy of a fault in the run itself, where the diagnosis has time for whole runs."""
        has_remedy = reading.failed and bool(reading.verdicts[0].override)
        if not has_remedy or self.subject.is_rate_open or self.lengths.last < NAMES.index("refine") + 1:
            return reading
        others = [change for change in self.subject.remedies() if change != reading.verdicts[0].override]
        linear, chance = self.controls.linear, self.facts.guessed
        mended = mend(reading, self.trials, others, linear, chance, lambda trial: remedies.longer(self._record(trial)))
        if mended.reading.failed:
            self._picture(mended.runs, chance)
        return mended.reading

    def _picture(self, runs: Sequence[Trial], chance: float) -> None:
        """Keep the run as typed, and those with remedies, for the page of a failed step."""
        named, typed, best = self.subject.named, runs[0], max(runs, key=lambda trial: trial.accuracy)
        levels = {"straight_line": self.controls.linear_accuracy, "guessing": chance}
        self.diagnosis.pictures["mended"] = {"runs": [_run(trial, named, best) for trial in runs]} | levels
        if best is not typed:
            self.diagnosis.pictures |= {"layers": best.layers, "layers_as_typed": typed.layers}

    def _record(self, trial: Trial) -> Record:
        facts = self.facts
        return advice.record_of(trial, self.subject, facts.largest_class, facts.train, facts.classes, facts.first)

    def _grid(self) -> Step:
        if self.search is None or self.search.lr is None:
            return Step(4, "no rate was found", None, Reading(), left_out=True)
        self.grid = found = grid.take_grid(self.trials, self.search, self.facts.optimizer)
        self.diagnosis.pictures["grid"] = cells = [_cell(trial, found.best) for trial in found.trials]
        line = f"{len(found.trials)} short runs of {found.best.steps} steps; best {grid.best_of(found.trials)}"
        return Step(4, line, cells, Reading())

    def _refine(self) -> Step:
        if self.grid is None and (self.subject.is_rate_open or self.subject.rate is None):
            return Step(5, "there is no grid", None, Reading(), left_out=True)
        below = self.search.diverges if self.search is not None else None
        below, chance = below if below is not None else math.inf, self.facts.largest_class
        self.refined = found = grid.take_refinement(self.trials, self.grid, below, chance)
        own, chosen, reading = found.own, found.chosen, grid.read_refined(found)
        self._settle_suspicions()
        self.diagnosis.settings = self.trials.changes(chosen.rate, chosen.decay)
        self.diagnosis.pictures["refined"] = cells = [_cell(trial, chosen) for trial in found.trials]
        error = share_error(chosen.accuracy, len(chosen.right))
        steps, total = f"{chosen.steps:,}", self.facts.total_steps
        if chosen.steps < total:
            self.diagnosis.cut = steps = f"{steps} of {total:,}"
        runs = "1 run" if len(found.trials) == 1 else f"{len(found.trials)} runs"
        line = f"{runs} of {steps} steps; {chosen.name}: "
        line += f"val {_with_error(chosen.accuracy, error)}"
        if own is not None and own is not chosen:
            line += f"; the run's own {own.name}: {percent(own.accuracy)}"
        return Step(5, line, cells, reading)

    def _curves(self) -> Step:
        if self.refined is None:
            return Step(6, "there is no run to read", None, Reading(), left_out=True)
        chosen, facts = self.refined.chosen, self.facts
        controls = self.controls
        record = self._record(chosen)
        is_whole = facts.total_steps <= self.lengths.planned
        self.curves = advice.read_curves(chosen, record, controls, self.subject, is_whole)
        self.diagnosis.pictures |= {"rows": chosen.rows, "layers": chosen.layers, "initial_loss": facts.first}
        line = f"train {percent(chosen.fitted)}, val {percent(chosen.accuracy)}; "
        line += f"a straight line {percent(controls.linear_accuracy)}, "
        line += f"shuffled pixels {percent(chosen.shuffled)}, grey pictures {percent(chosen.blank)}"
        measured = {"straight_line": controls.linear_accuracy, "train_from_val": controls.told_apart}
        measured |= {"shuffled_pixels": chosen.shuffled, "blank": chosen.blank, "train": chosen.fitted}
        return Step(6, line, measured, self.curves.reading)

    def _next(self) -> Step:
        if self.refined is None or self.curves is None:
            return Step(7, "there is no run to improve", None, Reading(), left_out=True)
        refined = self.refined
        seen = [replace(verdict, kind="advice", confidence="likely") for verdict in self._remarked()]
        suspicions = [*seen, *self.curves.suspicions]
        tests = advice.test_remedies(self.trials, refined.chosen, suspicions, refined.own)
        reading = advice.read_tests(tests, self.subject.named)
        advice.settle(self.curves, reading)
        tried = [
            f"{self.subject.named(test.override)} {formatting.format_points(test.gain)}"
            for test in tests
            if not test.reason
        ]
        words = f"points on val: {', '.join(tried)}" if tried else "nothing to be tested"
        measured = [{"override": t.override, "gain": t.gain, "errors": t.errors} for t in tests]
        return Step(7, words, measured, reading)

    def _remarked(self) -> list[Verdict]:
        """Return what step 1 has remarked and a setting may mend."""
        return [verdict for verdict in self.diagnosis.steps[0].reading.verdicts if verdict.override]

    def _settle_suspicions(self) -> None:
        """Take back what step 3 has advised from short runs: whole runs have now shown whether it is better."""
        for step in self.diagnosis.steps:
            step.reading.verdicts = [verdict for verdict in step.reading.verdicts if verdict.name != "better_rate"]

    def _measure_controls(self) -> Controls:
        self.report("curves: fitting a straight line")
        with self.subject.opened() as opened:
            return measure_controls(opened, VAL_IMAGES)


def diagnose(
    subject: Subject,
    last: int = len(NAMES),
    report: Report = lambda text: None,
    done: Callable[[Step], None] = lambda step: None,
    ledger: Ledger | None = None,
    budget: float | None = None,
) -> Diagnosis:
    """Take the steps up to the last one, or until one fails. report: gets what is being done; done: each step.

    ledger: what has been measured before. budget: seconds that the whole may take, about.
    """
    procedure = Procedure(subject, ledger or Ledger(types=TYPES), report, last, budget)
    for number in range(1, last + 1):
        step = procedure.take(number)
        procedure.diagnosis.steps.append(step)
        done(step)
        if procedure.diagnosis.failed:
            break
    return procedure.diagnosis


def _rate_line(rates: Rates) -> str:
    if rates.found is None or rates.span is None:
        return f"no rate is better than guessing after {rates.steps} steps"
    low, high = rates.span
    others = f"{low:g} to {high:g}" if low < high else f"{low:g}"
    own = f"; the run's {rates.own:g}: loss {format_loss(rates.own_loss)}" if rates.own is not None else ""
    return f"best {others}: loss {format_loss(rates.loss)} after {rates.steps} steps{own}"


def _cell(trial: Trial, chosen: Trial) -> dict[str, Any]:
    facts = {"rate": trial.rate, "decay": trial.decay, "accuracy": trial.accuracy, "loss": trial.loss}
    return plain({**facts, "steps": trial.steps, "chosen": trial is chosen})


def _run(trial: Trial, named: Callable[[str], str], best: Trial) -> dict[str, Any]:
    change = named(trial.change) if trial.change else "as typed"
    return {"change": change, "accuracy": trial.accuracy, "best": trial is best, "rows": trial.rows}


def _with_error(share: float, error: float) -> str:
    return f"{100 * share:.1f} ± {100 * error:.1f} %"

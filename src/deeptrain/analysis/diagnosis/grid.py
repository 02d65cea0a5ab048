"""Steps 4 and 5: a coarse grid of short runs over rate and decay, then whole runs around the best, beside one's own."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deeptrain.analysis.curves import share_error
from deeptrain.analysis.diagnosis.judgements import FEW_ERRORS, Reading, how_sure
from deeptrain.analysis.diagnosis.trial import LEVEL, Trial, Trials, choose, errors_ahead
from deeptrain.analysis.find_lr import LEAST, MARGIN, RateSearch, excess, rung
from deeptrain.analysis.verdicts import Verdict
from deeptrain.report.formatting import format_loss, percent

USUAL_DECAY, USUAL = {"AdamW": 0.05, "Muon": 0.05}, 5e-4  # decoupled, as in the options; of the others
VISIBLE = 0.01  # of the weights: two decoupled decays that differ by less in a run are the same
EXTENSIONS = 2  # rungs that are added while the best is at an edge
SHARE = 0.2  # of the run: a short run, as in the last race of the search
HALF_RUNG = 10**0.25  # between two rates of the refinement
FINE = 0.25  # of the run: the best rate of a shorter part says little of half a rung
LIKELY, CERTAIN = 3.0, 5.0  # paired standard errors by which a change is better

Report = Callable[[str], None]


@dataclass(frozen=True)
class Grid:
    """Short runs over rate and decay. best: the one to refine."""

    trials: tuple[Trial, ...]
    best: Trial


@dataclass(frozen=True)
class Refined:
    """Whole runs around the best of the grid. own: with the run's own settings; None if its rate is to be searched."""

    trials: tuple[Trial, ...]
    own: Trial | None
    chosen: Trial


def decays(own: float | None, usual: float) -> Sequence[float | None]:
    """Return the decays of the grid: none, a tenth of the usual one, that, and one's own."""
    return [None] if own is None else sorted({0.0, usual / 10, usual, own})


def take_grid(trials: Trials, search: RateSearch, optimizer: str) -> Grid:
    """Run the grid; rates are added while the best is at an edge, none close to the one that diverges."""
    own, usual = trials.subject.decay, USUAL_DECAY.get(optimizer, USUAL)
    race = search.races[-1]
    middle = search.lr if search.lr is not None else race.best
    below = search.diverges if search.diverges is not None else math.inf
    steps = max(LEAST, math.ceil(SHARE * search.planned_steps))
    rates = [rate for rate in (rung(middle, step) for step in (-1, 0, 1)) if rate < below] or [middle]
    least = VISIBLE / steps if optimizer in USUAL_DECAY else 0.0
    choices = decays(own, usual)
    for _ in range(EXTENSIONS + 1):
        parts = [trials.short(_visible(rates, decay, own, least), decay, steps) for decay in choices]
        found = [trial for part in parts for trial in part]
        best = choose(found)
        same = [trial for trial in found if trial.decay == own and errors_ahead(best, trial) <= LEVEL]
        best = choose(same or [best])  # a decay is changed for a reason
        assert best.rate is not None
        side = (best.rate == max(rates)) - (best.rate == min(rates))
        if not side or (edge := rung(best.rate, side)) >= below or len(rates) >= 3 + EXTENSIONS:
            break
        rates = sorted([*rates, edge])
    return Grid(tuple(found), best)


def _visible(rates: Sequence[float], decay: float | None, own: float | None, least: float) -> list[float]:
    """Return the rates at which a decay differs from one's own: in a step by at least this part of the weights."""
    return [rate for rate in rates if decay == own or rate * abs((decay or 0.0) - (own or 0.0)) >= least]


def take_refinement(trials: Trials, grid: Grid | None, below: float, chance: float) -> Refined:
    """Run one's own settings, the best of the grid, and rates beside it while the best is at an edge.

    Where only a small part of a run fits, there are no rates beside it.

    below: the rate that diverges. chance: the accuracy of guessing.
    """
    subject = trials.subject
    own = None if subject.is_rate_open else trials.whole(subject.rate, subject.decay)
    if grid is None:
        assert own is not None
        return Refined((own,), own, own)
    assert grid.best.rate is not None
    rate, decay = grid.best.rate, grid.best.decay
    exponents = [0, -1, 1] if trials.part >= FINE else [0]
    found: dict[int, Trial] = {}
    while exponents:
        for exponent in exponents:
            trial = trials.whole(_rounded(rate * HALF_RUNG**exponent), decay)
            if own is not None and (trial.rate, trial.decay) == (own.rate, own.decay):
                trial = own
            found[exponent] = trial
        best = choose(list(found.values()))
        exponent = next(number for number, trial in found.items() if trial is best)
        exponents = [exponent - 1] * (exponent == min(found)) + [exponent + 1] * (exponent == max(found))
        exponents = [
            e
            for e in exponents
            if trials.part >= FINE and abs(e) <= 1 + EXTENSIONS and rate * HALF_RUNG**e * MARGIN < below
        ]
    whole = list(found.values())
    if own is not None and not any(trial is own for trial in whole):
        whole.append(own)
    return Refined(tuple(whole), own, choose_learned(whole, own, chance))


def choose_learned(whole: Sequence[Trial], own: Trial | None, chance: float) -> Trial:
    """Choose by val; where no trial learns it, the one that has learned most of train, for val tells nothing."""
    if max(trial.accuracy - FEW_ERRORS * share_error(chance, len(trial.right)) for trial in whole) > chance:
        return choose(whole, own)
    return max(whole, key=lambda trial: (trial.fitted, trial is own))


def _rounded(rate: float) -> float:
    return float(f"{rate:.2g}")


def read_refined(refined: Refined) -> Reading:
    """Judge one's own settings beside the chosen ones."""
    own, chosen = refined.own, refined.chosen
    if own is None or chosen is own:
        return Reading([], ["rate and weight decay"])
    ahead = errors_ahead(chosen, own)
    if ahead < LIKELY:
        verdicts = [_lower_loss(own, chosen)] if excess(own.losses, chosen.losses) >= LIKELY else []
        return Reading(verdicts, ["rate and weight decay, beyond the noise of val"])
    evidence = f"val {percent(chosen.accuracy)} with {chosen.name}, {percent(own.accuracy)} with {own.name}"
    confidence = how_sure(ahead, is_specific=False)  # a better rate may only make up for something else
    return Reading([Verdict("better_settings", "advice", confidence, evidence, " ".join(_words(own, chosen)))])


def _lower_loss(own: Trial, chosen: Trial) -> Verdict:
    losses = f"val loss {format_loss(chosen.loss)} with {chosen.name}, {format_loss(own.loss)} with {own.name}"
    return Verdict("better_settings", "remark", "", f"{losses}; the accuracies differ by no more than noise")


def _words(own: Trial, chosen: Trial) -> list[str]:
    words = [f"optimizer.lr={chosen.rate:g}"] if chosen.rate is not None and chosen.rate != own.rate else []
    different = chosen.decay is not None and chosen.decay != own.decay
    return [*words, *([f"optimizer.weight_decay={chosen.decay:g}"] if different else [])]


def best_of(trials: Sequence[Trial]) -> str:
    """Say which trial is the best, and what it knows of val."""
    best = choose(trials)
    return f"{best.name}: val {percent(best.accuracy)}"

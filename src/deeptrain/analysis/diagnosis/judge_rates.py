"""What a search for the rate has found, and what it says of the run's own: a pure function of losses."""

import math
from dataclasses import dataclass

from deeptrain.analysis.diagnosis.judgements import FEW_ERRORS, MANY_ERRORS, Named, Reading
from deeptrain.analysis.verdicts import Verdict
from deeptrain.report.formatting import format_loss

SLOW, LITTLE = 0.8, 0.2  # parts of the loss of guessing, and of what is learned with a change
ALIKE = 0.9  # of the loss with permuted labels: from there on the labels help nothing
CAUSES = {  # what a change that lets a run learn has mended; else it is a regularizer
    "model.initialization": "start_too_bad",
    "model.norm": "start_too_bad",
    "data.mean": "input_scale",
    "loss.class_weights": "imbalance",
}
DIFFERENT = 10.0  # times the rate that was found: a rate beside the range is a matter of taste


@dataclass(frozen=True)
class Rates:
    """What the search for the rate has found: losses of short runs of so many steps.

    own: the run's rate, None if it is to be searched; own_errors: paired standard errors by which it is worse than the
    one found; guess_errors: by which it, or the run itself, is better than guessing. changes: what was changed in
    further searches, and the loss of the best rate then. val_errors: by which the best is better than guessing on val.
    by_heart: mean losses while some images are learned, with their labels and with permuted ones.
    """

    own: float | None
    found: float | None
    span: tuple[float, float] | None
    steps: int
    loss: float
    guess: float
    own_loss: float = math.nan
    own_errors: float = 0.0
    guess_errors: float = math.inf
    changes: tuple[tuple[str, float], ...] = ()
    val_errors: float = math.inf
    by_heart: tuple[float, float] | None = None


def learns_more(rates: Rates, loss: float) -> bool:
    """Tell whether a loss is so far below guessing that what the rates have reached is little beside it."""
    reached = rates.guess - rates.loss if rates.found is not None else 0.0
    return loss < SLOW * rates.guess and reached < LITTLE * (rates.guess - loss)


def read_rates(rates: Rates, named: Named = str) -> Reading:
    """Judge the run's own rate beside the one that was found."""
    best = f"loss {format_loss(rates.loss)} after {rates.steps} steps"
    guess = f"guessing gives {format_loss(rates.guess)}"
    if cures := [loss for _, loss in rates.changes if learns_more(rates, loss)]:
        most = rates.guess - cures[0]  # what was seen comes first, and may be a little below what ends the search
        change, loss = next(pair for pair in rates.changes if rates.guess - pair[1] >= (1 - LITTLE) * most)
        name = next((name for start, name in CAUSES.items() if change.startswith(start)), "regularized")
        evidence = f"at the best rate {best}, {guess}; with {named(change)} it is {format_loss(loss)}"
        return Reading([Verdict(name, "fault", "likely", evidence, change)], ["the rate"])
    tried = [named(change) for change, _ in rates.changes]
    if rates.val_errors < FEW_ERRORS and rates.by_heart is not None and _is_noise(*rates.by_heart, rates.guess):
        true, permuted = map(format_loss, rates.by_heart)
        evidence = f"{best}, {guess}; permuted labels are learned by heart as fast: "
        evidence += f"mean loss {permuted}, with its own labels {true}"
        return Reading([Verdict("labels_are_noise", "fault", "likely", evidence)], ["the rate", *tried])
    if rates.found is None or rates.span is None:
        evidence = f"{best}, {guess}; it memorises a few images, so look at the labels, or plan more steps"
        return Reading([Verdict("no_signal", "advice", "possible", evidence)], ["the rate", *tried])
    if rates.own is None:
        return Reading([], ["the rate"])
    return _beside_the_found(rates, rates.own, rates.found, rates.span)


def _is_noise(true: float, permuted: float, guess: float) -> bool:
    """Tell whether labels are learned no faster than permuted ones, where both are learned at all."""
    return max(true, permuted) < SLOW * guess and true > ALIKE * permuted


def _beside_the_found(rates: Rates, own: float, found: float, span: tuple[float, float]) -> Reading:
    low, high = span
    override = f"optimizer.lr={found:g}"
    if low <= own <= high or rates.own_errors <= MANY_ERRORS:
        return Reading([], ["the rate"])
    own_loss = "not finite" if not math.isfinite(rates.own_loss) else format_loss(rates.own_loss)
    evidence = f"loss {own_loss} after {rates.steps} steps, {format_loss(rates.loss)} with {found:g}"
    is_far = not low / DIFFERENT < own < high * DIFFERENT
    if is_far and rates.guess_errors < MANY_ERRORS:
        name = "rate_too_high" if own > high else "rate_too_low"
        evidence = f"{evidence}; guessing gives {format_loss(rates.guess)}"
        return Reading([Verdict(name, "fault", "likely", evidence, override)])
    return Reading([Verdict("better_rate", "advice" if is_far else "remark", "likely", evidence, override)])

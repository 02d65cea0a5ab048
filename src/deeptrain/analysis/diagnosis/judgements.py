"""What measurements of steps 1 to 3 mean: pure functions, a verdict for each row of the decision table."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from deeptrain.analysis.verdicts import Verdict
from deeptrain.report.formatting import format_loss, percent

STEADY = 2.0  # factor between one layer's outputs and the next, from which on a signal dies or explodes
MEMORISED = 0.98  # of a small sample
MIN_SHARE = 0.01  # of the images: fewer spoil little
FAR = 1.5  # times the loss of guessing
FEW_ERRORS = 3.0  # standard errors: below, val is not learned
MANY_ERRORS = 5.0  # paired standard errors
SLOW, LITTLE = 0.8, 0.2  # parts of the loss of guessing, and of what is learned with a change
ALIKE = 0.9  # of the loss with permuted labels: from there on the labels help nothing
DIFFERENT = 10.0  # times the rate that was found: a rate beside the range is a matter of taste

Named = Callable[[str], str]  # how a user makes a change


@dataclass(frozen=True)
class Start:
    """What is seen before the first step, on some training images.

    loss, guess: of the network and of guessing; NaN if unknown. mixed: a label or image changes what another image
    gives. upside_down: at equal logits the loss asks for less of the right class. probabilities: every output is
    positive, and those of an image sum to 1. missing: names of the parameters that the optimizer does not hold, and
    unused: of those that the loss does not depend on, of so many `parameters`. scale: mean and standard deviation of
    the channel that is furthest off.
    """

    images: int
    classes: int  # that have training images
    different: int  # images, of those that were looked at
    contradictions: float  # share of train: equal images with other labels
    leaks: tuple[str, ...]  # a sentence for each split that holds images of train
    bad_layer: str | None
    loss: float
    guess: float
    batch_mixed: bool
    loss_mixed: bool
    upside_down: bool
    probabilities: bool
    scale: tuple[float, float]
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    parameters: int = 0


@dataclass(frozen=True)
class Attempt:
    """A small sample, trained on without regularization: the share of it that is right, and the loss.

    loss: of the last steps; mean_loss: of all steps. train_accuracy: with the statistics of each batch. change: what
    was typed beside the run's own settings.
    """

    eval_accuracy: float
    train_accuracy: float
    loss: float
    steps: int
    change: str = ""
    mean_loss: float = math.nan
    images: int = 0

    @property
    def memorised(self) -> bool:
        return self.eval_accuracy >= MEMORISED


@dataclass(frozen=True)
class Signal:
    """What the layers say of a sample before the first step, and whether the outputs depend on its images.

    first, last: standard deviation of what the first layer says, and the last but one. dead_share: of the units of the
    layer where most are silent.
    """

    first: float
    last: float
    layers: int
    dead_layer: str = ""
    dead_share: float = 0.0
    ignores_input: bool = False

    @property
    def growth(self) -> float:
        """Return the factor between one layer and the next, as a geometric mean."""
        if self.layers < 2 or not (self.first > 0 and math.isfinite(self.first)):
            return 1.0
        return (self.last / self.first) ** (1 / (self.layers - 1)) if self.last > 0 else 0.0


@dataclass(frozen=True)
class Memory:
    """Attempts to memorise a sample: the run's own, and if it failed others.

    rate: the run's own; None if it is to be searched. found, at_found: the rate that a search finds for the sample, and
    the attempt with it. for_run: the rate that a search finds for the whole run. others: attempts with other settings.
    run_learns: whether the run itself is better than guessing all the same. signal: only where no rate memorises.
    """

    images: int
    own: Attempt
    rate: float | None
    found: float | None = None
    at_found: Attempt | None = None
    for_run: float | None = None
    others: tuple[Attempt, ...] = ()
    is_frozen: bool = False
    run_learns: bool = False
    signal: Signal | None = None


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


@dataclass
class Reading:
    """The verdicts of a step, the strongest first, and what it has excluded."""

    verdicts: list[Verdict] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return any(verdict.kind == "fault" for verdict in self.verdicts)


def read_start(start: Start) -> Reading:
    """Judge what is seen before the first step."""
    found = [*_data_verdicts(start), *_code_verdicts(start), *_idle_verdicts(start), *_scale_verdicts(start)]
    excluded = [
        "equal images with other labels",
        "inf or NaN",
        "a loss upside down",
        "images that influence one another",
    ]
    return Reading(found, excluded if not any(verdict.kind == "fault" for verdict in found) else [])


def _data_verdicts(start: Start) -> list[Verdict]:
    found = []
    if start.classes < 2:
        found.append(Verdict("one_class", "fault", "certain", f"{start.images:,} images, one label"))
    if start.different == 1:
        evidence = "all that were looked at have the same pixels"
        found.append(Verdict("equal_images", "fault", "certain", evidence))
    if start.contradictions >= MIN_SHARE:
        evidence = f"{percent(start.contradictions)} of the training images; no network gets these right"
        found.append(Verdict("contradictions", "fault", "certain", evidence))
    return found + [Verdict("leak", "advice", "certain", sentence) for sentence in start.leaks]


def _code_verdicts(start: Start) -> list[Verdict]:
    found = []
    if start.bad_layer is not None:
        evidence = f"first in layer {start.bad_layer}, before any step"
        found.append(Verdict("not_finite", "fault", "certain", evidence))
    if start.upside_down:
        evidence = "at equal logits its gradient lowers the right class"
        found.append(Verdict("loss_upside_down", "fault", "certain", evidence))
    if start.batch_mixed:
        evidence = "in evaluation an output has a gradient on the other images of its batch; look for a reshape"
        found.append(Verdict("batch_mixed", "fault", "certain", evidence))
    if start.loss_mixed:
        evidence = "another label elsewhere in the batch turns the gradient of an image; look for a mean over its axis"
        found.append(Verdict("loss_mixed", "fault", "certain", evidence))
    if start.probabilities:
        evidence = "all are positive and sum to 1, and the loss takes the softmax again; leave it out of the model"
        found.append(Verdict("probabilities", "fault", "likely", evidence))
    return found


def _idle_verdicts(start: Start) -> list[Verdict]:
    """Say which parameters no step changes; a set-up that changes none cannot learn."""
    found = []
    for names, why in ((start.missing, "the optimizer does not hold"), (start.unused, "the loss does not depend on")):
        if names:
            evidence = f"{why} {len(names)} of {start.parameters} parameters, such as {names[0]}"
            kind = "fault" if len(names) == start.parameters else "advice"
            found.append(Verdict("not_trained", kind, "certain", evidence))
    return found


def _scale_verdicts(start: Start) -> list[Verdict]:
    """Say what is unusual. Only a set-up that cannot memorise makes it a fault."""
    found = []
    mean, std = start.scale
    if abs(mean) > 2 or not 0.1 <= std <= 10:
        evidence = f"mean {mean:.3g}, standard deviation {std:.3g}; usual are 0 and 1"
        found.append(Verdict("input_scale", "remark", "", evidence, "data.mean=null data.std=null"))
    if start.loss > FAR * start.guess > 0:
        evidence = f"{format_loss(start.loss)}, guessing gives {format_loss(start.guess)}"
        found.append(Verdict("first_loss", "remark", "", evidence))
    return found


def read_memory(memory: Memory, named: Named = str) -> Reading:
    """Judge whether a few images can be memorised; where not, which change of the set-up can."""
    own, words = memory.own, f"{memory.images} images"
    is_searched = memory.rate is None and memory.at_found is not None and memory.at_found.memorised
    if own.memorised or is_searched:
        return Reading([], ["the network's size", "its gradients", "its modes of training and evaluation"])
    seen = f"after {own.steps} steps it knows {percent(own.eval_accuracy)} of {words}"
    if memory.is_frozen:
        return Reading([Verdict("cannot_memorise", "remark", "", f"{seen}; most of the network is frozen")])
    if memory.at_found is not None and memory.at_found.memorised:
        return Reading([_slow_rate(memory, seen) if memory.run_learns else _other_rate(memory, seen)])
    cure = memory.others[-1] if memory.others and memory.others[-1].memorised else None
    tried = ["the rate"] * (memory.at_found is not None) + [
        named(each.change) for each in memory.others if each is not cure
    ]
    if own.train_accuracy >= MEMORISED:
        return Reading([_other_mode(own, words, cure, named)], tried)
    if cure is not None:
        name, cause = _cause(memory.signal, cure.change)
        evidence = f"{seen}; {cause}with {named(cure.change)} it knows {percent(cure.eval_accuracy)}"
        return Reading([Verdict(name, "fault", "certain", evidence, cure.change)], tried)
    if memory.signal is not None and memory.signal.ignores_input:
        evidence = f"{seen}; before the first step they are the same for all images: look for a layer that forgets them"
        return Reading([Verdict("ignores_input", "fault", "likely", evidence)], tried)
    evidence = f"{seen}; no change that was tried helps: look at the model and the loss"
    return Reading([Verdict("cannot_memorise", "fault", "possible", evidence)], tried)


def _cause(signal: Signal | None, cure: str) -> tuple[str, str]:
    """Name what a cure has mended, where the layers show it: a verdict, and the words that say so."""
    if signal is None or not cure.startswith(("model.initialization", "model.norm", "model.activation")):
        return "remedied", ""
    span = f"its layers' outputs have a standard deviation of {signal.first:.2g} at the input"
    if not 1 / STEADY <= signal.growth <= STEADY and signal.layers > 1:
        name = "signal_dies" if signal.growth < 1 else "signal_explodes"
        return name, f"{span}, {signal.last:.2g} at the end; "
    if signal.dead_share > 0.5:
        return "dead_units", f"{percent(signal.dead_share)} of the units of {signal.dead_layer} are silent; "
    return "remedied", ""


def _other_mode(own: Attempt, words: str, cure: Attempt | None, named: Named) -> Verdict:
    evidence = (
        f"{percent(own.train_accuracy)} of {words} right in training mode, {percent(own.eval_accuracy)} in evaluation"
    )
    if cure is None:
        evidence += "; look at batch norms, and at what the model does in one mode only"
        return Verdict("modes_differ", "fault", "likely", evidence)
    return Verdict("modes_differ", "fault", "certain", f"{evidence}; with {named(cure.change)} in both", cure.change)


def _slow_rate(memory: Memory, seen: str) -> Verdict:
    evidence = f"{seen}; with {memory.found:g} it knows all, but the run itself is better than guessing"
    return Verdict("better_rate", "remark", "", evidence)


def _other_rate(memory: Memory, seen: str) -> Verdict:
    assert memory.found is not None and memory.at_found is not None
    evidence = f"{seen}; with {memory.found:g} it knows {percent(memory.at_found.eval_accuracy)}"
    if memory.for_run is not None and memory.for_run != memory.found:
        evidence += f", and {memory.for_run:g} is the best for all images"
    name = "rate_too_high" if (memory.rate or 0.0) > memory.found else "rate_too_low"
    return Verdict(name, "fault", "certain", evidence, f"optimizer.lr={memory.for_run or memory.found:g}")


def learns_more(rates: Rates, loss: float) -> bool:
    """Tell whether a loss is so far below guessing that what the rates have reached is little beside it."""
    reached = rates.guess - rates.loss if rates.found is not None else 0.0
    return loss < SLOW * rates.guess and reached < LITTLE * (rates.guess - loss)


def read_rates(rates: Rates, named: Named = str) -> Reading:
    """Judge the run's own rate beside the one that was found."""
    best = f"loss {format_loss(rates.loss)} after {rates.steps} steps"
    guess = f"guessing gives {format_loss(rates.guess)}"
    if cures := [(change, loss) for change, loss in rates.changes if learns_more(rates, loss)]:
        change, loss = cures[0]
        name = "start_too_bad" if change.startswith(("model.initialization", "model.norm")) else "regularized"
        evidence = f"at the best rate {best}, {guess}; with {named(change)} it is {format_loss(loss)}"
        return Reading([Verdict(name, "fault", "certain", evidence, change)], ["the rate"])
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
        return Reading([Verdict(name, "fault", "certain", evidence, override)])
    return Reading([Verdict("better_rate", "advice" if is_far else "remark", "likely", evidence, override)])

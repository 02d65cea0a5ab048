"""What measurements of a set-up mean: pure functions, a verdict for each row of the decision table.

A fault is a broken set-up, advice could make it better, a remark is only seen. "certain": the symptom was seen and its
remedy was tested, or the symptom proves it. Saying nothing is a valid answer; a wrong verdict is worse than none.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from deeptrain.report.formatting import format_loss, percent

TITLES = {
    "one_class": "all training images have one class",
    "equal_images": "the training images are the same",
    "contradictions": "the same image has several labels",
    "leak": "val holds images of train",
    "not_finite": "the first outputs are inf or NaN",
    "loss_upside_down": "the loss rewards wrong answers",
    "batch_mixed": "images of a batch influence one another",
    "loss_mixed": "the loss of an image depends on the labels of others",
    "probabilities": "the outputs are probabilities already",
    "input_scale": "the inputs have an unusual scale",
    "first_loss": "the first loss is far from guessing",
    "rate_too_high": "the learning rate is too high",
    "rate_too_low": "the learning rate is too low",
    "modes_differ": "batch norms say other things in training and evaluation",
    "remedied": "the set-up cannot memorise a few images",
    "cannot_memorise": "the set-up cannot memorise a few images",
    "regularized": "regularization keeps it from learning",
    "start_too_bad": "the start keeps it from learning",
    "labels_are_noise": "the labels have nothing to do with the images",
    "no_signal": "no rate is better than guessing",
    "better_rate": "another learning rate learns faster",
    # of the curves of a run
    "became_not_finite": "a value became inf or NaN",
    "flat_from_start": "nothing is learned from the start",
    "diverged": "it had learned, and then diverged",
    "no_transfer": "it learns its training images and nothing of val",
    "too_much_regularization": "too much regularization",
    "clipped": "clipping holds the steps back",
    "decayed_too_early": "the rate decays too early",
    "warmup_too_long": "the warm-up takes too much of the run",
    "overfitted": "overfitting",
    "val_above_train": "val is better than the training images",
    "train_longer": "it still improves",
    "underfitted": "the model is too small",
    "noisy_late": "the rate stays too high to the end",
    "plateau": "it stands still at a constant rate",
    "overconfident": "too sure of itself, not worse",
    "harder_in_training": "training accuracy is low because of the regularizers",
    "healthy": "nothing is wrong",
}
SIGNS = {  # how a verdict is seen, and what is tried or said then
    "one_class": ("diagnose: counts of the training labels", "look at the labels"),
    "equal_images": ("diagnose: their pixels", "look at the pictures"),
    "contradictions": ("diagnose: equal pixels, other labels, 1 % of train and more", "mend the labels"),
    "leak": ("diagnose: equal pixels in two splits", "split again"),
    "not_finite": ("diagnose: the first forward pass, layer by layer", "look at this layer"),
    "loss_upside_down": ("diagnose: the gradient of the loss at equal logits", "mend the loss"),
    "batch_mixed": ("diagnose: the gradient of an output on other images", "look for a reshape in the model"),
    "loss_mixed": ("diagnose: the gradient under another label elsewhere", "look for a mean over the wrong axis"),
    "probabilities": ("diagnose: outputs that are positive and sum to 1", "leave the softmax out of the model"),
    "input_scale": ("diagnose: mean and standard deviation of each channel", "data.mean=null data.std=null"),
    "first_loss": ("diagnose: loss before the first step, 1.5 times that of guessing", "nothing, while it learns"),
    "rate_too_high": ("diagnose: another rate learns. Curves: guessing, the loss above equal logits", "a lower rate"),
    "rate_too_low": ("diagnose: another rate learns. Curves: the loss falls steadily, and little", "a higher rate"),
    "modes_differ": ("diagnose: a sample is known in training mode only", "other batch norms"),
    "remedied": ("diagnose: a sample is memorised only with one change", "that change"),
    "cannot_memorise": ("diagnose: no rate and no change lets it memorise a sample", "look at model and loss"),
    "regularized": ("diagnose: a short run learns only without a regularizer", "without it"),
    "start_too_bad": ("diagnose: a short run learns only from another start", "that start"),
    "labels_are_noise": ("diagnose: val is not learned, permuted labels are learned as fast", "look at the labels"),
    "no_signal": ("diagnose: memorises, but no rate beats guessing on new images", "look at the labels"),
    "better_rate": ("diagnose: a short run with another rate is better, five errors", "that rate"),
    "became_not_finite": ("curves: the run has failed so", "a tenth of the rate"),
    "flat_from_start": ("curves: val and train stay at guessing, at a usual rate", "initialization, norm=batch"),
    "diverged": ("curves: val lost half of what it had, the loss doubled", "a third of the rate"),
    "no_transfer": ("curves: train is learned, val stays at guessing", "look at labels and val"),
    "too_much_regularization": ("curves: train is not learned, a regularizer is extreme", "a usual value of it"),
    "clipped": ("curves: train is not learned, clip_norm is far below the gradient", "clip_norm=null"),
    "decayed_too_early": ("curves: train is not learned, most of the run below a tenth of the rate", "schedule=cosine"),
    "warmup_too_long": ("curves: train is not learned, the warm-up is half of the run", "schedule.warmup=0.1"),
    "overfitted": ("curves: train ahead of val by 3 points and 3 errors", "aug=mixup, label smoothing, decay"),
    "val_above_train": ("curves: val ahead of train by 2 points and 3 errors", "look for leaks"),
    "train_longer": ("curves: train below 97 %, val no worse", "twice the epochs"),
    "underfitted": (
        "curves: train below 90 %, the loss stands; or a layer of few units",
        "wider layers",
    ),
    "noisy_late": ("curves: val loss jumps about a level, the rate never fell", "schedule=cosine"),
    "plateau": ("curves: val loss stands, the rate never fell", "schedule=cosine"),
    "overconfident": ("curves: val loss has risen, accuracy has not fallen", "loss.label_smoothing=0.1"),
    "harder_in_training": ("curves: accuracy as trained on is far below val", "nothing"),
    "healthy": ("curves: train is learned, val follows", "three seeds"),
}
MEMORISED = 0.98  # of a small sample
MIN_SHARE = 0.01  # of the images: fewer spoil little
FAR = 1.5  # times the loss of guessing
FEW_ERRORS = 3.0  # standard errors: below, val is not learned
MANY_ERRORS = 5.0  # paired standard errors
SLOW, LITTLE = 0.8, 0.2  # parts of the loss of guessing, and of what is learned with a change
ALIKE = 0.9  # of the loss with permuted labels: from there on the labels help nothing
DIFFERENT = 10.0  # times the rate that was found: a rate beside the range is a matter of taste


@dataclass(frozen=True)
class Verdict:
    """What is wrong, how sure that is, and what to type instead. override: empty if no setting mends it."""

    name: str
    kind: Literal["fault", "advice", "remark"]
    confidence: Literal["certain", "likely", "possible", ""]
    evidence: str
    override: str = ""

    @property
    def sentence(self) -> str:
        sure = f" ({self.confidence})" if self.confidence else ""
        return f"{TITLES[self.name]}{sure}: {self.evidence}"


@dataclass(frozen=True)
class Start:
    """What is seen before the first step, on some training images.

    loss, guess: of the network and of guessing; NaN if unknown. mixed: a label or image changes what another image
    gives. upside_down: at equal logits the loss asks for less of the right class. probabilities: every output is
    positive, and those of an image sum to 1. scale: mean and standard deviation of the channel that is furthest off.
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

    @property
    def memorised(self) -> bool:
        return min(self.eval_accuracy, self.train_accuracy) >= MEMORISED


@dataclass(frozen=True)
class Memory:
    """Attempts to memorise a sample: the run's own, and if it failed others.

    rate: the run's own; None if it is to be searched. found, at_found: the rate that a search finds for the sample, and
    the attempt with it. for_run: the rate that a search finds for the whole run. others: attempts with other settings.
    run_learns: whether the run itself is better than guessing all the same.
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
    found = [*_data_verdicts(start), *_code_verdicts(start), *_scale_verdicts(start)]
    excluded = ["the labels of equal images", "inf and NaN", "a loss upside down", "images that influence one another"]
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


def read_memory(memory: Memory) -> Reading:
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
    tried = ["the rate"] * (memory.at_found is not None) + [each.change for each in memory.others if each is not cure]
    if cure is not None and own.train_accuracy >= MEMORISED:
        training, evaluation = percent(own.train_accuracy), percent(own.eval_accuracy)
        evidence = f"{training} of {words} right in training mode, {evaluation} in evaluation"
        return Reading([Verdict("modes_differ", "fault", "certain", evidence, cure.change)], tried)
    if cure is not None:
        evidence = f"{seen}; with {cure.change} it knows {percent(cure.eval_accuracy)}"
        return Reading([Verdict("remedied", "fault", "certain", evidence, cure.change)], tried)
    evidence = f"{seen}; no change that was tried helps: look at the model and the loss"
    return Reading([Verdict("cannot_memorise", "fault", "possible", evidence)], tried)


def _slow_rate(memory: Memory, seen: str) -> Verdict:
    evidence = f"{seen}; with {memory.found:g} it knows all, but the run itself is better than guessing"
    return Verdict("better_rate", "remark", "", evidence)


def _other_rate(memory: Memory, seen: str) -> Verdict:
    assert memory.found is not None and memory.at_found is not None
    evidence = f"{seen}; with {memory.found:g} it knows {percent(memory.at_found.eval_accuracy)}"
    name = "rate_too_high" if (memory.rate or 0.0) > memory.found else "rate_too_low"
    return Verdict(name, "fault", "certain", evidence, f"optimizer.lr={memory.for_run or memory.found:g}")


def learns_more(rates: Rates, loss: float) -> bool:
    """Tell whether a loss is so far below guessing that what the rates have reached is little beside it."""
    reached = rates.guess - rates.loss if rates.found is not None else 0.0
    return loss < SLOW * rates.guess and reached < LITTLE * (rates.guess - loss)


def read_rates(rates: Rates) -> Reading:
    """Judge the run's own rate beside the one that was found."""
    best = f"loss {format_loss(rates.loss)} after {rates.steps} steps"
    guess = f"guessing gives {format_loss(rates.guess)}"
    if cures := [(change, loss) for change, loss in rates.changes if learns_more(rates, loss)]:
        change, loss = cures[0]
        name = "start_too_bad" if change.startswith(("model.initialization", "model.norm")) else "regularized"
        evidence = f"at the best rate {best}, {guess}; with {change} it is {format_loss(loss)}"
        return Reading([Verdict(name, "fault", "certain", evidence, change)], ["the rate"])
    tried = [change for change, _ in rates.changes]
    if rates.val_errors < FEW_ERRORS and rates.by_heart is not None and _is_noise(*rates.by_heart, rates.guess):
        true, permuted = map(format_loss, rates.by_heart)
        evidence = (
            f"{best}, {guess}; images are learned by heart as slowly with permuted labels: mean loss {permuted}, {true}"
        )
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

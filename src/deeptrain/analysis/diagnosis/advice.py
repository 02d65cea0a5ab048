"""Steps 6 and 7: read the curves of the chosen run, beside controls; then test what they advise before it is told."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from deeptrain.analysis import reader, remedies
from deeptrain.analysis.curves import share_error
from deeptrain.analysis.diagnosis.controls import Controls
from deeptrain.analysis.diagnosis.grid import CERTAIN, LIKELY
from deeptrain.analysis.diagnosis.judgements import Named, Reading, how_sure, is_specific
from deeptrain.analysis.diagnosis.labels import read_labels
from deeptrain.analysis.diagnosis.subject import DECAY, RATE, Subject, without
from deeptrain.analysis.diagnosis.trial import Trial, Trials, choose, errors_ahead, train_images
from deeptrain.analysis.find_lr import excess
from deeptrain.analysis.run_record import Record
from deeptrain.analysis.verdicts import Verdict
from deeptrain.errors import UsageError
from deeptrain.report.formatting import format_points, percent

TOLD_APART = 0.7  # accuracy at which a straight line tells train from val
TESTED = 3  # pieces of advice, at most
BELOW = "a straight line does better"
OVERFITTED = "overfitted"
EVEN = "loss.class_weights=auto"
MILD = ("data.augment", DECAY)  # regularizers that hardly keep a network from fitting its images
LENGTH = (
    "train_longer",
    "underfitted",
    "plateau",
    "decayed_too_early",
    "warmup_too_long",
    "healthy",
    "below_linear",
)  # of whole runs


@dataclass(frozen=True)
class Test:
    """A remedy that was tried from the same weights on the same batches. errors: paired, by which val is better.

    together: what it adds to the remedies that are told before it; None if it was tried alone. is_rivalled: it adds
    nothing to another remedy.
    """

    suspicion: Verdict
    gain: float  # of accuracy on val
    errors: float
    loss_errors: float = 0.0
    reason: str = ""  # why it could not be tried
    together: float | None = None
    is_rivalled: bool = False

    @property
    def is_specific(self) -> bool:
        return is_specific(self.suspicion)

    @property
    def is_better(self) -> bool:
        return self.errors >= LIKELY

    @property
    def is_slight(self) -> bool:
        """Tell whether the loss is better, and the accuracy too but within its noise."""
        return 1 <= self.errors < LIKELY <= self.loss_errors

    @property
    def override(self) -> str:
        return self.suspicion.override.replace("'", "")


def record_of(trial: Trial, subject: Subject, share: float, train: int, classes: int, first: dict) -> Record:
    """Return a trial as the reader takes a run.

    share: of the largest class. first: the loss before the first step, and that of equal logits.
    """
    words = [f"optimizer.lr={trial.rate:g}"] if trial.rate is not None else []
    words += [f"optimizer.weight_decay={trial.decay:g}"] if trial.decay is not None else []
    config = dict(subject.config(words))
    config["validate"] = {**(config.get("validate") or {}), "clean_images": train_images(train, len(trial.right))}
    result = {"status": "finished", "initial_loss": first}
    return Record(trial.rows, config, train, len(trial.right), classes, result, largest_class=share)


@dataclass(frozen=True)
class Curves:
    """What the curves of a run show beside its controls. suspicions: what names a setting, and is to be tested."""

    reading: Reading
    suspicions: tuple[Verdict, ...]


def read_curves(trial: Trial, record: Record, controls: Controls, subject: Subject, is_whole: bool) -> Curves:
    """Judge the end of a run. What was only read off its curves, and can be tested, is a suspicion and no verdict."""
    beside = _against_controls(trial, record, controls)
    told = [verdict for verdict in beside if is_whole or verdict.name not in LENGTH]
    found = [verdict for verdict in reader.read(record) if is_whole or verdict.name not in LENGTH]
    if told and told[0].kind == "fault":
        return Curves(Reading(told), ())
    is_below = any(verdict.name == "below_linear" for verdict in beside)
    read = [verdict for verdict in found if verdict.override and verdict.kind != "remark"]
    told += [verdict for verdict in found if verdict not in read]
    suspected = _of_data_and_start(record, subject)
    if is_whole:
        suspected += _of_length(trial, record, read, is_below)
    suspected += [*read, *_of_regularizers(subject, read, is_below and is_whole)]
    excluded = [] if is_below else ["a straight line that does as well"]
    return Curves(Reading(told, excluded), tuple(suspected[:TESTED]))


def _of_data_and_start(record: Record, subject: Subject) -> list[Verdict]:
    """Suspect classes of unequal size, and a start that was typed."""
    share = f"{percent(record.chance)} of the training images have one class"
    uneven = [Verdict("imbalance", "advice", "likely", share, EVEN)] * is_uneven(record.chance, record.num_classes)
    starts = subject.usual_starts()
    return [*uneven, *(Verdict("unusual_start", "advice", "likely", "another was typed", word) for word in starts)]


def _of_length(trial: Trial, record: Record, read: Sequence[Verdict], is_below: bool) -> list[Verdict]:
    """Suspect a run of few steps, where something is left to learn and the curves do not say so already."""
    is_read = any(verdict.name == "train_longer" for verdict in read)
    is_learned = trial.fitted >= reader.LEARNED and not is_below
    if is_read or is_learned or trial.steps >= remedies.ENOUGH:
        return []
    evidence = f"it takes {trial.steps} steps, and has {percent(trial.fitted)} of its training images"
    return [Verdict("train_longer", "advice", "", evidence, remedies.longer(record))]


def _of_regularizers(subject: Subject, read: Sequence[Verdict], is_below: bool) -> list[Verdict]:
    """Suspect each regularizer of a network below a straight line, and the stronger ones of one that does not fit."""
    words, found = subject.regularizers(), []
    if unfit := [verdict for verdict in read if verdict.name in ("train_longer", "underfitted")]:
        strong = [word for word in words if not word.startswith(MILD)]
        found = [Verdict("regularized", "advice", "possible", unfit[0].evidence, word) for word in strong]
    if is_below:
        known = {verdict.override for verdict in [*read, *found]}
        found += [Verdict("regularized", "advice", "", BELOW, word) for word in words if word not in known]
    return found


def is_uneven(largest: float, classes: int) -> bool:
    """Tell whether the share of the largest class is more than half-way from even to all."""
    return largest > 1 - 0.5 * (1 - 1 / max(classes, 2))


def settle(curves: Curves, tested: Reading) -> None:
    """Make a symptom a remark where a cause of it was found and mended."""
    if tested.verdicts:
        told = curves.reading.verdicts
        told[:] = [replace(v, kind="remark") if v.name == "below_linear" else v for v in told]


def _against_controls(trial: Trial, record: Record, controls: Controls) -> list[Verdict]:
    val, error = trial.accuracy, share_error(record.chance, len(trial.right))
    is_guessing = val < record.chance + max(3 * error, 0.02)
    told, images = controls.told_apart, controls.images
    if is_guessing and trial.fitted > record.chance + 0.3 and told - 3 * share_error(0.5, images) > TOLD_APART:
        evidence = f"train {percent(trial.fitted)}, val {percent(val)}"
        evidence += f"; a straight line tells train from val in {percent(told)}"
        return [Verdict("split_differs", "fault", "certain", evidence)]
    known = trial.surest and read_labels(trial.surest, record.num_classes, record.chance, len(trial.right))
    if known:
        return [known]
    linear = controls.linear
    if len(linear) == len(trial.right) and excess(linear, trial.right) > CERTAIN:
        evidence = f"it has {percent(controls.linear_accuracy)} on val, the network {percent(val)}"
        return [Verdict("below_linear", "advice", "likely", evidence)]
    return []


def test_remedies(trials: Trials, chosen: Trial, found: Sequence[Verdict], own: Trial | None = None) -> list[Test]:
    """Try each remedy in a run beside the chosen one, then those that help together. own: the run as it was typed.

    A better start ends it, as another diagnosis follows: the others are tried from that start.
    """
    tests, made = [], {}
    for verdict in found:
        ways = _at_rates(verdict, own, chosen) if own is not None and own is not chosen else [verdict]
        try:
            runs = [trials.beside(chosen, way.override.replace("'", "")) for way in ways]
        except UsageError as error:
            tests.append(Test(ways[0], 0.0, -math.inf, reason=error.lines[0]))
            continue
        tried = choose(runs, own=runs[0])
        verdict = next(way for way, run in zip(ways, runs, strict=True) if run is tried)
        made[verdict.override.replace("'", "")] = tried
        errors = errors_ahead(tried, chosen), excess(chosen.losses, tried.losses)
        tests.append(Test(verdict, tried.accuracy - chosen.accuracy, *errors))
        if verdict.name == "unusual_start" and (tests[-1].is_better or tests[-1].is_slight):
            break
    return _together(trials, chosen, tests, made)


def _together(trials: Trials, chosen: Trial, tests: Sequence[Test], made: Mapping[str, Trial]) -> list[Test]:
    """Add up the remedies that help: the first is that of a symptom which names its cause, or gains most.

    A remedy that adds nothing to those before it has the same cause. If they add nothing to it, neither is sure.
    """
    helpful = [test for test in tests if test.is_better]
    if not helpful:
        return list(tests)
    first, *others = sorted(helpful, key=lambda test: (not test.is_specific, -test.gain))
    words, best, told, rest = first.override.split(), made[first.override], [first], []
    for test in others:
        both_words = [*without(words, test.override.split()), *test.override.split()]
        try:
            both = trials.beside(chosen, " ".join(both_words))
        except UsageError as error:
            rest.append(replace(test, reason=error.lines[0]))
            continue
        if errors_ahead(both, made[test.override]) < LIKELY:
            told[0] = replace(told[0], is_rivalled=True)
        added = replace(test, errors=errors_ahead(both, best), together=both.accuracy - best.accuracy)
        if added.is_better:
            told, words, best = [*told, added], both_words, both
        else:
            rest.append(added)
    return [*told, *(test for test in tests if test not in helpful), *rest]


def _at_rates(verdict: Verdict, own: Trial, chosen: Trial) -> list[Verdict]:
    """Return a remedy at the rates and decays to try it with, one's own first.

    A longer run: one's own too, if they are as good, for the best of a short run may be too high. Another start: one's
    own alone, for what was chosen suits the start that was typed.
    """
    words = [f"{RATE}={own.rate:g}"] if own.rate is not None else []
    words += [f"{DECAY}={own.decay:g}"] if own.decay is not None else []
    at_own = replace(verdict, override=" ".join([verdict.override, *words]))
    if verdict.name == "unusual_start":
        return [at_own]
    is_level = verdict.name == "train_longer" and errors_ahead(chosen, own) < LIKELY
    return [at_own, verdict] if is_level else [verdict]


def read_tests(tests: Sequence[Test], named: Named = str) -> Reading:
    """Tell only what was better when it was tried, in the order of the tests; what was not is excluded.

    Overfitting stays a remark if no remedy helps: it is seen in the curves.
    """
    told, others = [], []
    for test in tests:
        if not test.is_better and (not test.is_slight or test.together is not None):
            others.append(test)
            continue
        confidence = how_sure(test.errors, test.is_specific, test.is_rivalled)
        gain, beside = (test.gain, "") if test.together is None else (test.together, " more")
        evidence = f"{test.suspicion.evidence}; with {named(test.override)} {format_points(gain)} points{beside} on val"
        told.append(replace(test.suspicion, confidence=confidence, evidence=evidence))
    seen = [test for test in others if test.suspicion.name == OVERFITTED]
    if seen and not any(verdict.name == OVERFITTED for verdict in told):
        why = f"{named(seen[0].override)} does not help" if not seen[0].reason else "no remedy could be tried"
        evidence = f"{seen[0].suspicion.evidence}; {why}, more images may"
        told.append(replace(seen[0].suspicion, kind="remark", confidence="", evidence=evidence, override=""))
    return Reading(told, [_excluded(test, named) for test in others])


def _excluded(test: Test, named: Named) -> str:
    outcome = f"not tried: {test.reason}" if test.reason else f"tried: {format_points(test.gain)} points on val"
    if test.together is not None:
        outcome += f", {format_points(test.together)} beside what is told"
    elif test.gain > 0:
        outcome += ", within the noise"
    return f"{named(test.override)} ({outcome})"

"""Whether a few images were memorised, and what keeps a network from it: a pure function of attempts."""

import math
from dataclasses import dataclass

from deeptrain.analysis.diagnosis.judgements import Named, Reading
from deeptrain.analysis.verdicts import Verdict
from deeptrain.report.formatting import percent

STEADY = 2.0  # factor between one layer's outputs and the next, from which on a signal dies or explodes
MEMORISED = 0.98  # of a small sample


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
    run_learns: whether the run itself is better than guessing all the same; for_run_learns: at that rate. signal: only
    where other settings were tried.
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
    for_run_learns: bool = True
    signal: Signal | None = None


def read_memory(memory: Memory, named: Named = str) -> Reading:
    """Judge whether a few images can be memorised; where not, which change of the set-up can."""
    own, words = memory.own, f"{memory.images} images"
    is_searched = memory.rate is None and memory.at_found is not None and memory.at_found.memorised
    if own.memorised or is_searched:
        return Reading([], ["the network's size", "its gradients", "its modes of training and evaluation"])
    seen = f"after {own.steps} steps it knows {percent(own.eval_accuracy)} of {words}"
    if memory.is_frozen:
        return Reading([Verdict("cannot_memorise", "remark", "", f"{seen}; most of the network is frozen")])
    cure = memory.others[-1] if memory.others and memory.others[-1].memorised else None
    if memory.at_found is not None and memory.at_found.memorised and cure is None:
        return Reading([_slow_rate(memory, seen) if memory.run_learns else _other_rate(memory, seen)])
    tried = ["the rate"] * (memory.at_found is not None) + [
        named(each.change) for each in memory.others if each is not cure
    ]
    if own.train_accuracy >= MEMORISED:
        return Reading([_other_mode(own, words, cure, named)], tried)
    if cure is not None:
        name, cause = cause_of(memory.signal, cure.change)
        evidence = f"{seen}; {cause}with {named(cure.change)} it knows {percent(cure.eval_accuracy)}"
        sure = "possible" if name == "remedied" else "likely"  # only a symptom of its own names a cause
        return Reading([Verdict(name, "fault", sure, evidence, cure.change)], tried)
    if memory.signal is not None and memory.signal.ignores_input:
        evidence = f"{seen}; before the first step they are the same for all images: look for a layer that forgets them"
        return Reading([Verdict("ignores_input", "fault", "likely", evidence)], tried)
    evidence = f"{seen}; no change that was tried helps: look at the model and the loss"
    return Reading([Verdict("cannot_memorise", "fault", "possible", evidence)], tried)


def cause_of(signal: Signal | None, cure: str) -> tuple[str, str]:
    """Name what a cure has mended, where it or the layers show it: a verdict, and the words that say so."""
    if cure.startswith("optimizer.momentum"):
        return "rate_too_high", "a high momentum adds many steps up; "
    if cure.startswith("batch_size"):
        return "modes_differ", "in training a batch norm sees a few images only; "
    if cure.startswith("data.mean"):
        return "input_scale", ""
    if cure.startswith("clip_norm"):
        return "clipped", ""
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
    return Verdict("modes_differ", "fault", "likely", f"{evidence}; with {named(cure.change)} in both", cure.change)


def _slow_rate(memory: Memory, seen: str) -> Verdict:
    evidence = f"{seen}; with {memory.found:g} it knows all, but the run itself is better than guessing"
    return Verdict("better_rate", "remark", "", evidence)


def _other_rate(memory: Memory, seen: str) -> Verdict:
    assert memory.found is not None and memory.at_found is not None
    evidence = f"{seen}; with {memory.found:g} it knows {percent(memory.at_found.eval_accuracy)}"
    if memory.for_run is not None and memory.for_run != memory.found:
        evidence += f", and {memory.for_run:g} is the best for all images"
    name = "rate_too_high" if (memory.rate or 0.0) > memory.found else "rate_too_low"
    sure = "likely" if memory.for_run_learns else "possible"
    return Verdict(name, "fault", sure, evidence, f"optimizer.lr={memory.for_run or memory.found:g}")

"""Step 2: can a few images be learned by heart? Where not, one thing is changed at a time, from the same weights."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from deeptrain.analysis.diagnosis.judge_memory import MEMORISED, Attempt, Memory, Signal
from deeptrain.analysis.diagnosis.judgements import MANY_ERRORS
from deeptrain.analysis.diagnosis.ledger import Ledger
from deeptrain.analysis.diagnosis.subject import MOMENTUM, RATE, Subject
from deeptrain.analysis.find_lr import rung
from deeptrain.analysis.short_runs import ShortRuns, preserved
from deeptrain.errors import UsageError
from deeptrain.training.rehearsal import unchanged
from deeptrain.training.trainer import Trainer
from deeptrain.training.validation import predict
from deeptrain.training.vitals import layer_statistics

SAMPLE = 64  # images to memorise
STEPS, PASSES, LONGEST = 300, 30, 4  # least steps and passes to memorise; so many times as long while it improves
EARLY = 1 / 3  # of these steps: what is memorised by then needs no more
SEEN = (MOMENTUM, "batch_size")  # remedies that are there only where their cause can be seen
LOWER = -2  # rungs: a tenth of the rate
VARIES = 1e-3  # spread of an output over the images, as a part of that over the classes: below it ignores them

Report = Callable[[str], None]
Search = Callable[[Sequence[str], int], float | None]  # changes and images of a sample -> the rate that is found


def memorise(
    subject: Subject,
    ledger: Ledger,
    report: Report,
    search: Search,
    learns: Callable[[float | None], float],
    seen: Sequence[str] = (),
) -> Memory:
    """Try the run's own settings; then remedies of what was seen, the rate that a search finds, and other settings.

    seen: remedies of what step 1 has remarked. learns: by how many standard errors the run is better than guessing, at
    a rate. A rate that memorises a sample, and with which the run learns nothing, is no remedy.
    """
    rate = None if subject.is_rate_open else subject.rate
    own = attempt(subject, ledger, report)
    memory = Memory(min(SAMPLE, own.images), own, rate, is_frozen=subject.is_frozen)
    if own.memorised:
        return memory
    remedies = subject.remedies()
    seen = [*seen, *(change for change in remedies if change.startswith(SEEN))]
    for change in seen:
        memory = replace(memory, others=(*memory.others, attempt(subject, ledger, report, change)))
        if memory.others[-1].memorised:
            return memory
    if own.train_accuracy < MEMORISED and subject.rate is not None and (found := search((), SAMPLE)):
        at_found = attempt(subject, ledger, report, f"{RATE}={found:g}")
        if not at_found.memorised:  # the best of short runs may be too high for a long one
            found = rung(found, LOWER)
            at_found = attempt(subject, ledger, report, f"{RATE}={found:g}")
        memory = replace(memory, found=found, at_found=at_found)
        if at_found.memorised and (memory.rate is None or learns(None) > MANY_ERRORS):
            return replace(memory, run_learns=memory.rate is not None)
        if at_found.memorised:
            rate = search((), 0)
            run_learns = rate is not None and learns(rate) > MANY_ERRORS
            memory = replace(memory, for_run=rate, for_run_learns=run_learns)
            if run_learns:
                return memory
    for change in (change for change in remedies if change not in seen):
        memory = replace(memory, others=(*memory.others, attempt(subject, ledger, report, change)))
        if memory.others[-1].memorised:
            break
    return replace(memory, signal=ledger.once("signal", lambda: _measure_signal(subject)))


def attempt(subject: Subject, ledger: Ledger, report: Report, change: str = "") -> Attempt:
    """Train on a sample with a change; one that does not go with the rest memorises nothing."""

    def measure() -> Attempt:
        try:
            with subject.opened(change.split(), SAMPLE) as opened:
                return _attempt(opened.trainer, len(opened.train), report, change)
        except UsageError:
            if not change:
                raise
            return Attempt(0.0, 0.0, math.inf, 0, change)

    return ledger.once(f"memorise {change}".strip(), measure)


def _attempt(trainer: Trainer, images: int, report: Report, change: str) -> Attempt:
    """Train on a sample, longer while it still improves; count what is right in both modes."""
    steps = max(STEPS, PASSES * len(trainer.train_loader))
    found, longer = train_sample(trainer, math.ceil(EARLY * steps), report, change), steps
    if not found.memorised and found.loss < math.inf:
        found = train_sample(trainer, steps, report, change)
    while not found.memorised and found.loss < math.inf and longer < LONGEST * steps:
        before, longer = found, 2 * longer
        found = train_sample(trainer, longer, report, change)
        if found.loss > 0.9 * before.loss:
            break
    return replace(found, images=images)


def train_sample(trainer: Trainer, steps: int, report: Report, change: str) -> Attempt:
    """Train from the first weights for so many steps; the trainer is as before."""
    losses, schedule, seen = [], trainer.schedule, f" with {change}" if change else ""
    with preserved(trainer) as start:
        runs = ShortRuns(trainer, start, slices=[trainer.validator.loader])
        rates = [trainer.optimizer.param_groups[0]["initial_lr"]] * steps
        for loss in runs.losses(rates, schedule, steps):
            losses.append(loss)
            report(f"memorise{seen}: step {len(losses)} of {steps}, loss {loss:.4g}")
        if not math.isfinite(losses[-1]):
            return Attempt(0.0, 0.0, math.inf, len(losses), change)
        in_training = _train_mode(trainer)
        with runs.validator.settled(trainer.model, trainer.stop, 0, 0.0):
            batches = trainer.validator.loader.epoch(0)
            logits, labels = predict(trainer.model, batches, trainer.pipeline, trainer.runtime)
    tail = losses[-max(1, len(losses) // 10) :]
    means = sum(tail) / len(tail), sum(losses) / len(losses)
    return Attempt(_share(logits, labels), in_training, means[0], len(losses), change, means[1])


@torch.no_grad()
def _train_mode(trainer: Trainer) -> float:
    """Return the share of the sample that is right with the statistics of each batch."""
    pairs = []
    with unchanged(trainer.model):
        trainer.model.train()
        for images, labels in trainer.train_loader.epoch(0):
            with trainer.runtime.autocast:
                pairs.append((trainer.model(trainer.pipeline.evaluate(images)).float(), labels))
    logits, labels = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return _share(logits, labels)


def _share(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(1) == labels).float().mean())


def _measure_signal(subject: Subject) -> Signal:
    """Look at what the layers say of some images before the first step, and whether outputs depend on them."""
    with subject.opened((), SAMPLE) as opened, preserved(opened.trainer), torch.no_grad():
        trainer = opened.trainer
        inputs = trainer.pipeline.evaluate(opened.first(opened.train)[0])
        with trainer.runtime.autocast:
            logits = trainer.model.eval()(inputs).float()
            found = layer_statistics(trainer.model, inputs)
    spreads = {name.partition("/")[2]: value for name, value in found.items() if name.startswith("activation_std/")}
    dead = {name.partition("/")[2]: value for name, value in found.items() if name.startswith("dead/")}
    names = list(spreads)[:-1] or list(spreads)  # the last layer has a scale of its own
    most = max(dead, key=lambda name: dead[name], default="")
    over_images, over_classes = float(logits.std(0).mean()), float(logits.std(1).mean())
    return Signal(
        first=spreads[names[0]] if names else math.nan,
        last=spreads[names[-1]] if names else math.nan,
        layers=len(names),
        dead_layer=most,
        dead_share=dead.get(most, 0.0),
        ignores_input=over_images <= VARIES * over_classes,
    )

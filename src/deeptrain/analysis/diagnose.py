"""Leading a set-up through the first steps of the lecture: start, memorise, rate. The first that fails ends it.

Every test is a short run of the user's own settings with a change, so each has a command to repeat it.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deeptrain import build
from deeptrain.analysis.find_lr import RateSearch, excess, find_lr
from deeptrain.analysis.initial_loss import measure_initial_loss
from deeptrain.analysis.preview import training_images
from deeptrain.analysis.short_runs import BLOCK, ShortRuns, preserved
from deeptrain.analysis.verdicts import (
    FEW_ERRORS,
    MANY_ERRORS,
    MEMORISED,
    SLOW,
    Attempt,
    Memory,
    Rates,
    Reading,
    Start,
    Verdict,
    learns_more,
    read_memory,
    read_rates,
    read_start,
)
from deeptrain.config.compose import compose_run
from deeptrain.config.overfit import GROUPS, SETTINGS
from deeptrain.config.override import override_key
from deeptrain.config.settings import RunConfig
from deeptrain.data.dataset import evenly_spaced
from deeptrain.data.leaks import contradictions, describe_leaks
from deeptrain.data.loader import Loader, ResidentLoader
from deeptrain.errors import UsageError
from deeptrain.report.formatting import format_loss, percent
from deeptrain.runtime.paths import quote
from deeptrain.runtime.random import generator
from deeptrain.runtime.resources import command
from deeptrain.schema import format_value
from deeptrain.training.nonfinite import first_layer
from deeptrain.training.rehearsal import unchanged
from deeptrain.training.trainer import Trainer
from deeptrain.training.validation import predict

LOOKED_AT = 256  # training images, before the first step
SAMPLE, BATCH = 64, 32  # images to memorise, and those of a step
STEPS, PASSES, LONGEST = 300, 30, 4  # least steps and passes to memorise; so many times as long while it improves
PLANNED = 1000  # steps of the run that the rate is searched for: of a longer one the first part of it
IMAGES = 1000  # of train, and of val, on which short runs are compared
RATE = "optimizer.lr"
LABELLED = 512  # images whose labels are compared with permuted ones
REMEDIES = (  # changes to try where no rate memorises; those that a run has already are left out
    "model.initialization=kaiming model.init_std=null",
    "model.norm=batch",
    "model.norm=group",
    "model.activation=relu",
    "clip_norm=null",
    "data.mean=null data.std=null",
    "optimizer=adamw",
    "loss=cross_entropy",
    "model.width=2",
    "model.hidden=[256,256]",
)
STARTS = ("model.initialization", "model.norm")  # of these, those that are tried where no rate is better than guessing

Report = Callable[[str], None]


@dataclass
class Step:
    """A step of the diagnosis: what was measured, in a line, and how it is read."""

    number: int
    name: str
    line: str
    measured: Any
    reading: Reading
    left_out: str = ""

    @property
    def status(self) -> str:
        return "failed" if self.reading.failed else self.left_out or "passed"


@dataclass
class Diagnosis:
    """The steps that were taken. A step after a failed one would only see its consequences."""

    run: RunConfig
    steps: list[Step] = field(default_factory=list)
    search: RateSearch | None = None

    @property
    def verdicts(self) -> list[Verdict]:
        """Return all verdicts: faults, then advice, then remarks; in the order in which they were found."""
        found = [verdict for step in self.steps for verdict in step.reading.verdicts]
        return sorted(found, key=lambda verdict: ("fault", "advice", "remark").index(verdict.kind))

    @property
    def excluded(self) -> list[str]:
        return [cause for step in self.steps for cause in step.reading.excluded]

    @property
    def failed(self) -> bool:
        return any(step.reading.failed for step in self.steps)


def diagnose(
    run: RunConfig,
    last: int = 3,
    report: Report = lambda text: None,
    done: Callable[[Step], None] = lambda step: None,
) -> Diagnosis:
    """Take the steps up to the last one, or until one fails. report: takes what is being done; done: each step."""
    diagnosis, setup = Diagnosis(run), build.open_setup(run)
    for take in (_start, _memorise, _rate)[:last]:
        step = take(diagnosis, setup, report)
        diagnosis.steps.append(step)
        done(step)
        if diagnosis.failed:
            break
    return diagnosis


def summary(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return what diagnosis.json holds."""
    verdicts = [{**asdict(verdict), "sentence": verdict.sentence} for verdict in diagnosis.verdicts]
    first = next((verdict for verdict in diagnosis.verdicts if verdict.kind != "remark"), None)
    return {
        "verdict": first.name if first else "healthy",
        "confidence": first.confidence if first else "",
        "evidence": first.evidence if first else "",
        "excluded": diagnosis.excluded,
        "commands": commands(diagnosis),
        "verdicts": verdicts,
        "steps": [
            {
                "number": step.number,
                "name": step.name,
                "status": step.status,
                "line": step.line,
                "measured": _plain(step.measured),
            }
            for step in diagnosis.steps
        ],
        "find_lr": diagnosis.search.summary() if diagnosis.search else None,
    }


def commands(diagnosis: Diagnosis) -> list[str]:
    """Return what to type next: after a fault the diagnosis again with its remedy, else the training."""
    words, found = _words(diagnosis.run), diagnosis.verdicts
    changes = next((verdict.override.split() for verdict in found if verdict.kind != "remark"), [])
    if diagnosis.failed and not changes:
        return []
    words = [*_without(words, changes), *changes]
    name = "diagnose" if diagnosis.failed else "train"
    return [" ".join([command(name), *map(quote, words)])]


def _plain(measured: Any) -> Any:
    """Return measurements as JSON has them: what is not finite becomes null."""
    if is_dataclass(measured) and not isinstance(measured, type):
        return {key: _plain(value) for key, value in vars(measured).items()}
    if isinstance(measured, list | tuple):
        return [_plain(value) for value in measured]
    return None if isinstance(measured, float) and not math.isfinite(measured) else measured


# --- 1 start ---


def _start(diagnosis: Diagnosis, setup: build.Setup, report: Report) -> Step:
    report("start: looking at images, labels, outputs and loss")
    trainer = build.trainer(setup)
    try:
        start = measure_start(trainer, setup)
    finally:
        trainer.close()
    words = f"loss {format_loss(start.loss)}, guessing gives {format_loss(start.guess)}; "
    words += f"inputs have mean {start.scale[0]:.2f}, standard deviation {start.scale[1]:.2f}"
    return Step(1, "start", words, start, read_start(start))


def measure_start(trainer: Trainer, setup: build.Setup) -> Start:
    """Measure what is seen before the first step; the trainer is as before."""
    train, loss = setup.dataset.train, trainer.loss
    indices = evenly_spaced(len(train), LOOKED_AT)
    images, labels = training_images(setup, indices)
    classes = len(setup.dataset.classes)
    counts = np.bincount(train.labels, minlength=classes)
    first = measure_initial_loss(trainer, setup)
    with preserved(trainer), unchanged(trainer.model):
        inputs = trainer.pipeline.evaluate(images)
        logits = predict(trainer.model, [(images, labels)], trainer.pipeline, trainer.runtime)[0]
        bad_layer = first_layer(trainer.model, inputs) if not logits.isfinite().all() else None
        shares = torch.from_numpy(counts / counts.sum()).float().clamp(min=1e-6).log().repeat(len(labels), 1)
        guess = min(_value(trainer.validator.loss, guessed, labels) for guessed in (0 * shares, shares))
        return Start(
            images=len(train),
            classes=int(np.count_nonzero(counts)),
            different=len(np.unique(images.cpu().flatten(1).numpy(), axis=0)),
            contradictions=len(contradictions(train)) / len(train),
            leaks=tuple(describe_leaks(setup.source, setup.dataset)),
            bad_layer=bad_layer,
            loss=first["train"] if first else math.nan,
            guess=guess,
            batch_mixed=mixes_batch(trainer, inputs[:4]),
            loss_mixed=mixes_labels(loss, labels, classes),
            upside_down=is_upside_down(loss, labels, classes),
            probabilities=_are_probabilities(logits) and setup.run.choices["loss"] == "cross_entropy",
            scale=_scale(inputs),
        )


def _value(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor) -> float:
    try:
        return float(loss(logits.to(labels.device), labels))
    except RuntimeError:
        return math.nan


def mixes_batch(trainer: Trainer, inputs: Tensor) -> bool:
    """Tell whether in evaluation an output has a gradient on the other images of its batch."""
    if len(inputs) < 2 or not inputs.is_floating_point():
        return False
    inputs = inputs.detach().clone().requires_grad_()
    trainer.model.eval()
    try:
        outputs = trainer.model(inputs)[0].float()
        (gradient,) = torch.autograd.grad(outputs.sum() + outputs.square().sum(), inputs, allow_unused=True)
    except RuntimeError:  # a network without gradients on its inputs
        return False
    return gradient is not None and bool(gradient[1:].abs().max() > 1e-6 * gradient[0].abs().max())


def _gradient(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor) -> Tensor:
    logits = logits.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits, labels), logits)
    return gradient


def mixes_labels(loss: Callable[[Tensor, Tensor], Tensor], labels: Tensor, classes: int) -> bool:
    """Tell whether the gradient of an image turns when the labels of the others change; its length may change."""
    labels = labels[: min(8, len(labels))]
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(len(labels), classes, generator=rng).to(labels.device)
    others = (labels + 1) % classes
    others[0] = labels[0]
    try:
        one, two = (_gradient(loss, logits, each)[0] for each in (labels, others))
    except RuntimeError:
        return False
    return bool(torch.cosine_similarity(one, two, dim=0) < 0.99) if float(one.norm() * two.norm()) > 0 else False


def is_upside_down(loss: Callable[[Tensor, Tensor], Tensor], labels: Tensor, classes: int) -> bool:
    """Tell whether a step down the loss, from equal logits, lowers the right classes beside the others."""
    logits = torch.zeros(len(labels), classes, device=labels.device)
    try:
        gradient = _gradient(loss, logits, labels)
    except RuntimeError:
        return False
    right = gradient.gather(1, labels[:, None]).squeeze(1)
    others = (gradient.sum(1) - right) / max(1, classes - 1)
    return bool(((right - others) > 1e-12 * gradient.abs().max()).float().mean() > 0.9)


def _are_probabilities(logits: Tensor) -> bool:
    return bool((logits >= 0).all() and ((logits.sum(1) - 1).abs() < 1e-3).all())


def _scale(inputs: Tensor) -> tuple[float, float]:
    """Return mean and standard deviation of the channel that is furthest from 0 and 1."""
    values = inputs.float().transpose(0, 1).flatten(1)
    pairs = list(zip(values.mean(1).tolist(), values.std(1).tolist(), strict=True))
    return max(pairs, key=lambda pair: abs(pair[0]) + abs(math.log(max(pair[1], 1e-9))))


# --- 2 memorise ---


def _memorise(diagnosis: Diagnosis, setup: build.Setup, report: Report) -> Step:
    run = diagnosis.run
    count = min(SAMPLE, len(setup.dataset.train))
    sample = [f"overfit={count}", f"batch_size={min(setup.batch_size, BATCH, count)}"]
    words = _without(_words(run), sample)
    rate = None if run.find_lr else run.parts["optimizer"].get("lr")
    try:
        own = _attempt([*words, *sample], report)
    except UsageError as error:  # such as a data source of one's own without train_images
        return Step(2, "memorise", f"left out: {error.lines[0]}", None, Reading(), "left out")
    memory = Memory(count, own, rate, is_frozen=run.settings.freeze is not None)
    if not memory.own.memorised:
        memory = _with_changes(memory, run, words, sample, report)
    own = memory.own
    modes = f"{percent(own.eval_accuracy)} in evaluation, {percent(own.train_accuracy)} in training mode"
    line = f"of {count} images it knows {modes}, after {own.steps} steps"
    return Step(2, "memorise", line, memory, read_memory(memory))


def _with_changes(memory: Memory, run: RunConfig, words: list[str], sample: list[str], report: Report) -> Memory:
    """Try the rate that a search finds for the sample, then other settings, until one memorises."""
    if memory.own.train_accuracy < MEMORISED and (found := _search([*words, *sample], report).lr):
        attempt = _with_change(words, sample, f"{RATE}={found:g}", report)
        memory = replace(memory, found=found, at_found=attempt)
        if attempt.memorised:
            learns = memory.rate is not None and _errors_of_the_run(run, report) > MANY_ERRORS
            return replace(memory, run_learns=learns, for_run=None if learns else _search(_words(run), report).lr)
    for change in _remedies(words):
        memory = replace(memory, others=(*memory.others, _with_change(words, sample, change, report)))
        if memory.others[-1].memorised:
            break
    return memory


def _with_change(words: list[str], sample: list[str], change: str, report: Report) -> Attempt:
    try:
        return _attempt([*_without(words, change.split()), *sample, *change.split()], report, change)
    except UsageError:  # a change that does not go with the rest
        return Attempt(0.0, 0.0, math.inf, 0, change)


def _remedies(words: list[str]) -> Iterator[str]:
    """Yield the changes that a run does not have already, and that its options know."""
    run = compose_run(words)
    for change in REMEDIES:
        pairs = [word.split("=") for word in change.split()]
        known = {**run.values, **run.choices}
        if all(key in known for key, _ in pairs) and any(format_value(known[key]) != value for key, value in pairs):
            yield change


def _attempt(words: list[str], report: Report, change: str = "") -> Attempt:
    """Train on a sample, longer while it still improves; count what is right in both modes."""
    trainer = build.trainer(build.open_setup(compose_run(words)))
    steps = max(STEPS, PASSES * len(trainer.train_loader))
    try:
        attempt = _train_sample(trainer, steps, report, change)
        longer = steps
        while not attempt.memorised and attempt.loss < math.inf and longer < LONGEST * steps:
            before, longer = attempt, 2 * longer
            attempt = _train_sample(trainer, longer, report, change)
            if attempt.loss > 0.9 * before.loss:
                break
        return attempt
    finally:
        trainer.close()


def _train_sample(trainer: Trainer, steps: int, report: Report, change: str) -> Attempt:
    losses, schedule, seen = [], trainer.schedule, f" with {change}" if change else ""
    with preserved(trainer) as start:
        runs = ShortRuns(trainer, start, slices=[trainer.validator.loader])
        rates = [trainer.optimizer.param_groups[0]["initial_lr"]] * steps
        for loss in runs.losses(rates, schedule, steps):
            losses.append(loss)
            report(f"memorise{seen}: step {len(losses)} of {steps}, loss {loss:.4g}")
        if not math.isfinite(losses[-1]):
            return Attempt(0.0, 0.0, math.inf, len(losses), change)
        right = [_train_mode(trainer)]
        with runs.validator.settled(trainer.model, trainer.stop, 0, 0.0):
            batches = trainer.validator.loader.epoch(0)
            logits, labels = predict(trainer.model, batches, trainer.pipeline, trainer.runtime)
    tail = losses[-max(1, len(losses) // 10) :]
    return Attempt(
        _share(logits, labels), right[0], sum(tail) / len(tail), len(losses), change, sum(losses) / len(losses)
    )


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


# --- 3 rate ---


def _rate(diagnosis: Diagnosis, setup: build.Setup, report: Report) -> Step:
    run = diagnosis.run
    if "lr" not in run.parts["optimizer"]:
        return Step(3, "rate", "the optimizer has no setting lr", None, Reading(), "left out")
    own = None if run.find_lr else run.parts["optimizer"]["lr"]
    diagnosis.search = search = _search(_words(run), report, own)
    race = search.races[-1]
    best = race.scores[search.lr or race.best]
    span = search.span if search.lr else None
    rates = Rates(own, search.lr, span, race.steps, float(best.mean()), search.guess)
    if search.own is not None:
        errors = excess(search.own, best), excess(search.guesses, search.own)
        rates = replace(rates, own_loss=float(search.own.mean()), own_errors=errors[0], guess_errors=errors[1])
    if search.lr is not None and own is not None and rates.guess_errors < MANY_ERRORS:
        rates = replace(rates, guess_errors=_errors_of_the_run(run, report))
    if search.lr is None or rates.loss > SLOW * search.guess:
        rates = replace(rates, changes=tuple(_searches_with_changes(run, rates, report)))
        blocks = math.ceil(min(IMAGES, len(setup.dataset.val)) / BLOCK)
        rates = replace(rates, val_errors=excess(search.guesses[-blocks:], best[-blocks:]))
        if not read_rates(rates).failed and rates.val_errors < FEW_ERRORS:
            rates = replace(rates, by_heart=_true_and_permuted(run, report))
    return Step(3, "rate", _rate_line(rates), rates, read_rates(rates))


def _errors_of_the_run(run: RunConfig, report: Report) -> float:
    """Return by how many standard errors the run itself is better than guessing, after PLANNED steps at most.

    A short run at a high rate may fail by chance where the run does not.
    """
    setup = build.open_setup(run)
    trainer = build.trainer(setup)
    steps, schedule = min(trainer.plan.total_steps, PLANNED), trainer.schedule
    slices = _slices(setup)
    try:
        with preserved(trainer) as start:
            runs = ShortRuns(trainer, start, build.rates_of(setup, trainer.model), slices)
            loss = math.inf
            rates = [run.parts["optimizer"]["lr"]] * steps
            for step, loss in enumerate(runs.losses(rates, schedule, steps), start=1):
                report(f"the run itself: step {step} of {steps}, loss {loss:.4g}")
            score = runs.score()
            return excess(runs.guess(), score) if math.isfinite(loss) else -math.inf
    finally:
        trainer.close()
        for loader in slices:
            loader.close()


def _slices(setup: build.Setup) -> list[Loader]:
    """Return loaders of images of train, and of val, on which short runs are compared."""
    parts = [part.evenly_spaced(IMAGES) for part in (setup.dataset.train, setup.dataset.val)]
    return [build.eval_loader(setup.source, part, setup.run, setup.runtime) for part in parts]


def _searches_with_changes(run: RunConfig, rates: Rates, report: Report) -> Iterator[tuple[str, float]]:
    """Search the rate without each regularizer, and with other settings, until one learns far more.

    Yields what was changed, and the loss of the best rate then; inf if none is better than guessing.
    """
    words = _words(run)
    changes = [*_regularizers(run).values(), *(change for change in _remedies(words) if change.startswith(STARTS))]
    for change in changes:
        try:
            search = _search([*_without(words, change.split()), *change.split()], report)
        except UsageError:
            continue
        race = search.races[-1]
        loss = race.means[search.lr] if search.lr else math.inf
        yield change, loss
        if learns_more(rates, loss):
            return


def _true_and_permuted(run: RunConfig, report: Report) -> tuple[float, float] | None:
    """Return the mean losses while some images are learned by heart, with their labels and with permuted ones.

    Labels that mean something are learned faster. None where the sample cannot be made, or no rate learns it.
    """
    try:
        setup = build.open_setup(run)
        count = min(LABELLED, len(setup.dataset.train))
        words = [f"overfit={count}", f"batch_size={min(BATCH, count)}"]
        words = [*_without(_words(run), words), *words]
        rate = _search(words, report).lr
        trainer = build.trainer(build.open_setup(compose_run([*words, f"{RATE}={rate:g}"]))) if rate else None
    except UsageError:
        return None
    if trainer is None or not isinstance(trainer.train_loader, ResidentLoader):
        return None
    steps, loader = PASSES * len(trainer.train_loader), trainer.train_loader
    try:
        true = _train_sample(trainer, steps, report, "its labels").mean_loss
        order = generator(0, "permuted labels").permutation(count)
        loader.host_labels = loader.host_labels[order]
        loader.labels = torch.from_numpy(loader.host_labels).to(loader.device)
        return true, _train_sample(trainer, steps, report, "permuted labels").mean_loss
    finally:
        trainer.close()


def _search(words: list[str], report: Report, own: float | None = None) -> RateSearch:
    """Search the rate for the first PLANNED steps of a run."""
    setup = build.open_setup(compose_run(words))
    trainer = build.trainer(setup)
    trainer.plan.total_steps = min(trainer.plan.total_steps, PLANNED)
    slices = _slices(setup)
    try:
        return find_lr(trainer, build.rates_of(setup, trainer.model), slices, report, own)
    finally:
        trainer.close()
        for loader in slices:
            loader.close()


def _regularizers(run: RunConfig) -> dict[str, str]:
    """Return what a run has of the regularizers that overfit= turns off, each with the word that does so."""
    found = {f"{group}={run.choices[group]}": f"{group}=none" for group in GROUPS if run.parts.get(group)}
    for key, off in SETTINGS.items():
        value = run.values.get(key)
        if value is not None and value != off and not key.startswith("data."):
            found[f"{key}={format_value(value)}"] = f"{key}={format_value(off)}"
    return found


def _rate_line(rates: Rates) -> str:
    if rates.found is None or rates.span is None:
        return f"no rate is better than guessing after {rates.steps} steps"
    low, high = rates.span
    others = f"{low:g} to {high:g}" if low < high else f"{low:g}"
    own = f"; the run's {rates.own:g}: loss {format_loss(rates.own_loss)}" if rates.own is not None else ""
    return f"best {others}: loss {format_loss(rates.loss)} after {rates.steps} steps{own}"


# --- words ---


def _words(run: RunConfig) -> list[str]:
    """Return a run's overrides without those that do not belong to a short run."""
    left_out = ("dir", "overfit")
    return [word for word in run.overrides if override_key(word) not in left_out]


def _without(words: list[str], changes: list[str]) -> list[str]:
    """Leave out the words that a change replaces, and those of an option that it takes away."""
    keys = {override_key(change) for change in changes}
    return [word for word in words if not {override_key(word), override_key(word).partition(".")[0]} & keys]

"""A trial: the run, or a short form of it, with one thing changed; from the same weights, on the same batches."""

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from deeptrain.analysis.diagnosis.labels import Surest, measure_surest
from deeptrain.analysis.diagnosis.ledger import Ledger
from deeptrain.analysis.diagnosis.subject import DECAY, RATE, Opened, Subject
from deeptrain.analysis.find_lr import ERRORS, excess
from deeptrain.analysis.short_runs import ShortRuns, blocks, preserved
from deeptrain.data.loader import Loader
from deeptrain.runtime.random import generator
from deeptrain.schedule import cosine
from deeptrain.training.trainer import Trainer
from deeptrain.training.validation import predict
from deeptrain.training.vitals import layer_statistics

TRAIN_IMAGES, VAL_IMAGES = 1000, 2000  # that a trial is measured on, at most
LEAST_TRAIN = 300  # of train, where val is small: the error of val is most of that of a difference
POINTS, FEW_POINTS = 12, 8  # validations of a trial whose curves are read; of a part of a run
BLIND_IMAGES = 1000  # of val, that are answered without their pixels
LOOKED_AT = 256  # images whose way through the layers is measured
LEVEL = 1.0  # paired standard errors within which the accuracies of two trials are the same

Report = Callable[[str], None]
Row = dict[str, float]


@dataclass(frozen=True)
class Trial:
    """What a trial ends with. rate, decay: None where the optimizer has none. change: what was typed besides.

    right: 1 for each image of val that it gets right, else 0. losses: of each block of them. fitted: the share of the
    training images that are right. rows, layers: as of metrics.csv and layers.csv, where it was watched.
    blank, shuffled: accuracy on images of val that are all grey, or whose pixels are in another order. surest: those
    of val that it is surest of.
    """

    rate: float | None
    decay: float | None
    change: str
    steps: int
    right: np.ndarray
    losses: np.ndarray
    fitted: float
    rows: list[Row] = field(default_factory=list)
    layers: list[Row] = field(default_factory=list)
    blank: float = math.nan
    shuffled: float = math.nan
    surest: Surest | None = None

    @property
    def accuracy(self) -> float:
        return float(self.right.mean())

    @property
    def loss(self) -> float:
        return float(self.losses.mean())

    @property
    def name(self) -> str:
        """Say which one it is."""
        pairs = (("rate", self.rate), ("decay", self.decay))
        words = [f"{key} {value:g}" for key, value in pairs if value is not None]
        return ", ".join([*words, *filter(None, [self.change])])


def errors_ahead(one: Trial, other: Trial) -> float:
    """Return by how many paired standard errors the first trial's accuracy is higher."""
    return excess(one.right, other.right)


def choose(trials: Sequence[Trial], own: Trial | None = None) -> Trial:
    """Return the one of the lowest loss among those within LEVEL errors of the highest accuracy, as runs choose.

    If one's own is among these, and its loss is within the noise too, it is that.
    """
    best = max(trials, key=lambda trial: (trial.accuracy, -trial.loss))
    level = [trial for trial in trials if errors_ahead(best, trial) <= LEVEL]
    lowest = min(level, key=lambda trial: trial.loss)
    is_level = own is not None and any(trial is own for trial in level)
    return own if own is not None and is_level and excess(own.losses, lowest.losses) <= ERRORS else lowest


@dataclass
class Trials:
    """Makes trials, each once.

    part: of a run that a whole one takes; below 1 if the run is too long for it. most: steps of a trial, which one with
    all images of a large data set would pass.
    """

    subject: Subject
    ledger: Ledger
    report: Report
    part: float
    most: int

    def short(self, rates: Sequence[float], decay: float | None, steps: int) -> list[Trial]:
        """Train so many steps at each rate, annealed to zero after a warm-up, all with one decay."""
        names = [f"short {steps} rate {rate:g} decay {decay}" for rate in rates]
        missing = [rate for rate, name in zip(rates, names, strict=True) if name not in self.ledger.found]
        if missing:
            with self.subject.opened(self.changes(None, decay)) as opened:
                for rate in missing:
                    measure = _Measure(opened, self.report, rate, decay, "", steps)
                    self.ledger.once(f"short {steps} rate {rate:g} decay {decay}", measure.short)
        return [self.ledger.once(name, lambda: _never()) for name in names]

    def whole(self, rate: float | None, decay: float | None, change: str = "") -> Trial:
        """Train as the run would, or a part of it, and watch it."""

        def measure() -> Trial:
            words = [*self.changes(None, decay), *change.split()]
            with self.subject.opened(words) as opened:
                steps = min(max(1, round(self.part * opened.trainer.plan.total_steps)), self.most)
                return _Measure(opened, self.report, rate, decay, change, steps).watched()

        return self.ledger.once(f"run rate {rate} decay {decay} {change}".strip(), measure)

    def beside(self, trial: Trial, change: str) -> Trial:
        """Make a whole run as another one, with a change; it may set rate and decay itself."""
        value = {word.partition("=")[0]: word.partition("=")[2] for word in change.split()}
        rate = float(value[RATE]) if RATE in value else trial.rate
        decay = float(value[DECAY]) if DECAY in value else trial.decay
        return self.whole(rate, decay, change)

    def changes(self, rate: float | None, decay: float | None) -> list[str]:
        """Return the words for a rate and a decay that are not the run's own."""
        is_new = rate is not None and (rate != self.subject.rate or self.subject.is_rate_open)
        words = [f"{RATE}={rate:g}"] if is_new else []
        return [*words, *([f"{DECAY}={decay:g}"] if decay is not None and decay != self.subject.decay else [])]


def _never() -> Trial:
    raise AssertionError("it is known")


@dataclass
class _Measure:
    opened: Opened
    report: Report
    rate: float | None
    decay: float | None
    change: str
    steps: int

    def short(self) -> Trial:
        return self._train(cosine(1, warmup=0.1), watched=False)

    def watched(self) -> Trial:
        return self._train(self.opened.trainer.schedule, watched=True)

    def _train(self, schedule: Callable[[float], float], watched: bool) -> Trial:
        trainer, opened = self.opened.trainer, self.opened
        slices = trial_slices(opened)
        rate = self.rate if self.rate is not None else trainer.optimizer.param_groups[0]["initial_lr"]
        label = f"{'run' if watched else 'short run'} at {rate:g}" + f", {self.change}" * bool(self.change)
        rows, losses, every = [], [], max(1, self.steps // points_of(self.steps, trainer.plan.total_steps))
        try:
            with preserved(trainer) as start:
                runs = ShortRuns(trainer, start, opened.rates_of if self.rate is not None else None, slices)
                layers = [self._look(slices[0], 0)] if watched else []
                updates = _Updates(trainer.model, {1, self.steps // 2} if watched else set())
                for step, loss in enumerate(runs.losses([rate] * self.steps, schedule, self.steps), start=1):
                    losses.append(loss)
                    self.report(f"{label}: step {step} of {self.steps}, loss {loss:.4g}")
                    layers += updates.rows_after(step)
                    if watched and math.isfinite(loss) and (step % every == 0 or step == self.steps):
                        factor = schedule((step - 1) / self.steps)
                        rows.append(_row(runs, slices, step, losses[-every:], rate * factor))
                is_finite = math.isfinite(losses[-1])
                layers += [self._look(slices[0], len(losses))] if watched and is_finite else []
                return self._result(runs, slices, rows, layers, is_finite)
        finally:
            for loader in slices:
                loader.close()

    def _result(
        self, runs: ShortRuns, slices: list[Loader], rows: list[Row], layers: list[Row], is_finite: bool
    ) -> Trial:
        trainer = self.opened.trainer
        with runs.validator.settled(trainer.model, trainer.stop, 0, 0.0):
            (fits, fit_labels), (logits, labels) = (_predict(trainer, loader) for loader in slices)
            blind = _blind(trainer, slices[1]) if rows else (math.nan, math.nan)
        right = (logits.argmax(1) == labels).float().numpy() if is_finite else np.zeros(len(labels))
        losses = np.array([runs.loss(*block) if is_finite else math.inf for block in blocks(logits, labels)])
        fitted = float((fits.argmax(1) == fit_labels).float().mean())
        steps = self.steps
        surest = measure_surest(logits, labels) if rows and is_finite else None
        return Trial(self.rate, self.decay, self.change, steps, right, losses, fitted, rows, layers, *blind, surest)

    def _look(self, loader: Loader, step: int) -> Row:
        """Return statistics of the layers as of layers.csv: of their outputs, and of the gradient of a batch."""
        trainer = self.opened.trainer
        images, labels = next(iter(loader.first_images(LOOKED_AT).epoch(0)))
        images, labels = images[:LOOKED_AT], labels[:LOOKED_AT]
        inputs = trainer.pipeline.evaluate(images)
        model, autocast = trainer.model, trainer.runtime.autocast
        with torch.no_grad(), autocast:
            found = layer_statistics(model.eval(), inputs)
        with autocast:
            loss = trainer.loss(model(inputs), labels)
        weights = _weights(model)
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        pairs = zip(weights, gradients, strict=True)
        norms = {f"gradient/{name}": float(gradient.norm()) for name, gradient in pairs if gradient is not None}
        model.train()
        return {"step": step} | found | {name: norm for name, norm in norms.items() if math.isfinite(norm)}


def _weights(model: nn.Module) -> dict[str, Tensor]:
    trained = {name: p for name, p in model.named_parameters() if p.ndim > 1 and p.requires_grad}
    return {name.removesuffix(".weight"): weight for name, weight in trained.items()}


class _Updates:
    """Compares what some steps change with the weights: norm over norm, as in layers.csv. due: their numbers."""

    def __init__(self, model: nn.Module, due: Set[int]):
        self.model, self.due, self.before = model, due, {}
        self.rows_after(0)

    @torch.no_grad()
    def rows_after(self, step: int) -> list[Row]:
        """Return a row after a step that is due, and remember the weights before one."""
        found = []
        if step in self.due:
            norms = {name: (weight - self.before[name], weight) for name, weight in _weights(self.model).items()}
            ratios = {f"ratio/{name}": float(update.norm() / weight.norm()) for name, (update, weight) in norms.items()}
            found = [{"step": step} | {name: ratio for name, ratio in ratios.items() if math.isfinite(ratio)}]
        if step + 1 in self.due:
            self.before = {name: weight.clone() for name, weight in _weights(self.model).items()}
        return found


def points_of(steps: int, total_steps: int) -> int:
    """Return how often a trial is measured; a part of a run has a shorter story to tell."""
    return POINTS if steps >= total_steps else FEW_POINTS


def train_images(train: int, val: int) -> int:
    """Return on how many training images a trial is measured: about as many as of val."""
    return min(train, TRAIN_IMAGES, max(val, LEAST_TRAIN))


def trial_slices(opened: Opened) -> list[Loader]:
    """Return loaders of the images of train, and of val, on which a trial is measured."""
    parts = (opened.train, train_images(len(opened.train), len(opened.val))), (opened.val, VAL_IMAGES)
    return [opened.loader(part.evenly_spaced(count)) for part, count in parts]


def _predict(trainer: Trainer, loader: Loader) -> tuple[Tensor, Tensor]:
    return predict(trainer.model, loader.epoch(0), trainer.pipeline, trainer.runtime)


def _row(runs: ShortRuns, slices: list[Loader], step: int, losses: Sequence[float], rate: float) -> Row:
    """Measure the present weights; return a row as of metrics.csv."""
    trainer = runs.trainer
    row = {"step": step, "epoch": trainer.plan.epochs_done(trainer.progress), "rate/lr": rate}
    row["loss/train"] = sum(losses) / len(losses)
    with runs.validator.settled(trainer.model, trainer.stop, 0, 0.0):
        for part, loader in zip(("train_clean", "val"), slices, strict=True):
            logits, labels = _predict(trainer, loader)
            row[f"loss/{part}"] = runs.loss(logits, labels)
            row[f"accuracy/{part}"] = float((logits.argmax(1) == labels).float().mean())
    trainer.model.train()
    return {key: value for key, value in row.items() if math.isfinite(value)}


def _blind(trainer: Trainer, loader: Loader) -> tuple[float, float]:
    """Return the accuracy on grey images of val, and on those with pixels in another order, one for all."""
    right: dict[str, list[Tensor]] = {"blank": [], "shuffled": []}
    for images, labels in loader.first_images(BLIND_IMAGES).epoch(0):
        pixels = images.shape[2] * images.shape[3]
        order = torch.from_numpy(generator(0, "shuffled pixels").permutation(pixels)).to(images.device)
        changed: Mapping[str, Tensor] = {
            "blank": torch.full_like(images, 128),
            "shuffled": images.flatten(2)[:, :, order].unflatten(2, images.shape[2:]),
        }
        for name, pictures in changed.items():
            logits, _ = predict(trainer.model, [(pictures, labels)], trainer.pipeline, trainer.runtime)
            right[name].append((logits.argmax(1) == labels.cpu()).float())
    blank, shuffled = (float(torch.cat(parts).mean()) for parts in right.values())
    return blank, shuffled

"""What is diagnosed: a set-up that is built again and again, each time with one thing changed."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import yaml
from torch import Tensor

from deeptrain import build
from deeptrain.analysis.short_runs import Rates
from deeptrain.config.compose import compose_run
from deeptrain.config.overfit import GROUPS, SETTINGS
from deeptrain.config.override import override_key
from deeptrain.config.settings import RunConfig
from deeptrain.data.dataset import Samples
from deeptrain.data.leaks import describe_leaks
from deeptrain.data.loader import Loader
from deeptrain.runtime.paths import quote
from deeptrain.runtime.resources import command
from deeptrain.schema import format_value
from deeptrain.training.trainer import Trainer

RATE, DECAY = "optimizer.lr", "optimizer.weight_decay"
MOMENTUM = "optimizer.momentum"
BATCH = 32  # images of a step on a sample
SMALL_BATCH = 8  # images: of fewer a batch norm knows little
USUAL_MOMENTUM = 0.9
USUAL_START = ("model.initialization=kaiming model.init_std=null", "model.norm=batch")
REMEDIES = (  # changes to try where no rate memorises; those that a run has already are left out
    f"{MOMENTUM}={USUAL_MOMENTUM}",  # only of a higher one
    f"batch_size={BATCH}",  # only of batch norms that see a few images
    *USUAL_START,
    "model.norm=group",
    "model.activation=relu",
    "clip_norm=null",
    "data.mean=null data.std=null",
    "optimizer=adamw",
    "loss=cross_entropy",
    "model.width=2",
    "model.hidden=[256,256]",
)


@dataclass
class Opened:
    """A set-up that is ready to train.

    loader: makes a loader of images to be evaluated. leaks: looks for images of train in other splits, and returns a
    sentence for each split. is_random: its first weights are known to be random ones, and all are meant to train.
    """

    trainer: Trainer
    train: Samples
    val: Samples
    classes: int
    loader: Callable[[Samples], Loader]
    leaks: Callable[[], list[str]]
    rates_of: Rates | None = None
    is_random: bool = False

    def first(self, samples: Samples) -> tuple[Tensor, Tensor]:
        """Return the images uint8 (N, C, H, W) and labels (N,) of a first batch, as evaluation sees them."""
        loader = self.loader(samples)
        try:
            return next(iter(loader.epoch(0)))
        finally:
            loader.close()


class Subject(Protocol):
    """A set-up to be diagnosed. rate, decay: None if the optimizer has none. is_rate_open: it is to be searched."""

    title: str
    rate: float | None
    decay: float | None
    is_rate_open: bool
    is_frozen: bool

    def opened(self, changes: Sequence[str] = (), images: int = 0) -> AbstractContextManager[Opened]:
        """Build it with some changes; images: train and measure on so many only, without regularization.

        Always from the same weights and with the same batches. Raises UsageError for a change that does not go with it.
        """
        ...

    def remedies(self) -> list[str]:
        """Return the changes to try where no rate memorises; each is one or more words."""
        ...

    def regularizers(self) -> list[str]:
        """Return the words that turn its regularizers off, one each."""
        ...

    def usual_starts(self) -> list[str]:
        """Return the changes that bring back the usual initialization and norm where others were asked for."""
        ...

    def config(self, changes: Sequence[str]) -> Mapping[str, Any]:
        """Return its settings as config.yaml has them, {} if they are not known."""
        ...

    def named(self, change: str) -> str:
        """Return how a user makes a change, for the reading."""
        ...

    def command(self, name: str, changes: Sequence[str]) -> str:
        """Return what to type to train or to diagnose it with some changes, or to train with three seeds."""
        ...


class ComposedRun:
    """A run that is described by overrides."""

    def __init__(self, run: RunConfig):
        self.run, self.title, self.is_rate_open = run, run.title, run.find_lr
        self.is_frozen = bool(run.settings.finetune.freeze) or run.settings.finetune.head_only > 0
        optimizer = run.parts["optimizer"]
        self.rate, self.decay = optimizer.get("lr"), optimizer.get("weight_decay")
        self.words = [word for word in run.overrides if override_key(word) not in ("dir", "overfit")]

    @contextmanager
    def opened(self, changes: Sequence[str] = (), images: int = 0) -> Iterator[Opened]:
        setup = build.open_setup(compose_run(self._changed([*self._sample(images), *changes])))
        trainer = build.trainer(setup)
        data = setup.dataset

        def loader(samples: Samples) -> Loader:
            return build.eval_loader(setup.source, samples, setup.run, setup.runtime)

        rates_of = build.rates_of(setup, trainer.model) if self.rate is not None else None
        try:
            leaks = partial(describe_leaks, setup.source, data)
            is_random = self.run.origin is None and not self.is_frozen
            yield Opened(trainer, data.train, data.val, len(data.classes), loader, leaks, rates_of, is_random)
        finally:
            trainer.close()

    def remedies(self) -> list[str]:
        known = {**self.run.values, **self.run.choices}
        if (known.get(MOMENTUM) or 0.0) <= USUAL_MOMENTUM:
            known.pop(MOMENTUM, None)
        if known.get("model.norm") != "batch" or self.run.settings.batch_size not in range(SMALL_BATCH):
            known.pop("batch_size", None)
        found = [[word.split("=", 1) for word in change.split()] for change in REMEDIES]
        return [
            change
            for change, pairs in zip(REMEDIES, found, strict=True)
            if all(key in known for key, _ in pairs) and any(format_value(known[key]) != value for key, value in pairs)
        ]

    def regularizers(self) -> list[str]:
        found = [f"{group}=none" for group in GROUPS if self.run.parts.get(group)]
        for key, off in SETTINGS.items():
            value = self.run.values.get(key)
            if value is not None and value != off and not key.startswith("data."):
                found.append(f"{key}={format_value(off)}")
        data = self.run.parts["data"]
        is_cropped = data.get("augment") and (data.get("crop_padding") or data.get("flip"))
        return [*found, "data.augment=false"] if is_cropped else found

    def usual_starts(self) -> list[str]:
        asked = {override_key(word) for word in self.words}
        return [change for change in self.remedies() if change in USUAL_START and override_key(change) in asked]

    def config(self, changes: Sequence[str]) -> Mapping[str, Any]:
        return yaml.safe_load(compose_run(self._changed(changes)).yaml)

    def named(self, change: str) -> str:
        return change

    def command(self, name: str, changes: Sequence[str]) -> str:
        if name == "seeds":
            words = without(self.words, ["seed="])
            return " ".join([command("train"), "-m", *map(quote, words), "seed=0,1,2"])
        return " ".join([command(name), *map(quote, self._changed(changes))])

    def _changed(self, changes: Sequence[str]) -> list[str]:
        return [*without(self.words, changes), *changes]

    def _sample(self, images: int) -> list[str]:
        """Return the words for a sample; its steps are no larger than BATCH images."""
        if not images:
            return []
        size = self.run.settings.batch_size
        return [f"overfit={images}", f"batch_size={min(BATCH, images, BATCH if size == 'auto' else size)}"]


def without(words: Sequence[str], changes: Sequence[str]) -> list[str]:
    """Leave out the words that a change replaces, and those of an option that it takes away."""
    keys = {override_key(change) for change in changes}
    return [word for word in words if not {override_key(word), override_key(word).partition(".")[0]} & keys]


def accuracy_of_guessing(labels: Any, classes: int) -> float:
    """Return the share of the most frequent class."""
    import numpy as np

    counts = np.bincount(labels, minlength=classes)
    return float(counts.max() / max(1, counts.sum())) if len(counts) else math.nan

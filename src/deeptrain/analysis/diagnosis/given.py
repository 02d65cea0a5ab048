"""A set-up that was made in Python: a trainer. Its network, data, loss and optimizer may be anybody's."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from deeptrain.analysis.diagnosis import procedure
from deeptrain.analysis.diagnosis.outcome import NAMES, Diagnosis
from deeptrain.analysis.diagnosis.procedure import Report
from deeptrain.analysis.diagnosis.subject import BATCH, DECAY, MOMENTUM, RATE, USUAL_MOMENTUM, Opened
from deeptrain.analysis.short_runs import preserved
from deeptrain.aug.pipeline import Pipeline
from deeptrain.data.dataset import Samples
from deeptrain.data.leaks import MIN_SHARE, shared_images
from deeptrain.data.loader import Loader, ResidentLoader, StreamLoader
from deeptrain.errors import UsageError
from deeptrain.gradient import plain_gradient
from deeptrain.loggers.console import Console
from deeptrain.loggers.run_logger import RunLogger
from deeptrain.model.layers import StochasticDepth
from deeptrain.training.checkpoint import Checkpoints
from deeptrain.training.trainer import Trainer
from deeptrain.training.validation import Validator
from deeptrain.training.vitals import Vitals

EVAL_BATCH = 512
ADAMW_RATE = 0.003
DROPS = (nn.modules.dropout._DropoutNd, StochasticDepth)
PYTHON = {  # what a change is in Python, for the reading
    RATE: "lr={} in the optimizer",
    DECAY: "weight_decay={} in the optimizer",
    MOMENTUM: "momentum={} in the optimizer",
    "epochs": "Plan(epochs={})",
    "clip_norm": "Trainer(clip_norm=None)",
    "penalty": "Trainer(penalty=None)",
    "gradient": "without gradient= of the Trainer",
    "aug": "Pipeline without augmentations",
    "model.dropout": "no dropout",
    "optimizer": "torch.optim.AdamW",
    "loss": "torch.nn.functional.cross_entropy",
    "data.mean": "mean and std of the training images in the Pipeline",
}


def diagnose(
    trainer: Trainer,
    *,
    steps: int = len(NAMES),
    budget: float | None = None,
    report: Report = lambda text: None,
) -> Diagnosis:
    """Test a set-up of your own in the seven steps of `scripts/diagnose.py`; print what is returned.

    steps: the last step to take. budget: seconds that it may take, about; without one the runs are as long as the
    trainer plans, and at most 1,000 steps. report: gets a line at every training step. The trainer is left as it was.
    Raises ValueError if the trainer has trained already, or trains in several processes.
    """
    if not 1 <= steps <= len(NAMES):
        raise ValueError(f"steps={steps}: must be from 1 to {len(NAMES)}")
    return procedure.diagnose(GivenTrainer(trainer), steps, report, budget=budget)


class GivenTrainer:
    """A trainer that has not trained yet. It is left as it was.

    Raises ValueError if it has trained, or trains in several processes.
    """

    def __init__(self, trainer: Trainer):
        if trainer.progress.step:
            raise ValueError(f"the trainer has taken {trainer.progress.step:,} steps; diagnose a new one")
        if not trainer.world.is_single:
            raise ValueError("a diagnosis needs a single process")
        self.trainer, self.is_rate_open = trainer, False
        self.title = f"{type(trainer.model).__name__}, {type(trainer.optimizer).__name__}"
        groups = trainer.optimizer.param_groups
        self.rate: float | None = groups[0].get("initial_lr")
        decays = [group["weight_decay"] for group in groups if "weight_decay" in group]
        self.decay: float | None = max(decays, default=None)
        self.is_frozen = any(not parameter.requires_grad for parameter in trainer.model.parameters())
        self.train, self.val = trainer.train_loader.samples, trainer.validator.loader.samples
        self.classes = self._count_classes()

    @contextmanager
    def opened(self, changes: Sequence[str] = (), images: int = 0) -> Iterator[Opened]:
        given = self.trainer
        with preserved(given), ExitStack() as stack:
            pipeline, off = given.pipeline, self.regularizers() if images else []
            parts: dict[str, Any] = {"logger": RunLogger(Console(quiet=True)), "checkpoints": Checkpoints()}
            parts |= {"vitals": Vitals(), "pipeline": pipeline, "loss": given.loss, "optimizer": given.optimizer}
            for word in [*off, *changes]:
                self._apply(word, parts, stack)
            val = self._validator(parts)
            if images:
                sample = self.train.evenly_spaced(images)
                size = min(BATCH, len(sample))
                parts["train_loader"] = ResidentLoader(sample, size, given.runtime.device, given.seed, train=True)
                val = replace(val, loader=self._loader(sample), clean_loader=None, bn_loader=None)
            plan = replace(given.plan, **({"epochs": parts.pop("epochs")} if "epochs" in parts else {}))
            trainer = replace(given, validator=val, plan=plan, average=None, **parts)
            train, measured = (sample, sample) if images else (self.train, self.val)
            yield Opened(trainer, train, measured, self.classes, self._loader, self._leaks)

    def remedies(self) -> list[str]:
        trainer = self.trainer
        momentum = trainer.optimizer.param_groups[0].get("momentum", 0.0)
        found = [f"{MOMENTUM}={USUAL_MOMENTUM}"] if momentum > USUAL_MOMENTUM else []
        found += ["clip_norm=null"] if trainer.clip_norm is not None else []
        found.append("data.mean=null data.std=null")
        found += ["optimizer=adamw"] if not isinstance(trainer.optimizer, torch.optim.AdamW) else []
        return [*found, "loss=cross_entropy"] if not _is_cross_entropy(trainer.loss) else found

    def regularizers(self) -> list[str]:
        trainer = self.trainer
        found = ["aug=none"] if trainer.pipeline.augmentations else []
        found += ["penalty=none"] if trainer.penalty is not None else []
        found += ["gradient=none"] if trainer.gradient is not plain_gradient else []
        found += ["max_norm=null"] if trainer.max_norm is not None else []
        found += ["model.dropout=0.0"] if any(_drop_rates(trainer.model)) else []
        return [*found, f"{DECAY}=0.0"] if self.decay else found

    def usual_starts(self) -> list[str]:
        return []

    def _leaks(self) -> list[str]:
        pairs = shared_images(self.train, self.val)
        if not pairs or len(pairs) < MIN_SHARE * len(self.val):
            return []
        train, val = pairs[0]
        return [f"{len(pairs):,} of {len(self.val):,} images of val are in train too (image {val} is image {train})"]

    def config(self, changes: Sequence[str]) -> Mapping[str, Any]:
        return {"epochs": self.trainer.plan.epochs, "validate": {}}

    def named(self, change: str) -> str:
        return " and ".join(in_python(word) for word in change.split() if not word.startswith("data.std"))

    def command(self, name: str, changes: Sequence[str]) -> str:
        if name == "seeds":
            return "trainer.fit(), for three seeds"
        words = [self.named(" ".join(changes))] if changes else []
        if name == "diagnose":
            return ", with ".join(["deeptrain.diagnose(trainer)", *words])
        return ", with ".join(["trainer.fit()", *words])

    def _loader(self, samples: Samples) -> Loader:
        device, size = self.trainer.runtime.device, min(EVAL_BATCH, len(samples))
        kind = ResidentLoader if samples.images is not None else StreamLoader
        return kind(samples, size, device)

    def _validator(self, parts: Mapping[str, Any]) -> Validator:
        given = self.trainer.validator
        loss = cross_entropy if parts["loss"] is not self.trainer.loss else given.loss
        pipeline = given.pipeline if parts["pipeline"] is self.trainer.pipeline else parts["pipeline"]
        return replace(given, average=None, pipeline=pipeline, loss=loss)

    def _count_classes(self) -> int:
        loader = self._loader(self.train.select(_first(2)))
        images, _ = next(iter(loader.epoch(0)))
        with preserved(self.trainer), torch.no_grad():
            return self.trainer.model.eval()(self.trainer.pipeline.evaluate(images)).shape[1]

    def _apply(self, change: str, parts: dict[str, Any], stack: ExitStack) -> None:
        """Make a change; the stack takes back what is no state of the optimizer. UsageError if it knows none."""
        key, value = change.split("=", 1)
        pipeline, groups = self.trainer.pipeline, self.trainer.optimizer.param_groups
        if key == RATE:
            own = groups[0]["initial_lr"]
            for group in groups:
                group["initial_lr"] *= float(value) / own
        elif key == DECAY:
            for group in groups:
                if group.get("weight_decay") or not self.decay:
                    group["weight_decay"] = float(value)
        elif key == MOMENTUM:
            for group in groups:
                group["momentum"] = float(value)
        elif key == "model.dropout":
            stack.callback(_set_drop_rates, self.trainer.model, _drop_rates(self.trainer.model))
            _set_drop_rates(self.trainer.model, [0.0] * len(_drop_rates(self.trainer.model)))
        elif change == "aug=none":
            parts["pipeline"] = copy.copy(parts["pipeline"])
            parts["pipeline"].augmentations = []
        elif key == "data.mean":
            parts["pipeline"] = Pipeline(pipeline.augmentations, *self._statistics())
        elif key == "optimizer":
            parts["optimizer"] = torch.optim.AdamW(self.trainer.parameters, lr=ADAMW_RATE)
        elif key == "epochs":
            parts["epochs"] = int(value)
        elif key in ("penalty", "max_norm") or change == "clip_norm=null":
            parts[key] = None
        elif key == "gradient":
            parts["gradient"] = plain_gradient
        elif key == "loss":
            parts["loss"] = cross_entropy
        elif key != "data.std":
            raise UsageError([f"{change}: a trainer from Python has no such setting"])

    def _statistics(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel of some training images, from 0 to 255."""
        loader = self._loader(self.train.evenly_spaced(EVAL_BATCH))
        values = next(iter(loader.epoch(0)))[0].float().transpose(0, 1).flatten(1)
        return values.mean(1).tolist(), values.std(1).tolist()


def in_python(change: str) -> str:
    """Say what a change is in Python."""
    key, _, value = change.strip("'").partition("=")
    return PYTHON.get(key, change).format(value)


def _is_cross_entropy(loss: Any) -> bool:
    from deeptrain.loss import CrossEntropy

    return loss is cross_entropy or isinstance(loss, CrossEntropy | nn.CrossEntropyLoss)


def _drop_rates(model: nn.Module) -> list[float]:
    return [float(getattr(drop, _rate_name(drop))) for drop in model.modules() if isinstance(drop, DROPS)]


def _set_drop_rates(model: nn.Module, rates: list[float]) -> None:
    drops = [drop for drop in model.modules() if isinstance(drop, DROPS)]
    for drop, rate in zip(drops, rates, strict=True):
        setattr(drop, _rate_name(drop), rate)


def _rate_name(drop: nn.Module) -> str:
    return "p" if hasattr(drop, "p") else "rate"


def _first(count: int) -> Any:
    import numpy as np

    return np.arange(count)

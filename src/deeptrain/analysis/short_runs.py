"""Short runs of a trainer, all from the same weights and on the same batches. Afterwards the trainer is as it was."""

import copy
import math
import random
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager

import numpy as np
import torch
from torch import Tensor

from deeptrain.data.loader import Loader
from deeptrain.runtime.batch_norm import has_batch_norm
from deeptrain.training.meters import Outputs
from deeptrain.training.progress import Progress
from deeptrain.training.trainer import Trainer
from deeptrain.training.validation import Validator, predict

SETTLING = 512  # images on which batch norms are measured after a short run
BLOCK = 25  # images whose mean loss is one number of a score
Rates = Callable[[float], list[float]]  # the rate of each group of parameters, for an optimizer.lr


class Start:
    """Everything that a step changes, so that a trainer can go back to it."""

    def __init__(self, trainer: Trainer):
        self.trainer, model = trainer, trainer.model
        self.tensors = [*model.parameters(), *model.buffers()]
        self.values = [tensor.detach().clone() for tensor in self.tensors]
        self.gradients = [parameter.grad for parameter in model.parameters()]
        self.modes = [(module, module.training) for module in model.modules()]
        self.shared = [*self.tensors, *model.modules(), *trainer.parameters]  # an optimizer refers to them
        self.optimizer = self._copy(trainer.optimizer.__dict__)
        self.scaler = copy.deepcopy(trainer.runtime.scaler)
        self.fields = {name: getattr(trainer, name) for name in ("progress", "schedule", "accumulate")}
        self.penalty_terms = trainer.meter.penalty_terms

    @torch.no_grad()
    def restore(self) -> None:
        trainer = self.trainer
        for tensor, value in zip(self.tensors, self.values, strict=True):
            tensor.copy_(value)
        for parameter, gradient in zip(trainer.model.parameters(), self.gradients, strict=True):
            parameter.grad = gradient
        for module, mode in self.modes:
            module.training = mode
        trainer.optimizer.__dict__.update(self._copy(self.optimizer))
        trainer.runtime.scaler = copy.deepcopy(self.scaler)
        for name, value in self.fields.items():
            setattr(trainer, name, value)
        trainer.meter.penalty_terms = self.penalty_terms

    def _copy(self, state: dict) -> dict:
        """Copy an optimizer's state, of inner optimizers too, but neither parameters nor modules."""
        return copy.deepcopy(state, {id(item): item for item in self.shared})


@contextmanager
def preserved(trainer: Trainer) -> Iterator[Start]:
    """Leave a trainer and all random generators as they are, whatever is trained in between."""
    start, device = Start(trainer), trainer.runtime.device
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    with torch.random.fork_rng([device.index or 0] if device.type == "cuda" else []):
        try:
            yield start
        finally:
            start.restore()
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


class ShortRuns:
    """Runs of a trainer at other rates, and what their weights are worth.

    rates_of: the rate of each group of parameters for an optimizer.lr; without it all groups keep their proportions.
    slices: loaders of the images that a score is measured on; without them those of the validator.
    """

    def __init__(
        self, trainer: Trainer, start: Start, rates_of: Rates | None = None, slices: list[Loader] | None = None
    ):
        self.trainer, self.start, self.steps, self.num_classes = trainer, start, 0, 0
        self.rates_of = rates_of or self._in_proportion
        validator = trainer.validator
        self.slices = slices or [loader for loader in (validator.clean_loader, validator.loader) if loader is not None]
        self.validator = _settling(trainer)

    def losses(self, rates: Iterable[float], schedule: Callable[[float], float], steps: int = 0) -> Iterator[float]:
        """Train from the start, a step a rate, and yield the mean loss of each batch; the last one may not be finite.

        schedule: the factor on the rate after a part of `steps`.
        """
        trainer, done = self.trainer, 0
        self.start.restore()
        trainer.model.train()
        trainer.progress = Progress()
        with closing(_endless(trainer)) as batches:
            for rate, (images, labels) in zip(rates, batches, strict=False):
                self._set_rate(rate, schedule(done / steps) if steps else 1.0)
                loss = _mean_loss(trainer.train_step(images, labels))
                done += 1
                self.steps += 1
                yield loss
                if not math.isfinite(loss):
                    return
                sizes = trainer.train_loader.sizes
                trainer.progress.advance(sizes[trainer.progress.step_in_epoch], len(sizes))

    def score(self) -> np.ndarray:
        """Return the loss of the present weights on each block of BLOCK images; inf where it is not finite."""
        trainer = self.trainer
        with self.validator.settled(trainer.model, trainer.stop, 0, 0.0):
            pairs = [predict(trainer.model, part.epoch(0), trainer.pipeline, trainer.runtime) for part in self.slices]
        trainer.model.train()
        self.num_classes = pairs[0][0].shape[1]
        values = [self.loss(*block) for logits, labels in pairs for block in blocks(logits, labels)]
        return np.nan_to_num(np.array(values), nan=math.inf, posinf=math.inf)

    def guess(self) -> np.ndarray:
        """Return the blocks' losses of the better of two guesses: equal logits, and the shares of the classes.

        Only after a score, which knows how many classes there are.
        """
        labels = [torch.cat([classes.cpu() for _, classes in part.epoch(0)]) for part in self.slices]
        shares = torch.bincount(torch.cat(labels), minlength=self.num_classes).float()
        logits = torch.stack([torch.zeros_like(shares), (shares.clamp(min=0.5) / shares.sum()).log()])
        blocks = [block for part in labels for block in part.split(BLOCK)]
        scores = [[self.loss(guess.repeat(len(block), 1), block) for block in blocks] for guess in logits]
        return np.array(min(scores, key=sum))

    def loss(self, logits: Tensor, labels: Tensor) -> float:
        device = self.trainer.runtime.device
        return float(self.trainer.validator.loss(logits.to(device), labels.to(device)))

    def _set_rate(self, rate: float, factor: float) -> None:
        for group, own in zip(self.trainer.optimizer.param_groups, self.rates_of(rate), strict=True):
            group["initial_lr"] = own
        self.trainer.schedule = lambda progress: factor

    def _in_proportion(self, rate: float) -> list[float]:
        groups = self.trainer.optimizer.param_groups
        own = [group.get("initial_lr", group["lr"]) for group in groups]
        return [rate * value / own[0] for value in own]


def _settling(trainer: Trainer) -> Validator:
    """Return a validator that measures batch norms anew while they remember their start, as after a short run."""
    validator = copy.copy(trainer.validator)
    validator.measured_buffers = {}
    if validator.bn_loader is None and has_batch_norm(trainer.model):
        validator.bn_loader = trainer.train_loader.first_images(SETTLING)
    return validator


def _endless(trainer: Trainer) -> Generator[tuple[Tensor, Tensor]]:
    """Yield the batches of all epochs, from the first one on."""
    epoch = 0
    while True:
        yield from trainer.train_loader.epoch(epoch, 0)
        epoch += 1


def _mean_loss(outputs: Outputs) -> float:
    images = sum(len(logits) for _, logits, _ in outputs)
    return sum(loss.item() * len(logits) for loss, logits, _ in outputs) / images


def blocks(logits: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(logits.split(BLOCK), labels.split(BLOCK), strict=True)

"""Averages of a model's weights over training, evaluated beside the weights themselves."""

import copy
from collections.abc import Iterable
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from deeptrain.runtime.batch_norm import measure_statistics
from deeptrain.schema import DropRate, PositiveInt, Range, validate_call

Several = Annotated[int, Range(minimum=2)]  # batch norm has nothing to measure on one

MODELS = "averaged_models"  # under which an SWA saves how many weights it has taken in
ROUNDING = 1e-6  # so that epoch 3 of 4 is 0.75 of the run


class Average:
    """What the averages share: `module`, the averaged model, in evaluation mode and apart from the live one.

    Nothing is swapped. Build it from the model on its device, before compiling or wrapping it.
    """

    started = True  # False while there is nothing to evaluate yet
    bn_images = 0  # training images that it wants to `settle`

    def __init__(self, model: nn.Module):
        self.module = copy.deepcopy(model).requires_grad_(False).eval()
        pairs = list(zip(_tensors(model), _tensors(self.module), strict=True))
        self._real = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    def update(self, step: int, progress: float, epoch_ended: bool) -> None:
        """Take note of the weights after optimizer step number `step`, counted from 1 on; `progress` is in [0, 1]."""
        raise NotImplementedError

    def update_bn_statistics(self, batches: Iterable[Tensor]) -> None:
        """Make the averaged model ready to be evaluated."""

    @torch.no_grad()
    def restart(self) -> None:
        """Begin anew from the weights as they are."""
        for live, averaged in self._real + self._counters:
            averaged.copy_(live)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged model's own state: it loads into the bare model too."""
        return self.module.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a state; ValueError if it is of another kind of average."""
        if MODELS in state:
            raise ValueError("it averaged its weights in another way; go on with that average, or with average=none")
        self.module.load_state_dict(state)


class EMA(Average):
    """An exponential moving average: average += (1 - d) (weights - average) after every optimizer step.

    Floating-point buffers (batch-norm means and variances) are averaged alike: they must describe the averaged weights,
    not the last ones. Counters are copied.
    """

    @validate_call
    def __init__(self, model: nn.Module, *, decay: DropRate = 0.999):
        super().__init__(model)
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int, progress: float = 0.0, epoch_ended: bool = False) -> None:
        """Take in the weights.

        The decay warms up as (1 + step) / (10 + step), so that the random start is soon forgotten. It is a function of
        the step alone, and leaves no counter to lose on resume.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        live, averaged = zip(*self._real, strict=True)
        get_ema_multi_avg_fn(decay)(averaged, live, None)  # one foreach lerp
        if self._counters:
            counters, copies = zip(*self._counters, strict=True)
            torch._foreach_copy_(copies, counters)  # one launch  # pyright: ignore


class SWA(Average):
    """Stochastic weight averaging: the equal mean of weights along the last part of training (Izmailov et al., 2018).

    They are taken in once an epoch, or every so many steps, from `start` of the run on. Batch-norm statistics of such a
    mean cannot be averaged. As in the paper they are measured anew, on training images augmented as in training. Of
    these `bn_images` are enough (the paper takes all). A steady, large learning rate makes the weights differ: with
    a schedule that ends at 0 there is little to average.
    """

    @validate_call
    def __init__(
        self,
        model: nn.Module,
        *,
        start: DropRate = 0.75,
        every_steps: PositiveInt | None = None,
        bn_images: Several = 10_000,
    ):
        super().__init__(model)
        self.start, self.every_steps = start, every_steps
        self.models = 0  # taken in so far
        if any(isinstance(module, _BatchNorm) for module in model.modules()):
            self.bn_images = bn_images

    @property
    def started(self) -> bool:
        return self.models > 0

    def update(self, step: int, progress: float, epoch_ended: bool) -> None:
        due = epoch_ended if self.every_steps is None else step % self.every_steps == 0
        if not due or progress < self.start - ROUNDING:
            return
        live, averaged = zip(*self._real, strict=True)
        get_swa_multi_avg_fn()(averaged, live, self.models)  # average += (weights - average) / (models + 1)
        self.models += 1

    def update_bn_statistics(self, batches: Iterable[Tensor]) -> None:
        """Measure the batch-norm statistics on batches of images: the mean of all, each batch counting the same."""
        measure_statistics(self.module, batches)

    def restart(self) -> None:
        super().restart()
        self.models = 0

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged model's state and how many weights are in it."""
        return {**self.module.state_dict(), MODELS: torch.tensor(self.models)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        rest = dict(state)
        models = rest.pop(MODELS, None)
        if models is None:
            raise ValueError("it averaged its weights in another way; go on with that average, or with average=none")
        self.models = int(models)
        self.module.load_state_dict(rest)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]

"""Averages of a model's weights over training, evaluated beside the weights themselves."""

import copy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from deeptrain.schema import Rate, checked


class EMA:
    """An exponential moving average: average += (1 - d) (weights - average) after every optimizer step.

    `module` is the averaged model, in evaluation mode and apart from the live one: nothing is swapped. Floating-point
    buffers (batch-norm means and variances) are averaged alike, since they must describe the averaged weights rather
    than the last ones; counters are copied. Build it from the model on its device, before compiling or wrapping it.
    """

    @checked
    def __init__(self, model: nn.Module, *, decay: Rate = 0.999):
        self.decay = decay
        self.module = copy.deepcopy(model).requires_grad_(False).eval()
        live, averaged = _tensors(model), _tensors(self.module)
        pairs = list(zip(live, averaged, strict=True))
        self._real = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimizer step number `step`, counted from 1 on.

        The decay warms up as (1 + step) / (10 + step), so that the random start is soon forgotten; being a function of
        the step alone, it leaves no counter to lose on resume.
        """
        decay = min(self.decay, (1 + step) / (10 + step))
        live, averaged = zip(*self._real, strict=True)
        get_ema_multi_avg_fn(decay)(averaged, live, None)  # one foreach lerp
        for current, copied in self._counters:
            copied.copy_(current)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged model's own state: it loads into the bare model too."""
        return self.module.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.module.load_state_dict(state)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]

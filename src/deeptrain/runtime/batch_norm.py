"""Statistics of batch norms, measured on batches instead of remembered from training."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

START_SHARE = 0.005  # of the initial values in the running statistics: below it they are forgotten


def has_batch_norm(model: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def settling_batches(model: nn.Module) -> float:
    """Return after how many batches the running statistics have forgotten their initial values; 0 without any.

    These are means of 0 and variances of 1, and weigh (1 - momentum)^batches: 50 batches with the usual momentum.
    """
    return max(map(_settling_batches, _tracking(model)), default=0)


def remembers_start(model: nn.Module) -> bool:
    """Tell whether the running statistics of a batch norm still hold some of their initial values."""
    norms = list(_tracking(model))
    if not norms:
        return False
    counts = torch.stack([norm.get_buffer("num_batches_tracked") for norm in norms]).tolist()
    return any(count < _settling_batches(norm) for count, norm in zip(counts, norms, strict=True))


@torch.no_grad()
def measure_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Measure the statistics of batch norms in training mode: the mean of all batches, each counting the same.

    torch's update_bn would also empty a frozen norm, which stays in evaluation mode when its model trains.
    """
    was_training = model.training
    model.train()
    norms = [norm for norm in _tracking(model) if norm.training]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        for images in _full(batches) if norms else ():
            model(images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.train(was_training)


def _tracking(model: nn.Module) -> Iterator[_BatchNorm]:
    norms = (module for module in model.modules() if isinstance(module, _BatchNorm))
    return (norm for norm in norms if norm.track_running_stats and norm.num_batches_tracked is not None)


def _settling_batches(norm: _BatchNorm) -> int:
    """Return 0 for a norm without a memory of its start: one that averages all batches, or never learns from any."""
    if norm.momentum is None or not 0 < norm.momentum < 1:
        return 0
    return math.ceil(math.log(START_SHARE) / math.log(1 - norm.momentum))


def _full(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Pass on batches, but a shorter last one only if it is alone: a few images would count as much as a batch."""
    size = 0
    for images in batches:
        if len(images) >= size:
            size = len(images)
            yield images


@contextmanager
def own_statistics(model: nn.Module) -> Iterator[None]:
    """Let batch norms use the statistics of the batch, and leave their running ones as they are."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    running = [(norm.running_mean, norm.running_var) for norm in norms]
    try:
        for norm in norms:
            norm.running_mean = norm.running_var = None
        yield
    finally:
        for norm, (mean, variance) in zip(norms, running, strict=True):
            norm.running_mean, norm.running_var = mean, variance

"""Measuring a network on images it does not learn from: loss, top-1 and top-5, and on request every prediction."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from deeptrain.aug.pipeline import Pipeline
from deeptrain.metrics import RunningMetrics
from deeptrain.runtime.device import Runtime
from deeptrain.runtime.distributed import all_reduce_sum
from deeptrain.runtime.world import SINGLE, World

Batch = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    pipeline: Pipeline,
    runtime: Runtime,
    loss: Loss,
    processes: World = SINGLE,
) -> dict[str, float]:
    """Return the means of `loss`, `accuracy` and `top5` over batches, with one read from the device.

    Pass the run's own loss made plain (loss.plain): without class weights, smoothing and penalties, runs compare.
    Several processes bring images of their own, and get the means over all of them.
    """
    model.eval()
    means = RunningMetrics()
    for images, labels in batches:
        with runtime.autocast:
            logits = model(pipeline.evaluate(images))
        logits = logits.float()
        means.add(loss(logits, labels), logits, labels)
    if not processes.alone:
        pool(means)
    return means.read()


@torch.inference_mode()
def predict(model: nn.Module, batches: Iterable[Batch], pipeline: Pipeline, runtime: Runtime) -> tuple[Tensor, Tensor]:
    """Return logits (N, K) and labels (N,) of all batches, on the host."""
    model.eval()
    logits, labels = [], []
    for images, classes in batches:
        with runtime.autocast:
            logits.append(model(pipeline.evaluate(images)).float())
        labels.append(classes)
    return torch.cat(logits).cpu(), torch.cat(labels).cpu()


def score(logits: Tensor, labels: Tensor, loss: Loss) -> dict[str, float]:
    """Return `loss`, `accuracy` and `top5` of logits (N, K) against class ids (N,), as `evaluate` measures them."""
    means = RunningMetrics()
    means.add(loss(logits, labels), logits, labels)
    return means.read()


def pool(means: RunningMetrics) -> None:
    """Let every process's means be about the images of all of them."""
    state = means.state_dict()
    means.load_state_dict(dict(zip(state, all_reduce_sum(list(state.values())), strict=True)))

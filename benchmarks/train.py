"""Images a second of whole training, our trainer beside hand-written loops: resnet18 at 32 px, and a small MLP."""

import argparse
import copy
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from loader import OneByOne, torchvision_v1
from ours import build_trainer, repeatable
from timing import Timing, Way, circumstances, goal, measure, median, spread, table, times_faster
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, RandomSampler

from deeptrain.trainer import Trainer

BATCH, WORKERS = 128, 2
SGD: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
WORDS = [
    "data=synthetic",
    "optimizer=sgd",
    *(f"optimizer.{name}={str(value).lower()}" for name, value in SGD.items()),
    "schedule=cosine",
    "log.every_steps=20",
]
RESNET = ["data.shape=[3,32,32]", "data.crop_padding=4", "data.flip=true", "model=resnet", "model.depth=18"]
MLP = ["data.shape=[1,28,28]", "model=fcn", "model.hidden=[64,128,64]"]
OURS, FINER = "deeptrain", {"bf16": ["precision=bf16"], "bf16, compiled": ["precision=bf16", "compile=true"]}
BY_HAND = "by hand: torchvision, 2 workers"
FIXED = "by hand: one batch that lies ready, {}"
RESIDENT, RESIDENT_FUSED = "by hand: resident tensors", "by hand: resident tensors, fused SGD"
Batch = tuple[Tensor, Tensor]


def train_by_hand(
    network: nn.Module, batches: Iterable[Batch], steps: int, device: torch.device, *, fused: bool = False,
    dtype: torch.dtype | None = None,
) -> None:  # fmt: skip
    """Train the way the tutorials write it; with `dtype` under autocast."""
    optimizer = torch.optim.SGD(network.parameters(), **SGD, **({"fused": True} if fused else {}))
    network.train()
    for images, labels in itertools.islice(batches, steps):
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss = cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    finish(device)


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class ByHand:
    """A hand-written loop over the same images and from the same weights as a trainer's."""

    def __init__(self, trainer: Trainer):
        self.device = trainer.runtime.device
        self.network = copy.deepcopy(trainer.model).to(memory_format=torch.contiguous_format)  # as it is by default
        self.mean, self.std = (np.array(value) / 255 for value in _normalisation(trainer))

    def way(self, batches: Callable[[int], Iterable[Batch]], short: int, long: int, **options: Any) -> Way:
        def prepare(steps: int) -> Callable[[], object]:
            network = copy.deepcopy(self.network)
            return lambda: train_by_hand(network, batches(steps), steps, self.device, **options)

        return Way(prepare, short, long)

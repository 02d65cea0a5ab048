"""The loss before the first step, beside the loss of equal logits: the first thing to look at in a run."""

import math
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from deeptrain import build
from deeptrain.analysis.preview import training_images
from deeptrain.data.dataset import evenly_spaced
from deeptrain.training.rehearsal import unchanged
from deeptrain.training.trainer import Trainer

MAX_IMAGES, MIN_IMAGES = 64, 16
MAX_PIXELS = 2**16  # of all images: 64 of 32x32; beyond MIN_IMAGES of 224x224 it would take seconds


def measure_initial_loss(trainer: Trainer, setup: build.Setup) -> dict[str, float] | None:
    """Return the loss on some training images, not augmented, and that of equal logits: log K for cross-entropy.

    Batch norms use the batch and dropout is on, as in the first step. Weights, buffers and random states stay as they
    are. None if it cannot be measured: the first step says why.
    """
    pixels = math.prod(setup.dataset.image_shape[1:])
    count = min(max(MIN_IMAGES, min(MAX_IMAGES, MAX_PIXELS // pixels)), setup.batch_size)
    with suppress(Exception):
        images, labels = training_images(setup, evenly_spaced(len(setup.dataset.train), count))
        return initial_loss(trainer, images, labels)
    return None


def initial_loss(trainer: Trainer, images: Tensor, labels: Tensor) -> dict[str, float] | None:
    """Return the same as `measure_initial_loss`, on images uint8 (N, C, H, W) with labels (N,)."""
    runtime, loss = trainer.runtime, trainer.validator.loss
    generators = [runtime.device.index or 0] if runtime.device.type == "cuda" else []
    with suppress(Exception), torch.random.fork_rng(generators), unchanged(trainer.model), torch.no_grad():
        runtime.seed(0)
        with runtime.autocast:
            logits = trainer.model.train()(trainer.pipeline.evaluate(images)).float()
        measured = {"train": float(loss(logits, labels)), "equal_logits": float(loss(0 * logits, labels))}
        return known_initial_loss({"initial_loss": measured})
    return None


def known_initial_loss(state: dict[str, Any]) -> dict[str, float] | None:
    """Return what a checkpoint, which may be a stranger's, says of its run's initial loss."""
    found = state.get("initial_loss")
    if not isinstance(found, dict) or found.keys() != {"train", "equal_logits"}:
        return None
    return found if all(isinstance(value, float) and math.isfinite(value) for value in found.values()) else None

"""Controls: what a straight line makes of the same images, and whether it tells train from val."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from deeptrain.analysis.diagnosis.subject import Opened

IMAGES = 2000  # of train, and of val
SIDE = 32  # pixels: larger images are averaged down to it
STEPS, DECAY = 60, 1e-2  # of a full-batch L-BFGS
FOLDS = 2


@dataclass(frozen=True)
class Controls:
    """linear: 1 for each image of val that a straight line gets right, on the images of a trial.

    told_apart: the accuracy at which a straight line tells train from val, and on how many images. It was not fitted
    to these; 0.5 is guessing.
    """

    linear: np.ndarray
    told_apart: float
    images: int

    @property
    def linear_accuracy(self) -> float:
        return float(self.linear.mean())


def measure_controls(opened: Opened, val_images: int) -> Controls:
    """Fit a straight line from pixels to classes, and one from pixels to the split."""
    train, train_labels = _pixels(opened, opened.train.evenly_spaced(IMAGES))
    val, val_labels = _pixels(opened, opened.val.evenly_spaced(val_images))
    right = fit_linear(train, train_labels, opened.classes)(val).argmax(1) == val_labels
    count = min(len(train), len(val), IMAGES)
    told = _told_apart(train[_spread(len(train), count)], val[_spread(len(val), count)])
    return Controls(right.float().numpy(), told, 2 * count)


def fit_linear(inputs: Tensor, labels: Tensor, classes: int):
    """Fit softmax regression (N, D) -> (N, classes) with an L2 penalty; return it."""
    mean, std = inputs.mean(0), inputs.std(0).clamp_min(1e-3 * float(inputs.std()) + 1e-12)
    scaled = (inputs - mean) / std / inputs.shape[1] ** 0.5
    weights = torch.zeros(inputs.shape[1] + 1, classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(scaled @ weights[:-1] + weights[-1], labels) + DECAY / len(labels) * weights.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    fitted = weights.detach()
    return lambda images: (images - mean) / std / images.shape[1] ** 0.5 @ fitted[:-1] + fitted[-1]


def _told_apart(train: Tensor, val: Tensor) -> float:
    """Return the accuracy of telling two sets apart, on the halves that a straight line was not fitted to."""
    right = []
    for fold in range(FOLDS):
        parts = [(part[fold::FOLDS], part[1 - fold :: FOLDS]) for part in (train, val)]
        fits, tests = (torch.cat([part[index] for part in parts]) for index in (0, 1))
        labels, wanted = (torch.cat([torch.full((len(p[i]),), n) for n, p in enumerate(parts)]) for i in (0, 1))
        right.append((fit_linear(fits, labels, 2)(tests).argmax(1) == wanted).float())
    return float(torch.cat(right).mean())


def _pixels(opened: Opened, samples) -> tuple[Tensor, Tensor]:
    """Return images (N, D) as the network takes them, averaged down where they are large, and their labels."""
    loader, parts = opened.loader(samples), []
    for images, labels in loader.epoch(0):
        inputs = opened.trainer.pipeline.evaluate(images).float()
        if inputs.shape[-1] > SIDE:
            inputs = torch.nn.functional.adaptive_avg_pool2d(inputs, SIDE)
        parts.append((inputs.flatten(1).cpu(), labels.cpu()))
    loader.close()
    inputs, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    return inputs, labels


def _spread(total: int, count: int) -> Tensor:
    return torch.arange(count) * total // count

"""Parts of patients that no setting of ours can make: a network, a loss and data, each with a fault to choose."""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from deeptrain.data.array_source import ArraySource, Split
from deeptrain.data.dataset import SplitFraction
from deeptrain.data.digits import TEST_FRACTION, TEST_SEED, read_digits
from deeptrain.data.split import stratified
from deeptrain.loss import Loss
from deeptrain.model.fcn import FCN
from deeptrain.schema import NonNegativeInt, PositiveInt, validate_call

VAL_FRACTION = 0.2
OF_MNIST, OF_CIFAR10 = 1438, 4000  # images: as many as there are digits, and more where there is more to learn
OWN_VAL = ("imbalanced", "inverted", "copied", "contradictory")

ModelFault = Literal[
    "none",
    "zero",
    "same",
    "head",
    "biases",
    "no_activation",
    "softmax",
    "relu_on_logits",
    "frozen",
    "dead_branch",
    "mixed",
]
LossFault = Literal["negated", "wrong_axis", "tiny"]
DataFault = Literal["none", "shuffled", "half_random", "imbalanced", "one_class", "inverted", "copied", "contradictory"]


class FaultyFCN(FCN):
    """An FCN with a mistake in its code, (N, C, H, W) -> (N, num_classes)."""

    @validate_call
    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        *,
        fault: ModelFault = "none",
        hidden: list[PositiveInt] = [128, 64],  # noqa: B006 (never changed)
    ):
        super().__init__(input_shape, num_classes, hidden=hidden)
        self.fault = fault
        self.branch = nn.Linear(math.prod(input_shape), num_classes) if fault == "dead_branch" else None
        layers = [layer for layer in self.layers if isinstance(layer, nn.Linear)]
        with torch.no_grad():
            for layer in layers:
                if fault in ("zero", "same"):
                    layer.weight.fill_(0.0 if fault == "zero" else 0.01)
                if fault == "biases" and layer is not layers[-1]:
                    layer.bias.fill_(-10.0)
            if fault == "head":
                layers[-1].weight.mul_(100)
        if fault == "no_activation":
            self.layers = nn.Sequential(*layers)
        if fault == "frozen":
            for layer in layers[:-1]:
                layer.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        if self.branch is not None:
            return logits + self.branch(images.flatten(1)).detach()
        if self.fault == "mixed":  # a reshape that puts the classes before the images
            return logits.T.reshape(logits.shape)
        if self.fault == "relu_on_logits":
            return logits.relu()
        return logits.softmax(1) if self.fault == "softmax" else logits


class FaultyLoss(Loss):
    """A cross-entropy with a mistake: upside down, with a softmax over the images, or a millionth of itself."""

    @validate_call
    def __init__(self, *, fault: LossFault):
        self.fault = fault

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.fault == "wrong_axis":
            logits = logits.log_softmax(0)
            right = targets if targets.ndim > 1 else torch.eye(logits.shape[1], device=logits.device)[targets]
            return -(logits * right).sum(1)
        return (-1.0 if self.fault == "negated" else 1e-6) * cross_entropy(logits, targets, reduction="none")


def _read_digits() -> tuple[np.ndarray, np.ndarray]:
    images, labels = read_digits()
    kept = np.setdiff1d(np.arange(len(labels)), stratified(labels, TEST_FRACTION, TEST_SEED))
    return images[kept], labels[kept]


@cache
def _read_mnist(root: str) -> tuple[np.ndarray, np.ndarray]:
    folder = Path(root) / "MNIST" / "raw"
    images = np.fromfile(folder / "train-images-idx3-ubyte", np.uint8)[16:].reshape(-1, 28, 28, 1)
    labels = np.fromfile(folder / "train-labels-idx1-ubyte", np.uint8)[8:].astype(np.int64)
    chosen = stratified(labels, OF_MNIST / len(labels), 0)
    return images[chosen], labels[chosen]


@cache
def _read_cifar10(root: str) -> tuple[np.ndarray, np.ndarray]:
    classes = sorted(path for path in (Path(root) / "train").iterdir() if path.is_dir())
    many = OF_CIFAR10 // len(classes)
    images = [np.asarray(Image.open(path)) for folder in classes for path in sorted(folder.iterdir())[:many]]
    return np.stack(images), np.repeat(np.arange(len(classes)), many)


@validate_call
@dataclass
class FaultyImages(ArraySource):
    """Small pictures of ten classes with a mistake in images or labels; some faults have a val of their own.

    of: digits of scikit-learn without our test split, as many of MNIST's training images, read below `root`, or
    4,000 of those of CIFAR-10, a folder that holds train/CLASS/PICTURE.
    """

    fault: DataFault = "none"
    of: Literal["digits", "mnist", "cifar10"] = "digits"
    val_fraction: SplitFraction = VAL_FRACTION
    crop_padding: NonNegativeInt = 1

    name = "faulty"

    @property
    def characters(self) -> bool:  # of which a mirror image is another
        return self.of != "cifar10"

    def class_names(self) -> list[str]:
        return [str(digit) for digit in range(10)]

    def split_sizes(self) -> dict[Split, int | None]:
        return {"train": None, "val": None} if self.fault in OWN_VAL else {"train": None}

    def read_split(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        read = {"digits": lambda root: _read_digits(), "mnist": _read_mnist, "cifar10": _read_cifar10}[self.of]
        images, labels = read(str(self.root))
        rng = np.random.default_rng(0)
        if self.fault == "shuffled":
            return images, rng.permutation(labels)
        if self.fault == "half_random":
            return images, np.where(rng.random(len(labels)) < 0.5, rng.integers(0, 10, len(labels)), labels)
        if self.fault == "one_class":
            return images, np.full_like(labels, 3)
        if self.fault == "none":
            return images, labels
        is_val = np.isin(np.arange(len(labels)), stratified(labels, VAL_FRACTION, 0))
        if split == "train":
            return self._train(images[~is_val], labels[~is_val], rng)
        val, val_labels = images[is_val], labels[is_val]
        if self.fault == "copied":
            val, val_labels = images[~is_val][::4], labels[~is_val][::4]
        return (255 - val if self.fault == "inverted" else val), val_labels

    def _train(self, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if self.fault == "imbalanced":  # 95 % are threes, moved by a pixel so that they differ; 6 of each other class
            threes = images[labels == 3]
            moved = [np.roll(threes, (y, x), (1, 2)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
            rare = np.concatenate([np.flatnonzero(labels == digit)[:6] for digit in range(10) if digit != 3])
            many = np.concatenate(moved)
            return np.concatenate([many, images[rare]]), np.concatenate([np.full(len(many), 3), labels[rare]])
        if self.fault == "contradictory":  # a third of the images are there twice, with another label
            twice = rng.permutation(len(images))[: len(images) // 3]
            return np.concatenate([images, images[twice]]), np.concatenate([labels, (labels[twice] + 1) % 10])
        return images, labels

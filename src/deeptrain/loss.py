"""Losses: callables from logits (N, K) and targets to the mean over the batch.

Targets are class ids (N,) or probabilities (N, K).
"""

import copy
from collections.abc import Callable
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional

from deeptrain.schema import DropRate, PositiveFloat, format_value, suggest, validate_call

ClassWeights = Literal["auto"] | list[PositiveFloat] | dict[str, PositiveFloat] | None


class Loss:
    """Base of the losses: float32 for logits of any dtype, class weights, the mean over the images.

    With class weights w, an image of class k counts w_k times. An image with mixed targets q counts Σ q_k w_k times,
    and its targets become q_k w_k / Σ q_j w_j. Where the loss is linear in q, this is Σ q_k w_k loss(k). The mean is
    over images, not over weights, so the parts of a batch add up to the batch.
    """

    weights: Tensor | None = None  # (K,)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return a float32 scalar."""
        if self.weights is None:
            return self.per_sample(logits.float(), targets).mean()
        weights = self.weights = self.weights.to(logits.device)
        if targets.ndim == 1:
            return (self.per_sample(logits.float(), targets) * weights[targets]).mean()
        shares = targets * weights
        counts = shares.sum(1)
        return (self.per_sample(logits.float(), shares / counts[:, None]) * counts).mean()

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of each image, (N,), without class weights."""
        raise NotImplementedError

    def for_evaluation(self) -> Self:
        """Return a copy without class weights and smoothing, for an evaluation."""
        loss = copy.copy(self)
        loss.weights = None
        return loss


class CrossEntropy(Loss):
    """-Σ q log softmax(logits), with q the targets, smoothed: (1 - ε) q + ε/K (Szegedy et al., 2016).

    The right class has 1 - (K-1)/K ε, each other class ε/K. Mixed targets are smoothed the same way.
    """

    @validate_call
    def __init__(
        self,
        *,
        label_smoothing: DropRate = 0.0,
        class_weights: ClassWeights = None,
        class_counts: list[int] | None = None,
        class_names: list[str] | None = None,
    ):
        self.label_smoothing = label_smoothing
        self.weights = class_weight_tensor(class_weights, class_counts, class_names)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.weights is None:  # one kernel also takes the mean
            return functional.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing)
        return super().__call__(logits, targets)

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(logits, targets, label_smoothing=self.label_smoothing, reduction="none")

    def for_evaluation(self) -> Self:
        loss = super().for_evaluation()
        loss.label_smoothing = 0.0
        return loss


class Hinge(Loss):
    """Σ_{j≠y} max(0, s_j - s_y + margin), the loss of a multiclass SVM (Weston & Watkins, 1999).

    Mixed targets: Σ q_k loss(k), which compares all pairs of logits: N K² numbers.
    """

    @validate_call
    def __init__(
        self,
        *,
        margin: PositiveFloat = 1.0,
        class_weights: ClassWeights = None,
        class_counts: list[int] | None = None,
        class_names: list[str] | None = None,
    ):
        self.margin = margin
        self.weights = class_weight_tensor(class_weights, class_counts, class_names)

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        if targets.ndim == 1 and logits.device.type == "mps":  # it lacks torch's loss
            return gathered_hinge(logits, targets, self.margin)
        if targets.ndim == 1:  # torch's loss is divided by K
            mean = functional.multi_margin_loss(logits, targets, margin=self.margin, reduction="none")
            return mean * logits.shape[1]
        differences = logits[:, None] - logits[:, :, None]  # (N, K, K): s_j - s_y at [:, y, j]
        return (targets * ((differences + self.margin).relu().sum(2) - self.margin)).sum(1)  # without j = y


def gathered_hinge(logits: Tensor, targets: Tensor, margin: float) -> Tensor:
    """Return Σ_{j≠y} max(0, s_j - s_y + margin) of each image, (N,), for class ids (N,)."""
    differences = logits - logits.gather(1, targets[:, None])
    return (differences + margin).relu().sum(1) - margin  # without j = y


class Perceptron(Loss):
    """max_j s_j - s_y: 0 where the prediction is right (Rosenblatt, 1958; Collins, 2002).

    Its gradient is the perceptron's rule. The weights of the right class move towards the input, those of the predicted
    class away from it. Classes that tie share the step. Mixed targets: Σ q_k loss(k).
    """

    @validate_call
    def __init__(
        self,
        *,
        class_weights: ClassWeights = None,
        class_counts: list[int] | None = None,
        class_names: list[str] | None = None,
    ):
        self.weights = class_weight_tensor(class_weights, class_counts, class_names)

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        return (one_hot(targets, logits) * (logits.amax(1, keepdim=True) - logits)).sum(1)


class MSE(Loss):
    """½ Σ (y - q)² over the classes; y = output(logits), q the targets, one-hot or mixed.

    linear: y is the logits. It trains about as well as cross-entropy (Hui & Belkin, 2021). softmax (Brier's score) and
    sigmoid keep y in [0, 1], but their gradient vanishes for confident wrong predictions.
    """

    @validate_call
    def __init__(
        self,
        *,
        output: Literal["linear", "softmax", "sigmoid"] = "linear",
        class_weights: ClassWeights = None,
        class_counts: list[int] | None = None,
        class_names: list[str] | None = None,
    ):
        self.output = OUTPUTS[output]
        self.weights = class_weight_tensor(class_weights, class_counts, class_names)

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        return 0.5 * (self.output(logits) - one_hot(targets, logits)).square().sum(1)


class BCE(Loss):
    """-Σ q log σ(s) + (1 - q) log(1 - σ(s)) over the classes, each a binary decision; q is one-hot or mixed."""

    @validate_call
    def __init__(
        self,
        *,
        class_weights: ClassWeights = None,
        class_counts: list[int] | None = None,
        class_names: list[str] | None = None,
    ):
        self.weights = class_weight_tensor(class_weights, class_counts, class_names)

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        probabilities = one_hot(targets, logits)
        return functional.binary_cross_entropy_with_logits(logits, probabilities, reduction="none").sum(1)


OUTPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda logits: logits,
    "softmax": lambda logits: logits.softmax(1),
    "sigmoid": torch.sigmoid,
}


def for_evaluation(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss without class weights and smoothing, for an evaluation; a loss of your own unchanged."""
    return loss.for_evaluation() if isinstance(loss, Loss) else loss


def class_weight_tensor(
    class_weights: ClassWeights, class_counts: list[int] | None, class_names: list[str] | None = None
) -> Tensor | None:
    """Return the setting as weights (K,), or None; ValueError if it does not fit the classes.

    auto: inverse to the number of training images of each class. The mean over the training images is 1.
    By name: a class that is not named has weight 1.
    """
    if class_weights is None:
        return None
    if isinstance(class_weights, dict):
        return torch.tensor(_weights_by_name(class_weights, class_names), dtype=torch.float32)
    if class_weights != "auto":
        if class_counts is not None and len(class_weights) != len(class_counts):
            raise ValueError(f"class_weights={list(class_weights)}: must be {len(class_counts)} numbers, one a class")
        return torch.tensor(class_weights, dtype=torch.float32)
    if class_counts is None:
        raise ValueError("class_weights=auto: needs class_counts, the training images of each class")
    counts = torch.tensor(class_counts)
    return counts.sum() / (counts.count_nonzero() * counts.clamp(min=1))  # an empty class counts as one image


def _weights_by_name(weights: dict[str, float], class_names: list[str] | None) -> list[float]:
    """Return a weight a class, in the order of the classes."""
    if class_names is None:
        raise ValueError("class_weights by name: needs class_names, the names of the classes")
    named = {format_value(name): weight for name, weight in weights.items()}  # YAML reads 3 as a number
    for name in named:
        if name not in class_names:
            raise ValueError(f"class_weights={format_value(weights)}: no class is {name}; {suggest(name, class_names)}")
    return [named.get(name, 1.0) for name in class_names]


def one_hot(targets: Tensor, logits: Tensor) -> Tensor:
    """Return targets as probabilities (N, K). Class ids (N,) become 1 at the class and 0 elsewhere."""
    if targets.ndim == 2:
        return targets
    return torch.zeros_like(logits).scatter_(1, targets[:, None], 1.0)

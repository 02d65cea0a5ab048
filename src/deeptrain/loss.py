"""Losses: callables from logits (N, K) and targets, class ids (N,) or probabilities (N, K), to the batch's mean."""

import copy
from collections.abc import Callable
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional

from deeptrain.schema import DropRate, PositiveFloat, validate_call

ClassWeights = Literal["auto"] | list[PositiveFloat] | None


class Loss:
    """What the losses share: float32 whatever the logits come in, class weights, the mean over the images.

    With class weights w an image of class k counts w_k times. One with mixed targets q counts Σ q_k w_k times, and its
    targets become q_k w_k / Σ q_j w_j: so it costs what its labels would, in their shares. The mean is over images and
    not over weights, so that the pieces of a batch add up to the batch.
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
        """Return this loss without class weights and smoothing: what an evaluation measures."""
        loss = copy.copy(self)
        loss.weights = None
        return loss


class CrossEntropy(Loss):
    """-Σ q log softmax(logits), with q the targets, smoothed: (1 - ε) q + ε/K (Szegedy et al., 2016).

    The right class thus keeps 1 - (K-1)/K ε and each other one gets ε/K; mixed targets are smoothed alike.
    """

    @validate_call
    def __init__(
        self,
        *,
        label_smoothing: DropRate = 0.0,
        class_weights: ClassWeights = None,
        class_counts: list[int] | None = None,
    ):
        self.label_smoothing = label_smoothing
        self.weights = class_weight_tensor(class_weights, class_counts)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.weights is None:  # the mean in the same kernel
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

    Mixed targets: Σ q_k loss(k), for which all pairs of logits are compared, N K² numbers.
    """

    @validate_call
    def __init__(
        self, *, margin: PositiveFloat = 1.0, class_weights: ClassWeights = None, class_counts: list[int] | None = None
    ):
        self.margin = margin
        self.weights = class_weight_tensor(class_weights, class_counts)

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        if targets.ndim == 1:  # torch's is divided by K
            mean = functional.multi_margin_loss(logits, targets, margin=self.margin, reduction="none")
            return mean * logits.shape[1]
        lead = logits[:, None] - logits[:, :, None]  # (N, K, K): of every class, across, over the right one, down
        return (targets * ((lead + self.margin).relu().sum(2) - self.margin)).sum(1)  # less that over itself


class Perceptron(Loss):
    """max_j s_j - s_y: nothing where the answer is right, by however little (Rosenblatt, 1958; Collins, 2002).

    Its gradient is the perceptron's rule: the right class is pulled towards the input, the one said is pushed away,
    each of several that tie by its share. Mixed targets: Σ q_k loss(k).
    """

    @validate_call
    def __init__(self, *, class_weights: ClassWeights = None, class_counts: list[int] | None = None):
        self.weights = class_weight_tensor(class_weights, class_counts)

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        return (one_hot(targets, logits) * (logits.amax(1, keepdim=True) - logits)).sum(1)


class MSE(Loss):
    """½ Σ (y - q)² over the classes, with y what `output` makes of the logits and q the targets, one-hot or mixed.

    linear: the logits themselves, which trains about as well as cross-entropy (Hui & Belkin, 2021). softmax (Brier's
    score) and sigmoid keep y in [0, 1], but their gradient vanishes where the network is sure and wrong.
    """

    @validate_call
    def __init__(
        self,
        *,
        output: Literal["linear", "softmax", "sigmoid"] = "linear",
        class_weights: ClassWeights = None,
        class_counts: list[int] | None = None,
    ):
        self.output = OUTPUTS[output]
        self.weights = class_weight_tensor(class_weights, class_counts)

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        return 0.5 * (self.output(logits) - one_hot(targets, logits)).square().sum(1)


class BCE(Loss):
    """-Σ q log σ(s) + (1 - q) log(1 - σ(s)) over the classes, each a yes or no of its own; q one-hot or mixed."""

    @validate_call
    def __init__(self, *, class_weights: ClassWeights = None, class_counts: list[int] | None = None):
        self.weights = class_weight_tensor(class_weights, class_counts)

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        wanted = one_hot(targets, logits)
        return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(1)


OUTPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda logits: logits,
    "softmax": lambda logits: logits.softmax(1),
    "sigmoid": torch.sigmoid,
}


def for_evaluation(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a loss as an evaluation measures it, without class weights and smoothing; one of your own as it is."""
    return loss.for_evaluation() if isinstance(loss, Loss) else loss


def class_weight_tensor(class_weights: ClassWeights, class_counts: list[int] | None) -> Tensor | None:
    """Turn the setting into weights (K,); ValueError if it does not fit the classes.

    auto: inverse to the number of training images of each class, such that the mean over these images is 1.
    """
    if class_weights is None:
        return None
    if class_weights != "auto":
        if class_counts is not None and len(class_weights) != len(class_counts):
            raise ValueError(f"class_weights={list(class_weights)}: must be {len(class_counts)} numbers, one a class")
        return torch.tensor(class_weights, dtype=torch.float32)
    if class_counts is None:
        raise ValueError("class_weights=auto: needs class_counts, the training images of each class")
    counts = torch.tensor(class_counts)
    return counts.sum() / (counts.count_nonzero() * counts.clamp(min=1))  # a class without any: as if it had one


def one_hot(targets: Tensor, logits: Tensor) -> Tensor:
    """Return probabilities (N, K) as they are, and of class ids (N,) 1 at the class and 0 elsewhere."""
    if targets.ndim == 2:
        return targets
    return torch.zeros_like(logits).scatter_(1, targets[:, None], 1.0)

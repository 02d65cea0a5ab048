"""Losses: callables from logits (N, K) and targets, class ids (N,) or probabilities (N, K), to the batch's mean."""

from torch import Tensor
from torch.nn import functional

from deeptrain.schema import Rate, checked


class CrossEntropy:
    """-Σ q log softmax(logits), with q the targets, smoothed: (1 - ε) q + ε/K (Szegedy et al., 2016).

    The right class thus keeps 1 - (K-1)/K ε and each other one gets ε/K; mixed targets are smoothed alike.
    """

    @checked
    def __init__(self, *, label_smoothing: Rate = 0.0):
        self.label_smoothing = label_smoothing

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return a float32 scalar, whatever precision the logits come in."""
        return functional.cross_entropy(logits.float(), targets, label_smoothing=self.label_smoothing)

"""Penalties λ R(W) next to the loss: callables from the weights (no norms, no biases) to terms by name."""
# pyright: reportPrivateImportUsage=false
# (torch documents its foreach operations, with the underscore)

from collections.abc import Callable

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.autograd.function import once_differentiable

from deeptrain.schema import NonNegativeFloat, validate_call


def backward_penalty(
    penalty: Callable[[list[Tensor]], dict[str, Tensor]], weights: list[Tensor], scaler: GradScaler
) -> dict[str, Tensor]:
    """Add the gradient of all penalty terms to the weights' .grad. Return the terms by name."""
    terms = penalty(weights)
    torch.autograd.backward(scaler.scale(list(terms.values())))
    return terms


class L1:
    """λ Σ |W|: pulls every weight towards 0 at the same rate; many weights become 0 (Tibshirani, 1996)."""

    @validate_call
    def __init__(self, *, strength: NonNegativeFloat = 1e-5):
        self.strength = strength

    def __call__(self, weights: list[Tensor]) -> dict[str, Tensor]:
        return {"l1": self.strength * absolute(weights)}


class L2:
    """λ Σ W²: pulls every weight towards 0 in proportion to its size (Hoerl & Kennard, 1970).

    Its gradient is 2λW. weight_decay = 2λ adds the same to the gradient in every optimizer but AdamW. Adam and similar
    optimizers divide the gradient by its usual size. They divide this part too: weights with large gradients hardly
    shrink. AdamW's decoupled decay does not use the gradient: every weight shrinks by lr weight_decay W (Loshchilov &
    Hutter, 2019). Penalty and decoupled decay (weight_decay = 2λ) are the same under plain SGD, and differ under Adam.
    """

    @validate_call
    def __init__(self, *, strength: NonNegativeFloat = 1e-4):
        self.strength = strength

    def __call__(self, weights: list[Tensor]) -> dict[str, Tensor]:
        return {"l2": self.strength * squared(weights)}


class Elastic:
    """λ Σ (β W² + |W|): sparse like L1, but keeps all of a group of correlated weights (Zou & Hastie, 2005)."""

    @validate_call
    def __init__(self, *, strength: NonNegativeFloat = 1e-5, beta: NonNegativeFloat = 1.0):
        self.strength, self.beta = strength, beta

    def __call__(self, weights: list[Tensor]) -> dict[str, Tensor]:
        return {"l1": self.strength * absolute(weights), "l2": self.strength * self.beta * squared(weights)}


def absolute(weights: list[Tensor]) -> Tensor:
    """Return Σ |W| over all weights, a scalar; its gradient at 0 is 0."""
    return _Absolute.apply(*weights)  # pyright: ignore


def squared(weights: list[Tensor]) -> Tensor:
    """Return Σ W² over all weights, a scalar."""
    return _Squared.apply(*weights)  # pyright: ignore


# One forward and one backward pass over all weights, each one launch on a GPU. Autograd needs five per tensor.


class _Absolute(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(*weights)
        return torch.stack(torch._foreach_norm(weights, 1)).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, ...]:
        signs = torch._foreach_sign(ctx.saved_tensors)
        torch._foreach_mul_(signs, gradient)
        return tuple(signs)


class _Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(*weights)
        return torch.stack(torch._foreach_norm(weights, 2)).square().sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch._foreach_mul(ctx.saved_tensors, 2 * gradient))

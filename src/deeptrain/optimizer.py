"""Optimizers, fused into one kernel where torch can, and the groups of parameters that they update."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from deeptrain.schema import Fraction, NonNegative, Positive, Rate, checked

BETAS: list[float] = [0.9, 0.999]


def parameter_groups(model: nn.Module) -> list[dict]:
    """Split the trainable parameters into weights, which decay, and norms and biases (one dimension), which do not.

    Both keep the order of `model.named_parameters()`; a group that would be empty is left out.
    """
    trainable = [parameter for _, parameter in model.named_parameters() if parameter.requires_grad]
    weights = {"params": [parameter for parameter in trainable if parameter.ndim > 1]}
    others = {"params": [parameter for parameter in trainable if parameter.ndim <= 1], "weight_decay": 0.0}
    return [group for group in (weights, others) if group["params"]]


@checked
def sgd(
    parameters: list[dict],
    *,
    lr: Positive = 0.1,
    momentum: Rate = 0.9,
    nesterov: bool = True,
    weight_decay: NonNegative = 5e-4,
) -> Optimizer:
    """Build SGD: g += weight_decay w; v = momentum v + g; w -= lr (g + momentum v if nesterov else v)."""
    if nesterov and momentum == 0:
        raise ValueError("nesterov=true: needs momentum > 0, or choose nesterov=false")
    settings = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    return _build(torch.optim.SGD, parameters, lr=lr, **settings)


@checked
def adagrad(
    parameters: list[dict],
    *,
    lr: Positive = 0.01,
    lr_decay: NonNegative = 0.0,
    initial_accumulator_value: NonNegative = 0.0,
    eps: Positive = 1e-10,
    weight_decay: NonNegative = 0.0,
) -> Optimizer:
    """Build Adagrad: s += g²; w -= lr g / (√s + eps) (Duchi et al., 2011)."""
    settings = {"lr_decay": lr_decay, "initial_accumulator_value": initial_accumulator_value}
    return _build(torch.optim.Adagrad, parameters, lr=lr, eps=eps, weight_decay=weight_decay, **settings)


@checked
def rmsprop(
    parameters: list[dict],
    *,
    lr: Positive = 0.001,
    alpha: Fraction = 0.99,
    eps: Positive = 1e-8,
    momentum: Rate = 0.0,
    centered: bool = False,
    weight_decay: NonNegative = 0.0,
) -> Optimizer:
    """Build RMSprop: s = alpha s + (1 - alpha) g²; w -= lr g / (√s + eps) (Hinton, 2012)."""
    settings = {"alpha": alpha, "momentum": momentum, "centered": centered}
    return _build(torch.optim.RMSprop, parameters, lr=lr, eps=eps, weight_decay=weight_decay, **settings)


@checked
def adam(
    parameters: list[dict],
    *,
    lr: Positive = 0.001,
    betas: list[Rate] = BETAS,
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.0,
) -> Optimizer:
    """Build Adam; weight_decay is an L2 term in the gradient, so the update divides it too (Kingma & Ba, 2015)."""
    return _build(torch.optim.Adam, parameters, lr=lr, betas=_pair(betas), eps=eps, weight_decay=weight_decay)


@checked
def adamw(
    parameters: list[dict],
    *,
    lr: Positive = 0.003,
    betas: list[Rate] = BETAS,
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.05,
) -> Optimizer:
    """Build Adam with decoupled decay: w -= lr weight_decay w beside Adam's own step (Loshchilov & Hutter, 2019)."""
    return _build(torch.optim.AdamW, parameters, lr=lr, betas=_pair(betas), eps=eps, weight_decay=weight_decay)


def _pair(betas: list[float]) -> tuple[float, float]:
    if len(betas) != 2:
        raise ValueError(f"betas={list(betas)}: must be two numbers, as in [0.9,0.999]")
    return betas[0], betas[1]


def _build(kind: Callable[..., Optimizer], parameters: list[dict], **settings: Any) -> Optimizer:
    """Build the fused form (3 to 5 times faster on a CPU, one launch on a GPU) if every parameter allows it.

    Where nothing decays, one group holds all parameters, in the same order: every group costs a step of its own.
    """
    if settings.get("weight_decay") == 0:
        parameters = [{"params": [parameter for group in parameters for parameter in group["params"]]}]
    places = {(parameter.device, parameter.dtype) for group in parameters for parameter in group["params"]}
    if all(_fuses(kind, *place) for place in places):
        settings["fused"] = True
    return kind(parameters, **settings)


@functools.cache
def _fuses(kind: Callable[..., Optimizer], device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether a fused step works, by taking one on one number: support differs by version, device and dtype."""
    probe = torch.zeros(1, device=device, dtype=dtype, requires_grad=True)
    probe.grad = torch.zeros_like(probe)
    try:
        kind([probe], lr=0.1, fused=True).step()
    except (RuntimeError, TypeError):  # no kernel for this device or dtype; no fused form at all
        return False
    return True

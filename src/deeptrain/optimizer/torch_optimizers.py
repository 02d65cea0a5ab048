"""Optimizers of torch, fused into one kernel where it can."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

from deeptrain.optimizer.direct import DIRECT
from deeptrain.schema import DropRate, NonNegativeFloat, PositiveFloat, UnitFloat, validate_call

BETAS: list[float] = [0.9, 0.999]


@validate_call
def sgd(
    parameters: list[dict],
    *,
    lr: PositiveFloat = 0.1,
    momentum: DropRate = 0.9,
    nesterov: bool = True,
    weight_decay: NonNegativeFloat = 5e-4,
) -> Optimizer:
    """Build SGD: g += weight_decay w; v = momentum v + g; w -= lr (g + momentum v if nesterov else v)."""
    if nesterov and momentum == 0:
        raise ValueError("nesterov=true: needs momentum > 0, or choose nesterov=false")
    settings = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    return build(torch.optim.SGD, parameters, lr=lr, **settings)


@validate_call
def adagrad(
    parameters: list[dict],
    *,
    lr: PositiveFloat = 0.01,
    lr_decay: NonNegativeFloat = 0.0,
    initial_accumulator_value: NonNegativeFloat = 0.0,
    eps: PositiveFloat = 1e-10,
    weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:
    """Build Adagrad: s += g²; w -= lr g / (√s + eps) (Duchi et al., 2011)."""
    settings = {"lr_decay": lr_decay, "initial_accumulator_value": initial_accumulator_value}
    return build(torch.optim.Adagrad, parameters, lr=lr, eps=eps, weight_decay=weight_decay, **settings)


@validate_call
def rmsprop(
    parameters: list[dict],
    *,
    lr: PositiveFloat = 0.001,
    alpha: UnitFloat = 0.99,
    eps: PositiveFloat = 1e-8,
    momentum: DropRate = 0.0,
    centered: bool = False,
    weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:
    """Build RMSprop: s = alpha s + (1 - alpha) g²; w -= lr g / (√s + eps) (Hinton, 2012)."""
    settings = {"alpha": alpha, "momentum": momentum, "centered": centered}
    return build(torch.optim.RMSprop, parameters, lr=lr, eps=eps, weight_decay=weight_decay, **settings)


@validate_call
def adam(
    parameters: list[dict],
    *,
    lr: PositiveFloat = 0.001,
    betas: list[DropRate] = BETAS,
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.0,
) -> Optimizer:
    """Build Adam; weight_decay is an L2 term in the gradient, so the update divides it too (Kingma & Ba, 2015)."""
    return build(torch.optim.Adam, parameters, lr=lr, betas=pair(betas), eps=eps, weight_decay=weight_decay)


@validate_call
def adamw(
    parameters: list[dict],
    *,
    lr: PositiveFloat = 0.003,
    betas: list[DropRate] = BETAS,
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.05,
) -> Optimizer:
    """Build Adam with decoupled decay: w -= lr weight_decay w beside Adam's own step (Loshchilov & Hutter, 2019)."""
    return build(torch.optim.AdamW, parameters, lr=lr, betas=pair(betas), eps=eps, weight_decay=weight_decay)


def pair(betas: list[float]) -> tuple[float, float]:
    if len(betas) != 2:
        raise ValueError(f"betas={list(betas)}: must be two numbers, as in [0.9,0.999]")
    return betas[0], betas[1]


def build(kind: Callable[..., Optimizer], parameters: list[dict], **settings: Any) -> Optimizer:
    """Build the fused form if every parameter allows it: 3 to 5 times faster on a CPU, one launch on a GPU.

    Where nothing decays, one group holds all parameters, in the same order: every group costs a step of its own.
    """
    if settings.get("weight_decay") == 0:
        parameters = [{"params": [parameter for group in parameters for parameter in group["params"]]}]
    pairs = {(parameter.device, parameter.dtype) for group in parameters for parameter in group["params"]}
    if all(fuses(kind, *pair) for pair in pairs):
        settings["fused"] = True
        kind = DIRECT.get(kind, kind) if len(pairs) == 1 else kind
    return kind(parameters, **settings)


@functools.cache
def fuses(kind: Callable[..., Optimizer], device: torch.device, dtype: torch.dtype) -> bool:
    """Tell whether a fused step works, by taking one on one number: support differs by version, device and dtype."""
    probe = torch.zeros(1, device=device, dtype=dtype, requires_grad=True)
    probe.grad = torch.zeros_like(probe)
    try:
        kind([probe], lr=0.1, fused=True).step()
    except (RuntimeError, TypeError):  # no kernel for this device or dtype; no fused form at all
        return False
    return True

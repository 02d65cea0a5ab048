"""Muon: orthogonal steps for hidden weights, AdamW for the rest."""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw as adamw_step

from deeptrain.optimizer.groups import weights_of
from deeptrain.optimizer.torch_optimizers import BETAS, fuses, pair
from deeptrain.schema import DropRate, NonNegativeFloat, PositiveFloat, PositiveInt, validate_call

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # of x, x³ and x⁵: the steepest at 0 (Jordan et al., 2024)


@validate_call
def muon(
    parameters: list[dict],
    *,
    lr: PositiveFloat = 0.02,
    momentum: DropRate = 0.95,
    nesterov: bool = True,
    ns_steps: PositiveInt = 5,
    adamw_lr: PositiveFloat = 0.003,
    betas: list[DropRate] = BETAS,
    eps: PositiveFloat = 1e-8,
    weight_decay: NonNegativeFloat = 0.01,
) -> Optimizer:
    """Build Muon for the hidden weights, AdamW for the output layer (the last weight), norms and biases."""
    weights = [weight for group in parameters for weight in weights_of(group["params"])]
    others = [parameter for group in parameters for parameter in group["params"] if parameter.ndim <= 1]
    rest = {"orthogonal": False, "lr": adamw_lr}
    groups = [
        {"params": weights[:-1]},
        {"params": weights[-1:], **rest},
        {"params": others, **rest, "weight_decay": 0.0},
    ]
    settings = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps, "betas": pair(betas)}
    pairs = {(parameter.device, parameter.dtype) for parameter in [*weights, *others]}
    settings["fused"] = all(fuses(torch.optim.AdamW, *pair) for pair in pairs)
    return Muon([group for group in groups if group["params"]], eps=eps, weight_decay=weight_decay, **settings)


class Muon(Optimizer):
    """Steps of orthogonalized momentum (Jordan et al., 2024), and AdamW in the groups with orthogonal=False.

    v += (1 - momentum) (g - v); w -= lr weight_decay w; w -= lr √max(1, rows / columns) orthogonalize(v, or with
    nesterov g + momentum (v - g)). A convolution is the matrix (out_channels, in_channels · height · width). On
    matrices a step has the bits of torch.optim.Muon, which takes nothing else.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        orthogonal: bool = True,
        fused: bool = False,
    ):
        defaults = {"lr": lr, "weight_decay": weight_decay, "orthogonal": orthogonal}
        defaults |= {"momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps}
        super().__init__(params, defaults | {"betas": betas, "eps": eps, "fused": fused})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        with torch.enable_grad():
            loss = closure() if closure is not None else None
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            (self._step_orthogonal if group["orthogonal"] else self._step_adamw)(group, parameters)
        return loss

    def _step_orthogonal(self, group: dict[str, Any], weights: list[Tensor]) -> None:
        for weight in weights:
            state, gradient = self.state[weight], cast(Tensor, weight.grad)
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(weight)
            momentum = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
            update = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
            matrix = orthogonalize(update.flatten(1), group["ns_steps"])
            scale = math.sqrt(max(1, matrix.shape[0] / matrix.shape[1]))
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(matrix.reshape(weight.shape), alpha=-group["lr"] * scale)

    def _step_adamw(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        for parameter in parameters:
            if "step" not in self.state[parameter]:
                step = torch.zeros((), device=parameter.device if group["fused"] else "cpu")
                moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                self.state[parameter].update(step=step, **moments)
        states = [self.state[parameter] for parameter in parameters]
        means, squares = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        gradients = [cast(Tensor, parameter.grad) for parameter in parameters]
        steps = [state["step"] for state in states]
        settings = {name: group[name] for name in ("lr", "weight_decay", "eps", "fused")}
        settings |= {"beta1": group["betas"][0], "beta2": group["betas"][1], "amsgrad": False, "maximize": False}
        adamw_step(parameters, gradients, means, squares, [], steps, **settings)


def orthogonalize(matrix: Tensor, steps: int) -> Tensor:
    """Bring all singular values near 1 (0.7 to 1.2 after 5 steps), in bf16: the Newton-Schulz iteration."""
    a, b, c = NEWTON_SCHULZ
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.to(torch.bfloat16, copy=True)
    x = x.T if is_tall else x
    x.div_(x.norm().clamp(min=1e-7))  # then none is above 1
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if is_tall else x

"""LARS and LAMB: each layer's step is a share of the norm of its weights, whatever the size of its gradient.

Made for large batches, whose high rates let the layer with the largest gradient diverge first. Norms stay on the
device: no step waits for the host.
"""

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from deeptrain.optimizer.groups import weights_of
from deeptrain.optimizer.torch_optimizers import BETAS, pair
from deeptrain.schema import DropRate, NonNegativeFloat, PositiveFloat, validate_call

Excluded = Literal["norms_and_biases", "none"]


@validate_call
def lars(
    parameters: list[dict],
    *,
    lr: PositiveFloat = 10.0,
    momentum: DropRate = 0.9,
    trust_coefficient: PositiveFloat = 0.001,
    weight_decay: NonNegativeFloat = 5e-4,
    exclude: Excluded = "norms_and_biases",
) -> Optimizer:
    """Build LARS. exclude: what takes the steps of plain momentum, without decay; none: nothing, as in the paper."""
    groups = layerwise_groups(parameters, exclude)
    return LARS(groups, lr=lr, momentum=momentum, trust_coefficient=trust_coefficient, weight_decay=weight_decay)


@validate_call
def lamb(
    parameters: list[dict],
    *,
    lr: PositiveFloat = 0.01,
    betas: list[DropRate] = BETAS,
    eps: PositiveFloat = 1e-6,
    weight_decay: NonNegativeFloat = 0.01,
    exclude: Excluded = "norms_and_biases",
) -> Optimizer:
    """Build LAMB. exclude: what takes the steps of Adam, without decay; none: nothing, as in the paper."""
    return LAMB(layerwise_groups(parameters, exclude), lr=lr, betas=pair(betas), eps=eps, weight_decay=weight_decay)


def layerwise_groups(parameters: list[dict], exclude: Excluded) -> list[dict]:
    """Split parameters into those with a trust ratio of their own, and those without one, which do not decay either."""
    everything = [parameter for group in parameters for parameter in group["params"]]
    if exclude == "none":
        return [{"params": everything, "has_trust_ratio": True}]
    others = [parameter for parameter in everything if parameter.ndim <= 1]
    groups = [
        {"params": weights_of(everything), "has_trust_ratio": True},
        {"params": others, "has_trust_ratio": False, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class Layerwise(Optimizer):
    """A step by groups: `update` moves the parameters of one that have a gradient."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        with torch.enable_grad():
            loss = closure() if closure is not None else None
        for group in self.param_groups:
            if parameters := [parameter for parameter in group["params"] if parameter.grad is not None]:
                self.update(group, parameters, [cast(Tensor, parameter.grad) for parameter in parameters])
        return loss

    def update(self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor]) -> None:
        raise NotImplementedError

    def states(self, parameters: list[Tensor], name: str) -> list[Tensor]:
        """Return a tensor of the state of each parameter; it starts at 0."""
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = torch.zeros_like(parameter)
        return [self.state[parameter][name] for parameter in parameters]


class LARS(Layerwise):
    """Layer-wise adaptive rate scaling (You et al., 2017, algorithm 1). A layer is a tensor of parameters.

    ratio = trust_coefficient |w| / (|g| + weight_decay |w|); v = momentum v + lr ratio (g + weight_decay w); w -= v.
    The ratio is 1 where a norm is 0. As in the paper, the momentum holds the rates of the steps that it remembers.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float = 10.0,
        momentum: float = 0.9,
        trust_coefficient: float = 0.001,
        weight_decay: float = 5e-4,
        has_trust_ratio: bool = True,
    ):
        defaults = {"lr": lr, "momentum": momentum, "trust_coefficient": trust_coefficient}
        super().__init__(params, defaults | {"weight_decay": weight_decay, "has_trust_ratio": has_trust_ratio})

    def update(self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor]) -> None:
        decay, momenta = group["weight_decay"], self.states(weights, "momentum_buffer")
        steps = torch._foreach_add(gradients, weights, alpha=decay)  # pyright: ignore
        if group["has_trust_ratio"]:
            of_weights, of_gradients = norms(weights), norms(gradients)
            ratios = group["trust_coefficient"] * of_weights / (of_gradients + decay * of_weights)
            ratios = torch.where((of_weights > 0) & (of_gradients > 0), ratios, 1.0)
            torch._foreach_mul_(steps, (group["lr"] * ratios).unbind())  # pyright: ignore
        else:
            torch._foreach_mul_(steps, group["lr"])  # pyright: ignore
        torch._foreach_mul_(momenta, group["momentum"])  # pyright: ignore
        torch._foreach_add_(momenta, steps)  # pyright: ignore
        torch._foreach_sub_(weights, momenta)  # pyright: ignore


class LAMB(Layerwise):
    """Layer-wise adaptive moments (You et al., 2020, algorithm 2, with the norm itself as its function phi).

    u = m / (√v + eps) + weight_decay w, with Adam's means m and v without their bias; w -= lr |w| / |u| u. The ratio is
    1 where a norm is 0. Gradients are not clipped here: that is clip_norm.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        has_trust_ratio: bool = True,
    ):
        defaults = {"lr": lr, "betas": betas, "eps": eps}
        super().__init__(params, defaults | {"weight_decay": weight_decay, "has_trust_ratio": has_trust_ratio})

    def update(self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor]) -> None:
        steps = self._adam(group, weights, gradients)
        if group["weight_decay"]:
            torch._foreach_add_(steps, weights, alpha=group["weight_decay"])  # pyright: ignore
        if group["has_trust_ratio"]:
            of_weights, of_steps = norms(weights), norms(steps)
            ratios = torch.where((of_weights > 0) & (of_steps > 0), of_weights / of_steps, 1.0)
            torch._foreach_mul_(steps, (group["lr"] * ratios).unbind())  # pyright: ignore
        else:
            torch._foreach_mul_(steps, group["lr"])  # pyright: ignore
        torch._foreach_sub_(weights, steps)  # pyright: ignore

    def _adam(self, group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor]) -> list[Tensor]:
        """Return m / (√v + eps), without the bias of the first steps."""
        means, squares = (self.states(weights, name) for name in ("exp_avg", "exp_avg_sq"))
        (beta1, beta2), counts = group["betas"], self._count(weights)
        torch._foreach_lerp_(means, gradients, 1 - beta1)  # pyright: ignore
        torch._foreach_mul_(squares, beta2)  # pyright: ignore
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)  # pyright: ignore
        steps = torch._foreach_div(means, [1 - beta1**count for count in counts])  # pyright: ignore
        scales = torch._foreach_div(squares, [1 - beta2**count for count in counts])  # pyright: ignore
        torch._foreach_sqrt_(scales)  # pyright: ignore
        torch._foreach_add_(scales, group["eps"])  # pyright: ignore
        torch._foreach_div_(steps, scales)  # pyright: ignore
        return list(steps)

    def _count(self, weights: list[Tensor]) -> list[float]:
        """Count a step of each weight, on the host; some may join in later than others."""
        counts = [self.state[weight].setdefault("step", torch.zeros(())) for weight in weights]
        torch._foreach_add_(counts, 1)  # pyright: ignore
        return [count.item() for count in counts]


def norms(tensors: list[Tensor]) -> Tensor:
    """Return the L2 norm of each tensor, (n,)."""
    return torch.stack(torch._foreach_norm(tensors))  # pyright: ignore

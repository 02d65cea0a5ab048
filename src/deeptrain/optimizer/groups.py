"""The groups of parameters that an optimizer updates, and what the loop does with them."""

import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

T = TypeVar("T")


def parameter_groups(model: nn.Module) -> list[dict]:
    """Split the trainable parameters into weights, which decay, and norms and biases (one dimension), which do not.

    Both keep the order of `model.named_parameters()`; a group that would be empty is left out.
    """
    trainable = [parameter for _, parameter in model.named_parameters() if parameter.requires_grad]
    weights, others = weights_of(trainable), [parameter for parameter in trainable if parameter.ndim <= 1]
    groups = {"params": weights}, {"params": others, "weight_decay": 0.0}
    return [group for group in groups if group["params"]]


def weights_of(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Pick the weights, which decay and are penalised, from norms and biases, which have one dimension."""
    return [parameter for parameter in parameters if parameter.ndim > 1]


def set_learning_rate(optimizer: Optimizer, factor: float, progress: float = 1.0) -> None:
    """Give every group `factor` times its initial rate. Until its own start, a part of the run in [0, 1], give 0."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor if progress >= group.get("start", 0.0) else 0.0


def unreached_optimizers(optimizer: Optimizer) -> list[str]:
    """Name the attributes that hold an inner optimizer whose groups `set_learning_rate` does not reach."""
    reached = {id(group) for group in optimizer.param_groups}
    return [
        name
        for name, value in vars(optimizer).items()
        for inner in _optimizers_in(value)
        if any(id(group) not in reached for group in inner.param_groups)
    ]


def _optimizers_in(value: Any) -> Iterator[Optimizer]:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
    yield from (item for item in items if isinstance(item, Optimizer))


def scale_rates(optimizer: Optimizer, factors: Iterable[tuple[Tensor, float]], start: float = 0.0) -> None:
    """Give parameters so many times their rate, in groups of their own behind those of the others.

    start: the part of the run, in [0, 1], until which these parameters keep still.
    """
    factor_of = {id(parameter): factor for parameter, factor in factors}
    groups, optimizer.param_groups[:] = list(optimizer.param_groups), []
    for factor in (None, *sorted(set(factor_of.values()), reverse=True)):
        for group in groups:
            if own := [parameter for parameter in group["params"] if factor_of.get(id(parameter)) == factor]:
                changed = {} if factor is None else {"lr": group["lr"] * factor, "start": start}
                optimizer.param_groups.append({**group, "params": own, **changed})


def multiply_rates(optimizer: Optimizer, factor: float) -> None:
    """Give every group `factor` times its rate."""
    for group in optimizer.param_groups:
        group["lr"] *= factor


def batch_factor(rule: Literal["none", "linear", "sqrt"], batch_size: int, base_batch: int) -> float:
    """Return what a rate meant for base_batch images a step is multiplied by, for batch_size of them.

    linear: batch_size / base_batch, for SGD (Goyal et al., 2017); sqrt: its root, for Adam (Malladi et al., 2022).
    """
    ratio = batch_size / base_batch
    return {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[rule]


def zero_grad(parameters: list[Tensor]) -> None:
    """Drop the gradients; 6 us faster than optimizer.zero_grad()."""
    for parameter in parameters:
        parameter.grad = None


def start_momenta(optimizer: Optimizer) -> None:
    """Give SGD the momenta 0 that it lacks; a first step from there has the same bits.

    In fp16 the scaler may leave out the first step. The fused kernel then goes on with uninitialized memory.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] and not group["dampening"] else ():
            state = optimizer.state[parameter]
            if state.get("momentum_buffer") is None:
                state["momentum_buffer"] = torch.zeros_like(parameter)


def needs_closure(optimizer: Optimizer) -> bool:
    """Tell whether a step evaluates the loss several times by itself (torch.optim.LBFGS)."""
    parameter = inspect.signature(optimizer.step).parameters.get("closure")
    return parameter is not None and parameter.default is parameter.empty


def closure(
    parameters: list[Tensor], compute_gradient: Callable[[], T], outputs: T, total_loss: Callable[[T], float]
) -> Callable[[], float]:
    """Return the closure of a step: it computes loss and gradient anew at each call.

    The first call is at the weights whose outputs are known, so nothing is computed. Gradients are made contiguous:
    LBFGS cannot read those of channels_last weights.
    """
    known = [outputs]

    def evaluate() -> float:
        outputs = known.pop() if known else compute_gradient()
        for parameter in parameters:
            parameter.grad = parameter.grad.contiguous() if parameter.grad is not None else None
        return total_loss(outputs)

    return evaluate

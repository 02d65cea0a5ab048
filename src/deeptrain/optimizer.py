"""Optimizers, fused into one kernel where torch can, and the groups of parameters that they update."""

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw as adamw_step

from deeptrain.schema import DropRate, NonNegativeFloat, PositiveFloat, PositiveInt, UnitFloat, validate_call

T = TypeVar("T")

BETAS: list[float] = [0.9, 0.999]
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # of x, x³ and x⁵: the steepest at 0 (Jordan et al., 2024)


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


def set_learning_rate(optimizer: Optimizer, factor: float) -> None:
    """Give every group `factor` times its initial rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


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


def scale_rate(optimizer: Optimizer, parameters: Iterable[Tensor], factor: float) -> None:
    """Give some of the parameters `factor` times the rate of the others, which come first, in groups of their own."""
    slower = {id(parameter) for parameter in parameters}
    groups, optimizer.param_groups[:] = list(optimizer.param_groups), []
    for is_slower in (False, True):
        for group in groups:
            if own := [parameter for parameter in group["params"] if (id(parameter) in slower) == is_slower]:
                rate = group["lr"] * (factor if is_slower else 1)
                optimizer.param_groups.append({**group, "params": own, "lr": rate})


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
    return _build(torch.optim.SGD, parameters, lr=lr, **settings)


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
    return _build(torch.optim.Adagrad, parameters, lr=lr, eps=eps, weight_decay=weight_decay, **settings)


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
    return _build(torch.optim.RMSprop, parameters, lr=lr, eps=eps, weight_decay=weight_decay, **settings)


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
    return _build(torch.optim.Adam, parameters, lr=lr, betas=_pair(betas), eps=eps, weight_decay=weight_decay)


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
    return _build(torch.optim.AdamW, parameters, lr=lr, betas=_pair(betas), eps=eps, weight_decay=weight_decay)


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
    settings = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps, "betas": _pair(betas)}
    pairs = {(parameter.device, parameter.dtype) for parameter in [*weights, *others]}
    settings["fused"] = all(_fuses(torch.optim.AdamW, *pair) for pair in pairs)
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


def _pair(betas: list[float]) -> tuple[float, float]:
    if len(betas) != 2:
        raise ValueError(f"betas={list(betas)}: must be two numbers, as in [0.9,0.999]")
    return betas[0], betas[1]


def _build(kind: Callable[..., Optimizer], parameters: list[dict], **settings: Any) -> Optimizer:
    """Build the fused form if every parameter allows it: 3 to 5 times faster on a CPU, one launch on a GPU.

    Where nothing decays, one group holds all parameters, in the same order: every group costs a step of its own.
    """
    if settings.get("weight_decay") == 0:
        parameters = [{"params": [parameter for group in parameters for parameter in group["params"]]}]
    pairs = {(parameter.device, parameter.dtype) for group in parameters for parameter in group["params"]}
    if all(_fuses(kind, *pair) for pair in pairs):
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

"""What changes the weights: the optimizer with its groups and rates, and the gradient that it takes."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deeptrain.build.setup import Setup
from deeptrain.config.instantiate import instantiate, locate
from deeptrain.errors import UsageError

if TYPE_CHECKING:  # a part that needs no torch is built without importing it
    from torch import nn
    from torch.optim import Optimizer

    from deeptrain.training.trainer import Gradient


def make_optimizer(setup: Setup, network: "nn.Module") -> "Optimizer":
    """Build the optimizer: with weight decay it gets two groups of parameters, else one."""
    from deeptrain.optimizer import multiply_rates, needs_closure, parameter_groups, unreached_optimizers

    node = setup.run.parts["optimizer"]
    groups = parameter_groups(network)
    if not _decays(node):
        groups = [{"params": [parameter for parameter in network.parameters() if parameter.requires_grad]}]
    optimizer = instantiate("optimizer", node, parameters=groups)
    if needs_closure(optimizer):
        _check_closure(setup)
    multiply_rates(optimizer, setup.rate_factor)
    _scale_backbone(setup, network, optimizer)
    setup.warnings += [
        f"optimizer={setup.run.choices['optimizer']}: the schedule does not reach {name}, an optimizer in it; "
        f"put the groups of {name} into its own param_groups"
        for name in unreached_optimizers(optimizer)
    ]
    return optimizer


def rates_of(setup: Setup, network: "nn.Module") -> Callable[[float], list[float]]:
    """Return what tells the rate of each group of parameters for another optimizer.lr.

    It is a straight line: some groups, such as AdamW's in Muon, have a rate of their own.
    """

    def rates(lr: float) -> list[float]:
        parts = {**setup.run.parts, "optimizer": {**setup.run.parts["optimizer"], "lr": lr}}
        other = replace(setup, run=replace(setup.run, parts=parts), warnings=[])
        return [group["lr"] for group in make_optimizer(other, network).param_groups]

    low, high = 0.001, 0.002
    lines = [(rate, (other - rate) / (high - low)) for rate, other in zip(rates(low), rates(high), strict=True)]
    return lambda lr: [rate + slope * (lr - low) for rate, slope in lines]


def _scale_backbone(setup: Setup, network: "nn.Module", optimizer: "Optimizer") -> None:
    """Give the layers below the head their own rates and start; UsageError if they are not known, or not possible."""
    from deeptrain.model.freezing import layer_rates
    from deeptrain.optimizer import needs_closure, scale_rates

    finetune = setup.run.settings.finetune
    changed = [
        f"finetune.{name}={getattr(finetune, name):g}"
        for name, neutral in (("head_only", 0), ("backbone_lr_factor", 1), ("decay", 1))
        if getattr(finetune, name) != neutral
    ]
    if not changed or finetune.head_only == 1:
        return
    try:
        if needs_closure(optimizer):
            raise ValueError(f"does not go with optimizer={setup.run.choices['optimizer']}, which has one rate for all")
        factors = layer_rates(network, len(setup.dataset.classes), finetune.backbone_lr_factor, finetune.decay)
    except ValueError as error:
        raise UsageError([f"{changed[0]}: {error}"]) from error
    scale_rates(optimizer, factors, finetune.head_only)


def make_gradient(setup: Setup, network: "nn.Module", optimizer: "Optimizer") -> "Gradient":
    from deeptrain.gradient import plain_gradient

    if not (node := setup.run.parts["gradient"]):
        return plain_gradient
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return instantiate("gradient", node, model=network, parameters=parameters)


def _decays(node: Mapping[str, Any]) -> bool:
    """Tell whether an optimizer has weight decay, for which parameters are grouped. Some take one group only."""
    parameters = inspect.signature(locate("optimizer", node["_target_"])).parameters.values()
    return any(p.name == "weight_decay" or p.kind == p.VAR_KEYWORD for p in parameters)


def _check_closure(setup: Setup) -> None:
    """Raise UsageError if the gradient is not that of the loss, which a line search compares."""
    choices = setup.run.choices
    if setup.runtime.precision == "fp16":
        raise UsageError([f"optimizer={choices['optimizer']}: does not go with precision=fp16; write precision=fp32"])
    if setup.run.parts["gradient"]:
        reason = "which changes the gradient that its line search needs"
        message = f"optimizer={choices['optimizer']}: does not go with gradient={choices['gradient']}, {reason}"
        raise UsageError([f"{message}; write gradient=none"])

"""Parts of a network that do not learn, or learn slower than its head."""

from collections.abc import Iterator, Sequence
from functools import partial

from torch import nn
from torch.nn import Parameter
from torch.nn.modules.batchnorm import _BatchNorm

from deeptrain.model.head import head_name, is_in
from deeptrain.schema import suggest

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def freeze(model: nn.Module, parts: Sequence[str]) -> None:
    """Freeze parts of a model by name: no gradient, and their batch norms and dropout stay in evaluation mode.

    Weights and buffers keep their bits. Raises ValueError for a part that is not there, or if nothing is left to train.
    """
    known = {name for name, _ in [*model.named_modules(), *model.named_parameters()] if name}
    for name in parts:
        if name not in known:
            raise ValueError(f"no part is {name}; {suggest(name, (child for child, _ in model.named_children()))}")
    for name, parameter in model.named_parameters():
        if any(is_in(name, part) for part in parts):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("leaves nothing to train; name fewer parts")
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            _keep_in_evaluation(module)


def freeze_norms(model: nn.Module) -> None:
    """Let all batch norms keep their statistics, and use them in training. Scale and shift go on learning."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            _keep_in_evaluation(module)


def _keep_in_evaluation(module: nn.Module) -> None:
    module.eval()
    module.train = partial(_stay, module)  # the loop calls model.train(), which calls that of every part


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


def backbone(model: nn.Module, num_classes: int) -> list[str]:
    """Return the names of all parameters but those of the head; ValueError if no layer is the head."""
    head = head_name(model, num_classes)
    if head is None:
        options = ",".join(name for name, _ in model.named_children())
        raise ValueError(
            f"no layer has {num_classes} outputs, one a class; name the parts, finetune.freeze=[{options}]"
        )
    return [name for name, _ in model.named_parameters() if not is_in(name, head)]


def layer_rates(model: nn.Module, num_classes: int, factor: float, decay: float) -> list[tuple[Parameter, float]]:
    """Return each parameter below the head with the factor of its rate: `factor`, times `decay` a layer downwards.

    Layer l of L has factor * decay^(L - l) (Howard & Ruder, 2018; Clark et al., 2020). Raises ValueError if no layer
    is the head.
    """
    layers = layers_of(model, set(backbone(model, num_classes)))
    depth = len(layers)
    return [
        (model.get_parameter(name), factor * decay ** (depth - level))
        for level, names in enumerate(layers)
        for name in names
    ]


def layers_of(model: nn.Module, names: set[str]) -> list[list[str]]:
    """Divide parameters among layers, lowest first: a block of a network, or a layer of weights outside of any.

    A norm outside of a block belongs to the layer before it. So does a parameter of a container's own, such as an
    embedding of positions; the first of them belong to the layer behind them.
    """
    layers: list[list[str]] = []
    first: list[str] = []
    for is_block, members in _units(model, ""):
        own = [name for name in members if name in names]
        if own and is_block and (not layers or any(model.get_parameter(name).ndim > 1 for name in own)):
            layers.append([*first, *own])
            first = []
        else:
            (layers[-1] if layers else first).extend(own)
    return [*layers, first] if first else layers


def _units(module: nn.Module, path: str) -> Iterator[tuple[bool, list[str]]]:
    """Yield the parameter names of each block of a module, or layer outside of blocks; False for a container's own."""
    if path and not _holds_blocks(module):
        yield True, [f"{path}{name}" for name, _ in module.named_parameters()]
        return
    yield False, [f"{path}{name}" for name, _ in module.named_parameters(recurse=False)]
    for name, child in module.named_children():
        yield from _units(child, f"{path}{name}.")


def _holds_blocks(module: nn.Module) -> bool:
    """Tell whether a module is a stack: a container, or it has one in which blocks of one class repeat."""
    if isinstance(module, CONTAINERS):
        return True
    stacks = (child for child in module.children() if isinstance(child, CONTAINERS))
    return any(_repeats_block(stack) for stack in stacks)


def _repeats_block(stack: nn.Module) -> bool:
    kinds = [type(child) for child in stack.children() if any(True for _ in child.children())]
    kinds = [kind for kind in kinds if not issubclass(kind, CONTAINERS)]
    return len(kinds) > len(set(kinds))

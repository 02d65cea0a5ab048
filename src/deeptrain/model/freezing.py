"""Parts of a network that do not learn: no gradient, and their batch norms and dropout stay in evaluation mode."""

from collections.abc import Sequence
from functools import partial

from torch import nn

from deeptrain.model.head import head_name, is_in
from deeptrain.schema import suggest


def freeze(model: nn.Module, parts: str | Sequence[str], num_classes: int) -> None:
    """Freeze parts of a model by name, or "backbone": all but the head. Weights and buffers keep their bits.

    Raises ValueError for a part that is not there, or if nothing is left to train.
    """
    names = backbone(model, num_classes) if parts == "backbone" else list(parts)
    known = {name for name, _ in [*model.named_modules(), *model.named_parameters()] if name}
    for name in names:
        if name not in known:
            raise ValueError(suggest(name, (child for child, _ in model.named_children())))
    for name, parameter in model.named_parameters():
        if any(is_in(name, part) for part in names):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("leaves nothing to train; name fewer parts")
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
            module.train = partial(_stay, module)  # the loop calls model.train(), which calls that of every part


def backbone(model: nn.Module, num_classes: int) -> list[str]:
    """Return the names of all parameters but those of the head; ValueError if no layer is the head."""
    head = head_name(model, num_classes)
    if head is None:
        options = ",".join(name for name, _ in model.named_children())
        raise ValueError(f"no layer has {num_classes} outputs, one a class; name parts of [{options}]")
    return [name for name, _ in model.named_parameters() if not is_in(name, head)]


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    return module

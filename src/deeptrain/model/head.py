"""The head of a network, the layer that gives the logits; the rest is its backbone."""

from torch import nn

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


def head_name(model: nn.Module, num_classes: int) -> str | None:
    """Return the name of the head: the last linear layer or convolution with an output for each class, if any."""
    layers = [(name, module.weight) for name, module in model.named_modules() if isinstance(module, LAYERS)]
    return next((name for name, weight in reversed(layers) if len(weight) == num_classes), None)


def is_in(name: str, module: str | None) -> bool:
    """Tell whether the name of a parameter, buffer or module is that of `module` or of something within it."""
    return module is not None and f"{name}.".startswith(f"{module}." if module else "")

"""Where a value that is neither inf nor NaN should have been, and is not."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def not_finite(values: Mapping[str, Tensor | float]) -> list[str]:
    """Name the tensors and numbers that hold an inf or a NaN, with one wait for each device."""
    real = {name: value for name, value in values.items() if isinstance(value, Tensor) and value.is_floating_point()}
    sound = {name: math.isfinite(value) for name, value in values.items() if not isinstance(value, Tensor)}
    for device in {tensor.device for tensor in real.values()}:
        there = {name: tensor.detach().isfinite().all() for name, tensor in real.items() if tensor.device == device}
        sound |= zip(there, torch.stack(list(there.values())).tolist(), strict=True)
    return [name for name in values if not sound.get(name, True)]


def first_layer(network: nn.Module, images: Tensor) -> str | None:
    """Run a network forward and name the layer that is the first to give out what is not finite."""
    found: list[str] = []

    def look(name: str) -> None:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if not found and isinstance(output, Tensor) and not_finite({name: output}):
                found.append(name)

        hooks.append(layers[name].register_forward_hook(hook))

    hooks: list = []
    layers = {name: module for name, module in network.named_modules() if name and not list(module.children())}
    try:
        for name in layers:
            look(name)
        with torch.no_grad():
            network(images)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def state_values(state: object, prefix: str = "") -> dict[str, Tensor | float]:
    """Return every tensor and every real number of nested dicts and lists by its path."""
    if isinstance(state, Tensor | float):
        return {prefix: state}
    parts = state.items() if isinstance(state, Mapping) else enumerate(state) if isinstance(state, list | tuple) else ()
    return {
        path: value for key, part in parts for path, value in state_values(part, f"{prefix}.{key}".lstrip(".")).items()
    }

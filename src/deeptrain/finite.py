"""Where a value that is neither inf nor NaN should have been, and is not."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Name the tensors that hold an inf or a NaN, with one wait for the device."""
    real = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    if not real:
        return []
    sound = torch.stack([tensor.detach().isfinite().all() for tensor in real.values()]).tolist()
    return [name for name, is_sound in zip(real, sound, strict=True) if not is_sound]


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


def state_tensors(state: object, prefix: str = "") -> dict[str, Tensor]:
    """Return every tensor of nested dicts and lists by its path."""
    if isinstance(state, Tensor):
        return {prefix: state}
    parts = state.items() if isinstance(state, Mapping) else enumerate(state) if isinstance(state, list | tuple) else ()
    return {
        path: tensor
        for key, part in parts
        for path, tensor in state_tensors(part, f"{prefix}.{key}".lstrip(".")).items()
    }

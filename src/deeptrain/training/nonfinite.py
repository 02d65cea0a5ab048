"""Finding values that are inf or NaN."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from deeptrain.runtime.world import SINGLE, World


class NonFiniteError(RuntimeError):
    """A value has become inf or NaN since the last checkpoint."""


def check_finite(state: object, world: World = SINGLE) -> None:
    """Raise NonFiniteError if a tensor or number of nested dicts and lists is inf or NaN on any rank."""
    names = not_finite(state_values(state))
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    message = f"{names[0].removeprefix('model.')}{more} is not finite" if names else None
    if message := world.first_message(message):
        raise NonFiniteError(message)


def not_finite(values: Mapping[str, Tensor | float]) -> list[str]:
    """Name the tensors and numbers that hold an inf or a NaN. The host waits once for each device."""
    real = {name: value for name, value in values.items() if isinstance(value, Tensor) and value.is_floating_point()}
    is_finite = {name: math.isfinite(value) for name, value in values.items() if not isinstance(value, Tensor)}
    for device in {tensor.device for tensor in real.values()}:
        on_device = {name: tensor.detach().isfinite().all() for name, tensor in real.items() if tensor.device == device}
        is_finite |= zip(on_device, torch.stack(list(on_device.values())).tolist(), strict=True)
    return [name for name in values if not is_finite.get(name, True)]


def first_layer(network: nn.Module, images: Tensor) -> str | None:
    """Run a network forward; name the first layer whose output is not finite, None if there is none."""
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

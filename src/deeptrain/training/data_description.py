"""What a checkpoint says of the data that it was trained on."""

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from deeptrain.data.decode import MAX_SIDE


def describes_data(state: Mapping[str, Any]) -> bool:
    """Say whether a checkpoint tells the classes, a shape and the statistics of each channel, and sane ones."""
    classes, shape = state.get("classes"), state.get("input_shape")
    if not is_shape(shape):
        return False
    statistics, whitening = [state.get(name) for name in ("mean", "std")], state.get("whitening") or {}
    values = math.prod(shape)
    return (
        isinstance(classes, list)
        and bool(classes)
        and all(isinstance(name, str) for name in classes)
        and all(isinstance(values, list) and len(values) == shape[0] for values in statistics)
        and all(isinstance(value, float) and math.isfinite(value) for values in statistics for value in values or [])
        and all(value > 0 for value in state["std"])
        and isinstance(whitening, dict)
        and {name: getattr(part, "shape", ()) for name, part in whitening.items()}
        in ({}, {"weight": (values, values), "bias": (values,)})
    )


def is_shape(shape: Any) -> TypeGuard[list[int]]:
    """Say whether this is the shape (C, H, W) of an input that fits into memory."""
    is_triple = isinstance(shape, list) and len(shape) == 3
    return is_triple and all(isinstance(side, int) and 0 < side <= MAX_SIDE for side in shape)

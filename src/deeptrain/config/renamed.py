"""Names of older versions that still work, for one minor release: modules in a `_target_`."""

from collections.abc import MutableMapping
from typing import Any

MODULES = {  # 0.3.0: now
    "deeptrain.aug.crop": "deeptrain.aug.random_crop",
    "deeptrain.aug.scale_crop": "deeptrain.aug.random_resized_crop",
    "deeptrain.aug.gray": "deeptrain.aug.random_grayscale",
    "deeptrain.aug.blur": "deeptrain.aug.gaussian_blur",
}


def update_targets(tree: MutableMapping[str, Any]) -> None:
    """Replace old modules by new ones in every `_target_` of a configuration, in place."""
    for key, value in tree.items():
        if isinstance(value, MutableMapping):
            update_targets(value)
        elif key == "_target_" and isinstance(value, str):
            module, _, name = value.rpartition(".")
            tree[key] = f"{MODULES.get(module, module)}.{name}"

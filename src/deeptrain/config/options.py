"""The groups of configs/ and their options: YAML files, ours and those of a --config-dir."""

import functools
from pathlib import Path

from deeptrain.runtime.resources import CONFIGS

MISSING = object()


def options(group: str, searchpath: tuple[str, ...] = ()) -> list[str]:
    """List the options of a group: the YAML files in its folder, those in folders below it as folder/name.

    A file whose name starts with _ is no option, but what others are built upon.
    """
    found = set()
    for folder in (CONFIGS, *map(Path, searchpath)):
        base = folder / group
        files = [path for path in base.rglob("*.yaml") if not path.name.startswith("_")]
        found |= {str(path.relative_to(base).with_suffix("")) for path in files}
    return sorted(found)


@functools.cache
def groups(searchpath: tuple[str, ...] = ()) -> list[str]:
    """List the groups: the folders of configs/."""
    folders = [path for folder in (CONFIGS, *map(Path, searchpath)) if folder.is_dir() for path in folder.iterdir()]
    return sorted({path.name for path in folders if path.is_dir() and path.name[0] not in "._"})


def options_with(key: str) -> list[str]:
    """Name the options of the key's group that have this setting. Only files with its name in their text are parsed."""
    from omegaconf import DictConfig, OmegaConf

    group, _, rest = key.partition(".")
    wanted = rest.split(".")
    found = []
    for option in options(group) if group in groups() and rest and rest != "_target_" else []:
        text = (CONFIGS / group / f"{option}.yaml").read_text("utf-8")
        if any(name not in text for name in wanted):
            continue
        node = OmegaConf.create(text)
        for name in wanted:
            node = node[name] if isinstance(node, DictConfig) and name in node else MISSING
        found += [] if node is MISSING else [f"{group}={option}"]
    return found

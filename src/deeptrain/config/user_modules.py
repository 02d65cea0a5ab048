"""Modules of your own, in the folder of --config-dir or beside it: importable without installing them."""

import sys
from collections.abc import Iterable, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from deeptrain.errors import UsageError
from deeptrain.runtime.paths import read_path

CONFIG_DIR = "--config-dir="


def split_config_dirs(words: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Separate the folders of --config-dir=DIR from the other words of a command, and make their modules importable.

    They are made absolute, since a run remembers them among its words and may be resumed from elsewhere.
    """
    folders = [word.removeprefix(CONFIG_DIR) for word in words if word.startswith(CONFIG_DIR)]
    if absent := [folder for folder in folders if not folder or not _is_folder(folder)]:
        raise UsageError(
            f"{CONFIG_DIR}{folder}: is no folder; name the one that holds model/, aug/, ... of your own"
            for folder in absent
        )
    config_dirs = tuple(dict.fromkeys(str(read_path(folder).resolve()) for folder in folders))
    _make_importable(config_dirs)
    return [word for word in words if not word.startswith(CONFIG_DIR)], config_dirs


def _is_folder(text: str) -> bool:
    try:
        return read_path(text).is_dir()
    except (ValueError, OSError):
        return False


def _make_importable(config_dirs: Iterable[str]) -> None:
    """Let modules in these folders and beside them be imported. Installed modules of the same name come first."""
    for folder in _import_paths(config_dirs):
        if folder not in sys.path:
            sys.path.append(folder)


def is_user_module(module: str, config_dirs: Iterable[str]) -> bool:
    """Tell whether a dotted module is found in these folders or beside them, and nowhere before."""
    package = module.partition(".")[0]
    spec = None if package in sys.builtin_module_names else PathFinder.find_spec(package)
    paths = (spec.submodule_search_locations or [spec.origin or ""]) if spec else []
    found = {str(Path(path).parent) for path in paths}
    return bool(found) and found <= set(_import_paths(config_dirs))


def _import_paths(config_dirs: Iterable[str]) -> list[str]:
    return [str(path) for folder in config_dirs for path in (Path(folder), Path(folder).parent)]

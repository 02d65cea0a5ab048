"""Modules of your own, in the folder of --config-dir or beside it: importable without installing them."""

import sys
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path


def make_importable(config_dirs: Iterable[str]) -> None:
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

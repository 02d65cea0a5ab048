"""Reading what a run folder holds. It may be a stranger's: this file is the trust boundary."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from deeptrain.config.override import override_key
from deeptrain.config.renamed import translate_saved
from deeptrain.errors import UsageError

MAX_JSON_BYTES = 64 * 2**20
MAX_YAML_BYTES = 2**18  # it is read a thousand times more slowly
MAX_OVERRIDES, MAX_OVERRIDE_CHARACTERS = 1000, 10_000
CODE_KEYS = ("allow_targets", "--config-dir", "-cd")  # settings that could run any code


def load_overrides(folder: Path, now: Sequence[str] = ()) -> list[str]:
    """Read the overrides that a run was started with, without those that write elsewhere.

    now: the overrides typed now. One that could run any code (allow_targets, --config-dir) raises UsageError unless it
    is typed now too. Only the overrides typed now decide what is downloaded (data.download) and where files are written
    (dir, and cache_dir unless it is a cache already).
    """
    path = folder / "overrides.yaml"
    try:
        words = yaml.safe_load(_read_text(path, MAX_YAML_BYTES)) or []
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError([f"{path}: is no list of settings ({str(error).partition(chr(10))[0]})"]) from None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UsageError([f"{path}: is not a list of settings"])
    if len(words) > MAX_OVERRIDES or any(
        len(word) > MAX_OVERRIDE_CHARACTERS or not word.isprintable() for word in words
    ):
        raise UsageError([f"{path}: holds what no command line would; is it from a run of deeptrain?"])
    typed = {override_key(word) for word in now}
    for word in words:
        if override_key(word) in CODE_KEYS and override_key(word) not in typed:
            raise UsageError(
                [f"{path}: asks for {word}, by which it could run any code; if you trust it, add this word"]
            )
    return [word for word in words if override_key(word) not in CODE_KEYS and not writes_elsewhere(word)]


def load_config(folder: Path) -> dict[str, Any]:
    """Read the whole configuration of a run; {} if it has none."""
    path = folder / "config.yaml"
    return parse_config(_read_text(path, MAX_YAML_BYTES), str(path)) if path.is_file() else {}


def parse_config(text: str, name: str) -> dict[str, Any]:
    """Parse a configuration and translate its old names; UsageError naming `name` if it is not one."""
    try:
        settings = yaml.safe_load(text) or {}
    except (yaml.YAMLError, RecursionError, ValueError):
        settings = None
    if not isinstance(settings, dict):
        raise UsageError([f"{name}: is damaged; move it away"])
    return translate_saved(settings)


def writes_elsewhere(word: str) -> bool:
    if override_key(word) == "cache_dir":
        return not any(Path(word.partition("=")[2]).expanduser().glob("*/entry.json"))
    return override_key(word) in ("data.download", "dir", "resume", "resume_changed", "rerun")


def read_json(path: Path, kind: type, empty: Any) -> Any:
    """Read a JSON file of a run; `empty` if there is none, UsageError if it holds another kind."""
    if not path.is_file():
        return empty
    try:
        content = json.loads(_read_text(path, MAX_JSON_BYTES))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, kind):
        raise UsageError([f"{path}: is damaged; move it away"])
    return content


def _read_text(path: Path, most: int) -> str:
    try:
        if path.stat().st_size > most:
            raise UsageError([f"{path}: is too large to be of a run of deeptrain"])
        return path.read_text("utf-8")
    except OSError as error:
        raise UsageError([f"{path}: cannot be read ({error.strerror})"]) from None
    except UnicodeDecodeError:
        raise UsageError([f"{path}: is no text"]) from None


def check_own_files(folders: list[Path], key: str) -> None:
    """Raise UsageError if a file in the folders is a link: it could lead a write to anywhere."""
    for entry in [entry for folder in folders for entry in os.scandir(folder)]:
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            raise UsageError([f"{key}: {entry.path} is a link or no file; put the file itself there"])

"""Reading what a run folder holds. It may be a stranger's: this file is the trust boundary."""

import copy
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from deeptrain.config.override import override_key, override_value
from deeptrain.config.renamed import translate_saved
from deeptrain.errors import UsageError
from deeptrain.runtime.paths import read_path

MAX_JSON_BYTES = 16 * 2**20  # of a split: over a million images held out
MAX_JSON_BRACKETS, MAX_JSON_QUOTES = 2**17, 2**20  # what they enclose takes thirty times its bytes
MAX_YAML_BYTES = 2**18  # it is read a thousand times more slowly
MAX_NUMBER_CHARACTERS = 40  # what is longer is text
YAML_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float")}  # besides text: no dates
NETWORK_WORDS = ("--config-dir", "allow_targets", "cache_dir", "data", "device", "model.test_samples", "precision")
MAX_OVERRIDES, MAX_OVERRIDE_CHARACTERS = 1000, 10_000
REMEDY = "move it away"
OVERRIDES_REMEDY = "write the settings of its command into that file, a line each, as - epochs=3"
TRUSTED = {  # settings that a folder may not decide, and what they could do
    "allow_targets": "run any code",
    "--config-dir": "run any code",
    "-cd": "run any code",
    "loggers.mlflow.tracking_uri": "send what the run measures elsewhere",
    "loggers.wandb.entity": "send what the run measures elsewhere",
}


def load_overrides(folder: Path, now: Sequence[str] = ()) -> list[str]:
    """Read the overrides that a run was started with, without those that write elsewhere.

    now: the overrides typed now. One of TRUSTED raises UsageError unless it is typed now too. Only the overrides typed
    now decide what is downloaded (data.download) and where files are written. The latter are dir, and cache_dir unless
    it is a cache already.
    """
    path, words = folder / "overrides.yaml", read_overrides(folder)
    check_trusted(path, words, now)
    return [word for word in words if override_key(word) not in TRUSTED and not writes_elsewhere(word)]


def check_trusted(path: Path, words: Iterable[str], now: Iterable[str]) -> None:
    """Raise UsageError if a file has a setting of TRUSTED that is not typed now too."""
    typed = {override_key(word) for word in now}
    for word in words:
        if (key := override_key(word)) in TRUSTED and key not in typed:
            ask = f"asks for {word}, by which it could {TRUSTED[key]}"
            raise UsageError([f"{path}: {ask}; if you trust it, add this word"])


def read_overrides(folder: Path) -> list[str]:
    """Read the overrides that a run was started with, all of them."""
    path = folder / "overrides.yaml"
    words = _parse_yaml(_read_text(path, MAX_YAML_BYTES, OVERRIDES_REMEDY), str(path), OVERRIDES_REMEDY)
    if not isinstance(words, list) or not all(isinstance(word, str) and _is_setting(word) for word in words):
        raise UsageError([f"{path}: is not a list of settings; {OVERRIDES_REMEDY}"])
    if len(words) > MAX_OVERRIDES or any(len(word) > MAX_OVERRIDE_CHARACTERS for word in words):
        raise UsageError([f"{path}: holds what no command line would; {OVERRIDES_REMEDY}"])
    return words


def check_read(words: Sequence[str], what: str, read: Sequence[str]) -> None:
    """Raise UsageError for words that the command does not read."""
    keys = {word: word.lstrip("+").partition("=")[0] for word in words}
    unread = [word for word, key in keys.items() if not {key, key.partition(".")[0]} & set(read)]
    if unread:
        raise UsageError(f"{word}: {what} does not read it; it takes {', '.join(read[1:])}" for word in unread)


def load_config(folder: Path) -> dict[str, Any]:
    """Read the whole configuration of a run; {} if it has none."""
    path = folder / "config.yaml"
    if not path.is_file():
        return {}
    settings = parse_config(_read_text(path, MAX_YAML_BYTES), str(path))
    if missing := [name for name in ("data", "model", "optimizer") if not isinstance(settings.get(name), dict)]:
        raise UsageError([f"{path}: is damaged (it has no {', '.join(missing)}); {REMEDY}"])
    return settings


def parse_config(text: str, name: str) -> dict[str, Any]:
    """Parse a configuration and translate its old names; UsageError naming `name` if it is not one."""
    settings = _parse_yaml(text, name, REMEDY) or {}
    if not isinstance(settings, dict):
        raise UsageError([f"{name}: is not a table of settings; {REMEDY}"])
    return translate_saved(settings)


def _is_setting(word: str) -> bool:
    return "=" in word or word.startswith("~")


def writes_elsewhere(word: str) -> bool:
    if override_key(word) == "cache_dir":
        return not _is_cache(override_value(word))
    return override_key(word) in ("data.download", "dir", "resume", "resume_changed", "rerun")


def _is_cache(text: str) -> bool:
    try:
        return any(read_path(text).glob("*/entry.json"))
    except (ValueError, OSError):
        return False


def read_json(path: Path, kind: type, empty: Any) -> Any:
    """Read a JSON file of a run; `empty` if there is none, UsageError if it holds another kind."""
    if not path.is_file():
        return empty
    text = _read_text(path, MAX_JSON_BYTES)
    try:
        if text.count("[") + text.count("{") > MAX_JSON_BRACKETS or text.count('"') > MAX_JSON_QUOTES:
            raise ValueError("holds too much")
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, kind):
        raise UsageError([f"{path}: is damaged; {REMEDY}"])
    return content


def times_opened(folder: Path, split: str) -> int:
    """Return how often a split was opened with the weights of a run."""
    entries = read_json(folder / "evaluation.json", list, [])
    return sum(isinstance(earlier, dict) and earlier.get("split") == split for earlier in entries)


def _read_text(path: Path, most: int, remedy: str = REMEDY) -> str:
    """Read a text of at most so many bytes; UsageError naming the file if it is larger, unreadable or no text."""
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise UsageError([f"{path}: is too large to be of a run of deeptrain; {remedy}"])
        return content.decode()
    except OSError as error:
        raise UsageError([f"{path}: cannot be read ({error.strerror}); {remedy}"]) from None
    except UnicodeDecodeError:
        raise UsageError([f"{path}: is no text; {remedy}"]) from None


def _parse_yaml(text: str, name: str, remedy: str) -> Any:
    """Parse lists, mappings, numbers and text; UsageError naming `name` on anything else."""
    try:
        return copy.deepcopy(_content_of(text))
    except (yaml.YAMLError, RecursionError, ValueError, ArithmeticError) as error:
        reason = str(error).partition("\n")[0] or "nested too deep"
        raise UsageError([f"{name}: is damaged ({reason}); {remedy}"]) from None


@lru_cache(maxsize=4)
def _content_of(text: str) -> Any:
    """Parse a text that a command may read several times, from config.yaml and from a checkpoint."""
    return _PlainLoader(text).get_single_data()


class _PlainLoader(yaml.SafeLoader):
    """Reads the YAML that our own files hold. Dates and long numbers are text; what could unfold is refused."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in known if tag in YAML_TAGS]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None or getattr(event, "tag", None) is not None:
            raise yaml.YAMLError("anchors, aliases and tags are not read")
        return super().compose_node(parent, index)

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        if kind is yaml.ScalarNode and len(value) > MAX_NUMBER_CHARACTERS:
            return self.DEFAULT_SCALAR_TAG
        return super().resolve(kind, value, implicit)


def learned_classes(state: Mapping[str, Any]) -> list[str] | None:
    """Return the classes of a checkpoint in the order of their labels; None if it names none."""
    classes = state.get("classes")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return None
    return classes


def check_own_files(folders: list[Path], key: str) -> None:
    """Raise UsageError if a file in the folders is a link: it could lead a write to anywhere."""
    for entry in [entry for folder in folders for entry in os.scandir(folder)]:
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            raise UsageError([f"{key}: {entry.path} is a link or no file; put the file itself there"])

"""What is typed after a command: names of runs and files, the command's own options, and settings of the run."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from deeptrain.commands.cli import in_this_installation, split_flags
from deeptrain.config.command_options import option_keys, split_options
from deeptrain.config.override import override_key
from deeptrain.errors import UsageError
from deeptrain.run.saved import check_read
from deeptrain.runtime.paths import path_exists
from deeptrain.schema import closest, suggest

T = TypeVar("T")
FLAGS = {"multirun": "-m", "cfg": "--cfg"}
SETTING = re.compile(r"[+~]?[\w.]+=.*|~[\w.]+|--config-dir=.*", re.DOTALL)


@dataclass
class Words(Generic[T]):
    """A command line, taken apart."""

    names: list[str]
    options: T
    overrides: list[str]


def parse(
    arguments: Sequence[str], schema: type[T], usage: str, what: str, read: Sequence[str], names: str = "run"
) -> Words[T]:
    """Take a command line apart; UsageError if a word is none of ours, or if nothing is named.

    schema: the dataclass of the command's options. what: what the command does, as in "evaluating". read: the settings
    that it reads. names: what has to be named. Whatever exists is a name, also if it looks like a setting.
    """
    first = in_this_installation(usage).splitlines()[0]
    flags, words = split_flags(list(arguments))
    if refused := [FLAGS[flag] for flag in flags if flag in FLAGS]:
        raise UsageError(f"{flag}: {what} does not take it; {first}" for flag in refused)
    options, rest = split_options(words, schema)
    named = [not SETTING.fullmatch(word) or word.startswith("run=") or path_exists(word) for word in rest]
    found = [word.removeprefix("run=") for word, is_name in zip(rest, named, strict=True) if is_name]
    overrides = [word for word, is_name in zip(rest, named, strict=True) if not is_name]
    _refuse_flags(found, option_keys(schema), first)
    _refuse_unknown(overrides, what, [*option_keys(schema), *read[1:]], read)
    if not found:
        raise UsageError([f"name the {names} first: {first}"])
    return Words(found, options, overrides)


def settings_of_a_run(arguments: Sequence[str], what: str, unread: Collection[str]) -> list[str]:
    """Return the words of a command that takes the settings of train.py; UsageError for those that it does not read."""
    flags, words = split_flags(list(arguments))
    refused = [word for word in words if override_key(word) in unread]
    refused += [FLAGS[flag] for flag in flags if flag in FLAGS]
    if refused:
        raise UsageError(f"{word}: {what} does not read it; leave it out" for word in refused)
    return words


def _refuse_flags(names: Sequence[str], options: Collection[str], usage: str) -> None:
    for word in names:
        key, _, value = word.lstrip("-").partition("=")
        if word.startswith("--") and (key := key.replace("-", "_")) in options:
            raise UsageError([f"{word}: write {key}={value or '...'}, without --"])
        if word.startswith("-") and word != "-":
            raise UsageError([f"{word}: no such flag; {usage}"])


def _refuse_unknown(overrides: Sequence[str], what: str, known: Sequence[str], read: Sequence[str]) -> None:
    """Refuse a misspelt word with the nearest one, and settings that only training reads."""
    for word in overrides:
        key = override_key(word)
        if not {key, key.partition(".")[0]} & set(read) and (closest(key, known) or not read):
            raise UsageError([f"{word}: {suggest(key, known)}"])
    check_read(overrides, what, read)

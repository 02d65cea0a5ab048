"""The few words of a sweep that are about the sweep, not about its runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_type_hints

import yaml

from deeptrain.config.override import override_key, override_value
from deeptrain.errors import UsageError
from deeptrain.schema import PositiveInt, type_error


@dataclass
class Options:
    """How a sweep goes through its jobs. No result depends on them."""

    jobs: PositiveInt | Literal["auto"] = 1  # at a time; auto: as many as there are cores, or GPUs
    fail_fast: bool = False  # stop at the first job that fails
    retry: Literal["failed"] | None = None  # give failed jobs another attempt
    dry_run: bool = False  # list the jobs and estimate the time


def split(words: Sequence[str]) -> tuple[Options, list[str]]:
    """Separate the options from the other words; UsageError names what is allowed."""
    options, hints, rest, messages = Options(), get_type_hints(Options, include_extras=True), [], []
    for word in words:
        if (key := override_key(word)) not in hints:
            rest.append(word)
            continue
        try:
            value = yaml.safe_load(override_value(word))
        except yaml.YAMLError:
            value = override_value(word)
        if error := type_error(value, hints[key]):
            messages.append(f"{word}: {error}")
        setattr(options, key, value)
    if messages:
        raise UsageError(messages)
    return options, rest

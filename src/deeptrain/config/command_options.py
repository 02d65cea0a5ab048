"""A command's own options, written key=value like settings: a dataclass is their only schema."""

from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import Any, TypeVar, cast, get_args, get_type_hints

import yaml

from deeptrain.config.override import override_value
from deeptrain.errors import UsageError
from deeptrain.schema import given_error

T = TypeVar("T")


def option_keys(schema: type) -> dict[str, str]:
    """Return the names of the fields by what is typed; field(metadata={"key": "tta.draws"}) gives another word."""
    return {field.metadata.get("key", field.name): field.name for field in fields(schema)}


def split_options(words: Sequence[str], schema: type[T]) -> tuple[T, list[str]]:
    """Separate the options from the other words; UsageError names each value that is not allowed, or is missing."""
    keys, hints = option_keys(schema), get_type_hints(schema, include_extras=True)
    values: dict[str, Any] = {}
    rest, messages = [], []
    for word in words:
        key, sign, _ = word.partition("=")
        if not sign or key not in keys:
            rest.append(word)
            continue
        value = _read(override_value(word), hints[keys[key]])
        if error := given_error(value, hints[keys[key]]):
            messages.append(f"{word}: {error}")
        values[keys[key]] = value
    for field in fields(cast(Any, schema)):
        if field.default is MISSING and field.name not in values:
            messages.append(f"{field.name}: is missing; {given_error('', hints[field.name])}")
    if messages:
        raise UsageError(messages)
    return schema(**values), rest


def _read(text: str, hint: Any) -> Any:
    """Read a value as in a file of settings; text is taken as it is."""
    if hint is str or str in get_args(hint):
        return text
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text

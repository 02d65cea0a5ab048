"""The parts of one override: `key=value`, `+key=value`, `~key`, `group@package=option`."""

import re

from deeptrain.runtime.paths import path_exists

# whose values are taken as they are
PATHS = ("dir", "init_from", "model.weights", "resume", "rerun", "cache_dir", "data.root", "data.file")
FUNCTION = re.compile(r"(choice|range|interval|glob|sort|shuffle|tag)\(.*\)", re.DOTALL)  # of Hydra's grammar
QUOTES = ("'", '"')


def override_key(override: str) -> str:
    """Return the key of an override, without `+` or `~`, value and package."""
    return override.lstrip("+~").partition("=")[0].partition("@")[0]


def override_value(override: str) -> str:
    """Return the text after the first `=`, "" if there is none."""
    return override.partition("=")[2]


def last_value(overrides: list[str], key: str) -> str | None:
    """Return the path that the last override of a key gives; None if there is none, or null."""
    values = [override_value(unquote_path(override)) for override in overrides if override.startswith(f"{key}=")]
    return values[-1] if values and values[-1] not in ("", "null") else None


def quote_path(override: str, *, sweep: bool = False) -> str:
    """Quote a path for Hydra, which would split it at `=`, `,` and brackets. Other words stay as they are.

    In a sweep commas separate paths, unless the whole is there. Without -m they do only if all the parts are there.
    """
    key, value = override_key(override), override_value(override)
    if key not in PATHS or _is_notation(value):
        return override
    pieces = value.split(",")
    several = len(pieces) > 1 and not path_exists(value) and (sweep or all(map(path_exists, pieces)))
    if sweep and (FUNCTION.fullmatch(value) or (several and value.startswith(QUOTES))):
        return override
    quoted = [piece if _is_notation(piece) else quote_value(piece) for piece in (pieces if several else [value])]
    return f"{override.partition('=')[0]}={','.join(quoted)}"


def quote_value(text: str) -> str:
    """Write any text so that Hydra's grammar, and then OmegaConf's, read it back."""
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), text) + "'"


def unquote_path(override: str) -> str:
    """Write a path again as it was before `quote_path`, or without the quotes that a person gave it."""
    key, sign, value = override.partition("=")
    if override_key(override) not in PATHS or not _is_quoted(value) or path_exists(value):
        return override
    mark, text = value[0], value[1:-1]
    text = re.sub(rf"(\\+)({mark}|\Z)", lambda found: "\\" * (len(found[1]) // 2) + found[2], text)
    return key + sign + re.sub(r"(\\*)\\\$\{", lambda found: "\\" * (len(found[1]) // 2) + "${", text)


def _is_notation(value: str) -> bool:
    """Tell whether a path's value is no path, but null, a ${reference} or quoted. What is there is a path."""
    return value in ("", "null") or (("${" in value or _is_quoted(value)) and not path_exists(value))


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in QUOTES

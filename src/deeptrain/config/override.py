"""The parts of one override: `key=value`, `+key=value`, `~key`, `group@package=option`."""

from pathlib import Path

PATHS = ("dir", "resume", "rerun", "cache_dir", "data.root")  # their values are taken as they are, commas and all


def override_key(override: str) -> str:
    """Return the key of an override, without `+` or `~`, value and package."""
    return override.lstrip("+~").partition("=")[0].partition("@")[0]


def override_value(override: str) -> str:
    """Return the text after the first `=`, "" if there is none."""
    return override.partition("=")[2]


def last_value(overrides: list[str], key: str) -> str | None:
    """Return the value that the last override of a key gives, without quotes; None if there is none, or null."""
    values = [override_value(override) for override in overrides if override.startswith(f"{key}=")]
    return values[-1].strip("'") if values and values[-1] not in ("", "null") else None


def quote_path(override: str) -> str:
    """Quote a path, which Hydra would split at `=` and `,` (the names of a sweep's folders hold both)."""
    key, value = override_key(override), override_value(override)
    plain = key in PATHS and value not in ("", "null") and not value.startswith(("'", '"', "$", "["))
    if not plain or (key == "data.root" and not Path(value).expanduser().exists()):
        return override
    return "{}='{}'".format(key, value.replace("\\", "\\\\").replace("'", "\\'"))


def unquote_path(word: str) -> str:
    """Write a path again as it was typed."""
    key, _, value = word.partition("=")
    quoted = key in PATHS and len(value) > 1 and value[0] == value[-1] == "'"
    return f"{key}={value[1:-1]}".replace("\\'", "'").replace("\\\\", "\\") if quoted else word

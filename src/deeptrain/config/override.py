"""The parts of one override: `key=value`, `+key=value`, `~key`, `group@package=option`."""


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

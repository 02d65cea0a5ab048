"""Runs into settings: which runs repeat one another, in what the others differ, and what each setting is called."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from deeptrain.compare.collect import Run, Settings
from deeptrain.config.override import override_key, override_value
from deeptrain.config.repeats import SEED

MAX_LABEL = 4  # settings in the name of a row; of more, those that tell rows apart
PLUMBING = (  # settings that change where and how fast a run computes, not what it learns
    "allow_targets",
    "cache_dir",
    "checkpoint",
    "data.download",
    "data.loader",
    "data.root",
    "device",
    "dir",
    "hydra",
    "log",
    "loggers",
    "rerun",
    "resume",
    "resume_changed",
    "threads",
    "validate.clean_images",
    "workers",
)
EXPERIMENT = "experiment"
ALONE = "all runs"  # the only setting
NEUTRAL = ("none", "off", "null", "false", "0", "0.0", "[]", "")  # values of what is switched off
DEFAULTS = "defaults"  # the setting for which nothing is typed that others change


@dataclass(frozen=True)
class Setting:
    """Runs that differ in seed and fold alone. values: what distinguishes it from the other settings, by key."""

    label: str
    values: Settings
    runs: list[Run]
    repeated: list[Run] = field(default_factory=list)  # of a seed that another run has too


def group(runs: Sequence[Run]) -> list[Setting]:
    """Group runs into settings, in the order in which they come; one that has not begun goes by its words."""
    shared, members = _shared_keys(runs), defaultdict(list)
    begun = {_words(run): _identity(run, shared) for run in runs if run.config}
    for run in runs:
        members[_identity(run, shared) if run.config else begun.get(_words(run), _words(run))].append(run)
    groups = list(members.values())
    firsts = [next((run for run in group if run.config), group[0]) for group in groups]
    keys = _varying_keys(firsts)
    labels = _labels(firsts, keys) if len(groups) > 1 else [ALONE]
    return [
        _setting(group, _values(first, keys), label) for group, first, label in zip(groups, firsts, labels, strict=True)
    ]


def _labels(runs: Sequence[Run], keys: Sequence[str]) -> list[str]:
    """Name the setting of each run by few of the keys: those typed for it, and those typed for most."""
    short = keys if len(keys) <= MAX_LABEL else _telling(runs, keys)
    typed = [_typed(run) for run in runs]
    usual = {key for key in short if 2 * sum(key in words for words in typed) >= len(runs)}
    pairs = [[key for key in short if key in words or key in usual] for words in typed]
    labels = [_label(run, names) or DEFAULTS for run, names in zip(runs, pairs, strict=True)]
    return labels if len(set(labels)) == len(runs) else [_label(run, short) or DEFAULTS for run in runs]


def _label(run: Run, keys: Sequence[str]) -> str:
    """Write settings as they are typed; an experiment, which stands for many of them, by its name."""
    return " ".join(value if key == EXPERIMENT else f"{key}={value}" for key, value in _values(run, keys).items())


def _setting(runs: list[Run], values: Settings, label: str) -> Setting:
    by_repeat: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_repeat[run.repeat].append(run)
    chosen = [min(same, key=lambda run: not run.is_done) for same in by_repeat.values()]
    return Setting(label, values, chosen, [run for run in runs if run not in chosen])


def is_plumbing(key: str) -> bool:
    return key == SEED or any(key == name or key.startswith(f"{name}.") for name in PLUMBING)


def _shared_keys(runs: Sequence[Run]) -> set[str]:
    """Return the keys of the configs by which runs may differ: those that every version knows."""
    by_version: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        if run.config:
            by_version[run.version if run.result else ""] |= run.config.keys()
    known = [keys for version, keys in by_version.items() if version] or list(by_version.values())
    return {key for key in set.intersection(*known) if not is_plumbing(key)} if known else set()


def _identity(run: Run, shared: set[str]) -> tuple[tuple[str, str], ...]:
    """Return what makes the setting of a run: what was typed, and what every version's config has."""
    typed = _typed(run)
    own = {key: value for key, value in run.config.items() if not run.is_repeat_key(key)}
    found = {key: value for key, value in own.items() if key in shared or key in typed}
    nodes = {key.partition(".")[0] for key in run.config}  # whose options are in the config by their values
    found |= {key: value for key, value in typed.items() if key not in run.config and key not in nodes}
    return tuple(sorted((key, value) for key, value in found.items() if key != EXPERIMENT))


def _words(run: Run) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(_typed(run).items()))


def _typed(run: Run) -> Settings:
    """Return what was typed by key, without what only says where and how fast a run computes."""
    pairs = ((override_key(word), override_value(word)) for word in run.words if not word.startswith("~"))
    return {key: _plain(value) for key, value in pairs if not is_plumbing(key) and not run.is_repeat_key(key)}


def _plain(value: str) -> str:
    """Write a list of one, and a quoted text, without their marks: aug=[mixup] is aug=mixup."""
    inner = re.fullmatch(r"\[([\w.]+)\]|'([^']*)'", value)
    return "none" if value == "[]" else next(filter(None, inner.groups()), value) if inner else value


def _varying_keys(runs: Sequence[Run]) -> list[str]:
    """Return the keys that tell settings apart: typed ones if they suffice, else those of the configs."""
    typed = [_typed(run) for run in runs]
    keys = list(dict.fromkeys(key for words in typed for key in words))
    keys = [key for key in keys if len({_value(run, key) for run in runs}) > 1]
    if len({tuple(_value(run, key) for key in keys) for run in runs}) == len(runs):
        return keys
    known = dict.fromkeys(
        key for run in runs for key in run.config if not is_plumbing(key) and not run.is_repeat_key(key)
    )
    return [*keys, *(key for key in known if key not in keys and len({_value(run, key) for run in runs}) > 1)]


def _telling(runs: Sequence[Run], keys: Sequence[str]) -> list[str]:
    """Return few keys that still tell the runs apart: each one tells more of them apart than those before it."""
    chosen: list[str] = []

    def told_apart(names: Sequence[str]) -> int:
        return len({tuple(_value(run, name) for name in names) for run in runs})

    while told_apart(chosen) < told_apart(keys):
        chosen.append(max(keys, key=lambda key: told_apart([*chosen, key])))
    return [key for key in keys if key in chosen]


def _values(run: Run, keys: Sequence[str]) -> Settings:
    return {key: value for key in keys if (value := _value(run, key)) is not None}


def _value(run: Run, key: str) -> str | None:
    """Return a setting as it was typed, else as config.yaml has it; None where the run has no such setting."""
    if (typed := _typed(run).get(key)) is not None:
        return typed
    if key in run.config:
        return run.config[key] or "none"
    target = run.config.get(f"{key}._target_")
    if target is None:
        return None
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", target.rpartition(".")[2]).lower()


def matches(setting: Setting, words: Sequence[str]) -> bool:
    """Tell whether a setting has all these values, each `key=value`."""
    run = setting.runs[0]
    return all(_value(run, override_key(word)) == _plain(override_value(word)) for word in words)

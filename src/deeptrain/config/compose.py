"""From the overrides of a command line to a checked configuration: composed by Hydra, refused by us.

Nothing here imports torch: a wrong setting is answered within a second, and before anything is written.
"""

import copy
import functools
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from deeptrain.config.options import groups
from deeptrain.config.overfit import expand_overfit
from deeptrain.config.override import PATHS, override_key, quote_path, quote_value, unquote_path
from deeptrain.config.renamed import OPTIONS as RENAMED_OPTIONS
from deeptrain.config.renamed import UNTIL, translate_config, translate_words, update_targets
from deeptrain.config.settings import LISTS, PARTS, RunConfig, Settings, part_nodes
from deeptrain.config.suggestions import choice_message, how_to_write, key_message
from deeptrain.config.user_modules import CONFIG_DIR, split_config_dirs
from deeptrain.config.validate import (
    ALLOWED_TARGETS,
    monitor_messages,
    orphaned_settings,
    part_messages,
    settings_messages,
    to_dataclass,
)
from deeptrain.errors import UsageError
from deeptrain.runtime.resources import CONFIGS
from deeptrain.schema import PositiveFloat, flatten, format_value, type_error

SEVERAL = "several values make a sweep; add -m (a list is written [a,b])"


def compose_run(words: list[str]) -> RunConfig:
    """Compose and check one run; raise UsageError with every mistake of the command at once."""
    messages: list[str] = []
    words, searchpath = split_config_dirs(words)
    words, notes = translate_words(words, _own_options(searchpath))
    overrides = _parse(words, messages)
    for override in overrides:
        if override.is_sweep_override():
            is_range = isinstance(override.value(), IntervalSweep)
            remedy = "a range is searched by python scripts/tune.py" if is_range else SEVERAL
            messages.append(f"{override.input_line}: {remedy}")
    run = _compose_checked([o for o in overrides if not o.is_sweep_override()], messages, searchpath)
    run.renamed = list(dict.fromkeys([*notes, *run.renamed]))
    return run


def renamed_in(words: list[str]) -> list[str]:
    """Return a line for each old name among a command's words."""
    words, searchpath = split_config_dirs(words)
    return translate_words(words, _own_options(searchpath))[1]


def compose_sweep(words: list[str]) -> tuple[list[list[str]], list[str]]:
    """Expand a sweep into the words of each of its runs, every one checked, and the keys that are swept.

    A list of values (`seed=0,1`), `choice(...)` and `range(...)` make an axis; so do a file's `hydra.sweeper.params`.
    """
    messages: list[str] = []
    words, searchpath = split_config_dirs(words)
    words, _ = translate_words(words, _own_options(searchpath))
    overrides = _parse(words, messages, sweep=True)
    typed = {override.key_or_group for override in overrides}
    plain = [override for override in overrides if not override.is_sweep_override()]
    for key, values in _sweep_params(plain, searchpath).items():
        if key not in typed:
            overrides += _parse([f"{key}={values}"], messages)
    axes: list[list[str]] = [[]]
    if not any(override.is_sweep_override() for override in overrides) and not messages:
        raise UsageError(["-m: gives several values to no setting; write for example seed=0,1,2, or leave out -m"])
    messages += [f"{o.input_line}: does not go with -m" for o in overrides if o.key_or_group in ("resume", "rerun")]
    for override in overrides:
        name = override.get_key_element()
        try:
            values = list(override.sweep_string_iterator()) if override.is_sweep_override() else [None]
        except (HydraException, ValueError):
            values = []
        if not values or len(set(values)) < len(values):
            message = (
                f"must be a list of different values, such as {name}=a,b (python scripts/tune.py searches in ranges)"
            )
            messages.append(f"{override.input_line}: {message}")
        choices = [override.input_line if value is None else f"{name}={value}" for value in values]
        axes = [[*job, choice] for job in axes for choice in choices if choice is not None]
    swept = [index for index, override in enumerate(overrides) if override.is_sweep_override()]
    mistakes: dict[str, list[str]] = defaultdict(list)
    for job in axes:
        try:
            _compose_checked(_parse(job, messages), [], searchpath)
        except UsageError as error:
            for line in error.lines:
                mistakes[line].append(",".join(job[index] for index in swept))
    messages += [f"{line}{in_jobs(names, len(axes))}" for line, names in mistakes.items()]
    if messages:
        raise UsageError(messages)
    keys = [overrides[index].key_or_group for index in swept]
    return [[*(f"{CONFIG_DIR}{folder}" for folder in searchpath), *job] for job in axes], keys


def known_settings(words: list[str]) -> set[str]:
    """Return the dotted keys of all settings that there are with the groups chosen among the words."""
    words, searchpath = split_config_dirs(words)
    chosen = [o for o in _parse(words, []) if o.key_or_group in groups(searchpath)]
    return set(_compose_groups(_words(chosen), searchpath, _stamps(searchpath)).known)


def in_jobs(names: Sequence[str], total: int) -> str:
    """Name the jobs of a sweep that have a mistake, unless all of them have it."""
    if len(names) == total:
        return ""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f" (in {names[0]}{more}; none of the {total} runs was started)"


def declares_multirun(words: list[str]) -> bool:
    """Tell whether a file among the words sets hydra.mode to MULTIRUN."""
    words, searchpath = split_config_dirs(words)
    return str(_hydra_setting(words, "mode", searchpath)).endswith("MULTIRUN")


def _parse(words: list[str], messages: list[str], *, sweep: bool = False) -> list[Override]:
    """Parse each word by Hydra's grammar; a word outside it becomes a line that shows how to write it."""
    parsed = []
    for word in words:
        if word.endswith("=") and word[:-1] in PATHS:
            messages.append(f"{word} names nothing; is a variable of your shell empty? (none: {word}null)")
            continue
        try:
            if word.startswith("="):
                raise HydraException("a value without a key")
            parsed.append(OverridesParser.create().parse_override(quote_path(word, sweep=sweep)))
        except (HydraException, RecursionError):  # brackets in brackets in brackets
            messages.append(f"{word}: {how_to_write(word)}")
    return parsed


def _compose_checked(overrides: list[Override], messages: list[str], searchpath: tuple[str, ...]) -> RunConfig:
    """Check names before composing, and what names then hold after it; messages found before are reported along."""
    chosen = [o for o in overrides if o.key_or_group in groups(searchpath)]
    valid = [o for o in chosen if not _report(messages, choice_message(o, searchpath))]
    try:
        composed = _compose_groups(_words(valid), searchpath, _stamps(searchpath))
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError([*messages, _hydra_message(valid, error)]) from error
    values = [o for o in overrides if o not in chosen]
    values = [o for o in values if not _report(messages, key_message(o, composed.tree, composed.known))]
    valid += values
    try:
        config = composed.with_values(values)
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError([*messages, _hydra_message(valid, error)]) from error
    run = _checked_run(config, _words([o for o in overrides if o in valid]), messages, searchpath, composed)
    run.renamed = [*composed.notes, *run.renamed]
    run.overrides[:0] = [f"{CONFIG_DIR}{folder}" for folder in searchpath]
    return run


def _words(overrides: list[Override]) -> tuple[str, ...]:
    return tuple(str(o.input_line) for o in overrides)


@dataclass(frozen=True)
class Composed:
    """The chosen groups as Hydra composes them, before single values are set. Shared: not to be changed."""

    config: DictConfig
    hydra: DictConfig  # Hydra's own settings
    tree: dict[str, Any]  # what settings there are
    known: dict[str, Any]  # the same by dotted key
    notes: list[str]  # a line for each old name in the files

    def with_values(self, overrides: list[Override]) -> DictConfig:
        """Return a copy in which single values are set, as Hydra sets them after composing."""
        config = copy.deepcopy(self.config)
        ConfigLoaderImpl._apply_overrides_to_config(overrides, config)
        return config


@functools.lru_cache(maxsize=64)  # a command composes its groups once; the runs of a sweep share them
def _compose_groups(words: tuple[str, ...], searchpath: tuple[str, ...], stamps: tuple[Any, ...] = ()) -> Composed:
    """Compose the chosen groups alone. stamps: of the files in searchpath, that may change meanwhile."""
    config = _hydra_compose(list(words), searchpath)
    notes = list(dict.fromkeys(UserFiles.notes))
    with open_dict(config):
        hydra = config.pop("hydra")
    tree: Any = OmegaConf.to_container(config)
    return Composed(config, hydra, tree, _settings_by_key(tree), notes)


def _stamps(searchpath: tuple[str, ...]) -> tuple[Any, ...]:
    """Return what tells whether a file in these folders has changed."""
    files = sorted(path for folder in searchpath for path in Path(folder).rglob("*.yaml"))
    return tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files)


def _interpolation_message(error: OmegaConfBaseException) -> str:
    """Say what a ${reference} or a missing value lacks; `???` in a file stands for what must be given."""
    text = str(error).splitlines()[0]
    key, missing = error.full_key or "config", re.search(r"Interpolation key '(.*)' not found", text)
    variable = re.search(r"Environment variable '(.*)' not found", text)
    if missing:
        return f"{key}: refers to {missing[1]}, which is no setting"
    if variable:
        return f"{key}: refers to the environment variable {variable[1]}, which is not set"
    if isinstance(error, MissingMandatoryValue):
        return f"{key}: must be given, write {key}=..."
    return f"{key}: {text}"


def _hydra_message(overrides: list[Override], error: Exception) -> str:
    """Make one line of a complaint that is Hydra's own."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"{' '.join(str(o.input_line) for o in overrides)}: {first}"


def _hydra_compose(words: list[str], searchpath: tuple[str, ...]) -> DictConfig:
    GlobalHydra.instance().clear()
    UserFiles.notes.clear()
    UserFiles.own = _own_options(searchpath)
    Plugins.instance().register(UserFiles)
    folders = ",".join(quote_value(f"{UserFiles.scheme()}://{folder}") for folder in searchpath)
    extra = [f"hydra.searchpath=[{folders}]"] if searchpath else []
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", overrides=words + extra, return_hydra_config=True)


class UserFiles(FileConfigSource):
    """The YAML files of a --config-dir, which may still use old names."""

    notes: ClassVar[list[str]] = []  # a line for each old name, since the last start of composing
    own: ClassVar[frozenset[tuple[str, str]]] = frozenset()

    @staticmethod
    def scheme() -> str:
        return "own"

    def load_config(self, config_path: str) -> ConfigResult:
        try:
            result = super().load_config(config_path)
        except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError, OSError) as error:
            reason = " ".join(str(error).split())[:300] or "nested too deep"
            raise UsageError([f"{self.path}/{config_path}: cannot be read ({reason}); mend that file"]) from error
        group = "" if result.header.get("package") == "_global_" else config_path.partition("/")[0]
        group = "" if group.endswith(".yaml") else group
        plain = OmegaConf.to_container(result.config)
        translated, notes = translate_config({group: plain} if group else plain, self.own)
        if notes:
            self.notes.extend(notes)
            result.config = OmegaConf.create(translated[group] if group else translated)
        return result


def _own_options(searchpath: tuple[str, ...]) -> frozenset[tuple[str, str]]:
    """Return the renamed options whose old name a user's own folder defines: there it keeps its meaning."""
    return frozenset(
        (group, old)
        for group, old in RENAMED_OPTIONS
        if any((Path(folder) / group / f"{old}.yaml").is_file() for folder in searchpath)
    )


def _sweep_params(overrides: list[Override], searchpath: tuple[str, ...]) -> dict[str, Any]:
    """Return the axes that an experiment's file declares under hydra.sweeper.params."""
    return dict(_hydra_setting(_words(overrides), "sweeper.params", searchpath) or {})


def _hydra_setting(words: Sequence[str], key: str, searchpath: tuple[str, ...]) -> Any:
    """Read one of Hydra's own settings as an experiment's file has it; None if there is none or it is wrong."""
    experiment = tuple(word for word in words if word.startswith("experiment=") and "," not in word)
    if not experiment:
        return None
    try:
        return OmegaConf.select(_compose_groups(experiment, searchpath, _stamps(searchpath)).hydra, key)
    except (HydraException, OmegaConfBaseException):
        return None  # what is wrong is found, and said, when the runs are composed


def experiment_overrides(run: RunConfig) -> list[str]:
    """List the settings that a run has from its experiment's file, where they are not the defaults of its options."""
    typed = {override_key(word) for word in run.overrides}
    if "experiment" not in typed:
        return []
    lists = {group: f"[{run.choices[group].replace('+', ',')}]" for group in LISTS}
    chosen = [f"{group}={option}" for group, option in (run.choices | lists).items() if option != "[none]"]
    searchpath = split_config_dirs(run.overrides)[1]
    plain = _compose_groups(tuple(chosen), searchpath, _stamps(searchpath)).known
    differ = {key: value for key, value in run.values.items() if key != "experiment" and plain.get(key) != value}
    return [f"{key}={format_value(value)}" for key, value in differ.items() if key not in typed]


def _report(messages: list[str], error: str | None) -> bool:
    messages += error.splitlines() if error else []
    return error is not None


def _checked_run(
    config: DictConfig, words: Sequence[str], messages: list[str], searchpath: tuple[str, ...], composed: Composed
) -> RunConfig:
    """Check every value of a composed configuration against the schema of its place; UsageError with all there are."""
    OmegaConf.set_struct(config, False)
    defaults = composed.known
    chosen = {group: str(name) for group, name in composed.hydra.runtime.choices.items()}
    try:
        turned_off = expand_overfit(config, chosen)
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        update_targets(plain)
    except OmegaConfBaseException as error:
        raise UsageError([*messages, _interpolation_message(error)]) from error
    parts = {name: plain.pop(name, None) or {} for name in (*PARTS, *LISTS)}
    plain.pop("experiment", None)
    find_lr = _expand_auto_rate(parts["optimizer"], defaults)
    messages += _expand_sam(plain, parts, chosen)
    notes = _expand_tensorboard(plain, parts)
    messages += settings_messages(plain, Settings)
    if isinstance(monitor := plain.get("monitor"), str):
        messages += monitor_messages(monitor, parts["metrics"])
    allowed = ALLOWED_TARGETS + tuple(plain.get("allow_targets") or ())
    messages += orphaned_settings(parts, chosen, {override_key(word) for word in words})
    for key, node in part_nodes(parts):
        messages += part_messages(key, node, allowed, searchpath, defaults)
    if messages:
        valid = {name: parts[name] for name in PARTS if not any(line.startswith(name) for line in messages)}
        raise UsageError(messages, valid)
    choices = {group: name for group, name in chosen.items() if group in parts}
    choices |= {group: "+".join(parts[group]) or "none" for group in LISTS}
    values = _settings_by_key(OmegaConf.to_container(config))
    typed = [unquote_path(word) for word in words]
    yaml, settings = OmegaConf.to_yaml(config), to_dataclass(plain, Settings)
    return RunConfig(settings, parts, typed, choices, yaml, values, notes, turned_off, find_lr)


def _expand_auto_rate(optimizer: dict[str, Any], defaults: dict[str, Any]) -> bool:
    """Give optimizer.lr=auto the option's own rate until one is found; return whether it is to be searched."""
    if optimizer.get("lr") != "auto":
        return False
    own = defaults.get("optimizer.lr")
    optimizer["lr"] = 0.001 if type_error(own, PositiveFloat) else own
    return True


def _expand_sam(plain: dict[str, Any], parts: dict[str, Any], chosen: dict[str, str]) -> list[str]:
    """Let sam=0.05 choose gradient=sam; return what is wrong with it."""
    rho, gradient = plain.get("sam"), chosen.get("gradient")
    if rho is None or type_error(rho, PositiveFloat | None):
        return []
    if gradient != "none":
        return [f"sam={rho}: does not go with gradient={gradient}; leave out sam, or gradient"]
    parts["gradient"], chosen["gradient"] = {"_target_": "deeptrain.gradient.SAM", "rho": rho}, "sam"
    return []


def _expand_tensorboard(plain: dict[str, Any], parts: dict[str, Any]) -> list[str]:
    """Let log.tensorboard=false in a file of 0.3.0 take out a logger; return a line that names the new word."""
    old = plain.get("log", {}).pop("tensorboard", None)
    if old is False:
        parts["loggers"].pop("tensorboard", None)
    return [] if old is None else [f"log.tensorboard: is now loggers=none (the old name works until {UNTIL})"]


def _settings_by_key(tree: Any) -> dict[str, Any]:
    """Map every setting's dotted key to its value; `_target_` is no setting."""
    return {key: value for key, value in flatten(tree).items() if key.rpartition(".")[2] != "_target_"}

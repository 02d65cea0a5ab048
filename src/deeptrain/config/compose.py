"""From the words of a command line to a checked configuration: composed by Hydra, refused by us, one line a mistake.

Nothing here imports torch: a wrong setting is answered within a second, and before anything is written.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args, get_type_hints

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from deeptrain.config.hydra_words import flag_answer, setting_answer
from deeptrain.config.renamed import OPTIONS as RENAMED_OPTIONS
from deeptrain.config.renamed import translate_config, translate_words, update_targets
from deeptrain.errors import UsageError
from deeptrain.runtime.resources import CONFIGS
from deeptrain.schema import (
    NonNegativeFloat,
    NonNegativeInt,
    Parameter,
    PositiveFloat,
    PositiveInt,
    choose,
    nearest,
    problem,
    read_signature,
)

FOLDER = "--config-dir="
ALLOWED_TARGETS = ("deeptrain", "torch.optim", "torch.nn", "torchvision.models", "timm")
MISSING = object()
ALIASES = {"learning_rate": "lr", "bs": "batch_size", "batchsize": "batch_size", "wd": "weight_decay", "gpu": "device"}
PATHS = ("dir", "resume", "rerun", "cache_dir", "data.root")  # their values are taken as they are, commas and all
PARTS = ("data", "model", "loss", "penalty", "optimizer", "schedule", "average")  # and aug, of which there may be many

Device = Literal[
    "auto", "cpu", "cuda", "mps", "cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:4", "cuda:5", "cuda:6", "cuda:7"
]


@dataclass
class Validate:
    every_epochs: PositiveInt = 1
    every_steps: PositiveInt | None = None
    clean_images: NonNegativeInt = 2000


@dataclass
class EarlyStop:
    patience: PositiveInt | None = None
    min_delta: NonNegativeFloat = 0.0


@dataclass
class Checkpoint:
    every_steps: PositiveInt | None = None
    every_minutes: PositiveFloat | None = 1.0


@dataclass
class Log:
    every_steps: PositiveInt = 20
    tensorboard: bool = True


@dataclass
class Settings:
    """What every run has; configs/train.yaml says what each is for. A test holds the two together."""

    seed: NonNegativeInt = 0
    device: Device = "auto"
    epochs: PositiveInt = 30
    batch_size: PositiveInt | Literal["auto"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    sync_batch_norm: bool = False
    threads: PositiveInt | Literal["auto"] = "auto"
    workers: NonNegativeInt | Literal["auto"] = "auto"
    accumulate: PositiveInt | Literal["auto"] = 1
    clip_norm: PositiveFloat | None = None
    max_norm: PositiveFloat | None = None
    sam: PositiveFloat | None = None
    limit_steps: PositiveInt | None = None
    max_seconds: PositiveFloat | None = None
    on_nan: Literal["stop", "skip", "rollback"] = "stop"
    dir: str | None = None
    resume: str | None = None
    resume_changed: bool = False
    rerun: str | None = None
    cache_dir: str | None = None
    monitor: Literal["accuracy/val", "top5/val", "loss/val"] = "accuracy/val"
    validate: Validate = field(default_factory=Validate)
    early_stop: EarlyStop = field(default_factory=EarlyStop)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    log: Log = field(default_factory=Log)
    allow_targets: list[str] = field(default_factory=list)


@dataclass
class RunConfig:
    """One checked configuration: the spine, the parts as plain dictionaries, and the words that made it."""

    spine: Settings
    parts: dict[str, dict[str, Any]]
    overrides: list[str]
    choices: dict[str, str]  # the option of each group; several augs are joined by +
    yaml: str  # as composed, interpolations unresolved: no secret from the environment is in it
    settings: dict[str, Any]  # every setting by its dotted key, unresolved too
    renamed: list[str] = field(default_factory=list)  # a line for each old name that was typed

    @property
    def title(self) -> str:
        """Name the run by what was typed to start it."""
        return " ".join(self.overrides) or "all settings at their defaults"


# --- composing -------------------------------------------------------------------------------------------------------


def compose_run(words: list[str]) -> RunConfig:
    """Compose and check one run; raise UsageError with every mistake of the command at once."""
    mistakes: list[str] = []
    words, searchpath = _split_folders(words)
    words, notes = translate_words(words, _own_options(searchpath))
    overrides = _parse(words, mistakes)
    for override in overrides:
        if override.is_sweep_override():
            mistakes.append(f"{override.input_line}: several values make a sweep; add -m (a list is written [a,b])")
    run = _compose_checked([o for o in overrides if not o.is_sweep_override()], mistakes, searchpath)
    run.renamed = list(dict.fromkeys([*notes, *run.renamed]))
    return run


def renamed_in(words: list[str]) -> list[str]:
    """Return a line for each old name among a command's words."""
    words, searchpath = _split_folders(words)
    return translate_words(words, _own_options(searchpath))[1]


def compose_sweep(words: list[str]) -> tuple[list[list[str]], list[str]]:
    """Expand a sweep into the words of each of its runs, every one checked, and the keys that are swept.

    A list of values (`seed=0,1`), `choice(...)` and `range(...)` make an axis; so do a file's `hydra.sweeper.params`.
    """
    mistakes: list[str] = []
    words, searchpath = _split_folders(words)
    words, _ = translate_words(words, _own_options(searchpath))
    overrides = _parse(words, mistakes)
    typed = {override.key_or_group for override in overrides}
    plain = [override for override in overrides if not override.is_sweep_override()]
    for key, values in _sweep_params(plain, searchpath).items():
        if key not in typed:
            overrides += _parse([f"{key}={values}"], mistakes)
    axes: list[list[str]] = [[]]
    if not any(override.is_sweep_override() for override in overrides) and not mistakes:
        raise UsageError(["-m: gives several values to no setting; write for example seed=0,1,2, or leave out -m"])
    mistakes += [
        f"{o.input_line}: does not go with -m" for o in overrides if o.key_or_group in ("dir", "resume", "rerun")
    ]
    for override in overrides:
        name = override.get_key_element()
        try:
            values = list(override.sweep_string_iterator()) if override.is_sweep_override() else [None]
        except (HydraException, ValueError):
            values = []
        if not values or len(set(values)) < len(values):
            mistakes.append(f"{override.input_line}: must be a list of different values, such as {name}=a,b")
        choices = [override.input_line if value is None else f"{name}={value}" for value in values]
        axes = [[*job, choice] for job in axes for choice in choices if choice is not None]
    for job in axes:
        try:
            _compose_checked(_parse(job, mistakes), [], searchpath)
        except UsageError as wrong:
            mistakes += wrong.lines
    if mistakes:
        raise UsageError(mistakes)
    keys = [override.key_or_group for override in overrides if override.is_sweep_override()]
    return [[*(f"{FOLDER}{folder}" for folder in searchpath), *job] for job in axes], keys


def declares_multirun(words: list[str]) -> bool:
    """Tell whether a file among the words sets hydra.mode to MULTIRUN."""
    words, searchpath = _split_folders(words)
    return str(_hydra_setting(words, "hydra.mode", searchpath)).endswith("MULTIRUN")


def _split_folders(words: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """Separate the folders of --config-dir=FOLDER, which come before ours, from the words that Hydra composes.

    They are made absolute, since a run remembers them among its words and may be resumed from elsewhere.
    """
    folders = [word.removeprefix(FOLDER) for word in words if word.startswith(FOLDER)]
    if wrong := [folder for folder in folders if not folder or not Path(folder).is_dir()]:
        raise UsageError(
            f"{FOLDER}{folder}: is no folder; name the one that holds model/, aug/, ... of your own" for folder in wrong
        )
    rest = [word for word in words if not word.startswith(FOLDER)]
    return rest, tuple(dict.fromkeys(str(Path(folder).resolve()) for folder in folders))


def _compose_checked(overrides: list[Override], mistakes: list[str], searchpath: tuple[str, ...]) -> RunConfig:
    """Check names before composing, and what names then hold after it; mistakes found before are reported along."""
    chosen = [o for o in overrides if o.key_or_group in _groups(searchpath)]
    sound = [o for o in chosen if not _report(mistakes, _wrong_choice(o, searchpath))]
    try:
        tree, known = _tree(tuple(str(o.input_line) for o in sound), searchpath)
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError([*mistakes, _in_a_line(sound, error)]) from error
    for override in overrides:
        if override not in chosen and not _report(mistakes, _wrong_key(override, tree, known)):
            sound.append(override)
    words = [str(o.input_line) for o in overrides if o in sound]
    try:
        config = _hydra_compose(words, searchpath)
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError([*mistakes, _in_a_line(sound, error)]) from error
    notes = list(dict.fromkeys(OwnFiles.notes))
    run = _checked_run(config, words, mistakes)
    run.renamed = notes
    run.overrides[:0] = [f"{FOLDER}{folder}" for folder in searchpath]
    return run


@functools.lru_cache(maxsize=64)  # the runs of a sweep share their groups
def _tree(words: tuple[str, ...], searchpath: tuple[str, ...]) -> tuple[DictConfig, dict[str, Any]]:
    """Compose the chosen groups alone: what settings there are, as a tree and by dotted key. Not to be changed."""
    tree = _hydra_compose(list(words), searchpath)
    OmegaConf.set_struct(tree, False)
    del tree["hydra"]
    return tree, _flatten(tree)


def _in_plain_words(error: OmegaConfBaseException) -> str:
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


def _in_a_line(overrides: list[Override], error: Exception) -> str:
    """Make one line of a complaint that is Hydra's own."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return f"{' '.join(str(o.input_line) for o in overrides)}: {first}"


def _hydra_compose(words: list[str], searchpath: tuple[str, ...]) -> DictConfig:
    GlobalHydra.instance().clear()
    OwnFiles.notes.clear()
    OwnFiles.own = _own_options(searchpath)
    Plugins.instance().register(OwnFiles)
    folders = ",".join(f"'{OwnFiles.scheme()}://{folder}'" for folder in searchpath)
    extra = [f"hydra.searchpath=[{folders}]"] if searchpath else []
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", overrides=words + extra, return_hydra_config=True)


class OwnFiles(FileConfigSource):
    """The YAML files of a --config-dir, which may still use old names."""

    notes: ClassVar[list[str]] = []  # a line for each old name, since the last start of composing
    own: ClassVar[frozenset[tuple[str, str]]] = frozenset()

    @staticmethod
    def scheme() -> str:
        return "own"

    def load_config(self, config_path: str) -> ConfigResult:
        result = super().load_config(config_path)
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
    return dict(_hydra_setting([str(o.input_line) for o in overrides], "hydra.sweeper.params", searchpath) or {})


def _hydra_setting(words: list[str], key: str, searchpath: tuple[str, ...]) -> Any:
    """Read one of Hydra's own settings as an experiment's file has it; None if there is none or it is wrong."""
    experiment = [word for word in words if word.startswith("experiment=") and "," not in word]
    try:
        return OmegaConf.select(_hydra_compose(experiment, searchpath), key)
    except (HydraException, OmegaConfBaseException):
        return None  # what is wrong is found, and said, when the runs are composed


def experiment_overrides(run: RunConfig) -> list[str]:
    """List the settings that a run has from its experiment's file, where they are not the defaults of its options."""
    typed = {word.lstrip("+").partition("=")[0] for word in run.overrides}
    if "experiment" not in typed:
        return []
    choices = {**run.choices, "aug": f"[{run.choices['aug'].replace('+', ',')}]"}
    chosen = [f"{group}={option}" for group, option in choices.items() if option != "[none]"]
    _, plain = _tree(tuple(chosen), _split_folders(run.overrides)[1])
    differ = {key: value for key, value in run.settings.items() if key != "experiment" and plain.get(key) != value}
    return [f"{key}={format_value(value)}" for key, value in differ.items() if key not in typed]


# --- names -----------------------------------------------------------------------------------------------------------


def options(group: str, searchpath: tuple[str, ...] = ()) -> list[str]:
    """List the options of a group: the YAML files in its folder, those in folders below it as folder/name.

    A file whose name starts with _ is no option, but what others are built upon.
    """
    found = set()
    for folder in (CONFIGS, *map(Path, searchpath)):
        base = folder / group
        files = [path for path in base.rglob("*.yaml") if not path.name.startswith("_")]
        found |= {str(path.relative_to(base).with_suffix("")) for path in files}
    return sorted(found)


@functools.cache
def _groups(searchpath: tuple[str, ...] = ()) -> list[str]:
    folders = [path for folder in (CONFIGS, *map(Path, searchpath)) if folder.is_dir() for path in folder.iterdir()]
    return sorted({path.name for path in folders if path.is_dir()})


def _parse(words: list[str], mistakes: list[str]) -> list[Override]:
    """Parse each word by Hydra's grammar; a word outside it becomes a line that shows how to write it."""
    parsed = []
    for word in words:
        if word.endswith("=") and word[:-1] in PATHS:
            mistakes.append(f"{word} names nothing; is a variable of your shell empty? (none: {word}null)")
            continue
        try:
            if word.startswith("="):
                raise HydraException("a value without a key")
            parsed.append(OverridesParser.create().parse_override(_quoted(word)))
        except (HydraException, RecursionError):  # brackets in brackets in brackets
            mistakes.append(f"{word}: {_how_to_write(word)}")
    return parsed


def _quoted(word: str) -> str:
    """Quote a path, which Hydra would take apart at `=` and `,` (the names of a sweep's folders hold both)."""
    key, _, value = word.partition("=")
    plain = key in PATHS and value not in ("", "null") and not value.startswith(("'", '"', "$", "["))
    if not plain or (key == "data.root" and not Path(value).expanduser().exists()):
        return word
    return "{}='{}'".format(key, value.replace("\\", "\\\\").replace("'", "\\'"))


def _bare(word: str) -> str:
    """Write a path again as it was typed."""
    key, _, value = word.partition("=")
    quoted = key in PATHS and len(value) > 1 and value[0] == value[-1] == "'"
    return f"{key}={value[1:-1]}".replace("\\'", "'").replace("\\\\", "\\") if quoted else word


def _how_to_write(word: str) -> str:
    if word.startswith("-"):
        name, _, value = word.lstrip("-").partition("=")
        answer = flag_answer(word.partition("=")[0])
        return answer or f"no such flag; settings are written key=value: {name}={value or '...'}"
    if word.startswith("="):
        return "no spaces around =; settings are written key=value, for example epochs=10"
    if word.count("=") > 1 and " " in word:
        return "several settings in one; leave out the quotes around them"
    if "=" not in word:
        if word in _groups():
            return f"write {word}=..., choose from {', '.join(options(word))}"
        group = next((group for group in _groups() if word in options(group)), None)
        return f"write {group}={word}" if group else "settings are written key=value, for example epochs=10"
    if "[" in word or "]" in word:
        return "a list is written without spaces, in quotes: 'aug=[cutout,mixup]'"
    return "not understood; put a value with special characters into quotes: 'key=\"value\"'"


def _wrong_choice(override: Override, searchpath: tuple[str, ...]) -> str | None:
    """Say what is wrong with `group=option`, for every option of a list."""
    group, word = override.key_or_group, str(override.input_line)
    if override.is_delete():
        return f"{word}: choose {group}=none instead" if "none" in options(group) else f"{word}: a run needs a {group}"
    value = override.value()
    if override.is_add():
        several = "; several go into one list: 'aug=[a,b]'" if group == "aug" else ""
        return f"{word}: write it without the +{several}"
    if value is None and group == "experiment":
        return None
    names = value if isinstance(value, list) else [value]
    if isinstance(value, list) and group != "aug":
        return f"{word}: takes one option; choose from {', '.join(options(group, searchpath))}"
    known = options(group, searchpath)
    if len(names) > 1 and ("none" in names or len(set(map(str, names))) < len(names)):
        return f"{word}: each may stand there once, and none only alone"
    wrong = []
    for name in [str(name) for name in names if str(name) not in known]:
        meant = _suggest_elsewhere(name, group)
        remedy = f"write {meant}, or choose from {', '.join(known)}" if meant else choose(name, known)
        wrong.append(f"{group}={name}: no such {group}; {remedy}")
    return "\n".join(wrong) or None


def _suggest_elsewhere(name: str, group: str) -> str | None:
    """Tell how to write what exists but is no option of the group: another's option, a setting, or a choice of one."""
    if below := [option for option in options(group) if name in option.split("/")]:
        return f"{group}={below[0]}"
    others = [other for other in _groups() if other != group]
    if owners := [other for other in others if name in options(other) and name != "none"]:
        return f"{owners[0]}={name}"
    if name in {item.name for item in fields(Settings)}:
        return f"{name}=..."
    numbered = re.fullmatch(r"(\w*[a-z])[-_]?(\d+)", name)
    if numbered and f"{group}={numbered[1]}" in _options_with(f"{group}.depth"):
        return f"{group}={numbered[1]} {group}.depth={numbered[2]}"
    if holders := [part for part in PARTS if _options_with(f"{part}.{name}")]:
        return f"{holders[0]}.{name}=..."
    for option in options(group):
        target = OmegaConf.select(OmegaConf.load(CONFIGS / group / f"{option}.yaml"), "_target_")
        for setting, parameter in (read_signature(str(target)) or {}).items():
            if name in get_args(parameter.annotation):
                return f"{group}={option} {group}.{setting}={name}"
    return None


def _wrong_key(override: Override, tree: DictConfig, known: dict[str, Any]) -> str | None:
    """Say what is wrong with the key of `key=value`: it must be one that the composed configuration has."""
    key, word = override.key_or_group, str(override.input_line)
    if answer := setting_answer(key):
        return f"{word}: {answer}"
    if override.is_delete():
        return None if key.startswith("aug.") and key in _nodes(tree) else f"{word}: only an aug can be taken out again"
    if key in known and override.is_add() and not override.is_force_add():
        return f"{word}: write it without the +"
    if key in known or key == "aug":
        return None
    if key in _nodes(tree):
        inside = [name.removeprefix(f"{key}.") for name in known if name.startswith(f"{key}.")]
        return f"{word}: {key} has several settings; set one of them: {', '.join(f'{key}.{name}' for name in inside)}"
    parent, _, index = key.rpartition(".")
    if index.isdigit() and isinstance(known.get(parent), list):
        whole = f"{parent}={format_value(known[parent])}"
        return f"{word}: {parent} is a list, and is written as a whole, in quotes: '{whole}'"
    if owners := _options_with(key):
        return f"{word}: a setting of {' or '.join(owners)}, which is not chosen here"
    return f"{word}: no such setting; {_suggest_key(key, word.partition('=')[2], tree, known)}"


def _options_with(key: str) -> list[str]:
    """Name the options of the key's group that have this setting."""
    group, _, rest = key.partition(".")
    wanted = rest.split(".")
    found = []
    for option in options(group) if group in _groups() and rest and rest != "_target_" else []:
        node = OmegaConf.load(CONFIGS / group / f"{option}.yaml")
        for name in wanted:
            node = node[name] if isinstance(node, DictConfig) and name in node else MISSING
        found += [] if node is MISSING else [f"{group}={option}"]
    return found


def _suggest_key(key: str, value: str, tree: DictConfig, known: dict[str, Any]) -> str:
    """Name the key that was meant: by its last word alone (lr means optimizer.lr), or by spelling."""
    groups = _groups()
    key = ALIASES.get(key, key)
    by_last_word = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    parent = key.rpartition(".")[0]
    match = nearest(key, [*known, *groups])
    if by_last_word and (match is None or "." not in key):
        match = by_last_word[0]
    elsewhere = (
        [] if "." in key or by_last_word else [name for group in groups for name in _options_with(f"{group}.{key}")]
    )
    if elsewhere:
        return f"{' or '.join(elsewhere)} has it: write {elsewhere[0].partition('=')[0]}.{key}={value}"
    siblings = [name for name in known if name.rpartition(".")[0] == parent]
    if siblings and parent in _nodes(tree):
        near = nearest(key, siblings)
        return (f"did you mean {near}? " if near else "") + "choose from " + ", ".join(siblings)
    if match:
        return f"did you mean {match}?" + (f" write {match}={value}" if value else "")
    return "choose from " + ", ".join(dict.fromkeys([*groups, *(name for name in known if "." not in name)]))


def _report(mistakes: list[str], wrong: str | None) -> bool:
    mistakes += wrong.splitlines() if wrong else []
    return wrong is not None


def _flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Map every setting's dotted key to its value, unresolved; `_target_` is no setting."""
    flat: dict[str, Any] = {}
    plain: Any = OmegaConf.to_container(node) if isinstance(node, DictConfig) else node
    for name, value in plain.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{key}.")
        elif name != "_target_":
            flat[key] = value
    return flat


def _nodes(tree: DictConfig) -> set[str]:
    """Return the dotted keys of everything that holds settings."""
    keys = _flatten(tree)
    return {key.rsplit(".", depth)[0] for key in keys for depth in range(1, key.count(".") + 1)}


# --- values ----------------------------------------------------------------------------------------------------------


def _checked_run(config: DictConfig, words: list[str], mistakes: list[str]) -> RunConfig:
    """Check every value of a composed configuration against the schema of its place; UsageError with all there are."""
    OmegaConf.set_struct(config, False)
    hydra = config.pop("hydra")
    try:
        plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        update_targets(plain)
    except OmegaConfBaseException as error:
        raise UsageError([*mistakes, _in_plain_words(error)]) from error
    parts = {name: plain.pop(name, None) or {} for name in (*PARTS, "aug")}
    plain.pop("experiment", None)
    mistakes += _spine_problems(plain, Settings, "")
    allowed = ALLOWED_TARGETS + tuple(plain.get("allow_targets") or ())
    chosen = {group: str(name) for group, name in hydra.runtime.choices.items()}
    mistakes += _orphaned_settings(parts, chosen, {word.lstrip("+").partition("=")[0] for word in words})
    for key, node in part_nodes(parts):
        mistakes += _part_problems(key, node, allowed)
    if mistakes:
        sound = {name: parts[name] for name in PARTS if not any(line.startswith(name) for line in mistakes)}
        raise UsageError(mistakes, sound)
    choices = {group: name for group, name in chosen.items() if group in parts}
    choices["aug"] = "+".join(parts["aug"]) or "none"
    settings = _flatten(config)
    typed = [_bare(word) for word in words]
    return RunConfig(_to_dataclass(plain, Settings), parts, typed, choices, OmegaConf.to_yaml(config), settings)


def _orphaned_settings(parts: dict[str, dict[str, Any]], chosen: dict[str, str], typed: set[str]) -> Iterator[str]:
    """Take out, and tell in a line a part, what an experiment sets of an option that another has replaced."""
    if chosen.get("experiment", "None") == "None":
        return
    augs = [name for name, node in parts["aug"].items() if "_target_" in node]
    for key, node in list(part_nodes(parts)):
        group, _, aug = key.partition(".")
        signature = read_signature(str(node.get("_target_"))) if "_target_" in node and not aug else {}
        foreign = [name for name in node if signature is not None and name not in {"_target_", *signature}]
        foreign = [f"{key}.{name}" for name in foreign if f"{key}.{name}" not in typed]
        if not foreign or aug in augs:
            continue
        option = f"{group}=[{','.join(augs)}]" if aug else f"{group}={chosen[group]}"
        yield (
            f"experiment={chosen['experiment']}: sets {', '.join(foreign)}, which {option} does not have; "
            f"leave out {option}, or the experiment"
        )
        for name in foreign:
            del node[name.rpartition(".")[2]]
        if aug:
            del parts["aug"][aug]


def part_nodes(parts: dict[str, dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Walk the parts of a run with their dotted keys (model, ..., aug.cutout, aug.mixup); absent ones are left out."""
    for name in PARTS:
        if parts[name]:
            yield name, parts[name]
    for name, node in parts["aug"].items():
        yield f"aug.{name}", node


def _spine_problems(plain: dict[str, Any], schema: type, prefix: str) -> Iterator[str]:
    hints = get_type_hints(schema, include_extras=True)
    for name, value in plain.items():
        key = f"{prefix}{name}"
        if name not in hints:
            match = nearest(name, hints)
            yield f"{key}={value}: no such setting" + (f"; did you mean {prefix}{match}?" if match else "")
        elif is_dataclass(hints[name]):
            yield from _spine_problems(value, hints[name], f"{key}.")  # pyright: ignore
        elif wrong := problem(value, hints[name]):
            yield f"{key}={format_value(value)}: {wrong}"


def _part_problems(key: str, node: Any, allowed: tuple[str, ...]) -> Iterator[str]:
    """Check a part's values against the signature that its `_target_` names."""
    if not isinstance(node, dict) or "_target_" not in node:
        yield f"{key}: has no _target_; choose an option of {key.partition('.')[0]} that defines it"
        return
    target = str(node["_target_"])
    if not any(target.startswith(f"{package}.") for package in allowed):
        yield f"{key}._target_={target}: outside {', '.join(allowed)}; if you trust it, add it to allow_targets"
        return
    signature = read_signature(target)
    if signature is not None and key.startswith("aug."):
        signature |= {name: parameter for name, parameter in _every_aug().items() if name not in signature}
    for name, value in node.items():
        if name == "_target_" or signature is None:
            continue
        if name not in signature:
            settings = [word for word, parameter in signature.items() if not parameter.required]
            component = target.rpartition(".")[2]
            yield f"{key}.{name}={format_value(value)}: {component} has no {name}; {choose(name, settings)}"
        elif wrong := problem(value, signature[name].annotation):
            yield f"{key}.{name}={format_value(value)}: {wrong}"


def _every_aug() -> dict[str, Parameter]:
    """Return the settings that every augmentation has, whatever its constructor takes."""
    signature = read_signature("deeptrain.aug.pipeline.RandomApply") or {}
    return {name: parameter for name, parameter in signature.items() if not parameter.required}


def _to_dataclass(plain: dict[str, Any], schema: type) -> Any:
    hints = get_type_hints(schema, include_extras=True)
    nested = {f.name: hints[f.name] for f in fields(schema) if is_dataclass(hints[f.name])}
    return schema(**{k: _to_dataclass(v, nested[k]) if k in nested else v for k, v in plain.items()})  # pyright: ignore


def format_value(value: Any) -> str:
    """Write a value the way a command line does."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "[" + ",".join(map(format_value, value)) + "]" if isinstance(value, list | ListConfig) else str(value)

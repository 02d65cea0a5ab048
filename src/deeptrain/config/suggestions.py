"""What to type instead: answers to options, keys and words that do not exist."""

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from deeptrain.config import elsewhere
from deeptrain.config.hydra_words import flag_answer, setting_answer
from deeptrain.config.options import groups, options, options_with
from deeptrain.config.override import override_value
from deeptrain.config.settings import LISTS, PARTS, Settings
from deeptrain.config.signatures import read_signature
from deeptrain.model import published
from deeptrain.runtime.paths import quote_setting
from deeptrain.runtime.resources import CONFIGS
from deeptrain.schema import closest, flatten, format_value, suggest, type_error

BARE_WORD = "settings are written key=value, for example epochs=10; a value with spaces needs quotes: 'key=a b'"


def how_to_write(word: str) -> str:
    if word.startswith("-"):
        name, _, value = word.lstrip("-").partition("=")
        answer = flag_answer(word.partition("=")[0]) or elsewhere.answer(name, value)
        return answer or f"no such flag; settings are written key=value: {name}={value or '...'}"
    if re.search(r"=\w*\(.*\)$", word):
        return f"a range is searched by python scripts/tune.py, as in '{word.partition('=')[0]}=log(1e-4,1e-1)'"
    if word.startswith("="):
        return "no spaces around =; settings are written key=value, for example epochs=10"
    if word.count("=") > 1 and " " in word:
        return "several settings in one; leave out the quotes around them"
    if "=" not in word:
        if word in groups():
            return f"write {word}=..., choose from {', '.join(options(word))}"
        if answer := elsewhere.answer(word):
            return answer
        group = next((group for group in groups() if word in options(group)), None)
        return f"write {group}={word}" if group else BARE_WORD
    if "[" in word or "]" in word:
        return "a list is written without spaces, in quotes: 'aug=[cutout,mixup]'"
    return "not understood; put a value with special characters into quotes: 'key=\"value\"'"


def choice_message(override: Override, searchpath: tuple[str, ...]) -> str | None:
    """Say what is wrong with `group=option`, in a line for every option of a list."""
    group, word = override.key_or_group, str(override.input_line)
    if override.is_delete():
        return f"{word}: choose {group}=none instead" if "none" in options(group) else f"{word}: a run needs a {group}"
    value = override.value()
    if override.is_add():
        several = f"; several go into one list: '{group}=[a,b]'" if group in LISTS else ""
        return f"{word}: write it without the +{several}"
    if value is None and group == "experiment":
        return None
    names = value if isinstance(value, list) else [value]
    if isinstance(value, list) and group not in LISTS:
        return f"{word}: takes one option; choose from {', '.join(options(group, searchpath))}"
    known = options(group, searchpath)
    if len(names) > 1 and (alone := {"none", "off"} & set(map(str, names))):
        return f"{word}: {min(alone)} takes no other option beside it; write {group}={min(alone)}, or leave it out"
    if len(set(map(str, names))) < len(names):
        return f"{word}: write each option once"
    messages = []
    for name in [str(name) for name in names if str(name) not in known]:
        meant = _suggest_elsewhere(name, group)
        remedy = f"write {meant}, or choose from {', '.join(known)}" if meant else suggest(name, known)
        messages.append(f"{group}={name}: no such {group}; {remedy}")
    return "\n".join(messages) or None


def _suggest_elsewhere(name: str, group: str) -> str | None:
    """Tell how to write what exists but is no option of the group: another's option, a setting, or a choice of one."""
    if group == "data" and ("/" in name or "\\" in name):
        return f"data=image_folder {quote_setting('data.root', name)}"
    if below := [option for option in options(group) if name in option.split("/")]:
        return f"{group}={below[0]}"
    others = [other for other in groups() if other != group]
    if owners := [other for other in others if name in options(other) and name != "none"]:
        return f"{owners[0]}={name}"
    if name in {item.name for item in fields(Settings)}:
        return f"{name}=..."
    numbered = re.fullmatch(r"(\w*[a-z])[-_]?(\d+)", name)
    if numbered and f"{group}={numbered[1]}" in options_with(f"{group}.depth"):
        return f"{group}={numbered[1]} {group}.depth={numbered[2]}"
    if group == "model" and (library := published.library_with(name)):
        return f"model={library} model.name={name}"
    if holders := [part for part in PARTS if options_with(f"{part}.{name}")]:
        return f"{holders[0]}.{name}=..."
    for option in options(group):
        target = OmegaConf.select(OmegaConf.load(CONFIGS / group / f"{option}.yaml"), "_target_")
        for setting, parameter in (read_signature(str(target)) or {}).items():
            if name in get_args(parameter.annotation):
                return f"{group}={option} {group}.{setting}={name}"
    return None


def key_message(override: Override, tree: Mapping[str, Any], known: dict[str, Any]) -> str | None:
    """Say what is wrong with the key of `key=value`: it must be one that the composed configuration has."""
    key, word = override.key_or_group, str(override.input_line)
    if answer := setting_answer(key, override_value(word)):
        return f"{word}: {answer}"
    if override.is_delete():
        in_list = key.partition(".")[0] in LISTS and key in _node_keys(tree)
        return None if in_list else f"{word}: only an option of a list ({', '.join(LISTS)}) can be taken out again"
    if key in known and override.is_add() and not override.is_force_add():
        return f"{word}: write it without the +"
    for kind, other in ((dict, list), (list, dict)):  # which Hydra cannot merge
        if isinstance(known.get(key), kind) and isinstance(override.value(), other):
            return f"{word}: {type_error(other(), kind)}"
    if key in known or key in LISTS:
        return None
    if key in _node_keys(tree):
        inside = [name.removeprefix(f"{key}.") for name in known if name.startswith(f"{key}.")]
        return f"{word}: {key} has several settings; set one of them: {', '.join(f'{key}.{name}' for name in inside)}"
    parent, _, index = key.rpartition(".")
    if index.isdigit() and isinstance(known.get(parent), list):
        whole = f"{parent}={format_value(known[parent])}"
        return f"{word}: {parent} is a list, and is written as a whole, in quotes: '{whole}'"
    if owners := options_with(key):
        return f"{word}: a setting of {' or '.join(owners)}, which is not chosen here"
    if answer := elsewhere.answer(key, override_value(word)):
        return f"{word}: {answer}"
    return f"{word}: no such setting; {_suggest_key(key, override_value(word), tree, known)}"


def _suggest_key(key: str, value: str, tree: Mapping[str, Any], known: dict[str, Any]) -> str:
    """Name the key that was meant: by its last word alone (lr means optimizer.lr), or by spelling."""
    by_last_word = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    parent = key.rpartition(".")[0]
    match = closest(key, [*known, *groups()])
    if by_last_word and (match is None or "." not in key):
        match = by_last_word[0]
    elsewhere = (
        [] if "." in key or by_last_word else [name for group in groups() for name in options_with(f"{group}.{key}")]
    )
    if elsewhere:
        return f"{' or '.join(elsewhere)} has it: write {elsewhere[0].partition('=')[0]}.{key}={value}"
    siblings = [name for name in known if name.rpartition(".")[0] == parent]
    if siblings and parent in _node_keys(tree):
        near = closest(key.removeprefix(f"{parent}."), [name.rpartition(".")[2] for name in siblings])
        near = near and f"{parent}.{near}"
        return (f"did you mean {near}? " if near else "") + "choose from " + ", ".join(siblings)
    if match:
        return f"did you mean {match}?" + (f" write {match}={value}" if value else "")
    return "choose from " + ", ".join(dict.fromkeys([*groups(), *(name for name in known if "." not in name)]))


def _node_keys(tree: Mapping[str, Any]) -> set[str]:
    """Return the dotted keys of everything that holds settings."""
    keys = flatten(tree)
    return {key.rsplit(".", depth)[0] for key in keys for depth in range(1, key.count(".") + 1)}

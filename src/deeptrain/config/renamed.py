"""Old names of options, keys and modules: translated before composing, with a line that names the new one.

A row stays for one minor release. To rename something, add a row here; nothing else knows old names.
"""

import re
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any

UNTIL = "0.5"  # the release in which these names stop working

OPTIONS = {
    ("aug", "crop"): "random_crop",
    ("aug", "scale_crop"): "random_resized_crop",
    ("aug", "gray"): "random_grayscale",
    ("aug", "blur"): "gaussian_blur",
}
KEYS = {  # a key, and with it all keys below it
    "average.norm_images": "average.bn_images",
    "model.test_draws": "model.test_samples",
    "model.zero_init_last": "model.zero_init_residual",
    "freeze": "finetune.freeze",
    "backbone_lr_factor": "finetune.backbone_lr_factor",
}
KEYS |= {f"{group}.{old}": f"{group}.{new}" for (group, old), new in OPTIONS.items() if group == "aug"}
MODULES = {  # of a `_target_`
    "deeptrain.aug.crop": "deeptrain.aug.random_crop",
    "deeptrain.aug.scale_crop": "deeptrain.aug.random_resized_crop",
    "deeptrain.aug.gray": "deeptrain.aug.random_grayscale",
    "deeptrain.aug.blur": "deeptrain.aug.gaussian_blur",
}

VALUES = {  # a key with a value, that is now a choice
    "log.tensorboard=false": "loggers=none",
    "log.tensorboard=true": "loggers=tensorboard",
    "freeze=backbone": "finetune=head",
    "freeze=null": "finetune=all",
}

WORD = re.compile(r"(?P<sign>[+~]*)(?P<key>[\w./]+)(?P<rest>.*)", re.DOTALL)


def translate_word(word: str, own: Collection[tuple[str, str]] = ()) -> tuple[str, list[str]]:
    """Return an override with its new names, and a line for each old one. `own` are options that a user defines."""
    match = WORD.fullmatch(word)
    if match is None:
        return word, []
    if (new := VALUES.get(word.lstrip("+").lower())) is not None:
        return new, [_note(word, new)]
    sign, key, rest = match["sign"], match["key"], match["rest"]
    new_key, notes = _new_key(key, own), []
    if new_key != key:
        notes.append(_note(key, new_key))
    for (group, old), new in OPTIONS.items():
        if group == key and (group, old) not in own:
            rest, count = re.subn(rf"(?<![\w./]){old}(?![\w./])", new, rest)
            notes += [_note(f"{group}={old}", f"{group}={new}")] if count else []
    return f"{sign}{new_key}{rest}", notes


def translate_words(words: list[str], own: Collection[tuple[str, str]] = ()) -> tuple[list[str], list[str]]:
    """Translate overrides; return them, and a line for each old name."""
    pairs = [translate_word(word, own) for word in words]
    return [word for word, _ in pairs], list(dict.fromkeys(note for _, notes in pairs for note in notes))


def translate_option(name: str) -> str:
    """Return the new name of an option or a key where there is one."""
    by_option = {old: new for (_, old), new in OPTIONS.items()}
    return by_option.get(name) or translate_word(name)[0]


def translate_config(node: Any, own: Collection[tuple[str, str]] = (), prefix: str = "") -> tuple[Any, list[str]]:
    """Translate a file of a --config-dir, as plain containers; return it, and a line for each old name."""
    if not isinstance(node, Mapping):
        return node, []
    translated, notes = {}, []
    for name, value in node.items():
        key = f"{prefix}{name}"
        new_key = _new_key(key, own)
        if new_key != key:
            notes.append(_note(key, new_key))
        if name == "_target_" and isinstance(value, str):
            value = _new_target(value)
        elif key == "defaults" and isinstance(value, list):
            value, more = _translate_defaults(value, own)
            notes += more
        elif key == "hydra.sweeper.params" and isinstance(value, Mapping):
            value, more = _translate_axes(value, own)
            notes += more
        else:
            value, more = translate_config(value, own, f"{key}.")
            notes += more
        translated[new_key.rpartition(".")[2] if new_key != key else name] = value
    return translated, notes


def _translate_defaults(defaults: list[Any], own: Collection[tuple[str, str]]) -> tuple[list[Any], list[str]]:
    """Translate a defaults list: `override /aug: [crop]`."""
    translated, notes = [], []
    for item in defaults:
        if isinstance(item, Mapping):
            item = dict(item)
            for name, value in item.items():
                group = str(name).removeprefix("override ").removeprefix("optional ").strip().lstrip("/")
                old = [value] if isinstance(value, str) else value if isinstance(value, list) else []
                new = [_new_option(group, option, own) for option in old]
                notes += [_note(f"{group}={a}", f"{group}={b}") for a, b in zip(old, new, strict=True) if a != b]
                item[name] = new[0] if isinstance(value, str) else new if isinstance(value, list) else value
        translated.append(item)
    return translated, notes


def _translate_axes(axes: Mapping[str, Any], own: Collection[tuple[str, str]]) -> tuple[dict[str, Any], list[str]]:
    """Translate `hydra.sweeper.params`, whose entries are overrides."""
    translated, notes = {}, []
    for key, values in axes.items():
        word, more = translate_word(f"{key}={values}", own)
        new_key, _, new_values = word.partition("=")
        translated[new_key] = new_values if more else values
        notes += more
    return translated, notes


def translate_saved(settings: dict[str, Any]) -> dict[str, Any]:
    """Translate a run's config.yaml. It may be a stranger's, so only the places that hold old names are read."""
    settings = dict(settings)
    for old, new in KEYS.items():
        group, _, old_name = old.rpartition(".")
        new_name = new.rpartition(".")[2]
        if isinstance(settings.get(group), dict):
            settings[group] = {new_name if name == old_name else name: v for name, v in settings[group].items()}
    if isinstance(settings.get("aug"), dict):
        for node in settings["aug"].values():
            if isinstance(node, dict) and isinstance(node.get("_target_"), str):
                node["_target_"] = _new_target(node["_target_"])
    return settings


def update_targets(tree: MutableMapping[str, Any]) -> None:
    """Replace old modules by new ones in every `_target_` of a configuration, in place."""
    for key, value in tree.items():
        if isinstance(value, MutableMapping):
            update_targets(value)
        elif key == "_target_" and isinstance(value, str):
            tree[key] = _new_target(value)


def _new_target(path: str) -> str:
    module, _, name = path.rpartition(".")
    return f"{MODULES[module]}.{name}" if module in MODULES else path


def _new_option(group: str, option: Any, own: Collection[tuple[str, str]]) -> Any:
    return option if (group, option) in own else OPTIONS.get((group, option), option)


def _new_key(key: str, own: Collection[tuple[str, str]]) -> str:
    for old, new in KEYS.items():
        if (key == old or key.startswith(f"{old}.")) and tuple(old.split(".", 1)) not in own:
            return new + key[len(old) :]
    return key


def _note(old: str, new: str) -> str:
    return f"{old}: is now {new} (the old name works until {UNTIL})"

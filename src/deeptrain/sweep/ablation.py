"""An ablation: an ordinary sweep over none of several methods, each alone, all of them, and all but one."""

import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from deeptrain.config.options import options
from deeptrain.config.override import override_key, override_value
from deeptrain.config.repeats import FOLD, SEED
from deeptrain.errors import UsageError
from deeptrain.schema import PositiveInt, suggest, type_error
from deeptrain.sweep import folds
from deeptrain.sweep import plan as plans
from deeptrain.sweep.plan import Plan

KEY = "ablation"  # under which a job's methods stand among what is swept
OPTIONS = ("over", "seeds", "pairs")
SEEDS = 5  # unless others are asked for
USUAL = {  # settings that are off unless they are set, and a usual value (configs/experiment/shelf)
    "label_smoothing": "loss.label_smoothing=0.1",
    "stochastic_depth": "model.stochastic_depth=0.3",
    "dropout": "model.dropout=0.5",
    "drop_connect": "model.drop_connect=0.5",
    "max_norm": "max_norm=1.0",
    "sam": "sam=0.05",
    "flip": "data.flip=true",
}
GROUPS = ("penalty", "average")  # of which an option may be a method
WORD = re.compile(r"(?:[^,\[\]']|\[[^\]]*\]|'[^']*')+")  # between commas, those in brackets or quotes left alone


def lay_out(words: Sequence[str]) -> Plan:
    """Make the jobs of an ablation from its words: over=[...], seeds=, pairs= and the settings of every run."""
    given = {override_key(word): override_value(word) for word in words if override_key(word) in OPTIONS}
    shared = [word for word in words if override_key(word) not in OPTIONS]
    methods, seeds, pairs = _methods(given.get("over")), _seeds(given.get("seeds")), _pairs(given.get("pairs"))
    count, shared = folds.take_out(shared)
    folds.check_seeds(count, shared, seeds)
    if swept := [word for word in shared if override_key(word) == SEED]:
        raise UsageError([f"{swept[0]}: an ablation has several seeds; write seeds=5, or seeds=[3,4,5]"])
    jobs = [
        ([*_words(shared, chosen), f"{SEED}={seed}"], {KEY: label, SEED: seed})
        for seed in seeds
        for label, chosen in subsets(methods, pairs=pairs).items()
    ]
    if count:
        jobs = [folds.hold_out(*job, count, fold) for job in jobs for fold in range(count)]
    return plans.make(words, [KEY, SEED, *([FOLD] if count else [])], jobs, Path())


def subsets(methods: dict[str, str], *, pairs: bool = False) -> dict[str, dict[str, str]]:
    """Return the methods that each setting has, by the setting's name: each set of methods once."""
    names = list(methods)
    named = [("none", ()), *((name, (name,)) for name in names)]
    named += [("+".join(pair), pair) for pair in combinations(names, 2)] if pairs else []
    named += [("all", tuple(names))]
    named += [(f"all but {left_out}", tuple(name for name in names if name != left_out)) for left_out in names]
    unique: dict[tuple[str, ...], str] = {}
    for label, chosen in named:
        unique.setdefault(chosen, label)
    return {label: {name: methods[name] for name in chosen} for chosen, label in unique.items()}


def word_of(method: str) -> str:
    """Return the word that adds a method to a run; UsageError if the name says not what is meant."""
    if "=" in method:
        return method
    if method in USUAL:
        return USUAL[method]
    for group in ("aug", *GROUPS):
        if method in options(group) and method not in ("none", "off"):
            return f"{group}={method}"
    known = [*(name for group in ("aug", *GROUPS) for name in options(group) if name not in ("none", "off")), *USUAL]
    raise UsageError(
        [f"over={method}: {suggest(method, known)}; or write what it sets, as in over=[model.dropout=0.3]"]
    )


def _words(shared: Sequence[str], chosen: dict[str, str]) -> list[str]:
    """Return the words of a run with the chosen methods: augmentations are added to those that all runs have."""
    added = [override_value(word) for word in chosen.values() if override_key(word) == "aug"]
    base = [override_value(word) for word in shared if override_key(word) == "aug"]
    every = [name for text in [*base[-1:], *added] for name in text.strip("[]").split(",") if name not in ("", "none")]
    others = [word for word in chosen.values() if override_key(word) != "aug"]
    words = [word for word in shared if override_key(word) != "aug"]
    return [*words, f"aug=[{','.join(every)}]" if every else "aug=none", *others]


def _methods(text: str | None) -> dict[str, str]:
    listed = (text or "").strip()
    names = [name.strip().strip("'") for name in WORD.findall(listed[1:-1])] if listed.startswith("[") else []
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError([f"over={listed}: must be a list of at least two methods, as in 'over=[cutout,mixup]'"])
    methods = {name: word_of(name) for name in names}
    keys = [override_key(word) for word in methods.values() if override_key(word) != "aug"]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise UsageError([f"over={listed}: two methods set {twice[0]}, so they cannot be combined; name one of them"])
    return methods


def _seeds(text: str | None) -> list[str]:
    text = str(SEEDS) if text is None else text
    listed = re.fullmatch(r"\[?(\d+(?:,\d+)+)\]?|\[(\d+)\]", text)
    if listed:
        return (listed[1] or listed[2]).split(",")
    count = int(text) if text.isdigit() else text
    if error := type_error(count, PositiveInt):
        raise UsageError([f"seeds={text}: {error}, or a list as [3,4,5]"])
    return [str(seed) for seed in range(int(count))]


def _pairs(text: str | None) -> bool:
    if text not in (None, "true", "false"):
        raise UsageError([f"pairs={text}: must be true or false"])
    return text == "true"

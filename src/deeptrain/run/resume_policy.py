"""What may change when a run goes on, key by key, and what has changed between two runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deeptrain.config.compose import PARTS, written
from deeptrain.errors import UsageError

FREE = "free"  # where it runs and what it shows: no result depends on it, but for the last bits
SAFE = "safe"  # from here on the new value holds
ASKED = "asked"  # with resume_changed=true: it becomes another run, or its numbers no longer mean the same
NEVER = "never"  # what has been trained would not fit

# Every setting there is, by the longest of these that its key starts with (a test sees to it).
CHANGES = {
    "device": FREE,
    "threads": FREE,
    "workers": FREE,
    "dir": FREE,
    "resume": FREE,
    "resume_changed": FREE,
    "rerun": FREE,
    "cache_dir": FREE,
    "log": FREE,
    "checkpoint": FREE,
    "allow_targets": FREE,
    "data.root": FREE,
    "data.download": FREE,
    "data.loader": FREE,
    "epochs": SAFE,
    "limit_steps": SAFE,
    "max_seconds": SAFE,
    "early_stop": SAFE,
    "validate": SAFE,
    "on_nan": SAFE,
    "precision": SAFE,
    "compile": SAFE,
    "sync_batch_norm": SAFE,
    "accumulate": SAFE,
    "clip_norm": SAFE,
    "average": SAFE,
    "optimizer": SAFE,
    "seed": ASKED,
    "batch_size": ASKED,
    "max_norm": ASKED,
    "sam": ASKED,
    "monitor": ASKED,
    "aug": ASKED,
    "loss": ASKED,
    "penalty": ASKED,
    "schedule": ASKED,
    "data": ASKED,
    "data.val_fraction": ASKED,
    "data.split_seed": ASKED,
    "data.name": NEVER,
    "data.shape": NEVER,
    "data.num_classes": NEVER,
    "data.size": NEVER,
    "data.image_size": NEVER,
    "data.channels": NEVER,
    "model": NEVER,
}
OPTIONS = {"data": NEVER, "model": NEVER, "optimizer": NEVER}  # of another one; else as the group's settings
WHY = {
    "data.val_fraction": "images held out so far would be trained on",
    "data.split_seed": "images held out so far would be trained on",
    "monitor": "the best value so far is of another metric",
    "batch_size": "a step is no longer the same step",
}


@dataclass(frozen=True)
class Change:
    """A setting that had another value then; of a part that was another option, the part's key."""

    key: str
    then: str
    now: str

    @property
    def kind(self) -> str:
        return OPTIONS.get(self.key) or kind(self.key)

    def __str__(self) -> str:
        return f"{self.key} {self.then}, now {self.now}"


def kind(key: str) -> str:
    """Say what may be done with a setting when a run goes on."""
    names = key.split(".")
    known = (".".join(names[:length]) for length in range(len(names), 0, -1))
    return next((CHANGES[name] for name in known if name in CHANGES), NEVER)


def between(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    """Find the settings that differ, given two whole configurations (the first may be a stranger's).

    A key that only one of them has is passed over: settings come and go with versions.
    """
    for group in PARTS:
        before, after = _node(then, group), _node(now, group)
        if before.get("_target_") != after.get("_target_"):
            yield Change(group, _option(before), _option(after))
        else:
            yield from _within(before, after, f"{group}.")
    before, after = _node(then, "aug"), _node(now, "aug")
    if list(before) != list(after):  # applied in this order
        yield Change("aug", shown(list(before)), shown(list(after)))
    else:
        yield from _within(before, after, "aug.")
    rest = {name: value for name, value in now.items() if name not in (*PARTS, "aug", "experiment")}
    yield from _within(then, rest, "")


def check(then: Mapping[str, Any], now: Mapping[str, Any], *, asked: bool) -> None:
    """Raise UsageError, a line each, for what may not be changed when a run goes on, and what only if asked for."""
    wrong = []
    for change in between(then, now):
        told = f"{change.key}={change.now}: was {change.then} so far"
        if change.kind == NEVER:
            wrong.append(f"{told}; a run keeps its {change.key.partition('.')[0]}: leave it out, or start a new run")
        elif change.kind == ASKED and not asked:
            why = WHY.get(change.key, "that makes it another run")
            wrong.append(f"{told}; {why}: leave it out, or add resume_changed=true")
    if wrong:
        raise UsageError(wrong)


def _within(then: Mapping[str, Any], now: Mapping[str, Any], prefix: str) -> Iterator[Change]:
    for name, value in now.items():
        key, before = f"{prefix}{name}", then.get(name)
        if isinstance(value, Mapping):
            yield from _within(before if isinstance(before, Mapping) else {}, value, f"{key}.")
        elif name in then and before != value:
            yield Change(key, shown(before), shown(value))


def _node(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    node = tree.get(name)
    return node if isinstance(node, Mapping) else {}


def _option(node: Mapping[str, Any]) -> str:
    return shown(str(node.get("_target_", "none")).rpartition(".")[2])


def shown(value: Any) -> str:
    """Write a value, but not at any length, nor with what would move the cursor: it may be a stranger's."""
    plain = value is None or isinstance(value, str | int | float)
    short = isinstance(value, list) and len(value) < 20 and all(isinstance(item, str | int | float) for item in value)
    text = written(value) if plain or short else "something else"
    return text if len(text) <= 80 and text.isprintable() else "something else"

"""What may change when a run goes on, key by key, and what has changed between two runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from deeptrain.config.settings import LISTS, PARTS
from deeptrain.errors import UsageError
from deeptrain.schema import format_value


class ResumePolicy(Enum):
    """What may be done with a setting when a run goes on."""

    IGNORED = "ignored"  # where it runs and what it shows: no result depends on it, but for the last bits
    ALLOWED = "allowed"  # the new value holds from here on
    CONFIRM = "confirm"  # with resume_changed=true: it becomes another run, or its numbers change their meaning
    FORBIDDEN = "forbidden"  # the trained weights would not fit


IGNORED, ALLOWED, CONFIRM, FORBIDDEN = ResumePolicy

# Every setting, by the longest of these keys that its key starts with (a test checks that none is missing).
POLICY = {
    **dict.fromkeys(
        [
            "device",
            "threads",
            "workers",
            "dir",
            "resume",
            "resume_changed",
            "rerun",
            "cache_dir",
            "log",
            "loggers",
            "checkpoint",
            "allow_targets",
            "data.root",
            "data.download",
            "data.loader",
        ],
        IGNORED,
    ),
    **dict.fromkeys(
        [
            "epochs",
            "limit_steps",
            "max_seconds",
            "early_stop",
            "validate",
            "on_nan",
            "precision",
            "compile",
            "sync_batch_norm",
            "data.cache",
            "accumulate",
            "scale_lr",
            "base_batch",
            "clip_norm",
            "metrics",
            "average",
            "optimizer",
        ],
        ALLOWED,
    ),
    **dict.fromkeys(
        [
            "seed",
            "batch_size",
            "overfit",
            "max_norm",
            "sam",
            "gradient",
            "monitor",
            "aug",
            "loss",
            "penalty",
            "schedule",
            "data",
            "data.val_fraction",
            "data.split_seed",
            "data.folds",
            "data.fold",
            "data.range",
            "data.background",
            "data.resize",
        ],
        CONFIRM,
    ),
    **dict.fromkeys(
        [
            "init_from",
            "init_match",
            "finetune",
            "data.name",
            "data.shape",
            "data.num_classes",
            "data.size",
            "data.image_size",
            "data.channels",
            "model",
        ],
        FORBIDDEN,
    ),
}
OPTIONS: dict[str, ResumePolicy] = dict.fromkeys(("data", "model", "optimizer"), FORBIDDEN)  # another option
WHY = {
    **dict.fromkeys(
        ("data.val_fraction", "data.split_seed", "data.folds", "data.fold"),
        "images held out so far would be trained on",
    ),
    **dict.fromkeys(("data.range", "data.background", "data.resize"), "the pictures would be read in another way"),
    "monitor": "the best value so far is of another metric",
    "batch_size": "a step is no longer the same step",
}


@dataclass(frozen=True)
class Change:
    """A setting with another value than before; for another option of a group, the group is the key."""

    key: str
    old: str
    new: str

    @property
    def policy(self) -> ResumePolicy:
        return OPTIONS.get(self.key) or policy(self.key)

    @property
    def is_ignored(self) -> bool:
        return self.policy is IGNORED

    def __str__(self) -> str:
        return f"{self.key} {self.old}, now {self.new}"


def policy(key: str) -> ResumePolicy:
    """Return the policy of a setting: that of the longest key in POLICY with which its key starts."""
    names = key.split(".")
    known = (".".join(names[:length]) for length in range(len(names), 0, -1))
    return next((POLICY[name] for name in known if name in POLICY), FORBIDDEN)


def diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Yield the settings that differ between two whole configurations; the old one may be a stranger's.

    A key that only one of them has does not count: settings come and go with versions.
    """
    for group in PARTS:
        before, after = _node(old, group), _node(new, group)
        if before.get("_target_") != after.get("_target_"):
            yield Change(group, _option(before), _option(after))
        else:
            yield from _within(before, after, f"{group}.")
    for group in LISTS:
        before, after = _node(old, group), _node(new, group)
        if list(before) != list(after):  # augmentations are applied in this order
            yield Change(group, safe_repr(list(before)), safe_repr(list(after)))
        else:
            yield from _within(before, after, f"{group}.")
    rest = {name: value for name, value in new.items() if name not in (*PARTS, *LISTS, "experiment")}
    yield from _within(old, rest, "")


def check(old: Mapping[str, Any], new: Mapping[str, Any], *, is_confirmed: bool) -> None:
    """Raise UsageError with a line for each change that is forbidden, or needs resume_changed=true."""
    messages = []
    for change in diff(old, new):
        message = f"{change.key}={change.new}: was {change.old} so far"
        if change.policy == FORBIDDEN:
            messages.append(
                f"{message}; a run keeps its {change.key.partition('.')[0]}: leave it out, or start a new run"
            )
        elif change.policy == CONFIRM and not is_confirmed:
            why = WHY.get(change.key, "that makes it another run")
            messages.append(f"{message}; {why}: leave it out, or add resume_changed=true")
    if messages:
        raise UsageError(messages)


def _within(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str) -> Iterator[Change]:
    for name, value in new.items():
        key, before = f"{prefix}{name}", old.get(name)
        if isinstance(value, Mapping) and "_target_" not in new:  # in a part it is a value, such as weights by name
            yield from _within(before if isinstance(before, Mapping) else {}, value, f"{key}.")
        elif name in old and before != value:
            yield Change(key, safe_repr(before), safe_repr(value))


def _node(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    node = tree.get(name)
    return node if isinstance(node, Mapping) else {}


def _option(node: Mapping[str, Any]) -> str:
    return safe_repr(str(node.get("_target_", "none")).rpartition(".")[2])


def safe_repr(value: Any) -> str:
    """Write a value that may be a stranger's: short, and without characters that move the cursor."""
    plain = value is None or isinstance(value, str | int | float)
    items = list(value.values()) if isinstance(value, Mapping) else value if isinstance(value, list) else None
    short = items is not None and len(items) < 20 and all(isinstance(item, str | int | float) for item in items)
    text = format_value(value) if plain or short else "something else"
    return text if len(text) <= 80 and text.isprintable() else "something else"

"""Settings that cannot work together, or do nothing here: found before the first step, told in plain sentences."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from deeptrain.config import Mistakes, Run, Spine, written

DIGITS = ("digits", "mnist", "kmnist", "svhn")  # mirrored, a 2 or a 5 is no digit any more
FLAT = ("fcn",)  # models that do not care which pixels are neighbours


@dataclass(frozen=True)
class Facts:
    """What is known once the data are open: of one image (C, H, W), of the training images, and of the machine."""

    input_shape: tuple[int, int, int]
    class_counts: list[int]  # training images of each class
    batch_size: int
    device: str  # cpu, cuda or mps


class Settings(dict):
    """All settings of a run by dotted key, the options by group, and the facts; None for what is not there (yet)."""

    def __init__(self, run: Run, facts: Facts | None):
        super().__init__(_flat(asdict(run.spine)) | _flat(run.parts) | run.choices)
        self.defaults = _flat(asdict(Spine()))
        self.augs = list(run.parts["aug"])
        if facts is not None:
            self |= asdict(facts)
            images = sum(facts.class_counts)
            self["images"], self["classes"], self["channels"] = images, len(facts.class_counts), facts.input_shape[0]
            steps = self["epochs"] * max(1, images // facts.batch_size)
            self["steps"] = min(steps, self["limit_steps"] or steps)
        elif self["batch_size"] == "auto":
            self["batch_size"] = None

    def __missing__(self, key: str) -> None:
        return None

    def above(self, key: str, limit: Any) -> bool:
        """Tell whether both are there and the first is the larger; `limit` is a number or a key."""
        value, limit = self[key], self[limit] if isinstance(limit, str) else limit
        return value is not None and limit is not None and value > limit

    def set(self, key: str) -> bool:
        """Tell whether a setting of every run differs from its default."""
        return self[key] != self.defaults[key]


@dataclass(frozen=True)
class Check:
    """A sentence, and when it is to be said; {keys} in it become the settings' values."""

    says: str
    when: Callable[[Settings], Any]


ERRORS = (
    Check(
        "early_stop.patience={early_stop.patience}: must be shorter than the run (epochs={epochs})",
        lambda s: s["early_stop.patience"] is not None and s["early_stop.patience"] >= s["epochs"],
    ),
    Check(
        "accumulate={accumulate}: must be at most batch_size={batch_size}",
        lambda s: s.above("accumulate", "batch_size"),
    ),
)

WARNINGS = (
    Check(
        "data.flip=true mirrors digits, and a mirrored 2 is no 2: leave it out",
        lambda s: s["data"] in DIGITS and s["data.flip"],
    ),
    Check(
        "aug=flip mirrors digits, and a mirrored 2 is no 2: leave it out",
        lambda s: s["data"] in DIGITS and "flip" in s.augs,
    ),
    Check(
        "aug=flip has no effect: data={data} mirrors half of the images already; leave it out or set data.flip=false",
        lambda s: s["data.flip"] and "flip" in s.augs,
    ),
    Check(
        "early_stop.min_delta={early_stop.min_delta} has no effect without early_stop.patience",
        lambda s: s["early_stop.min_delta"] and s["early_stop.patience"] is None,
    ),
    Check(
        "monitor=top5/val is always 100 % with {classes} classes: the first validation stays the best; "
        "take monitor=accuracy/val",
        lambda s: s["monitor"] == "top5/val" and s["classes"] is not None and s["classes"] <= 5,
    ),
    Check(
        "validate.every_epochs={validate.every_epochs} is longer than the run (epochs={epochs}): "
        "it is validated at the end only",
        lambda s: s.above("validate.every_epochs", "epochs"),
    ),
    Check(
        "validate.every_steps={validate.every_steps} has no effect: the run has {steps} steps",
        lambda s: s.above("validate.every_steps", "steps"),
    ),
    Check(
        "log.every_steps={log.every_steps} has no effect: the run has {steps} steps, and validations log as well",
        lambda s: s.set("log.every_steps") and s.above("log.every_steps", "steps"),
    ),
)


def check(run: Run, facts: Facts | None = None) -> list[str]:
    """Return a sentence for everything that is pointless here; raise Mistakes with all that cannot work.

    Before the data are open (no facts) what needs them is left for later.
    """
    settings = Settings(run, facts)
    if wrong := [_said(check, settings) for check in ERRORS if check.when(settings)]:
        raise Mistakes(wrong)
    return [_said(check, settings) for check in WARNINGS if check.when(settings)]


def _said(check: Check, settings: Settings) -> str:
    return re.sub(r"\{([\w.]+)\}", lambda match: written(settings[match[1]]), check.says)


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in node.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat

"""Settings by the thousand: wrong ones are refused by key and value, without torch and quickly; right ones train.

DEEPTRAIN_SETTINGS=500 trains 500 random combinations and tries 2,000 wrong settings, several of them in each command.
The wrong ones go through a process of their own: this file as a script.
"""

import json
import os
import random
import statistics
import string
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from deeptrain import build
from deeptrain.config.compose import compose_run
from deeptrain.config.options import options
from deeptrain.config.override import PATHS
from deeptrain.config.settings import LISTS, PARTS, RunConfig, Settings, part_nodes
from deeptrain.config.signatures import read_signature
from deeptrain.errors import UsageError
from deeptrain.run import dry_run
from deeptrain.schema import Range, format_value, type_error

pytestmark = pytest.mark.slow

WANTED = int(os.environ.get("DEEPTRAIN_SETTINGS", "25"))
WRONG = max(500, 4 * WANTED)
MOST_SECONDS = 1.5  # of the processor, for the median command
CHOSEN = ("model", "loss", "penalty", "optimizer", "schedule", "average")  # any option of these trains anywhere


# --- what there is ---


def schemas(run: RunConfig) -> dict[str, Any]:
    """Map every setting of a composed run to its annotation; paths, which may be any text, are left out."""
    found = {}
    for key, node in part_nodes(run.parts):
        signature = read_signature(str(node["_target_"])) or {}
        if key.startswith("aug."):
            signature |= read_signature("deeptrain.aug.pipeline.RandomApply") or {}
        found |= {f"{key}.{name}": signature[name].annotation for name in node if name != "_target_"}
    found |= dict(plain_schemas(Settings, ""))
    return {key: annotation for key, annotation in found.items() if key not in PATHS}


def plain_schemas(schema: type, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, annotation in get_type_hints(schema, include_extras=True).items():
        if hasattr(annotation, "__dataclass_fields__"):
            yield from plain_schemas(annotation, f"{prefix}{name}.")
        elif name not in ("allow_targets", "resume_changed"):
            yield f"{prefix}{name}", annotation


def cases(annotation: Any) -> list[Any]:
    """Return the plain types that a union is of."""
    union = get_origin(annotation) is Union or type(annotation).__name__ == "UnionType"
    return [case for option in get_args(annotation) for case in cases(option)] if union else [annotation]


def limits(annotation: Any) -> Range:
    return next((limit for limit in getattr(annotation, "__metadata__", ()) if isinstance(limit, Range)), Range())


# --- wrong ---


def wrong_values(annotation: Any) -> list[Any]:
    """Return values of other types, beside the bounds, misspelt, in lists and out of them."""
    values: list[Any] = [-1, -0.5, 1.5, 0.25, "abc", True, [], ["a", "b"], [-1], [0.5], "none", 10**9 + 0.5]
    values += [float("nan"), float("inf")]
    for case in cases(annotation):
        bounds = limits(case)
        values += [bound - 1 for bound in (bounds.minimum, bounds.above) if bound is not None]
        values += [bound + 1 for bound in (bounds.maximum, bounds.below) if bound is not None]
        values += [bound for bound in (bounds.above, bounds.below) if bound is not None]
        if get_origin(case) is Literal:
            values += [str(option)[:-1] + "zq" for option in get_args(case)]
    return [value for value in values if type_error(value, annotation)]


def slip(word: str, rng: random.Random) -> str:
    """Leave out, double or replace a letter."""
    place = rng.randrange(1, len(word))
    return word[:place] + rng.choice(["", word[place - 1], rng.choice(string.ascii_lowercase)]) + word[place + 1 :]


def any_options(rng: random.Random, data: list[str]) -> list[str]:
    """Choose an option of every group, and up to three augmentations."""
    augs = rng.sample([name for name in options("aug") if name not in ("none", "off")], rng.randrange(4))
    chosen = [f"{group}={rng.choice(options(group))}" for group in CHOSEN]
    return [f"data={rng.choice(data)}", *chosen, *([f"aug=[{','.join(augs)}]"] if augs else [])]


def wrong_command(rng: random.Random, chosen: list[str], known: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Make a command with up to 24 mistakes; return its words and how the lines that answer them must start."""
    keys, answers, words = rng.sample(sorted(known), rng.randint(1, 24)), [], []
    for key in keys:
        if rng.random() < 0.75:
            value = rng.choice(wrong_values(known[key]))
            words.append(f"{key}={format_value(value)}")
            answers.append(f"{key}={format_value(value)}:")
        else:
            typo = slip(key, rng)
            if typo in (*known, *PARTS, *LISTS, "experiment") or typo.endswith("."):
                continue
            words.append(f"{typo}=1")
            answers.append(f"{typo}=1:")
    used = {word.split(".")[0] for word in words}
    free = [group for group in PARTS if group not in used and len(group) > 3]
    if free and rng.random() < 0.5:  # an option is misspelt of which no setting is wrong
        group = rng.choice(free)
        typo = slip(rng.choice(options(group)), rng)
        if typo not in options(group) and typo:
            chosen = [word for word in chosen if not word.startswith(f"{group}=")]
            words.append(f"{group}={typo}")
            answers.append(f"{group}={typo}:")
    return [*chosen, *words], answers


def try_wrong(wanted: int) -> dict[str, Any]:
    """Put wrong commands through what a start does first; return what was not refused as it should have been."""
    rng, tried, seconds, missed = random.Random(0), 0, [], []
    chosen, known = [], {}
    while tried < wanted:
        if len(seconds) % 4 == 0:
            chosen = any_options(rng, options("data"))
            known = schemas(compose_run(chosen))
        words, answers = wrong_command(rng, chosen, known)
        began, lines = time.process_time(), []
        try:
            dry_run.check_settings(compose_run(words))
        except UsageError as mistakes:
            lines = mistakes.lines
        except Exception as error:
            lines = [f"{type(error).__name__}: {error}"]
        seconds.append(time.process_time() - began)
        unanswered = [answer for answer in answers if not any(line.startswith(answer) for line in lines)]
        over = [line for line in lines if not line.startswith(tuple(answers)) or "\n" in line]
        if unanswered or over:
            missed.append([words, unanswered, over])
        tried += len(answers)
    heavy = sorted({"torch", "torchvision", "sklearn", "matplotlib", "tensorboard"} & set(sys.modules))
    return {
        "tried": tried,
        "commands": len(seconds),
        "median": statistics.median(seconds),
        "missed": missed,
        "heavy": heavy,
    }


def test_wrong_settings_are_each_refused_by_key_and_value():
    done = subprocess.run([sys.executable, __file__, str(WRONG)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert not answer["missed"], answer["missed"][:5]
    assert answer["tried"] >= WRONG and answer["median"] < MOST_SECONDS and not answer["heavy"]


def test_every_setting_has_wrong_values():
    """Those at the bounds among them, so that what is tried is no matter of luck."""
    groups = (*PARTS, "aug")
    for index in range(max(len(options(group)) for group in groups)):
        words = [f"{group}={options(group)[index % len(options(group))]}" for group in groups]
        for key, annotation in schemas(compose_run(words)).items():
            wrong = [value for value in wrong_values(annotation) if value is not True]
            assert len(wrong) >= 3 or {str, Any} & set(cases(annotation)), key
            for case in cases(annotation) if len(cases(annotation)) == 1 else ():
                if (least := limits(case).minimum) is not None:
                    assert least - 1 in wrong and least not in wrong, key
                if (above := limits(case).above) is not None:
                    assert above in wrong, key


# --- right ---

SMALL = {  # so that two steps take no time
    "fcn": ["model.hidden=[16]"],
    "alexnet": ["model.width=0.1", "model.classifier=[16]"],
    "vgg": ["model.depth=11", "model.width=0.1", "model.classifier=[16]"],
    "resnet": ["model.depth=20", "model.blocks=[1,1,1]", "model.widths=[4,8,8]"],
    "preact_resnet": ["model.depth=20", "model.blocks=[1,1,1]", "model.widths=[4,8,8]"],
    "wide_resnet": ["model.depth=10", "model.width=0.5"],
    "rnn": ["model.hidden=8"],
}
LEFT = ("compile", "device", "threads", "workers", "limit_steps", "max_seconds", "epochs", "batch_size", "accumulate")
LEFT += (
    "model.depth",
    "model.width",
    "model.hidden",
    "model.blocks",
    "model.widths",
    "model.classifier",
    "model.layers",
)
LEFT += ("data.mean", "data.std", "data.size", "data.shape", "data.num_classes", "data.download", "loss.class_weights")
LEFT += ("precision", "average.bn_images")


def right_value(annotation: Any, rng: random.Random) -> Any:
    """Draw a value that an annotation allows, of ordinary size."""
    case = rng.choice(cases(annotation))
    bounds = limits(case)
    plain = get_args(case)[0] if get_origin(case) is Annotated else case
    if get_origin(plain) is Literal:
        return rng.choice(get_args(plain))
    if plain is bool or plain is type(None):
        return rng.random() < 0.5 if plain is bool else None
    if plain is int:
        least = int(bounds.minimum or 0)
        return rng.randint(least, min(least + 3, int(bounds.maximum if bounds.maximum is not None else least + 3)))
    if plain is float:
        low = next((bound for bound in (bounds.minimum, bounds.above) if bound is not None), 0.0)
        high = next((bound for bound in (bounds.maximum, bounds.below) if bound is not None), low + 1)
        return round(rng.uniform(low + 0.01 * (high - low), high - 0.01 * (high - low)), 4)
    if get_origin(plain) is list:
        return sorted(right_value(get_args(plain)[0], rng) for _ in range(2))
    return "text"


def right_command(rng: random.Random) -> list[str]:
    """Choose options, and other values for some of their settings."""
    model = ""
    while model not in SMALL:  # a published network is none that takes no time
        chosen = any_options(rng, ["synthetic", "digits"])
        model = next(word.partition("=")[2] for word in chosen if word.startswith("model="))
    known = {key: kind for key, kind in schemas(compose_run(chosen)).items() if key not in LEFT}
    values = {key: right_value(known[key], rng) for key in rng.sample(sorted(known), rng.randint(1, 6))}
    if "optimizer.lr" in values:
        values["optimizer.lr"] /= 100
    size = rng.choice([8, 16])
    shape = [f"data.shape=[{rng.choice([1, 3])},24,24]", "data.size=100"] if "data=synthetic" in chosen else []
    plain = ["device=cpu", "threads=1", "limit_steps=2", f"batch_size={size}", f"accumulate={rng.choice([1, 1, 2])}"]
    plain += ["validate.clean_images=8", *(["precision=bf16"] if rng.random() < 0.1 else [])]
    settings = [f"{key}={format_value(value)}" for key, value in values.items() if not key.startswith("validate.clean")]
    return [*chosen, *shape, *SMALL[model], *plain, *settings]


def test_random_combinations_are_accepted_and_train():
    """What the settings' own rules refuse (in a line that names one of them) is drawn anew: seldom."""
    import torch

    rng, trained, refused = random.Random(1), 0, []
    while trained < WANTED:
        words = right_command(rng)
        try:
            run = compose_run(words)
            dry_run.check_settings(run)
            trainer = build.trainer(build.open_setup(run))
        except UsageError as mistakes:
            refused.append([*mistakes.lines, words])
            assert any(word.partition("=")[0] in line for line in mistakes.lines for word in words), refused[-1]
            assert len(refused) <= 10 + trained, refused
            continue
        status, reason = trainer.fit()
        assert status == "finished" and trainer.progress.step == 2, (words, reason)
        assert all(torch.isfinite(weight).all() for weight in trainer.model.parameters()), words
        trained += 1
    print(f"{trained} trained, {len(refused)} refused")


if __name__ == "__main__":
    print(json.dumps(try_wrong(int(sys.argv[1]))))

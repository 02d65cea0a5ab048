"""Everything on the shelf goes with everything else: each pair trains two steps together, or is refused in one line."""

import copy
import functools
import itertools
from dataclasses import fields

import pytest
import torch

from deeptrain import build
from deeptrain.config import Mistakes, Run, compose_run, options

TINY = [
    *("data=synthetic", "data.shape=[3,12,12]", "data.size=40", "data.num_classes=3", "data.val_fraction=0.2"),
    *("optimizer=sgd", "batch_size=8", "limit_steps=2", "validate.clean_images=0"),
]
FCN = ["model=fcn", "model.hidden=[6]"]
CNN = ["model=vgg", "model.blocks=[1,1]", "model.widths=[4,4]", "model.classifier=[6]", "model.dropout=0"]
RESIDUAL = ["model.depth=20", "model.blocks=[1,1]", "model.widths=[4,4]"]
SAMPLED = ["model.stochastic_depth=0.5", "model.stochastic_depth_mode=sample"]

# Of one axis a run has one, but of augmentations any number; whatever has no axis goes with everything.
SHELF: dict[str, dict[str, list[str]]] = {
    "aug": {f"aug={name}": [f"aug={name}"] for name in options("aug") if name != "none"},
    "loss": {
        "label smoothing": ["loss.label_smoothing=0.1"],
        "class weights": ["loss.class_weights=auto"],
        "weighted hinge": ["loss=hinge", "loss.class_weights=[1,2,3]"],
        **{f"loss={name}": [f"loss={name}"] for name in options("loss") if name != "cross_entropy"},
        "mse of softmax": ["loss=mse", "loss.output=softmax"],
    },
    "penalty": {f"penalty={name}": [f"penalty={name}"] for name in options("penalty") if name != "none"},
    "average": {
        "average=ema": ["average=ema"],
        "average=swa": ["average=swa", "average.start=0.0", "average.every_steps=1", "average.norm_images=8"],
    },
    "model": {
        "dropout": [*FCN, "model.dropout=0.5"],
        "DropConnect": [*FCN, "model.drop_connect=0.5"],
        "batch norm": [*FCN, "model.norm=batch"],
        "DropConnect in a CNN": [*CNN, "model.drop_connect=0.5", "model.norm=group"],
        "fractional max pooling": [*CNN, "model.pool=fractional", "model.test_draws=2"],
        "stochastic depth": ["model=resnet", *RESIDUAL, "model.stochastic_depth=0.5", "model.norm=layer"],
        "stochastic depth of an image": ["model=preact_resnet", *RESIDUAL, *SAMPLED],
        "dropout in blocks": ["model=wide_resnet", "model.depth=10", "model.width=0.25", "model.dropout=0.3"],
        "recurrent": ["model=rnn", "model.hidden=6", "model.layers=2", "model.dropout=0.5"],
    },
    "optimizer": {"optimizer=adamw": ["optimizer=adamw"]},
    "": {
        word: [word]
        for word in (
            *("sam=0.05", "max_norm=1", "clip_norm=0.1", "accumulate=3", "precision=bf16"),
            *("data.whiten=zca", "data.subtract_image_mean=true", "schedule.warmup=0.5"),
        )
    },
}
ITEMS = {name: (axis, words) for axis, items in SHELF.items() for name, words in items.items()}
PAIRS = [
    (one, other)
    for one, other in itertools.combinations(ITEMS, 2)
    if ITEMS[one][0] != ITEMS[other][0] or ITEMS[one][0] in ("aug", "")
]
REFUSED: set[tuple[str, str]] = set()  # pairs that cannot work


@functools.cache
def alone(name: str | None) -> Run:
    axis, words = ITEMS[name] if name else ("", [])
    return compose_run([*TINY, *([] if axis == "model" else FCN), *words])


def together(*names: str) -> Run:
    """Put what each item changes into one run: composing every pair would take minutes."""
    base = alone(None)
    run = copy.deepcopy(base)
    for item in map(alone, names):
        run.parts["aug"] |= copy.deepcopy(item.parts["aug"])
        for group in item.parts:
            if group != "aug" and item.parts[group] != base.parts[group]:
                run.parts[group], run.choices[group] = copy.deepcopy(item.parts[group]), item.choices[group]
        for field in fields(run.spine):
            if (value := getattr(item.spine, field.name)) != getattr(base.spine, field.name):
                setattr(run.spine, field.name, value)
    run.choices["aug"] = "+".join(run.parts["aug"]) or "none"
    return run


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Hundreds of tiny runs: threads would only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(run: Run) -> None:
    build.rehearse(run)
    trainer = build.trainer(build.bench(run))
    trainer.fit()
    assert trainer.progress.step == 2
    assert 0 <= trainer.progress.metrics["accuracy/val"] <= 1
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())


@pytest.mark.parametrize("name", ITEMS)
def test_every_item_trains_alone(name):
    train(alone(name))


@pytest.mark.parametrize("name", ITEMS)
def test_every_item_goes_with_every_other(name):
    """Those that come after it in the shelf's order: every pair once."""
    for pair in [pair for pair in PAIRS if pair[0] == name]:
        try:
            train(together(*pair))
        except Mistakes as wrong:
            assert pair in REFUSED and len(wrong.lines) == 1, f"{pair}: {wrong}"
        except Exception as error:
            raise AssertionError(f"{pair}: {type(error).__name__}: {error}") from error


def test_everything_at_once():
    train(
        together(
            *SHELF["aug"], "label smoothing", "penalty=elastic", "average=swa", "fractional max pooling", "sam=0.05"
        )
    )

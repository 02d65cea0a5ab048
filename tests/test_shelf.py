"""Everything on the shelf goes with everything else: each pair trains two steps together, or is refused in one line."""

import copy
import functools
import itertools
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch

from deeptrain import build
from deeptrain.config.compose import compose_run
from deeptrain.config.options import options
from deeptrain.config.settings import RunConfig
from deeptrain.data import array_source, loader
from deeptrain.errors import UsageError
from deeptrain.run import dry_run
from deeptrain.runtime import memory

pytestmark = pytest.mark.slow

TINY = [
    *("data=synthetic", "data.shape=[3,8,8]", "data.size=40", "data.num_classes=3", "data.val_fraction=0.2"),
    *("optimizer=sgd", "batch_size=8", "limit_steps=2", "validate.clean_images=0"),
]
RESIDUAL = ["model.depth=20", "model.blocks=[1,1]", "model.widths=[4,4]"]
NETS = {  # every run is in the first of them that all its items work in
    "fcn": ["model.hidden=[6]"],
    "vgg": ["model.blocks=[1,1]", "model.widths=[4,4]", "model.classifier=[6]", "model.dropout=0"],
    "resnet": RESIDUAL,
    "preact_resnet": RESIDUAL,
    "wide_resnet": ["model.depth=10", "model.width=0.25"],
    "rnn": ["model.hidden=6", "model.layers=2"],
}
BLOCKS = ("resnet", "preact_resnet", "wide_resnet")
NORMED = ("fcn", "vgg", *BLOCKS)


@dataclass(frozen=True)
class Item:
    """What is typed for it; true alternatives share an axis, of which a run has one; the networks that have it."""

    words: list[str]
    axis: str = ""
    nets: tuple[str, ...] = tuple(NETS)


def aug(name: str, *settings: str) -> Item:
    return Item([f"aug={name}", *(f"aug.{name}.{setting}" for setting in settings)], f"aug={name}")


SHELF = {
    **{f"aug={name}": aug(name) for name in options("aug") if name not in ("none", "off")},
    "Mixup per image": aug("mixup", "per_image=true"),
    "CutMix per image": aug("cutmix", "per_image=true"),
    "Mixup or CutMix per image": aug("mixup_or_cutmix", "per_image=true"),
    "CutMix of some batches": aug("cutmix", "probability=0.5"),
    "Cutout of some images": aug("cutout", "probability=0.5"),
    "Mixup in the first half": aug("mixup", "until=0.5"),
    **{f"loss={name}": Item([f"loss={name}"], "loss") for name in options("loss") if name != "cross_entropy"},
    "mse of softmax": Item(["loss=mse", "loss.output=softmax"], "loss"),
    "label smoothing": Item(["loss.label_smoothing=0.1"], "loss"),  # cross-entropy's
    "class weights": Item(["loss.class_weights=auto"], "class weights"),
    "class weights by hand": Item(["loss.class_weights=[1,2,3]"], "class weights"),
    **{f"penalty={name}": Item([f"penalty={name}"], "penalty") for name in options("penalty") if name != "none"},
    "average=ema": Item(["average=ema"], "average"),
    "average=swa": Item(
        ["average=swa", "average.start=0.0", "average.every_steps=1", "average.bn_images=8"], "average"
    ),
    **{f"model={net}": Item([], "model", (net,)) for net in NETS},
    "dropout": Item(["model.dropout=0.5"], nets=("fcn", "vgg", "wide_resnet", "rnn")),
    "DropConnect": Item(["model.drop_connect=0.5"], nets=("fcn", "vgg")),
    **{f"{norm} norm": Item([f"model.norm={norm}"], "norm", NORMED) for norm in ("batch", "group", "layer")},
    "fractional max pooling": Item(["model.pool=fractional", "model.test_samples=2"], nets=("vgg",)),
    "stochastic depth": Item(["model.stochastic_depth=0.5"], "depth", BLOCKS),
    "stochastic depth of an image": Item(
        ["model.stochastic_depth=0.5", "model.stochastic_depth_mode=sample"], "depth", BLOCKS
    ),
    **{f"cell={cell}": Item([f"model.cell={cell}"], "cell", ("rnn",)) for cell in ("gru", "lstm")},
    **{f"whiten={kind}": Item([f"data.whiten={kind}"], "whiten") for kind in ("zca", "pca")},
    **{
        word: Item([word])
        for word in (
            *("optimizer=adamw", "sam=0.05", "max_norm=1", "clip_norm=0.1", "accumulate=3", "precision=bf16"),
            *("data.flip=true", "data.crop_padding=2", "data.subtract_image_mean=true", "schedule.warmup=0.5"),
        )
    },
}
REFUSED: set[tuple[str, str]] = set()  # pairs that cannot work


def nets_of(*names: str) -> list[str]:
    return [net for net in NETS if all(net in SHELF[name].nets for name in names)]


PAIRS = [
    (one, other)
    for one, other in itertools.combinations(SHELF, 2)
    if nets_of(one, other) and (SHELF[one].axis != SHELF[other].axis or not SHELF[one].axis)
    if "model=fcn" not in (one, other)  # each is alone in it anyway
]


@functools.cache
def base(net: str) -> RunConfig:
    return compose_run([*TINY, f"model={net}", *NETS[net]])


@functools.cache
def all_augs() -> dict[str, Any]:
    return compose_run([f"aug=[{','.join(name for name in options('aug') if name not in ('none', 'off'))}]"]).parts[
        "aug"
    ]


@functools.cache
def changes(name: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]], dict[str, Any]]:
    """Return what an item changes: the options it chooses, by group, the settings within them, those of every run."""
    net = nets_of(name)[0]
    if SHELF[name].words == [SHELF[name].axis]:  # aug=name: one composition for all, as each takes a tenth of a second
        return {"aug": (name, {key: node for key, node in all_augs().items() if name == f"aug={key}"})}, {}, {}
    plain, run = base(net), compose_run([*TINY, f"model={net}", *NETS[net], *SHELF[name].words])
    chosen = {group for group in run.parts if run.choices[group] != plain.choices[group]}
    parts = {group: (run.choices[group], run.parts[group]) for group in chosen}
    settings = {
        group: {key: value for key, value in run.parts[group].items() if value != plain.parts[group][key]}
        for group in run.parts.keys() - chosen
    }
    names = [field.name for field in fields(run.settings)]
    every = {
        key: getattr(run.settings, key) for key in names if getattr(run.settings, key) != getattr(plain.settings, key)
    }
    return parts, settings, every


def together(*names: str) -> RunConfig:
    """Put what each item changes into one run: composing every pair would take minutes."""
    run = copy.deepcopy(base(nets_of(*names)[0]))
    for chosen, _, _ in map(changes, names):
        for group, (choice, node) in chosen.items():
            run.choices[group] = choice
            run.parts[group] = (run.parts["aug"] if group == "aug" else {}) | copy.deepcopy(node)
    for _, settings, every in map(changes, names):
        for group, changed in settings.items():
            run.parts[group] |= copy.deepcopy(changed)
        for key, value in every.items():
            setattr(run.settings, key, value)
    run.choices["aug"] = "+".join(run.parts["aug"]) or "none"
    return run


@pytest.fixture(scope="module", autouse=True)
def lean():
    """Hundreds of tiny runs: threads would only wait for one another, and each asks for the free memory eight times."""
    before, free = torch.get_num_threads(), memory.free_memory()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for module in (array_source, loader):
            patch.setattr(module, "free_memory", lambda **_: free)
        yield
    torch.set_num_threads(before)


def train(run: RunConfig) -> None:
    trainer = build.trainer(build.open_setup(run))
    trainer.fit()
    assert trainer.progress.step == 2
    assert 0 <= trainer.progress.metrics["accuracy/val"] <= 1
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())


@pytest.mark.parametrize("name", SHELF)
def test_every_item_trains_alone_in_each_of_its_networks(name):
    for net in nets_of(name) if SHELF[name].nets != tuple(NETS) else ["fcn"]:
        run = together(name, f"model={net}")
        dry_run.check_settings(run)
        train(run)


@pytest.mark.parametrize("name", SHELF)
def test_every_item_goes_with_every_other(name):
    """Those that come after it in the shelf's order: every pair once."""
    for pair in [pair for pair in PAIRS if pair[0] == name]:
        try:
            train(together(*pair))
        except UsageError as wrong:
            assert pair in REFUSED and len(wrong.lines) == 1, f"{pair}: {wrong}"
        except Exception as error:
            raise AssertionError(f"{pair}: {type(error).__name__}: {error}") from error


def test_a_pair_has_what_both_items_set():
    run = together("loss=hinge", "class weights")
    assert run.choices["loss"] == "hinge" and run.parts["loss"]["class_weights"] == "auto"
    run = together("dropout", "cell=lstm")
    assert (run.parts["model"]["cell"], run.parts["model"]["dropout"], run.parts["model"]["layers"]) == ("lstm", 0.5, 2)
    run = together("CutMix of some batches", "aug=gaussian_blur", "sam=0.05")
    assert run.parts["aug"]["cutmix"]["probability"] == 0.5 and run.settings.sam == 0.05
    assert "gaussian_blur" in run.parts["aug"]


def test_everything_at_once():
    augs = [f"aug={name}" for name in options("aug") if name not in ("none", "off")]
    others = ["label smoothing", "class weights", "penalty=elastic", "average=swa", "dropout", "DropConnect"]
    train(together(*augs, *others, "group norm", "fractional max pooling", "data.flip=true", "sam=0.05"))

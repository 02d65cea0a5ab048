"""A run that starts from the weights of another: what is loaded, how images are normalised, what it needs again."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from deeptrain import build
from deeptrain.commands.cli import train
from deeptrain.commands.evaluate import evaluate
from deeptrain.config.compose import compose_run
from deeptrain.errors import UsageError
from deeptrain.inference.restore import load
from deeptrain.model.head import head_name
from deeptrain.run import artifacts
from deeptrain.run.dry_run import check_by_building, check_settings
from deeptrain.training import checkpoint
from deeptrain.training.trainer import Trainer

DATA = ["data=synthetic", "data.size=120", "batch_size=30"]
PLAIN = ["epochs=1", "loggers=none", "device=cpu", "threads=1", "schedule=constant"]
RESNET = ["model=resnet", "model.widths=[4,8,8]"]
SHAPE = "data.shape=[3,8,8]"
OTHER = ["data.num_classes=5", SHAPE]  # a run with other classes than the origin
ORIGINS = {
    "origin": [SHAPE, *RESNET],
    "grey": ["data.shape=[1,8,8]", *RESNET],
    "white": [SHAPE, "model=fcn", "model.hidden=[8]", "data.whiten=zca", "data.subtract_image_mean=true"],
    "linear": [SHAPE, "model=fcn", "model.hidden=[]"],
    "twenty": [SHAPE, *RESNET, "model.depth=20", "limit_steps=1"],
}


@pytest.fixture(scope="module")
def origins(tmp_path_factory) -> Path:
    """Return a folder with runs to start from."""
    home = tmp_path_factory.mktemp("init_from")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(artifacts, "_draw", lambda *_: None)
        for name, words in ORIGINS.items():
            assert train([*DATA, *PLAIN, *words, f"dir={name}"]) == 0
    return home


@pytest.fixture(autouse=True)
def somewhere(origins, tmp_path, monkeypatch):
    shutil.copytree(origins, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(artifacts, "_draw", lambda *_: None)


def built(*words: str) -> Trainer:
    return build.trainer(build.open_setup(compose_run([*DATA, *PLAIN, *words])))


def weights(folder: str, name: str = "last") -> dict[str, torch.Tensor]:
    return checkpoint.load(Path(folder, "checkpoints", f"{name}.pt"))["model"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    """Return the names whose tensors have the same bits in both."""
    return {name for name in one.keys() & other.keys() if torch.equal(one[name], other[name])}


@pytest.mark.parametrize("path", ["origin", "origin/checkpoints/best.pt", "alone.pt"])
def test_all_but_the_head_is_the_origins_before_the_first_step(path):
    shutil.copy("origin/checkpoints/best.pt", "alone.pt")
    trainer, origin = built(*OTHER, *RESNET, f"init_from={path}"), weights("origin", "best")
    new = {"classifier.weight", "classifier.bias"}
    assert same(trainer.model.state_dict(), origin) == origin.keys() - new
    fresh = built(*OTHER, *RESNET).model.state_dict()
    assert new <= same(trainer.model.state_dict(), fresh), "a new head is drawn from the seed"


def test_with_the_same_classes_the_logits_are_the_origins():
    trainer, origin = built(SHAPE, *RESNET, "init_from=origin"), load("origin")
    assert same(trainer.model.state_dict(), weights("origin", "best")) == weights("origin", "best").keys()
    images = torch.randint(256, (16, 3, 8, 8), dtype=torch.uint8)
    with torch.inference_mode():
        logits = trainer.model.eval()(trainer.pipeline.evaluate(images))
    assert torch.equal(logits, origin.model(origin.pipeline.evaluate(images)))


@pytest.mark.parametrize("name", ["origin", "white"])
def test_images_are_normalised_as_for_the_origin(name):
    model = ORIGINS[name][1:3]
    now = ["data.split_seed=3", "data.train_images=50", *OTHER, *model]  # other images, so another mean
    trainer, own, origin = built(*now, f"init_from={name}"), built(*now), load(name)
    images = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(trainer.pipeline.evaluate(images), origin.pipeline.evaluate(images))
    assert not torch.equal(own.pipeline.evaluate(images), origin.pipeline.evaluate(images))
    assert train([*DATA, *PLAIN, *now, f"init_from={name}", "dir=run"]) == 0
    assert torch.equal(load("run").pipeline.evaluate(images), origin.pipeline.evaluate(images))


def test_statistics_of_the_users_own_come_first():
    trainer = built(*OTHER, *RESNET, "init_from=origin", "data.mean=[0.5,0.5,0.5]")
    assert trainer.pipeline.scale == load("origin").pipeline.scale
    assert trainer.pipeline.shift == tuple(-127.5 * scale for scale in trainer.pipeline.scale)


def test_the_head_of_the_report_says_what_is_loaded_and_the_folder_keeps_it(capsys):
    assert train([*DATA, *PLAIN, *OTHER, *RESNET, "init_from=origin", "dir=run"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("init from")]
    assert "origin/checkpoints/best.pt" in line and "new: classifier" in line
    digest = checkpoint.digest(weights("origin", "best"))
    noted = {"path": "origin/checkpoints/best.pt", "digest": digest}
    assert checkpoint.load(Path("run/checkpoints/best.pt"))["init_from"] == noted
    assert json.loads(Path("run/result.json").read_text())["init_from"] == noted
    assert digest in Path("run/config.yaml").read_text() and "init_from: origin" in Path("run/config.yaml").read_text()


def test_what_the_run_is_asked_later_needs_no_origin(capsys):
    words = [*DATA, *PLAIN, *OTHER, *RESNET, "init_from=origin", "optimizer=sgd"]
    assert train([*words, "dir=short"]) == train([*words, "epochs=2", "dir=long"]) == 0
    shutil.rmtree("origin")
    assert train(["resume=short", "epochs=2"]) == 0
    assert same(weights("short"), weights("long")) == weights("long").keys(), "a resume is the same to the bit"
    assert train(["rerun=long", "dir=again"]) == 0 and "same bits as long" in capsys.readouterr().out
    assert train(["rerun=again", "dir=third"]) == 0 and "same bits as again" in capsys.readouterr().out
    assert evaluate(["long", "device=cpu"]) == 0
    assert json.loads(Path("short/result.json").read_text())["init_from"]["path"] == "origin/checkpoints/best.pt"
    shutil.rmtree("short/checkpoints")
    Path("short/checkpoints").mkdir()
    assert train(["resume=short"]) == 0, "a run that was killed before its first checkpoint"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("init_from=nowhere", "init_from=nowhere: there is no such run"),
        ("init_from=empty", "init_from=empty: has no checkpoints/best.pt; name"),
        ("init_from=text.pt", "init_from=text.pt: is no file of weights, or holds more than weights"),
        ("init_from=pickle.pt", "init_from=pickle.pt: holds no weights by name"),
        ("init_from=bare.pt", "init_from=bare.pt: does not say what it was trained on"),
        (
            "init_from=origin model.widths=[4,8,16]",
            "here 16x8x3x3); write model=resnet model.widths=[4,8,8]",
        ),
        ("init_from=origin model.blocks=[1,1,2]", "it has no stages.2.1.branch.0.weight and "),
        ("init_from=origin model.blocks=[1,1] model.widths=[4,8]", "which this model has not); write model=resnet"),
        (
            "init_from=twenty model.depth=20 data.shape=[3,48,48]",
            "images 3x8x8 there, here 3x48x48); write model.stem=small",
        ),
        ("init_from=twenty model.depth=20 data.shape=[3,100,100]", "here 3x100x100); write model.stem=small"),
        ("init_from=grey", "init_from=grey: was trained on images of 1 channel, these have 3"),
        ("init_from=linear model=fcn model.hidden=[]", "it has no layer but the head"),
        ("init_from=origin data.whiten=zca", "data.whiten=zca: init_from=origin was trained without it; leave it out"),
        ("init_from=white model=fcn data.shape=[3,6,6]", "was trained on whitened images of 8x8; take images of that"),
    ],
)
def test_what_cannot_be_is_one_line(words, line):
    Path("empty").mkdir()
    Path("text.pt").write_text("no weights")
    torch.save({"model": {}}, "pickle.pt")
    checkpoint.save(Path("bare.pt"), {"model": weights("origin")})
    words = [word for word in [*RESNET, *words.split()] if "model=fcn" not in words or not word.startswith("model.w")]
    run = compose_run([*DATA, *PLAIN, *OTHER, *words])
    with pytest.raises(UsageError) as error:
        check_settings(run)
        check_by_building(run)
    (message,) = error.value.lines
    assert line in message and not Path("outputs").exists()


def test_a_run_keeps_its_origin(capsys):
    assert train([*DATA, *PLAIN, *OTHER, *RESNET, "init_from=origin", "dir=run"]) == 0
    assert train(["resume=run", "epochs=2", "init_from=grey"]) == 2
    assert "init_from=grey: was origin so far; a run keeps its init_from" in capsys.readouterr().err
    Path("run/init_from.pt").unlink()
    assert train(["rerun=run", "dir=again"]) == 2 and not Path("again").exists()
    assert capsys.readouterr().err.startswith("error: rerun=run/init_from.pt: cannot be read")


@pytest.mark.parametrize("model", ["resnet", "preact_resnet", "wide_resnet", "vgg", "alexnet", "fcn", "rnn"])
def test_the_head_is_the_layer_that_gives_the_logits(model):
    network = built(f"model={model}", "data.shape=[3,32,32]", "data.num_classes=7").model
    name = head_name(network, 7)
    assert name is not None and list(network.state_dict())[-2:] == [f"{name}.weight", f"{name}.bias"]
    assert head_name(torch.nn.Sequential(torch.nn.Linear(2, 3)), 7) is None


# --- what learns, and how fast ---


@pytest.mark.parametrize("words", ["", "average=ema penalty=l2 max_norm=1", "gradient=sam average=swa average.start=0"])
@pytest.mark.parametrize("parts", [["finetune=head"], ["finetune.freeze=[stem,stages.0]"]], ids=["head", "parts"])
def test_frozen_parts_keep_their_bits_statistics_included(parts, words):
    now = [*DATA, *PLAIN, *OTHER, *RESNET, "init_from=origin", *parts, "dir=run", *words.split()]
    assert train(now) == 0
    origin, frozen = (
        weights("origin", "best"),
        ("stem.", "stages.") if parts == ["finetune=head"] else ("stem.", "stages.0."),
    )
    expected = {name for name in origin if name.startswith(frozen)}
    for name in ("last", "best"):
        found = {tensor for tensor in same(weights("run", name), origin) if not tensor.endswith("tracked")}
        assert found == {tensor for tensor in expected if not tensor.endswith("tracked")}, "the others have learned"
        assert expected <= same(weights("run", name), origin)
    assert any("running_var" in name for name in expected)


def test_a_frozen_run_goes_on_to_the_same_bits():
    words = [
        *DATA,
        *PLAIN,
        *OTHER,
        *RESNET,
        "init_from=origin",
        "finetune.freeze=[stem]",
        "finetune.backbone_lr_factor=0.1",
    ]
    assert (
        train([*words, "dir=short"]) == train([*words, "epochs=2", "dir=long"]) == train(["resume=short", "epochs=2"])
    )
    assert same(weights("short"), weights("long")) == weights("long").keys()


def test_the_backbone_has_its_own_rate():
    words = [
        *OTHER,
        *RESNET,
        "init_from=origin",
        "finetune.backbone_lr_factor=0.1",
        "optimizer=sgd",
        "optimizer.lr=0.5",
    ]
    trainer = built(*words, "optimizer.momentum=0", "optimizer.nesterov=false", "optimizer.weight_decay=0")
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    rates = {
        names[id(parameter)]: group["initial_lr"]
        for group in trainer.optimizer.param_groups
        for parameter in group["params"]
    }
    assert rates.keys() == set(names.values()) and trainer.lr == 0.5
    assert all(rate == (0.5 if name.startswith("classifier") else 0.05) for name, rate in rates.items())
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    images, labels = next(iter(trainer.train_loader.epoch(0, 0)))
    trainer.train_step(images, labels)
    for name, parameter in trainer.model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.detach(), before[name] - rates[name] * parameter.grad)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            "finetune.freeze=[stage]",
            "finetune.freeze=[stage]: no part is stage; did you mean stages? choose from stem, stages, classifier",
        ),
        ("finetune.freeze=[stem,stages,classifier]", "leaves nothing to train; name fewer parts"),
        (
            "finetune.backbone_lr_factor=0.1 optimizer=lbfgs",
            "finetune.backbone_lr_factor=0.1: does not go with optimizer=lbfgs",
        ),
        ("finetune.decay=0.5 optimizer=lbfgs", "finetune.decay=0.5: does not go with optimizer=lbfgs"),
        ("finetune.freeze=stem", "finetune.freeze=stem: must be a list, written [a,b]"),
        ("finetune.backbone_lr_factor=0", "finetune.backbone_lr_factor=0: must be > 0"),
        ("finetune.decay=2", "finetune.decay=2: must be > 0 and <= 1"),
        ("finetune=body", "finetune=body: no such finetune; choose from all, gradual, head"),
    ],
)
def test_what_cannot_be_frozen_is_one_line(words, line):
    with pytest.raises(UsageError) as error:
        check_by_building(compose_run([*DATA, *PLAIN, *OTHER, *RESNET, "init_from=origin", *words.split()]))
    (message,) = error.value.lines
    assert line in message

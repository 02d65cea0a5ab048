"""Runs that start from published weights: what is loaded, what learns, and all that comes after training."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deeptrain import build
from deeptrain.commands.cli import train
from deeptrain.commands.ensemble import ensemble
from deeptrain.commands.evaluate import evaluate
from deeptrain.commands.export import export
from deeptrain.commands.predict import predict
from deeptrain.config.compose import compose_run
from deeptrain.errors import UsageError
from deeptrain.inference.restore import load
from deeptrain.model.published import torchvision_network
from deeptrain.run import artifacts
from deeptrain.run.dry_run import check_settings
from deeptrain.training import checkpoint
from deeptrain.training.trainer import Trainer

DATA = ["data=synthetic", "data.shape=[3,32,32]", "data.size=40", "data.num_classes=5", "batch_size=12"]
PLAIN = ["epochs=1", "loggers=none", "device=cpu", "threads=1", "schedule=constant", "log.vitals=false"]
MODEL = ["model=torchvision", "model.name=shufflenet_v2_x0_5", "model.weights=shuffle.pth"]
WORDS = [*DATA, *PLAIN, *MODEL]
HEAD = {"fc.weight", "fc.bias"}
MEAN = [0.485, 0.456, 0.406]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """Return a file of weights for 1000 classes, with statistics of batch norms that are not 0 and 1."""
    torch.manual_seed(1)
    network = torchvision_network((3, 32, 32), 1000, name="shufflenet_v2_x0_5")
    network(torch.randn(8, 3, 32, 32))
    path = tmp_path_factory.mktemp("published") / "shuffle.pth"
    torch.save({"state_dict": network.state_dict()}, path)
    return path


@pytest.fixture(autouse=True)
def somewhere(published, tmp_path, monkeypatch):
    shutil.copy(published, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(artifacts, "_draw", lambda *_: None)


def built(*words: str) -> Trainer:
    return build.trainer(build.open_setup(compose_run([*WORDS, *words])))


def weights(folder: str) -> dict[str, torch.Tensor]:
    return checkpoint.load(Path(folder, "checkpoints", "last.pt"))["model"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in one.keys() & other.keys() if torch.equal(one[name], other[name])}


def test_all_but_the_head_is_loaded_and_images_are_as_the_weights_know_them(published):
    trainer, given = built(), torch.load(published, weights_only=True)["state_dict"]
    assert same(trainer.model.state_dict(), given) == given.keys() - HEAD
    images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    expected = (images / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    torch.testing.assert_close(trainer.pipeline.evaluate(images), expected, rtol=1e-5, atol=1e-5)


def test_a_head_alone_learns_and_all_that_comes_after_works_without_the_file(published, capsys):
    given = torch.load(published, weights_only=True)["state_dict"]
    words = [*WORDS, "finetune=head", "aug=off"]
    assert train([*words, "dir=short"]) == train([*words, "epochs=2", "dir=long"]) == 0
    said = capsys.readouterr().out
    assert "init from  shuffle.pth:" in said and "left at random, for 5 classes: fc.weight, fc.bias" in said
    assert "finetune   frozen all but the last layer" in said and "; computed once; " in said
    assert same(weights("long"), given) == given.keys() - HEAD, "statistics of batch norms too"
    Path("shuffle.pth").unlink()
    assert train(["resume=short", "epochs=2"]) == 0
    assert same(weights("short"), weights("long")) == weights("long").keys(), "a resume is the same to the bit"
    assert train(["rerun=long", "dir=again"]) == 0 and "same bits as long" in capsys.readouterr().out
    assert evaluate(["long", "device=cpu", "split=val"]) == 0
    rng = np.random.default_rng(0)
    Path("pictures").mkdir()
    for index in range(3):
        Image.fromarray(rng.integers(256, size=(40, 50, 3), dtype=np.uint8)).save(f"pictures/{index}.png")
    assert predict(["long", "pictures", "device=cpu"]) == 0
    network = load("long", ["device=cpu"])
    assert network.features("pictures").shape == (3, 1024)
    for to in ("onnx", "torch_export", "safetensors"):
        assert export(["long", f"to={to}"]) == 0
    assert ensemble(["long", "short", "split=val", "device=cpu"]) == 0


def test_other_files_start_any_network_and_leave_the_images_as_they_are(published):
    trainer = built("model.weights=null", "init_from=shuffle.pth")
    given = torch.load(published, weights_only=True)["state_dict"]
    assert same(trainer.model.state_dict(), given) == given.keys() - HEAD
    assert trainer.pipeline.scale == built("model.weights=null").pipeline.scale


def test_gradual_trains_the_head_first_then_all():
    trainer = built("finetune=gradual", "finetune.head_only=0.5", "epochs=2", "optimizer=adamw")
    before = {name: parameter.clone() for name, parameter in trainer.model.named_parameters()}
    images, labels = next(iter(trainer.train_loader.epoch(0, 0)))
    for step, half in ((0, False), (trainer.plan.total_steps // 2, True)):
        trainer.progress.step = step
        trainer.train_step(images, labels)
        changed = before.keys() - same(dict(trainer.model.named_parameters()), before)
        assert changed == (before.keys() if half else HEAD)
    rates = {round(group["lr"] / trainer.lr, 6) for group in trainer.optimizer.param_groups}
    assert rates == {1.0, 0.1}


def test_norms_keep_their_statistics_while_weights_learn(published):
    given = torch.load(published, weights_only=True)["state_dict"]
    assert train([*WORDS, "finetune.norms=freeze", "dir=run"]) == 0
    kept = {name for name in given if name.endswith(("running_mean", "running_var", "tracked"))}
    assert kept and same(weights("run"), given) == kept


def test_what_is_random_and_frozen_is_said(published):
    given = torch.load(published, weights_only=True)["state_dict"]
    torch.save({name: tensor for name, tensor in given.items() if not name.startswith("conv1.")}, "part.pth")
    setup = build.open_setup(compose_run([*WORDS, "model.weights=part.pth", "finetune=head"]))
    build.trainer(setup)
    assert any("conv1.0.weight, conv1.1.weight: left at random, and frozen" in line for line in setup.warnings)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("model.name=shufflenet", "model.name=shufflenet: no network of torchvision; did you mean"),
        ("model.weights=nowhere.pth", "model.weights=nowhere.pth: there is no such file"),
        ("model.name=resnet18", "model.weights=shuffle.pth: only "),
        ("init_match=order model.name=resnet18", "model.weights=shuffle.pth: it has 282 tensors, this network 102"),
        ("model.weights=IMAGENET1K_V9", "model.weights=IMAGENET1K_V9: did you mean IMAGENET1K_V1?"),
        ("data.whiten=zca", "data.whiten=zca: model.weights=shuffle.pth was trained without it; leave it out"),
    ],
)
def test_what_cannot_be_is_one_line(words, line):
    run = compose_run([*WORDS, *words.split()])
    with pytest.raises(UsageError) as error:
        check_settings(run)
        build.trainer(build.open_setup(run))
    (message,) = error.value.lines
    assert line in message

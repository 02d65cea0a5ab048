"""The loss before the first step: right, the same every time, and without a trace in what is trained."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from deeptrain import build
from deeptrain.analysis.initial_loss import known_initial_loss, measure_initial_loss
from deeptrain.commands.cli import train
from deeptrain.config.compose import compose_run

DATA = ["data=synthetic", "data.shape=[3,16,16]", "data.size=300", "data.num_classes=6", "workers=0", "threads=1"]
NORMED = ["model=resnet", "model.widths=[4,4]", "model.blocks=[1,1]", "model.stochastic_depth=0.5"]
PLAIN = ["model=fcn", "model.hidden=[8]", "model.dropout=0.5"]


def opened(*words):
    setup = build.open_setup(compose_run([*DATA, *words]))
    return build.trainer(setup), setup


@pytest.mark.parametrize("model", [NORMED, PLAIN])
@pytest.mark.parametrize("loader", ["resident", "stream"])
def test_weights_buffers_gradients_and_random_states_stay(model, loader):
    trainer, setup = opened(*model, "aug=mixup", f"data.loader={loader}")
    state = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    torch.manual_seed(5)
    random = torch.get_rng_state()
    first, second = (measure_initial_loss(trainer, setup) for _ in range(2))
    assert first == second is not None
    assert torch.equal(random, torch.get_rng_state()) and trainer.model.training
    assert all(torch.equal(value, state[name]) for name, value in trainer.model.state_dict().items())
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_it_is_the_loss_of_training_images_as_they_are():
    trainer, setup = opened("model=fcn", "model.hidden=[8]", "loss.label_smoothing=0.3", "data.flip=true")
    found = measure_initial_loss(trainer, setup)
    samples = setup.dataset.train.evenly_spaced(setup.batch_size)
    images = torch.from_numpy(samples.images[:].copy()).permute(0, 3, 1, 2)
    logits = trainer.model(trainer.pipeline.evaluate(images))
    expected = cross_entropy(logits, torch.from_numpy(samples.labels)).item()
    assert found["train"] == pytest.approx(expected, rel=1e-5)
    assert found["equal_logits"] == pytest.approx(math.log(6))
    trainer, setup = opened("model=fcn", "loss=hinge", "loss.margin=2")
    assert measure_initial_loss(trainer, setup)["equal_logits"] == pytest.approx(2 * 5)


def test_a_model_that_fails_is_left_to_the_first_step():
    trainer, setup = opened(*PLAIN)
    trainer.model.register_forward_hook(lambda *_: 1 / 0)
    assert measure_initial_loss(trainer, setup) is None


def test_a_checkpoint_may_be_a_strangers():
    good = {"train": 2.3, "equal_logits": 2.3}
    assert known_initial_loss({"initial_loss": good}) == good
    for value in (None, [], {"train": 2.3}, {**good, "more": 1.0}, {**good, "train": "x"}, {**good, "train": math.inf}):
        assert known_initial_loss({"initial_loss": value}) is None


def test_a_run_says_it_once(tmp_path, monkeypatch, capsys):
    """In the head of a new run; a resumed one knows it from the checkpoint."""
    monkeypatch.chdir(tmp_path)
    assert train([*DATA, *PLAIN, "epochs=2", "limit_steps=1", "loggers=none", "dir=run"]) == 0
    head = capsys.readouterr().out
    first = json.loads(Path("run/result.json").read_text())["initial_loss"]
    assert f"loss {first['train']:.3f} before the first step; equal logits give 1.792 (log 6)" in head
    monkeypatch.setattr("deeptrain.analysis.initial_loss.measure_initial_loss", lambda *_: 1 / 0)
    assert train(["resume=run", "limit_steps=2"]) == 0
    assert "before the first step" not in capsys.readouterr().out
    assert json.loads(Path("run/result.json").read_text())["initial_loss"] == first

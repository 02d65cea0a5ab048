"""Numbers that go wrong: found before anything is saved, traced to their step, layer and images; skip and rollback."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from deeptrain import checkpoint
from deeptrain.cli import train
from deeptrain.finite import first_layer, not_finite, state_tensors
from deeptrain.trainer import Trainer

SMALL = [
    "data=synthetic",
    "data.size=640",
    "model=fcn",
    "model.hidden=[16]",
    "batch_size=64",
    "threads=1",
    "device=cpu",
]
SMALL += ["log.every_steps=4", "log.tensorboard=false", "dir=run", "epochs=3", "checkpoint.every_steps=2"]
WILD = ["optimizer=sgd", "optimizer.lr=1e30", "schedule=constant"]


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def poison(monkeypatch):
    """Make one step's gradients, or its images, go wrong."""

    def poisoned(step: int, what: str, until_slowed: bool = False) -> None:
        backward = Trainer.backward

        def wrong(self, images, targets, size):
            if self.progress.step == step and what == "images":
                images = images.clone()
                images[0, 0, 0, 0] = math.inf
            measured = backward(self, images, targets, size)
            if self.progress.step == step and what == "gradient" and not (until_slowed and self.progress.slowed):
                self.parameters[0].grad[0] = math.nan
            return measured

        monkeypatch.setattr(Trainer, "backward", wrong)

    return poisoned


def result() -> dict:
    return json.loads(Path("run/result.json").read_text())


def assert_saved_values_are_finite() -> None:
    for path in Path("run/checkpoints").iterdir():
        state = checkpoint.load(path)
        assert not not_finite(state_tensors(state)), path
        assert all(map(math.isfinite, state["progress"]["metrics"].values()))


def test_stop_says_step_layer_and_images(capsys):
    assert train([*SMALL, *WILD]) == 1
    reason = result()["reason"]
    assert "is not finite in step 2 (epoch 1; training images" in reason and "try a tenth of the rate" in reason
    assert "the output of" in reason or "the gradient of" in reason
    assert "Traceback" not in capsys.readouterr().out
    assert_saved_values_are_finite()


def test_stop_names_the_very_step(poison):
    poison(13, "gradient")
    assert train(SMALL) == 1
    assert "the gradient of" in result()["reason"] and "step 14 (epoch 2;" in result()["reason"]
    assert_saved_values_are_finite()


def test_stop_names_the_first_layer_that_goes_wrong(poison):
    poison(13, "images")
    assert train(SMALL) == 1
    assert "step 14" in result()["reason"]


def test_skip_leaves_the_step_out_and_nothing_else(poison, capsys):
    poison(13, "gradient")
    assert train([*SMALL, "on_nan=skip"]) == 0
    assert "left out" in capsys.readouterr().out
    assert result()["steps"] == 27 and all(map(math.isfinite, result()["metrics"].values()))
    state = checkpoint.load(Path("run/checkpoints/last.pt"))
    assert state["progress"]["left_out"] == 1
    assert_saved_values_are_finite()


def test_skipped_steps_are_in_the_middle_of_the_curves_once(poison):
    poison(13, "gradient")
    assert train([*SMALL, "on_nan=skip", "validate.every_steps=3"]) == 0
    steps = [line.split(",")[1] for line in Path("run/metrics.csv").read_text().splitlines()[1:]]
    assert len(steps) == len(set(steps))


def test_rollback_goes_on_at_half_the_rate(poison, capsys):
    poison(13, "gradient", until_slowed=True)
    assert train([*SMALL, "on_nan=rollback", "schedule=constant", "schedule.warmup=0", "optimizer.lr=0.01"]) == 0
    assert capsys.readouterr().out.count("going back") == 1
    state = checkpoint.load(Path("run/checkpoints/last.pt"))
    assert state["progress"]["slowed"] == 1 and result()["steps"] == 27
    assert state["optimizer"]["param_groups"][0]["lr"] == 0.005
    assert_saved_values_are_finite()


def test_rollback_gives_up_in_the_end(capsys):
    assert train([*SMALL, *WILD, "on_nan=rollback"]) == 1
    assert capsys.readouterr().out.count("going back") == 5
    assert_saved_values_are_finite()


def test_the_first_layer_is_named():
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        network[2].weight[0, 0] = math.inf
    assert first_layer(network, torch.ones(3, 4)) == "2"
    assert first_layer(network[:2], torch.ones(3, 4)) is None
    assert not network[2]._forward_hooks

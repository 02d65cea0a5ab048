"""Numbers that go wrong: found before anything is saved, traced to their step, layer and images; skip and rollback."""

import json
import math
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn

from deeptrain.commands.cli import train
from deeptrain.loggers.run_logger import RunLogger
from deeptrain.training import checkpoint
from deeptrain.training.nonfinite import NonFiniteError, first_layer, not_finite, state_values
from deeptrain.training.trainer import Trainer

pytestmark = pytest.mark.slow

SMALL = [
    "data=synthetic",
    "data.size=640",
    "model=fcn",
    "model.hidden=[16]",
    "batch_size=64",
    "threads=1",
    "device=cpu",
]
SMALL += ["log.every_steps=4", "loggers=none", "dir=run", "epochs=3", "checkpoint.every_steps=2"]
WILD = ["optimizer=sgd", "optimizer.lr=1e30", "schedule=constant"]


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def poison(monkeypatch):
    """Make one step's gradients (NaN, or too large to be squared or added up), images or running means go wrong."""

    def poisoned(step: int, what: str, until_slowed: bool = False) -> None:
        backward = Trainer.backward

        def wrong(self, images, targets):
            if self.progress.step == step and what == "images":
                images = images.clone()
                images[0, 0, 0, 0] = math.inf
            if self.progress.step == step and what == "buffer":
                with torch.no_grad():
                    next(self.model.buffers())[0] = math.inf
            outputs = backward(self, images, targets)
            if self.progress.step == step and what == "gradient" and not (until_slowed and self.progress.rollbacks):
                self.parameters[0].grad[0] = math.nan
            if self.progress.step == step and what in ("square", "sum"):
                self.parameters[0].grad[0] = {"square": 1e25, "sum": 3e38}[what]
            return outputs

        monkeypatch.setattr(Trainer, "backward", wrong)

    return poisoned


def result() -> dict:
    return json.loads(Path("run/result.json").read_text())


def assert_saved_values_are_finite() -> None:
    for path in Path("run/checkpoints").iterdir():
        state = checkpoint.load(path)
        assert not not_finite(state_values(state)), path


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
    assert state["progress"]["skipped_steps"] == 1
    assert_saved_values_are_finite()


def test_skipped_steps_are_in_the_middle_of_the_curves_once(poison):
    poison(13, "gradient")
    assert train([*SMALL, "on_nan=skip", "validate.every_steps=3"]) == 0
    steps = [line.split(",")[1] for line in Path("run/metrics.csv").read_text().splitlines()[1:]]
    assert len(steps) == len(set(steps))


def test_rollback_goes_on_at_half_the_rate(poison, capsys):
    poison(13, "gradient", until_slowed=True)
    assert train([*SMALL, "on_nan=rollback", "schedule=constant", "schedule.warmup=0", "optimizer.lr=0.01"]) == 0
    said = capsys.readouterr().out
    assert said.count("looking at every step") == said.count("half the rate") == 1
    assert "the gradient of layers.0.weight is not finite in step 14 (epoch 2; training images " in said
    state = checkpoint.load(Path("run/checkpoints/last.pt"))
    assert state["progress"]["rollbacks"] == 1 and result()["steps"] == 27
    assert state["optimizer"]["param_groups"][0]["lr"] == 0.005
    assert_saved_values_are_finite()


def test_rollback_gives_up_in_the_end(capsys):
    assert train([*SMALL, *WILD, "on_nan=rollback"]) == 1
    assert capsys.readouterr().out.count("half the rate") == 5
    assert "is not finite in step " in result()["reason"] and "training images" in result()["reason"]
    assert_saved_values_are_finite()


@pytest.mark.parametrize(
    ("what", "word", "where"),
    [
        ("sum", "optimizer=sgd", "layers.0.weight"),
        ("buffer", "model.norm=batch", "layers.1.running_mean"),
        ("square", "optimizer=adamw", "layers.0.weight (exp_avg_sq of the optimizer)"),  # of a finite gradient
    ],
)
def test_what_overflows_in_an_update_is_left_out(what, word, where, poison, capsys):
    """Found and undone in step 14, not in step 15, the first whose output it would spoil."""
    poison(13, what)
    assert train([*SMALL, word, "on_nan=skip"]) == 0
    assert f"the update of {where} is not finite in step 14 (epoch 2; training images " in capsys.readouterr().out
    assert checkpoint.load(Path("run/checkpoints/last.pt"))["progress"]["skipped_steps"] == 1
    assert_saved_values_are_finite()


def test_stop_names_an_update_that_overflows(poison):
    poison(13, "sum")
    assert train([*SMALL, "optimizer=sgd"]) == 1
    assert result()["reason"].startswith("the update of layers.0.weight is not finite in step 14 (epoch 2; training")


@pytest.mark.parametrize("what", ["gradient", "square"])
def test_what_is_left_out_leaves_no_trace(what, poison, monkeypatch):
    """Weights and momenta after the step are those before it, bit for bit."""
    states, advance = {}, RunLogger.advance

    def seen(self, step_in_epoch):
        states[trainers[0].progress.step] = deepcopy(
            [trainers[0].model.state_dict(), trainers[0].optimizer.state_dict()["state"]]
        )
        advance(self, step_in_epoch)

    trainers, fit = [], Trainer.fit
    monkeypatch.setattr(Trainer, "fit", lambda self, step: (trainers.append(self), fit(self, step))[1])
    monkeypatch.setattr(RunLogger, "advance", seen)
    poison(13, what)
    assert train([*SMALL, "optimizer=adamw", "on_nan=skip"]) == 0
    before, after = state_values(states[13]), state_values(states[14])
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert not torch.equal(after["0.layers.0.weight"], state_values(states[15])["0.layers.0.weight"])


def test_in_fp16_a_step_that_the_scaler_leaves_out_is_not_in_the_means(poison, capsys):
    """The weights stay finite, so that nothing needs to be repeated; the loss of that step is saved nowhere."""
    poison(13, "images")
    assert train([*SMALL, "precision=fp16"]) == 0
    assert "going back" not in capsys.readouterr().out
    assert result()["steps"] == 27 and all(map(math.isfinite, result()["metrics"].values()))
    assert_saved_values_are_finite()


def test_in_fp16_a_loss_that_stays_infinite_is_found(monkeypatch):
    monkeypatch.setattr("deeptrain.loss.CrossEntropy.__call__", lambda _, logits, targets: logits.sum() * math.inf)
    assert train([*SMALL, "precision=fp16"]) == 1
    assert "the loss is not finite in step 3 (epoch 1" in result()["reason"]


@pytest.mark.parametrize("part", ["meters", "average", "progress"])
def test_no_part_of_a_checkpoint_is_saved_when_it_is_not_finite(part, monkeypatch):
    state_dict = Trainer.state_dict

    def wrong(self):
        state = state_dict(self)
        if self.progress.step == 14:
            state[part] = {"here": [math.nan]}
        return state

    monkeypatch.setattr(Trainer, "state_dict", wrong)
    assert train(SMALL) == 1
    assert f"{part}.here.0 is not finite at step 14" in result()["reason"]
    assert_saved_values_are_finite()


def test_weights_that_start_infinite_are_never_saved(monkeypatch):
    fit = Trainer.fit

    def spoilt(self, step):
        with torch.no_grad():
            self.parameters[0][0] = math.inf
        return fit(self, step)

    monkeypatch.setattr(Trainer, "fit", spoilt)
    assert train(SMALL) == 1
    assert result()["reason"].startswith("before the first step: layers.0.weight is not finite: the initialization")
    assert not list(Path("run/checkpoints").iterdir())


def test_a_validation_made_up_for_follows_the_policy(monkeypatch, capsys):
    """A run stopped between a step and its validation validates first; what is wrong then is traced as ever."""
    validate = Trainer.validate
    monkeypatch.setattr(Trainer, "validate", lambda self: self.stop.request(15) or self.save())
    assert train(SMALL) == 130
    calls, guards, fit = [], [], Trainer.fit
    monkeypatch.setattr(Trainer, "fit", lambda self, guard: (guards.append(guard), fit(self, guard))[1])

    def wrong(self):
        calls.append(self.progress.step)
        if len(calls) == 1:
            raise NonFiniteError("loss/val is nan")
        validate(self)

    monkeypatch.setattr(Trainer, "validate", wrong)
    assert train(["resume=run", "on_nan=skip"]) == 0
    assert [guard is not None for guard in guards] == [False, True] and "going back" in capsys.readouterr().out
    assert 0 < result()["train_seconds"] < 1000, "no clock begins at 0"


def test_a_state_is_looked_at_as_a_whole():
    state = {"a": [torch.ones(2), {"b": math.inf}], "c": (torch.tensor([1.0, math.nan]), 3, None, "x")}
    assert not_finite(state_values(state)) == ["a.1.b", "c.0"]
    assert not_finite({"count": torch.ones(1, dtype=torch.int64)}) == []


def test_the_first_layer_is_named():
    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        network[2].weight[0, 0] = math.inf
    assert first_layer(network, torch.ones(3, 4)) == "2"
    assert first_layer(network[:2], torch.ones(3, 4)) is None
    assert not network[2]._forward_hooks

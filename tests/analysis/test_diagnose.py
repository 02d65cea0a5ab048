"""diagnose: what it measures before the first step, and three steps from end to end."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from deeptrain import build, compose
from deeptrain.analysis import diagnose as room
from deeptrain.analysis.diagnose import is_upside_down, measure_start, mixes_batch, mixes_labels
from deeptrain.commands.diagnose import diagnose
from deeptrain.data.dataset import Samples
from deeptrain.data.leaks import contradictions
from deeptrain.errors import UsageError
from deeptrain.loss import MSE, CrossEntropy, Hinge

LABELS = torch.arange(20) % 5
WORDS = ["data=digits", "data.train_images=300", "model=fcn", "limit_steps=200"]


def test_equal_images_with_other_labels_are_found():
    images = torch.randint(0, 256, (6, 4, 4, 1), dtype=torch.uint8).numpy()
    images[4], images[5] = images[0], images[1]
    labels = torch.tensor([0, 1, 2, 3, 1, 1]).numpy()
    assert contradictions(Samples(images, None, labels)) == [(0, 4)]


@pytest.mark.parametrize("loss", [cross_entropy, CrossEntropy(label_smoothing=0.5), Hinge(), MSE()])
def test_sound_losses_are_neither_upside_down_nor_mixed(loss):
    assert not is_upside_down(loss, LABELS, 5)
    assert not mixes_labels(loss, LABELS, 5)


def test_a_negated_loss_is_upside_down():
    assert is_upside_down(lambda logits, labels: -cross_entropy(logits, labels), LABELS, 5)


def test_a_softmax_over_the_batch_mixes_labels():
    def wrong(logits, labels):
        return -(logits.log_softmax(0).mean(1).mean() * 0 + (logits.mean(0).log_softmax(0))[labels].mean())

    assert mixes_labels(wrong, LABELS, 5)


class Mixing(nn.Module):
    """Takes the mean of its batch away."""

    def __init__(self, classes: int):
        super().__init__()
        self.layer = nn.Linear(64, classes)

    def forward(self, images):
        outputs = self.layer(images.flatten(1))
        return outputs - outputs.mean(0)


def test_images_that_influence_one_another_are_seen_in_evaluation():
    setup = build.open_setup(compose([*WORDS, "model.norm=batch"]))
    trainer = build.trainer(setup)
    inputs = torch.randn(4, 1, 8, 8)
    assert not mixes_batch(trainer, inputs), "batch norm mixes in training only"
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    start = measure_start(trainer, setup)
    assert start.loss == pytest.approx(start.guess, rel=0.3)
    assert not (start.batch_mixed or start.loss_mixed or start.upside_down or start.probabilities or start.leaks)
    assert all(map(torch.equal, trainer.model.parameters(), before))
    trainer.model = Mixing(10)
    assert mixes_batch(trainer, inputs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "verdict", "code"), [([], "healthy", 0), (["optimizer=sgd", "optimizer.lr=100"], "rate_too_high", 1)]
)
def test_three_steps(words, verdict, code, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(room, "STEPS", 60)
    assert diagnose([*WORDS, *words, "dir=it"]) == code
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(Path("it/diagnosis.json").read_text())
    assert found["verdict"] == verdict
    assert lines[0].startswith("1 start     passed   loss ")
    assert [step["status"] for step in found["steps"]] == (["passed"] * 3 if code == 0 else ["passed", "failed"])
    (command,) = found["commands"]
    assert f"try       {command}" in lines or f"try      {command}" in lines
    assert command.startswith("python train.py " if code == 0 else "python scripts/diagnose.py ")
    page = Path("it/diagnosis.html").read_text()
    assert command in page and "http" not in page.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("overfit=5", "overfit=5: a diagnosis does not read it; leave it out"),
        ("steps=2", "steps=2: choose from 1, 1-2, 1-3; a step needs those before it"),
    ],
)
def test_a_command_without_a_sense_is_answered_in_a_line(word, line, capsys):
    assert diagnose([word]) == 2
    assert f"error: {line}" in capsys.readouterr().err


def test_data_that_cannot_be_cut_down_are_not_blamed(monkeypatch):
    """A sample that cannot be made says nothing of the network."""

    def refuse(words, report, change=""):
        raise UsageError(["overfit=64: this source has no train_images"])

    monkeypatch.setattr(room, "_attempt", refuse)
    found = room.diagnose(compose(WORDS), last=2)
    assert [step.status for step in found.steps] == ["passed", "left out"]
    assert not found.verdicts

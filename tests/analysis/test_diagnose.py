"""diagnose: what it measures before the first step, its steps from end to end, and going on after a stop."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from deeptrain import compose
from deeptrain.analysis.diagnosis import budget, memorise, procedure
from deeptrain.analysis.diagnosis.ledger import FILE, Ledger
from deeptrain.analysis.diagnosis.start import is_linear, is_upside_down, measure_start, mixes_batch, mixes_labels
from deeptrain.analysis.diagnosis.subject import ComposedRun
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
    with ComposedRun(compose([*WORDS, "model.norm=batch"])).opened() as opened:
        trainer, inputs = opened.trainer, torch.randn(4, 1, 8, 8)
        assert not mixes_batch(trainer.model, inputs), "batch norm mixes in training only"
        before = [parameter.clone() for parameter in trainer.model.parameters()]
        start = measure_start(opened, [])
        assert start.loss == pytest.approx(start.guess, rel=0.3)
        assert not (start.batch_mixed or start.loss_mixed or start.upside_down or start.probabilities or start.leaks)
        assert all(map(torch.equal, trainer.model.parameters(), before))
        assert mixes_batch(Mixing(10), inputs)


def stacked(*between: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), *between, nn.Linear(16, 10))


@pytest.mark.parametrize("between", [(), (nn.Dropout(0.5),), (nn.BatchNorm1d(16),)])
def test_layers_without_activations_are_a_straight_line(between):
    assert is_linear(stacked(*between), torch.randn(64, 1, 8, 8))


@pytest.mark.parametrize("between", [(nn.ReLU(),), (nn.Tanh(),), (nn.GELU(),)])
def test_no_activation_is_taken_for_a_straight_line(between):
    """Near zero a tanh is one, so it is looked at far from there too."""
    model, images = stacked(*between), torch.randn(64, 1, 8, 8)
    assert not is_linear(model, images)
    assert not is_linear(model, 1e-3 * images)


def test_a_single_layer_or_equal_outputs_are_no_missing_activation():
    images = torch.randn(64, 1, 8, 8)
    assert not is_linear(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), images)
    silent = stacked()
    for parameter in silent[1].parameters():
        nn.init.zeros_(parameter)
    assert not is_linear(silent, images)


@pytest.fixture
def brief(monkeypatch):
    """Make all runs short; speed, which is measured, is always the same."""
    monkeypatch.setattr(memorise, "STEPS", 60)
    monkeypatch.setattr(budget, "PLANNED", 60)
    monkeypatch.setattr(procedure, "measure_speed", lambda opened: budget.Speed(1e-3, 1e-2))


@pytest.mark.slow
def test_seven_steps_of_a_healthy_set_up(brief, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert diagnose([*WORDS, "dir=it"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(Path("it/diagnosis.json").read_text())
    assert not [verdict for verdict in found["verdicts"] if verdict["kind"] == "fault"]
    assert lines[0].startswith("1 start     passed   loss ")
    assert [step["status"] for step in found["steps"]] == ["passed"] * 7
    (command,) = found["commands"]
    assert command.startswith("python train.py ")
    assert any(line.endswith(command) and line.startswith("try") for line in lines)
    page = Path("it/diagnosis.html").read_text()
    assert page.count("<img") == 4 and "http" not in page.replace("http-equiv", "")
    cells = {(cell["rate"], cell["decay"]) for cell in found["grid"]}
    steps = found["grid"][0]["steps"]
    expected = {(rate, 0.05) for rate, _ in cells}
    expected |= {(rate, decay) for rate, _ in cells for decay in (0.0, 0.005) if rate * (0.05 - decay) * steps >= 0.01}
    assert cells == expected, "each rate with each decay, where it differs from one's own by 1 % of the weights"


@pytest.mark.slow
def test_a_fault_ends_it_and_names_the_diagnosis_to_type_next(brief, capsys, tmp_path):
    assert diagnose([*WORDS, "optimizer=sgd", "optimizer.lr=100", f"dir={tmp_path}"]) == 1
    found = json.loads((tmp_path / "diagnosis.json").read_text())
    assert found["verdict"] == "rate_too_high"
    assert [step["status"] for step in found["steps"]] == ["passed", "failed"]
    (command,) = found["commands"]
    page = (tmp_path / "diagnosis.html").read_text()
    assert command.startswith("python scripts/diagnose.py ") and command in page
    typed, remedied, *_ = runs = found["mended"]["runs"]
    assert typed["change"] == "as typed" and remedied["change"].startswith("optimizer.lr=")
    assert [run for run in runs if run["best"]] == [max(runs, key=lambda run: run["accuracy"])]
    assert page.count("<img") == 2 and "the run as it was typed and with the changes" in page


@pytest.mark.slow
def test_a_stopped_diagnosis_goes_on_with_the_same_numbers(brief, tmp_path, monkeypatch, capsys):
    """Whatever was measured before the stop is not measured again."""
    assert diagnose([*WORDS, f"dir={tmp_path / 'whole'}"]) == 0
    write, count = Ledger._write, []

    def stop_after_five(ledger):
        write(ledger)
        count.append(1)
        if len(count) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "_write", stop_after_five)
    assert diagnose([*WORDS, f"dir={tmp_path / 'cut'}"]) == 130
    kept = json.loads((tmp_path / "cut" / FILE).read_text())["found"]
    assert len(kept) == 5 and f"resume={tmp_path / 'cut'}" in capsys.readouterr().err
    monkeypatch.setattr(Ledger, "_write", write)
    assert diagnose([f"resume={tmp_path / 'cut'}"]) == 0
    whole, cut = (json.loads((tmp_path / name / "diagnosis.json").read_text()) for name in ("whole", "cut"))
    assert cut == whole
    again = json.loads((tmp_path / "cut" / FILE).read_text())["found"]
    assert {name: again[name] for name in kept} == kept


def test_a_budget_leaves_out_what_does_not_fit_and_says_so(brief, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(procedure, "measure_speed", lambda opened: budget.Speed(1.0, 0.0))
    assert diagnose([*WORDS, "budget=10s", f"dir={tmp_path}"]) == 0
    assert "2 memorise  left out 10s are too short for it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("overfit=5", "overfit=5: a diagnosis does not read it; leave it out"),
        ("steps=8", "steps=8: choose from 1, 1-2, 1-3, 1-4, 1-5, 1-6, 1-7; a step needs those before it"),
        ("steps=2-3", "steps=2-3: choose from 1, 1-2, 1-3, 1-4, 1-5, 1-6, 1-7; a step needs those before it"),
        ("budget=10", "budget=10: write a time as 90s, 10m or 1h"),
        ("resume=nowhere", "resume=nowhere: has no measurements.json, so no diagnosis was started there"),
    ],
)
def test_a_command_without_a_sense_is_answered_in_a_line(word, line, capsys):
    assert diagnose([word]) == 2
    assert f"error: {line}" in capsys.readouterr().err


DAMAGED = {
    "empty": "",
    "list": "[]",
    "without facts": "{}",
    "unknown type": '{"facts": {"words": ["a=1"]}, "found": {"x": {"is": "Path"}}}',
    "nested": '{"facts": {"words": []}, "found": {"x": '
    + '{"is": "tuple", "values": [' * 900
    + "1"
    + "]}" * 900
    + "}}",
    "endless": '{"a":' * 200_000,
    "large": '{"facts": "' + "x" * 17 * 2**20 + '"}',
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_answered_in_a_line(content, tmp_path, capsys):
    (tmp_path / FILE).write_text(content)
    assert diagnose([f"resume={tmp_path}"]) == 2
    assert "is damaged, or no file of a diagnosis; move it away" in capsys.readouterr().err


def test_a_strangers_folder_does_not_decide_what_is_run(tmp_path, capsys):
    facts = {"words": ["allow_targets=[os]", *WORDS], "budget": None}
    (tmp_path / FILE).write_text(json.dumps({"facts": facts, "found": {}}))
    assert diagnose([f"resume={tmp_path}"]) == 2
    assert "asks for allow_targets=[os], by which it could run any code" in capsys.readouterr().err


def test_data_that_cannot_be_cut_down_are_not_blamed(brief, monkeypatch):
    """A sample that cannot be made says nothing of the network."""

    def refuse(*_):
        raise UsageError(["overfit=64: this source has no train_images"])

    monkeypatch.setattr(procedure, "memorise", refuse)
    found = procedure.diagnose(ComposedRun(compose(WORDS)), last=2)
    assert [step.status for step in found.steps] == ["passed", "left out"]
    assert not found.verdicts

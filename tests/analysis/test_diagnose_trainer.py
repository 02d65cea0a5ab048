"""deeptrain.diagnose: a trainer made in Python, with a network, loss and optimizer of one's own."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import deeptrain
from deeptrain import Pipeline, Plan, Trainer, Validator, tensor_loader
from deeptrain.analysis.diagnosis import budget, memorise
from deeptrain.analysis.diagnosis.controls import fit_linear, measure_controls
from deeptrain.analysis.diagnosis.given import GivenTrainer
from deeptrain.analysis.diagnosis.ledger import Ledger
from deeptrain.analysis.diagnosis.procedure import TYPES
from deeptrain.analysis.diagnosis.start import unused_parameters
from deeptrain.analysis.diagnosis.trial import Trials
from deeptrain.errors import UsageError

CENTRES = torch.randint(0, 256, (4, 1, 4, 4), generator=torch.Generator().manual_seed(1))


def pictures(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Make noisy pictures of four classes."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    noise = torch.randint(-60, 61, (count, 1, 4, 4), generator=rng)
    return (CENTRES[labels] + noise).clamp(0, 255).to(torch.uint8), labels


class Net(nn.Module):
    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 4))

    def forward(self, images):
        return self.layers(images)


def trainer(lr: float = 0.1, loss=cross_entropy, dropout: float = 0.0, val=None, **optimizer) -> Trainer:
    torch.manual_seed(0)
    model, pipeline = Net(dropout), Pipeline([], [128.0], [80.0])
    val = val or pictures(80, 2)
    return Trainer(
        model,
        torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, **optimizer),
        pipeline,
        tensor_loader(*pictures(200, 1), batch_size=20),
        Validator(model, tensor_loader(*val, 40, train=False), pipeline, loss=loss),
        plan=Plan(epochs=6),
        loss=loss,
    )


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr(memorise, "STEPS", 60)
    monkeypatch.setattr(budget, "PLANNED", 60)


def test_a_trainer_is_diagnosed_and_left_as_it_was(tmp_path):
    subject = trainer()
    before, optimizer = copy.deepcopy(subject.model.state_dict()), str(subject.optimizer.state_dict())
    torch.manual_seed(5)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    found = deeptrain.diagnose(subject)
    assert torch.equal(torch.rand(3), drawn), "no random number is taken"
    assert not found.failed and [step.status for step in found.steps] == ["passed"] * 7
    assert all(torch.equal(value, before[name]) for name, value in subject.model.state_dict().items())
    assert str(subject.optimizer.state_dict()) == optimizer and subject.progress.step == 0
    assert str(found) == repr(found) and "trainer.fit()" in str(found).splitlines()[-1]
    assert found.save(tmp_path).read_text().count("<section>") == 7
    subject.fit()
    assert subject.progress.metrics["accuracy/val"] > 0.9


@pytest.mark.parametrize(
    ("facts", "name", "words"),
    [
        ({"lr": 1e4}, "rate_too_high", "lr="),
        ({"lr": 1e-7}, "rate_too_low", "lr="),
        ({"loss": lambda logits, labels: -cross_entropy(logits, labels)}, "loss_upside_down", ""),
        ({"dropout": 0.99}, "regularized", "no dropout"),
    ],
)
def test_what_is_wrong_is_named(facts, name, words, tmp_path):
    found = deeptrain.diagnose(trainer(**facts))
    assert found.verdicts[0].name == name and found.failed
    assert words in found.command and "optimizer.lr" not in found.command
    page = found.save(tmp_path).read_text()
    assert page.count('<p class="failed">Step ') == page.count("not reached") == 1
    assert ("<td>as typed</td>" in page) == (len(found.steps) > 1), "what was tried, in a table"


class Halved(Net):
    """Its first layer gets no gradient."""

    def forward(self, images):
        return self.layers[4](self.layers[:4](images).detach())


def test_parameters_that_no_step_changes_are_seen():
    given = trainer()
    given = replace(given, optimizer=torch.optim.SGD(list(given.model.parameters())[1:], lr=0.1))
    (verdict,) = deeptrain.diagnose(given, steps=1).verdicts
    assert verdict.evidence == "the optimizer does not hold 1 of 4 parameters, such as layers.1.weight"
    with GivenTrainer(trainer()).opened() as opened:
        inputs, labels = torch.randn(4, 1, 4, 4), torch.arange(4)
        named = dict(opened.trainer.model.named_parameters())
        assert not unused_parameters(opened.trainer, named, inputs, labels)
        model = Halved()
        halved = replace(opened.trainer, model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
        found = unused_parameters(halved, dict(model.named_parameters()), inputs, labels)
        assert found == ("layers.1.weight", "layers.1.bias")


def test_images_of_train_in_val_are_seen():
    found = deeptrain.diagnose(trainer(val=pictures(40, 1)), steps=1)
    assert [verdict.name for verdict in found.verdicts] == ["leak"]


def test_a_trainer_that_has_trained_is_refused():
    used = trainer()
    used.progress.step = 7
    with pytest.raises(ValueError, match="the trainer has taken 7 steps; diagnose a new one"):
        deeptrain.diagnose(used)
    with pytest.raises(ValueError, match="steps=9: must be from 1 to 7"):
        deeptrain.diagnose(trainer(), steps=9)


@pytest.mark.parametrize(
    ("change", "read"),
    [
        ("optimizer.lr=0.5", lambda made: made.optimizer.param_groups[0]["initial_lr"] == 0.5),
        ("optimizer.weight_decay=0.25", lambda made: made.optimizer.param_groups[0]["weight_decay"] == 0.25),
        ("model.dropout=0.0", lambda made: made.model.layers[3].p == 0),
        ("optimizer=adamw", lambda made: isinstance(made.optimizer, torch.optim.AdamW)),
        ("epochs=12", lambda made: made.plan.total_steps == 120),
    ],
)
def test_a_change_is_made_and_taken_back(change, read):
    given = trainer(dropout=0.5)
    with GivenTrainer(given).opened([change]) as opened:
        assert read(opened.trainer)
        assert all(map(torch.equal, opened.trainer.model.parameters(), given.model.parameters()))
    assert not read(given)
    assert given.model.layers[3].p == 0.5


@pytest.mark.parametrize("change", ["model.norm=batch", "aug=mixup"])
def test_a_change_that_a_trainer_cannot_make_is_refused(change):
    """Else it would be tried in vain, and be told as a change that makes no difference."""
    with pytest.raises(UsageError, match=change), GivenTrainer(trainer()).opened([change]):
        pass


def test_a_run_of_twice_the_epochs_is_tried_in_twice_the_steps():
    trials = Trials(GivenTrainer(trainer()), Ledger(types=TYPES), lambda text: None, 0.5, most=70)
    assert [trials.whole(0.1, 0.0, change).steps for change in ("", "epochs=12")] == [30, 60]
    assert trials.whole(0.1, 0.0, "epochs=120").steps == 70, "all images of a large set may take hours"


def test_a_trial_is_the_training_itself():
    """The same steps from the same weights end with the same answers."""
    found = Trials(GivenTrainer(trainer()), Ledger(types=TYPES), lambda text: None, 1.0, most=1000).whole(0.1, 0.0)
    itself = trainer()
    itself.fit()
    assert found.accuracy == pytest.approx(itself.progress.metrics["accuracy/val"])
    assert found.rows[-1]["loss/val"] == pytest.approx(itself.progress.metrics["loss/val"], rel=1e-5)


def test_the_update_of_the_first_step_is_compared_with_the_weights():
    given = trainer()
    found = Trials(GivenTrainer(given), Ledger(types=TYPES), lambda text: None, 1.0, most=1000).whole(0.1, 0.0)
    rows = {row["step"]: row["ratio/layers.1"] for row in found.layers if "ratio/layers.1" in row}
    weight = next(given.model.parameters())
    before = weight.detach().clone()
    given.schedule = lambda progress: 1.0
    images, labels = next(iter(given.train_loader.epoch(0)))
    given.train_step(images, labels)
    after = weight.detach()
    assert rows.keys() == {1, 30}
    assert rows[1] == pytest.approx(float((after - before).norm() / after.norm()), rel=1e-4)


# --- controls ---


def test_a_straight_line_is_softmax_regression():
    """Compared with scikit-learn's, with the same penalty, on the same standardised inputs."""
    from sklearn.linear_model import LogisticRegression

    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    inputs = torch.randn(300, 8, generator=rng) + labels[:, None].float() * torch.linspace(-1, 1, 8)
    scaled = ((inputs - inputs.mean(0)) / inputs.std(0) / 8**0.5).numpy()
    theirs = LogisticRegression(C=1 / (2 * 0.01), max_iter=2000).fit(scaled, labels.numpy()).predict(scaled)
    ours = fit_linear(inputs, labels, 3)(inputs).argmax(1).numpy()
    assert (ours == theirs).mean() > 0.99


@pytest.mark.parametrize(("factor", "told"), [(1.0, (0.35, 0.65)), (0.2, (0.9, 1.0))])
def test_a_straight_line_tells_train_from_a_darker_val(factor, told):
    images, labels = pictures(200, 2)
    with GivenTrainer(trainer(val=((images * factor).to(torch.uint8), labels))).opened() as opened:
        found = measure_controls(opened, 1000)
    assert told[0] <= found.told_apart <= told[1]
    assert len(found.linear) == 200 and (factor < 1 or found.linear_accuracy > 0.9)

"""Optimizers whose step needs a closure, against torch's own loop; resumed, refused, and beside penalties."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from deeptrain import Pipeline, Plan, Trainer, Validator, build, tensor_loader
from deeptrain.commands.cli import train
from deeptrain.config.compose import compose_run
from deeptrain.errors import UsageError
from deeptrain.optimizer import needs_closure
from deeptrain.training import recovery
from deeptrain.training.checkpoint import load

WORDS = ["data=synthetic", "data.size=100", "data.shape=[1,4,4]", "model=fcn", "model.hidden=[6]", "optimizer=lbfgs"]
WORDS += ["schedule=constant", "optimizer.max_iter=5", "threads=1", "batch_size=40", "validate.clean_images=0"]


def problem():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 1, 4, 4), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 3, (60,), generator=generator)
    torch.manual_seed(0)
    return images, labels, nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_full_batch_steps_are_those_of_torch(accumulate):
    images, labels, model = problem()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=6, line_search_fn="strong_wolfe")
    pipeline = Pipeline([], mean=[128.0], std=[64.0])
    loader = tensor_loader(images, labels, batch_size=60)
    calls = []
    validator = Validator(model, tensor_loader(images, labels, batch_size=60, train=False), pipeline)
    trainer = Trainer(
        model, optimizer, pipeline, loader, validator,
        plan=Plan(epochs=4), accumulate=accumulate, gradient=lambda backward: calls.append(1) or backward(),
    )  # fmt: skip
    trainer.fit()
    _, _, expected = problem()
    theirs = torch.optim.LBFGS(expected.parameters(), lr=0.5, max_iter=6, line_search_fn="strong_wolfe")
    inputs, evaluations = (images.float() - 128) / 64, []

    def closure():
        evaluations.append(1)
        theirs.zero_grad()
        loss = cross_entropy(expected(inputs), labels)
        loss.backward()
        return loss

    losses = [theirs.step(closure).item() for _ in range(4)]
    for ours, reference in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, reference, rtol=2e-3, atol=2e-4)
    assert len(calls) == len(evaluations), "the first evaluation of a step is not made twice"
    assert [row["loss/train"] for row in trainer.history] == pytest.approx(losses, rel=1e-3)
    assert losses[-1] < losses[0] / 2


def test_the_closure_returns_loss_and_penalty():
    trainer = build.trainer(build.open_setup(compose_run([*WORDS, "penalty=l2", "penalty.strength=0.1"])))
    images, labels = next(iter(trainer.train_loader.epoch(0)))
    outputs = trainer.compute_gradient(*trainer.augment(images, labels))
    penalty = sum(float(term) for term in trainer.meter.penalty_terms.values())
    assert penalty > 0 and trainer.meter.total_loss(outputs) == pytest.approx(float(outputs[0][0]) + penalty)


def test_only_optimizers_that_ask_for_a_closure_get_one():
    weight = [torch.zeros(1, requires_grad=True)]
    assert needs_closure(torch.optim.LBFGS(weight))
    assert not any(needs_closure(kind(weight)) for kind in (torch.optim.SGD, torch.optim.AdamW, torch.optim.Rprop))


def test_a_resumed_run_has_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = [*WORDS, "loggers=none", "checkpoint.every_steps=1"]
    assert train([*small, "epochs=3", "dir=whole"]) == 0
    assert train([*small, "epochs=3", "max_seconds=0.0001", "dir=run"]) == 0
    assert train(["resume=run", "max_seconds=null"]) == 0
    whole, resumed = (load(tmp_path / name / "checkpoints" / "last.pt") for name in ("whole", "run"))
    assert whole["progress"]["step"] == resumed["progress"]["step"] == 9
    for name, value in whole["model"].items():
        assert torch.equal(value, resumed["model"][name]), name


def test_recovery_undoes_a_step_of_many_evaluations():
    """A step that is undone and taken again arrives at the same bits, curvature included."""
    trainer = build.trainer(build.open_setup(compose_run(WORDS)))
    first, second = list(trainer.train_loader.epoch(0))[:2]
    trainer.train_step(*first)
    before, weights = recovery._snapshot(trainer), []
    for _ in range(2):
        trainer.train_step(*second)
        weights.append([parameter.detach().clone() for parameter in trainer.parameters])
        recovery._restore(trainer, before)
    moved = [torch.equal(a, b) for a, b in zip(weights[0], trainer.parameters, strict=True)]
    assert not all(moved) and all(map(torch.equal, *weights))


@pytest.mark.parametrize("model", ["resnet", "vgg"])
def test_channels_last_weights_are_optimized(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    words = ["data=synthetic", "data.size=40", f"model={model}", "model.norm=group", "optimizer=lbfgs"]
    words += ["optimizer.max_iter=2", "limit_steps=2", "validate.clean_images=0", "loggers=none", "dir=run"]
    assert train(words) == 0


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("precision=fp16", "optimizer=lbfgs: does not go with precision=fp16; write precision=fp32"),
        ("gradient=sam", "optimizer=lbfgs: does not go with gradient=sam, which changes the gradient"),
        ("optimizer.max_iters=3", "optimizer.max_iters=3: no such setting; did you mean optimizer.max_iter?"),
        ("optimizer.history_size=ten", "optimizer.history_size=ten: must be a whole number"),
    ],
)
def test_what_cannot_work_is_refused_in_a_line(word, message):
    with pytest.raises(UsageError) as caught:
        build.trainer(build.open_setup(compose_run([*WORDS, word])))
    assert caught.value.lines[0].startswith(message)

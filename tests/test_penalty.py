"""Penalties: the lecture's formulas, their own columns in every record, and the optimizers' decay."""

import csv
from pathlib import Path

import pytest
import torch
from torch import nn

from deeptrain import build, optimizer
from deeptrain.commands.cli import train
from deeptrain.config.compose import compose_run
from deeptrain.penalty import L1, L2, Elastic
from deeptrain.training import checkpoint

TINY = ["data=synthetic", "data.shape=[1,4,4]", "data.size=80", "batch_size=16", "validate.clean_images=16"]
SMALL = [*TINY, "model=fcn", "model.hidden=[8]"]
PENALTIES = [
    (L1(strength=0.3), lambda w: {"l1": 0.3 * w.abs().sum()}),
    (L2(strength=0.3), lambda w: {"l2": 0.3 * (w**2).sum()}),
    (Elastic(strength=0.3, beta=0.7), lambda w: {"l1": 0.3 * w.abs().sum(), "l2": 0.3 * 0.7 * (w**2).sum()}),
]


def weights(device) -> list[torch.Tensor]:
    """A matrix, a convolution stored channels_last, and weights that are 0."""
    generator = torch.Generator().manual_seed(0)
    conv = torch.randn(4, 3, 3, 3, generator=generator).to(device, memory_format=torch.channels_last)
    flat = [torch.randn(5, 7, generator=generator).to(device), torch.zeros(2, 3, device=device)]
    return [value.requires_grad_() for value in (*flat, conv)]


@pytest.mark.parametrize(("penalty", "formula"), PENALTIES, ids=["l1", "l2", "elastic"])
def test_value_and_gradient_are_the_lectures(device, penalty, formula):
    ours = weights(device)
    flat = torch.cat([value.detach().flatten() for value in ours]).cpu().double().requires_grad_()
    expected, found = formula(flat), penalty(ours)
    sum(expected.values()).backward()
    sum(found.values()).backward()
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value.shape == () and value.item() == pytest.approx(expected[name].item(), rel=1e-5)
    gradient = torch.cat([value.grad.flatten() for value in ours]).cpu()
    torch.testing.assert_close(gradient, flat.grad.float())


def test_its_gradient_is_added_to_the_losss(device):
    (weight, *_) = weights(device)
    images = torch.randn(4, 7, device=device)
    (images @ weight.T).square().sum().backward()
    alone = weight.grad.clone()
    sum(L2(strength=0.5)([weight]).values()).backward()
    torch.testing.assert_close(weight.grad, alone + weight.detach())


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)]
    return nn.Sequential(*layers).double()


def steps(penalty, make, count=5, **settings) -> nn.Module:
    """Take a few steps on a small network. Penalty and decay skip its biases and norms."""
    model = network()
    update = make(optimizer.parameter_groups(model), lr=0.1, **settings)
    picked = optimizer.weights_of(model.parameters())
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        images = torch.randn(16, 6, generator=generator, dtype=torch.float64)
        model(images).square().mean().backward()
        if penalty is not None:
            sum(penalty(picked).values()).backward()
        update.step()
        update.zero_grad()
    return model


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in pairs)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_l2_is_the_weight_decay_of_sgd(momentum):
    """λ Σ W² has the gradient 2λW: weight_decay = 2λ, with momentum too."""
    settings = {"momentum": momentum, "nesterov": momentum > 0}
    assert same(
        steps(L2(strength=0.05), optimizer.sgd, weight_decay=0.0, **settings),
        steps(None, optimizer.sgd, weight_decay=0.1, **settings),
    )


def test_l2_is_the_weight_decay_of_adam_but_not_of_adamw():
    """Adam divides the L2 term by the gradient's usual size, but not decoupled decay: they differ."""
    penalised = steps(L2(strength=0.05), optimizer.adam, weight_decay=0.0)
    assert same(penalised, steps(None, optimizer.adam, weight_decay=0.1))
    assert not same(penalised, steps(None, optimizer.adamw, weight_decay=0.1))


def test_l2_is_decoupled_decay_under_plain_sgd():
    """W - lr (g + 2λW) = (W - lr g) - lr 2λ W: plain SGD does nothing else between gradient and step."""
    penalised = steps(L2(strength=0.05), optimizer.sgd, count=1, weight_decay=0.0, momentum=0.0, nesterov=False)
    start = network()
    plain = steps(None, optimizer.sgd, count=1, weight_decay=0.0, momentum=0.0, nesterov=False)
    for before, after in zip(start.parameters(), plain.parameters(), strict=True):
        if before.ndim > 1:
            after.data -= 0.1 * 0.1 * before.data
    assert same(penalised, plain)


# --- in a run ---


@pytest.fixture
def in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def trained(*overrides):
    trainer = build.trainer(build.open_setup(compose_run([*SMALL, "epochs=2", *overrides])))
    trainer.fit()
    return trainer


def test_the_data_loss_stays_apart():
    """One step at the same weights: loss/train is the same without a penalty, which has its own columns."""
    trainer = build.trainer(build.open_setup(compose_run([*SMALL, "limit_steps=1", "penalty=elastic"])))
    before = torch.cat([w.detach().flatten() for w in trainer.weights])
    trainer.fit()
    metrics = trainer.progress.metrics
    assert metrics["loss/train"] == trained("limit_steps=1").progress.metrics["loss/train"]
    assert metrics["penalty/l1"] == pytest.approx(1e-5 * before.abs().sum().item(), rel=1e-5)
    assert metrics["penalty/l2"] == pytest.approx(1e-5 * before.square().sum().item(), rel=1e-5)
    assert metrics["loss/penalty"] == metrics["penalty/l1"] + metrics["penalty/l2"]
    assert trainer.metric_names()[-3:] == ["loss/penalty", "penalty/l1", "penalty/l2"]


def test_norms_and_biases_are_left_out():
    trainer = build.trainer(build.open_setup(compose_run([*TINY, "model=resnet", "penalty=l2"])))
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    picked = {names[id(weight)] for weight in trainer.weights}
    assert picked and picked == {name for name, value in trainer.model.named_parameters() if value.ndim > 1}


def test_accumulation_adds_it_once():
    one_batch, micro_batches = (trained("penalty=l2", "penalty.strength=0.1", f"accumulate={n}") for n in (1, 4))
    for name, value in one_batch.model.state_dict().items():
        torch.testing.assert_close(micro_batches.model.state_dict()[name], value, atol=1e-6, rtol=1e-5)


def test_a_step_includes_it():
    """One step of plain SGD with the penalty differs by - lr λ sign W."""
    plain = ["optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=false", "optimizer.weight_decay=0"]
    overrides = [*plain, "optimizer.lr=0.5", "schedule=constant", "limit_steps=1"]
    start = build.trainer(build.open_setup(compose_run([*SMALL, *overrides]))).model.state_dict()
    without, with_it = (trained(*overrides, f"penalty={name}").model.state_dict() for name in ("none", "l1"))
    for name, value in with_it.items():
        shrunk = 0.5 * 1e-5 * start[name].sign() if value.ndim > 1 else 0
        torch.testing.assert_close(value, without[name] - shrunk, atol=1e-7, rtol=0)
        assert value.ndim <= 1 or not torch.equal(value, without[name])


def test_tags_and_columns_and_a_resume_with_another_penalty(in_own_folder):
    from deeptrain.loggers.tensorboard import EVENTS

    assert train([*SMALL, "epochs=2", "penalty=l1", "dir=run", "log.every_steps=2"]) == 0
    assert train(["resume=run", "penalty=l2", "epochs=3", "resume_changed=true"]) == 0
    rows = list(csv.DictReader(Path("run/metrics.csv").read_text().splitlines()))
    assert [bool(row["penalty/l1"]) for row in rows] == [True, True, False]
    assert [bool(row["penalty/l2"]) for row in rows] == [False, False, True]
    assert all(row["loss/penalty"] for row in rows)
    content = b"".join(path.read_bytes() for path in Path("run").glob(f"{EVENTS}*"))
    assert all(tag in content for tag in (b"loss/penalty", b"penalty/l1", b"penalty/l2"))


def test_one_of_ones_own_is_a_function():
    """It maps weights to terms by name, and uses plain autograd."""
    trainer = build.trainer(build.open_setup(compose_run([*SMALL, "limit_steps=2"])))
    trainer.penalty = lambda weights: {"spread": 0.1 * sum(weight.std() for weight in weights)}
    trainer.fit()
    assert trainer.progress.metrics["penalty/spread"] > 0


@pytest.mark.parametrize("kind", [L1, L2, Elastic])
def test_a_negative_strength_is_refused(kind):
    with pytest.raises(ValueError, match=r"strength=-1: must be >= 0"):
        kind(strength=-1)


def test_evaluating_a_run_that_had_one(in_own_folder):
    from deeptrain.inference.evaluate import evaluate_run

    overrides = [
        *SMALL,
        "epochs=4",
        "penalty=elastic",
        "average=swa",
        "loss=hinge",
        "loss.class_weights=auto",
        "dir=run",
    ]
    assert train(overrides) == 0
    found = evaluate_run(compose_run(overrides), Path("run/checkpoints/best.pt"), "val").metrics
    best = checkpoint.load(Path("run/checkpoints/best.pt"))
    part = "val_average" if best["weights"] == "average" else "val"
    for name in ("loss", "accuracy"):
        assert found[name] == pytest.approx(best["progress"]["metrics"][f"{name}/{part}"], rel=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_with_everything_on_never_waits_for_the_gpu():
    overrides = ["device=cuda", "penalty=elastic", "sam=0.05", "max_norm=3", "clip_norm=1", "average=swa"]
    loss = ["loss=hinge", "loss.class_weights=auto"]
    trainer = build.trainer(build.open_setup(compose_run([*TINY, *overrides, *loss, "model=resnet"])))
    batches = list(trainer.train_loader.epoch(0))
    trainer.model.train()
    trainer.train_step(*batches[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.train_step(*batches[1])
    finally:
        torch.cuda.set_sync_debug_mode("default")

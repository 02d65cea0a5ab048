"""Loading a run's state: momenta in the layout of their parameters, the scaler of another precision."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from deeptrain import build, optimizer
from deeptrain.config.compose import compose_run
from deeptrain.training.state import load_optimizer


def network(memory_format):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2)).to(memory_format=memory_format)


def step(update, seed):
    generator = torch.Generator().manual_seed(seed)
    for group in update.param_groups:
        for parameter in group["params"]:
            values = torch.randn(parameter.shape, generator=generator)
            parameter.grad = torch.empty_like(parameter).copy_(values)
    update.step()


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop", "muon", "lars", "lamb"])
@pytest.mark.parametrize("layouts", [("contiguous_format", "channels_last"), ("channels_last", "contiguous_format")])
def test_a_state_of_another_layout_goes_on_as_its_own(name, layouts):
    """Convolutions are contiguous on MPS and channels_last elsewhere; fused kernels go through memory in its order."""
    make = getattr(optimizer, name)
    then, now = (network(getattr(torch, name)) for name in layouts)
    before, after = make([{"params": list(then.parameters())}]), make([{"params": list(now.parameters())}])
    step(before, 1)
    now.load_state_dict(then.state_dict())
    load_optimizer(after, deepcopy(before.state_dict()))  # torch would share the momenta
    assert all(momentum.stride() == parameter.stride() for momentum, parameter in pairs(after))
    step(before, 2)
    step(after, 2)
    torch.testing.assert_close(now.state_dict(), then.state_dict())


def pairs(update):
    """Every momentum and its parameter."""
    return [
        (value, parameter)
        for parameter, state in update.state.items()
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape
    ]


@pytest.mark.parametrize("name", ["muon", "adamw", "lars", "lamb"])
def test_a_run_that_goes_on_has_the_bits_of_one_never_stopped(name):
    words = ["data=synthetic", "data.shape=[1,8,8]", "data.size=80", "batch_size=16", "device=cpu"]
    words += [
        "model=resnet",
        "model.blocks=[1]",
        "model.widths=[4]",
        f"optimizer={name}",
        "schedule=cosine",
        "epochs=2",
    ]
    whole, first, second = (build.build_trainer(compose_run(words)) for _ in range(3))

    def train_to(trainer, end):
        for epoch in range(trainer.progress.epoch, end):
            for images, labels in trainer.train_loader.epoch(epoch):
                trainer.train_step(images, labels)
                trainer.progress.advance(len(labels), trainer.plan.steps_per_epoch)

    train_to(whole, 2)
    train_to(first, 1)
    second.load_state_dict(deepcopy(first.state_dict()))
    assert [group["lr"] for group in second.optimizer.param_groups] == [
        group["lr"] for group in first.optimizer.param_groups
    ]
    train_to(second, 2)
    assert whole.progress.step == second.progress.step
    one, other = whole.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(("then", "now"), [("fp32", "fp16"), ("bf16", "fp16"), ("fp16", "fp32"), ("fp16", "fp16")])
def test_a_run_goes_on_in_another_precision(then, now):
    words = ["data=synthetic", "data.shape=[1,4,4]", "data.size=40", "model=fcn", "model.hidden=[4]", "device=cpu"]
    before, after = (
        build.build_trainer(compose_run([*words, "optimizer=sgd", f"precision={precision}"]))
        for precision in (then, now)
    )
    before.train_step(*next(before.train_loader.epoch(0)))
    after.load_state_dict(deepcopy(before.state_dict()))
    after.train_step(*next(after.train_loader.epoch(0)))
    assert all(value.isfinite().all() for value in after.model.state_dict().values())

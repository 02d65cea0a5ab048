"""The short way to torch's fused kernels: torch's bits in every case, and torch itself where something is special."""

import copy

import pytest
import torch
from torch import nn

from deeptrain.optimizer.direct import DIRECT

SETTINGS = [
    (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    (torch.optim.SGD, {"momentum": 0.9, "dampening": 0.5, "maximize": True}),
    (torch.optim.SGD, {}),
    (torch.optim.Adam, {"betas": (0.8, 0.95)}),
    (torch.optim.AdamW, {"eps": 1e-6}),
]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3))


def groups(model):
    return [{"params": list(model[0].parameters()), "weight_decay": 0.1}, {"params": list(model[1:].parameters())}]


@pytest.fixture(params=SETTINGS, ids=lambda each: f"{each[0].__name__} {each[1]}")
def pair(request):
    """Return an optimizer of each kind, over equal networks."""
    kind, settings = request.param
    ours, theirs = network(), network()
    made = DIRECT[kind](groups(ours), lr=0.1, fused=True, **settings)
    return (ours, made), (theirs, kind(groups(theirs), lr=0.1, fused=True, **settings))


def step(pair, number, left_out=()):
    generator = torch.Generator().manual_seed(number)
    shapes = [parameter.shape for parameter in pair[0][0].parameters()]
    gradients = [torch.randn(shape, generator=generator) for shape in shapes]
    for model, optimizer in pair:
        for index, (parameter, gradient) in enumerate(zip(model.parameters(), gradients, strict=True)):
            parameter.grad = None if index in left_out else gradient.clone()
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (1 + number)
        optimizer.step()


def check(pair):
    (ours, made), (theirs, reference) = pair
    assert all(map(torch.equal, ours.parameters(), theirs.parameters()))
    own, other = made.state_dict(), reference.state_dict()
    assert own["param_groups"] == other["param_groups"] and own["state"].keys() == other["state"].keys()
    for index, kept in other["state"].items():
        for name, value in kept.items():
            assert value is own["state"][index][name] is None or torch.equal(value, own["state"][index][name])


@pytest.mark.parametrize("left_out", [(), (0,), (2, 5)])
def test_the_bits_are_torchs(pair, left_out):
    """left_out: parameters without a gradient in the third step."""
    for number in range(6):
        step(pair, number, left_out if number == 2 else ())
        check(pair)


def test_a_group_without_parameters_is_passed_over(pair):
    for _, optimizer in pair:
        optimizer.add_param_group({"params": []})
    for number in range(3):
        step(pair, number)
        check(pair)


def test_a_state_of_either_is_a_state_of_the_other(pair):
    for number in range(3):
        step(pair, number)
    (_, made), (_, reference) = pair
    states = copy.deepcopy(made.state_dict()), copy.deepcopy(reference.state_dict())
    made.load_state_dict(states[1])
    reference.load_state_dict(states[0])
    step(pair, 3)
    check(pair)


def test_the_kernel_is_called_at_once_from_the_second_step_on(pair, monkeypatch):
    (_, made), _ = pair
    taken = []
    monkeypatch.setattr(type(made), "update", lambda self, *given: taken.append(given))
    step(pair, 0)
    has_state = bool(made.state)
    assert len(taken) == (0 if has_state else 2), "the first step makes what is kept"
    step(pair, 1)
    assert len(taken) == (2 if has_state else 4)
    step(pair, 2, left_out=(0,))
    assert len(taken) == (2 if has_state else 4)


def test_hooks_are_called_once_a_step(pair):
    (_, made), _ = pair
    before, after = [], []
    made.register_step_pre_hook(lambda *given: before.append(1))
    made.register_step_post_hook(lambda *given: after.append(1))
    for number in range(3):
        step(pair, number)
    assert len(before) == len(after) == 3


@pytest.mark.parametrize("scale", [4.0, None], ids=["scaled", "unscaled before, as for clipping"])
def test_a_closure_and_steps_of_a_scaler_are_torchs(pair, scale):
    """GradScaler leaves a step out by found_inf, with grad_scale=None where the gradients are unscaled already."""
    step(pair, 0)
    for model, optimizer in pair:
        optimizer.grad_scale = None if scale is None else torch.full((), scale)
        optimizer.found_inf = torch.zeros(())
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 8.0)
        optimizer.step()
        optimizer.found_inf.fill_(1.0)
        optimizer.step()
        del optimizer.grad_scale, optimizer.found_inf
        assert optimizer.step(lambda: torch.tensor(3.0)) == 3.0
    check(pair)

"""The weight average against its formula, apart from the live model, and bit for bit through a saved state."""

import copy

import pytest
import torch
from torch import nn

from deeptrain.average import EMA


def network(device) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 5)).to(device)


def train_step(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(8, 6, generator=generator).to(next(model.parameters()).device)
    torch.manual_seed(seed)
    model(images).square().mean().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
            parameter.grad = None


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_it_follows_the_formula(device, decay):
    model = network(device)
    average = EMA(model, decay=decay)
    expected = {name: value.clone().double() for name, value in model.state_dict().items()}
    for step in range(1, 9):
        train_step(model, step)
        average.update(step)
        kept = min(decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            expected[name] = kept * expected[name] + (1 - kept) * value.double() if value.is_floating_point() else value
    for name, value in average.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name].double(), rtol=1e-5, atol=1e-6)


def test_batch_norm_statistics_are_averaged_and_counters_copied(device):
    model = network(device)
    average = EMA(model, decay=0.9)
    before = model[1].running_mean.clone()
    train_step(model, 1)
    average.update(1)
    torch.testing.assert_close(average.module[1].running_mean, torch.lerp(before, model[1].running_mean, 1 - 2 / 11))
    assert average.module[1].num_batches_tracked == model[1].num_batches_tracked == 1


def test_the_module_is_apart_in_evaluation_mode_and_holds_no_graph(device):
    model = network(device)
    average = EMA(model, decay=0.9)
    train_step(model, 1)
    live = copy.deepcopy(model.state_dict())
    average.update(1)
    images = torch.randn(2, 6, device=device)
    output = average.module(images)
    assert torch.equal(output, average.module(images)), "no dropout, no moving statistics"
    assert not output.requires_grad
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, live[name]) for name, value in model.state_dict().items())
    assert not {v.data_ptr() for v in model.state_dict().values()} & {
        v.data_ptr() for v in average.state_dict().values()
    }


def test_it_resumes_bit_for_bit(device):
    def go_on(model, average, steps):
        for step in steps:
            train_step(model, step)
            average.update(step)

    whole = network(device)
    through = EMA(whole, decay=0.99)
    go_on(whole, through, range(1, 7))
    first = network(device)
    stopped = EMA(first, decay=0.99)
    go_on(first, stopped, range(1, 4))
    saved = copy.deepcopy((first.state_dict(), stopped.state_dict()))
    second = network(device)
    resumed = EMA(second, decay=0.99)
    second.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    go_on(second, resumed, range(4, 7))
    for name, value in through.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_its_state_loads_into_the_bare_model(device):
    model = network(device)
    average = EMA(model)
    train_step(model, 1)
    average.update(1)
    model.load_state_dict(average.state_dict())
    images = torch.randn(2, 6, device=device)
    assert torch.equal(model.eval()(images), average.module(images))


def test_tied_weights_stay_tied(device):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).to(device)
    model[1].weight = model[0].weight
    average = EMA(model, decay=0.5)
    with torch.no_grad():
        model[0].weight.fill_(1)
    average.update(100)
    assert average.module[0].weight is average.module[1].weight


def test_a_decay_of_one_is_refused():
    with pytest.raises(ValueError, match=r"decay=1\.0: must be >= 0 and < 1"):
        EMA(nn.Linear(2, 2), decay=1.0)

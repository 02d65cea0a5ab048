"""Batch norms measured anew: as torch does it, without touching frozen ones, and only while they remember the start."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from deeptrain.runtime.batch_norm import measure_statistics, remembers_start, settling_batches


class Frozen(nn.BatchNorm1d):
    def train(self, mode: bool = True):
        return super().train(False)


def network(*norms):
    return nn.Sequential(*(layer for norm in norms for layer in (nn.Linear(6, 6), norm)))


def batches(device="cpu", count=3):
    return [torch.randn(16, 6, generator=torch.Generator().manual_seed(i)).to(device) + 2 for i in range(count)]


def test_the_statistics_are_those_of_torch(device):
    model = network(nn.BatchNorm1d(6), nn.BatchNorm1d(6)).to(device).eval()
    reference = copy.deepcopy(model)
    measure_statistics(model, batches(device))
    update_bn(batches(device), reference)
    assert all(torch.equal(value, reference.state_dict()[name]) for name, value in model.state_dict().items())
    assert not model.training and model[1].momentum == 0.1


def test_a_frozen_norm_keeps_its_statistics_and_the_next_one_is_measured_behind_it():
    model = network(Frozen(6), nn.BatchNorm1d(6)).train()
    model[1].running_mean.fill_(5)
    measure_statistics(model, batches())
    assert torch.equal(model[1].running_mean, torch.full((6,), 5.0)) and model[1].num_batches_tracked == 0
    with torch.no_grad():
        means = torch.stack([model[2](model[1](model[0](images))).mean(0) for images in batches()]).mean(0)
    torch.testing.assert_close(model[3].running_mean, means)


def test_the_momentum_comes_back_if_the_images_end_in_an_error():
    def broken():
        yield batches()[0]
        raise ValueError("an image that cannot be read")

    model = network(nn.BatchNorm1d(6)).train()
    with pytest.raises(ValueError, match="cannot be read"):
        measure_statistics(model, broken())
    assert model.training and model[1].momentum == 0.1


@pytest.mark.parametrize(("momentum", "count"), [(0.1, 51), (0.01, 528), (0.9, 3), (None, 0), (0.0, 0), (1.0, 0)])
def test_the_start_is_forgotten_after_some_batches(momentum, count):
    model = network(nn.BatchNorm1d(6, momentum=momentum)).train()
    assert settling_batches(model) == count
    assert remembers_start(model) == (count > 0)
    for done in range(1, min(count, 60) + 1):
        model(batches()[0])
        assert remembers_start(model) == (done < count)


def test_other_norms_remember_nothing():
    model = network(nn.LayerNorm(6), nn.BatchNorm1d(6, track_running_stats=False)).train()
    assert settling_batches(model) == 0 and not remembers_start(model)

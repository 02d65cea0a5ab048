"""Pools: fractional pools against torch's and their distribution, evaluation as a mean over fixed draws."""

import math

import pytest
import torch
from torch import nn

from deeptrain.model.alexnet import AlexNet
from deeptrain.model.pooling import FractionalMaxPool, Pooling
from deeptrain.model.vgg import VGG

SMALL = {AlexNet: {"width": 0.1, "classifier": [16]}, VGG: {"width": 0.1, "classifier": [16]}}
SIDES = [(2, 2), (3, 2), (5, 9), (32, 32), (28, 21)]


def numbers_of(count: int, device: torch.device) -> torch.Tensor:
    """Return the numbers (2, N) that a fractional pool draws first after torch.manual_seed(0)."""
    torch.manual_seed(0)
    return torch.rand(2, count, 1, device=device)[..., 0]


@pytest.mark.parametrize("ratio", [1.05, 1.25, math.sqrt(2), 1.7, 2.0])
@pytest.mark.parametrize("size", SIDES, ids=str)
def test_fractional_pool_is_torchs_with_the_channels_aligned(size, ratio, device):
    """Values and gradients, in both memory formats: torch's own takes one number for each channel, (column, row)."""
    x = torch.randn(4, 3, *size, device=device, requires_grad=True)
    numbers = numbers_of(4, device).flip(0).T[:, None].expand(4, 3, 2)  # (N, C, 2)
    output_size = [int(side / ratio) for side in size]
    theirs = nn.functional.fractional_max_pool2d(x, 2, output_size=output_size, _random_samples=numbers)
    weights = torch.randn_like(theirs)
    (expected,) = torch.autograd.grad((theirs * weights).sum(), x)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        y = x.detach().contiguous(memory_format=memory_format).requires_grad_()
        ours = FractionalMaxPool(ratio)(y)
        (gradient,) = torch.autograd.grad((ours * weights).sum(), y)
        torch.testing.assert_close(ours, theirs, atol=0, rtol=0)
        torch.testing.assert_close(gradient, expected)


def test_fractional_pool_of_ratio_2_is_max_pooling(device):
    x = torch.randn(2, 3, 8, 6, device=device)
    torch.testing.assert_close(FractionalMaxPool(2.0)(x), nn.functional.max_pool2d(x, 2), atol=0, rtol=0)


def test_windows_step_by_1_or_2_and_each_image_has_its_own(device):
    """The steps are those of ⌊α(i + u)⌋, with one uniform u per image and axis (Graham, 2014)."""
    torch.manual_seed(0)
    ramp = torch.arange(25.0, device=device).expand(4000, 1, 25, 25)  # the largest of a window is its right column
    columns = FractionalMaxPool(math.sqrt(2))(ramp)[:, 0]
    assert columns.shape == (4000, 17, 17) and bool((columns == columns[:, :1]).all())
    first = columns[:, 0]
    assert bool((first[:, 0] == 1).all()) and bool((first[:, -1] == 24).all())
    assert set(first.diff(dim=1).unique().tolist()) == {1, 2}

    uniform = (torch.arange(10000, dtype=torch.float64)[:, None] + 0.5) / 10000
    law = ((torch.arange(17) + uniform) * 23 / 16).floor().diff(dim=1) == 2
    expected = law.double().mean(0)
    rates = (first.diff(dim=1) == 2).double().mean(0).cpu()
    assert bool(((rates - expected).abs() < 4.5 * (expected * (1 - expected) / 4000).sqrt()).all())
    assert len(first.unique(dim=0)) == len(law.unique(dim=0))  # all possible sequences


def test_average_pool_leaves_the_border_out(device):
    """3x3 at stride 2 with a padding of 1: the corner is the mean of four pixels."""
    pool = Pooling("average").layer(3, 1, index=0)
    x = torch.arange(16.0, device=device).view(1, 1, 4, 4)
    assert pool(x)[0, 0].tolist() == [[2.5, 4.0], [8.5, 10.0]]


@pytest.mark.parametrize("kind", ["max", "average", "fractional"])
@pytest.mark.parametrize("side", [2, 3, 7, 8, 28])
@pytest.mark.parametrize(("window", "padding"), [(2, 0), (3, 1)])
def test_output_size_is_that_of_the_layer(kind, side, window, padding):
    pooling = Pooling(kind)
    output = pooling.layer(window, padding, index=0)(torch.zeros(1, 1, side, side))
    assert output.shape[2] == pooling.output_size(side, window, padding)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pool_ratio": 1.5}, "pool_ratio=1.5: only pool=fractional reads it, here it is max"),
        ({"pool": "average", "test_samples": 4}, "test_samples=4: only pool=fractional reads it, here it is average"),
        (
            {"pool": "fractional", "pool_ratio": 1.0},
            "pool_ratio=1.0: must be > 1 and <= 2|pool_ratio=1.0: must be <= 2 and > 1",
        ),
    ],
)
@pytest.mark.parametrize("model", [AlexNet, VGG])
def test_settings_that_do_not_fit_are_refused(model, settings, message):
    with pytest.raises(ValueError, match=f"^({message})"):
        model((1, 8, 8), 10, **SMALL[model], **settings)


@pytest.mark.parametrize("model", [AlexNet, VGG])
def test_evaluation_is_the_mean_probability_of_fixed_draws(model, device):
    torch.manual_seed(0)
    network = model((3, 20, 20), 5, **SMALL[model], pool="fractional", test_samples=3).to(device).eval()
    images = torch.randn(6, 3, 20, 20, device=device)
    with torch.no_grad():
        passes = [network.classifier(network.features(images, draw).flatten(1)) for draw in range(3)]
        outputs = [network(images), network(images), torch.cat([network(images[:2]), network(images[2:])])]
    mean = torch.stack([logits.softmax(1) for logits in passes]).mean(0)
    torch.testing.assert_close(outputs[0].exp(), mean)
    assert bool((passes[0] != passes[1]).any()) and bool((outputs[0] == outputs[1]).all())
    torch.testing.assert_close(outputs[0], outputs[2])  # independent of the batch


@pytest.mark.parametrize("model", [AlexNet, VGG])
def test_training_draws_from_the_generators(model, device):
    network = model((3, 20, 20), 5, **SMALL[model], pool="fractional", dropout=0.0).to(device)
    images, outputs = torch.randn(6, 3, 20, 20, device=device), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(network(images).detach())
    assert bool((outputs[0] == outputs[1]).all()) and bool((outputs[0] != outputs[2]).any())


def test_each_pool_of_a_model_has_its_own_draws():
    network = VGG((3, 32, 32), 5, width=0.1, pool="fractional", test_samples=2)
    fixed = [tuple(layer.fixed) for layer in network.features if isinstance(layer, FractionalMaxPool)]
    assert len(set(fixed)) == 5
    again = VGG((3, 32, 32), 5, width=0.1, pool="fractional", test_samples=2)
    assert fixed == [tuple(layer.fixed) for layer in again.features if isinstance(layer, FractionalMaxPool)]


def test_pools_leave_their_maps_in_channels_last(device):
    x = torch.randn(2, 8, 9, 9, device=device).contiguous(memory_format=torch.channels_last)
    assert FractionalMaxPool(1.5)(x).is_contiguous(memory_format=torch.channels_last)


def test_a_compiled_fractional_network_is_one_graph(device):
    torch._dynamo.reset()
    network = VGG((1, 8, 8), 3, width=0.05, pool="fractional").to(device)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    assert compiled(torch.randn(4, 1, 8, 8, device=device)).shape == (4, 3)

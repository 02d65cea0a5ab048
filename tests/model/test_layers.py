"""The parts of the models against their formulas: activations, norms, weights, convolution, drops."""

import math
from typing import get_args

import pytest
import torch
from torch import nn

from deeptrain.model.layers import (
    ACTIVATIONS,
    GAINS,
    NO_NORM,
    Activation,
    DropConnect,
    Initialization,
    Norm,
    Normalization,
    StochasticDepth,
    adaptive_pool,
    channel_multiplier,
    convolution,
    drop_rates,
    fully_connected,
    initialize,
    limit_norms,
)

FORMULAS = {
    "relu": lambda x: x.clamp(min=0),
    "leaky_relu": lambda x: torch.maximum(0.1 * x, x),
    "elu": lambda x: torch.where(x > 0, x, x.exp() - 1),
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    "quick_gelu": lambda x: x / (1 + torch.exp(-1.702 * x)),
    "tanh": lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "softplus": lambda x: (1 + x.exp()).log(),
}


class Ones(nn.Module):
    """A residual branch that counts how often it runs."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return torch.ones_like(x) * self.weight


def test_every_activation_has_a_formula_a_gain_and_a_name():
    assert set(get_args(Activation)) == set(ACTIVATIONS) == set(GAINS) == {*FORMULAS, "maxout"}


@pytest.mark.parametrize("name", FORMULAS)
def test_activation_is_its_formula(name, device):
    x = torch.linspace(-6, 6, 101, device=device)
    torch.testing.assert_close(ACTIVATIONS[name]()(x.clone()), FORMULAS[name](x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 4, 3)])
def test_maxout_is_the_larger_of_two_affine_maps(shape, device):
    x = torch.randn(shape, device=device)
    result = ACTIVATIONS["maxout"]()(x)
    assert result.shape[1] == 3 and channel_multiplier("maxout") == 2
    torch.testing.assert_close(result, torch.where(x[:, :3] > x[:, 3:], x[:, :3], x[:, 3:]))


@pytest.mark.parametrize("name", GAINS)
def test_gain_keeps_the_second_moment_of_a_normal_variable(name):
    z = torch.linspace(-10, 10, 1001, dtype=torch.float64)
    density = torch.exp(-(z**2) / 2)
    density /= density.sum()
    if name == "maxout":
        moment = (torch.maximum(z[:, None], z) ** 2 * density[:, None] * density).sum()
    else:
        moment = (ACTIVATIONS[name]()(z.clone()) ** 2 * density).sum()
    assert GAINS[name] ** 2 * float(moment) == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("name", get_args(Initialization))
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_initial_weights_have_the_named_deviation(name, activation, device):
    model = nn.Sequential(nn.Conv2d(64, 32, 3), nn.BatchNorm2d(32), nn.Linear(400, 300), nn.Linear(300, 100)).to(device)
    convolved, norm, hidden, output = model
    with torch.no_grad():
        norm.weight.fill_(3)
    initialize(model, name, activation, 0.07 if name == "normal" else None, output=output)

    def expected(fan_in: int, fan_out: int) -> float:
        gain = {"relu": math.sqrt(2), "tanh": 1.5925}[activation]
        named = {"kaiming": gain / math.sqrt(fan_in), "xavier": math.sqrt(2 / (fan_in + fan_out)), "normal": 0.07}
        return named.get(name, 1 / math.sqrt(fan_in))

    assert float(convolved.weight.detach().std()) == pytest.approx(expected(64 * 9, 32 * 9), rel=0.03)
    assert float(hidden.weight.detach().std()) == pytest.approx(expected(400, 300), rel=0.03)
    tenth = 1 if name == "normal" else 0.1
    assert float(output.weight.detach().std()) == pytest.approx(tenth * expected(300, 100), rel=0.03)
    assert not convolved.bias.any() and not hidden.bias.any() and not norm.bias.any()
    assert bool((norm.weight == 1).all())


def test_a_deviation_that_nothing_reads_is_refused():
    layer = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"^init_std=0.1: only initialization=normal reads it"):
        initialize(layer, "kaiming", "relu", 0.1, output=layer)


@pytest.mark.parametrize(("stride", "size"), [(1, 5), (2, 3)])
def test_convolution_output_size(stride, size, device):
    (layer,) = convolution(1, 1, 3, stride=stride, padding=0, norm=NO_NORM)
    assert layer.to(device)(torch.zeros(1, 1, 7, 7, device=device)).shape == (1, 1, size, size)


def test_convolution_is_cross_correlation(device):
    (layer,) = convolution(1, 1, 3, padding=0, norm=NO_NORM, bias=False)
    x, kernel = torch.randn(1, 1, 5, 5, device=device), layer.to(device).weight[0, 0]
    expected = torch.stack(
        [torch.stack([(x[0, 0, i : i + 3, j : j + 3] * kernel).sum() for j in range(3)]) for i in range(3)]
    )
    torch.testing.assert_close(layer(x)[0, 0], expected, atol=1e-3, rtol=1e-3)


def test_convolution_feeds_maxout_twice_the_channels():
    layers = convolution(3, 8, 3, activation="maxout")
    assert layers[0].out_channels == layers[1].num_features == 16
    assert nn.Sequential(*layers)(torch.randn(2, 3, 5, 5)).shape == (2, 8, 5, 5)


@pytest.mark.parametrize("kind", get_args(Norm))
@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 5, 3)])
def test_norm_is_its_formula(kind, shape, device):
    """Mean 0 and variance 1 over the axes of each norm; eps is added to the variance."""
    torch.manual_seed(0)
    x = torch.randn(shape, device=device) * 3 + 2
    settings = {"eps": 0.5, **({"groups": 2} if kind == "group" else {})} if kind != "none" else {}
    norm = Normalization(kind, **settings)
    layers = nn.Sequential(*(norm.layers_2d(8) if len(shape) == 4 else norm.layers_1d(8))).to(device)
    together = {"batch": [0, *range(2, len(shape))], "group": list(range(2, len(shape) + 1))}
    if kind == "none":
        expected = x
    elif kind == "group":
        split = x.view(6, 2, 4, *shape[2:])
        variance, mean = torch.var_mean(split, together[kind], correction=0, keepdim=True)
        expected = ((split - mean) / (variance + 0.5).sqrt()).view(shape)
    else:
        axes = together.get(kind, list(range(1, len(shape))))
        variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        expected = (x - mean) / (variance + 0.5).sqrt()
    torch.testing.assert_close(layers(x), expected, atol=1e-5, rtol=1e-5)


def test_momentum_is_the_weight_of_the_newest_batch(device):
    (norm,) = Normalization("batch", momentum=0.25).layers_2d(2)
    x = torch.randn(8, 2, 3, 3, device=device)
    norm.to(device)(x)
    torch.testing.assert_close(norm.running_mean, 0.25 * x.mean((0, 2, 3)))


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (48, 24), (512, 32), (16, 8), (50, 25), (7, 1), (1, 1)])
def test_groups_are_equal_and_of_two_channels_or_more(channels, groups):
    assert Normalization("group").layers_2d(channels)[0].num_groups == groups


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("group", 0.2), "norm_momentum=0.2: only norm=batch reads it, here it is group"),
        (("none", None, 1e-3), "norm_eps=0.001: only norm=batch or group or layer reads it, here it is none"),
        (("layer", None, None, 4), "norm_groups=4: only norm=group reads it, here it is layer"),
    ],
)
def test_a_norm_setting_that_nothing_reads_is_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Normalization(*settings)


def test_a_convolution_has_a_bias_where_no_norm_has_one():
    assert convolution(1, 2, 3)[0].bias is None
    assert convolution(1, 2, 3, norm=NO_NORM)[0].bias is not None


def test_adaptive_pool_reduces_only_larger_sides():
    pool, size = adaptive_pool((9, 4), 6)
    assert size == (6, 4) == tuple(pool(torch.zeros(1, 1, 9, 4)).shape[2:])
    assert isinstance(adaptive_pool((6, 6), 6)[0], nn.Identity)


def test_dropout_keeps_the_expectation_and_does_nothing_in_evaluation(device):
    torch.manual_seed(0)
    layers = fully_connected(20, [], 1, dropout=0.5).to(device)
    x = torch.randn(1, 20, device=device)
    draws = layers(x.expand(20000, 20))
    plain = layers.eval()(x)
    torch.testing.assert_close(layers[-1](x), plain)
    assert float((draws.mean() - plain).detach().abs()) < 4 * float(draws.detach().std()) / math.sqrt(len(draws))


def test_drop_connect_drops_single_weights_of_the_batch(device):
    """Every weight and bias is 0, at the set rate, or divided by the keep rate. One mask serves all images."""
    torch.manual_seed(0)
    layer = DropConnect(300, 200, rate=0.3).to(device)
    with torch.no_grad():
        layer.weight.fill_(7)
        layer.bias.fill_(7)
    x = torch.cat([torch.eye(300, device=device), torch.zeros(1, 300, device=device)])
    outputs = layer(x).detach()  # a row for each input's weights, with the bias; the last is the bias alone
    bias, weights = outputs[-1], outputs[:-1] - outputs[-1]
    assert sorted(bias.unique().tolist()) == pytest.approx([0, 10])
    assert set(weights.round().unique().tolist()) == {0, 10}
    assert float((weights > 5).float().mean()) == pytest.approx(0.7, abs=4 * math.sqrt(0.3 * 0.7 / 60000))
    again = layer(torch.zeros(2, 300, device=device)).detach()
    assert bool((again[0] == again[1]).all()) and bool((again[0] != bias).any())  # a new mask for the next batch


def test_drop_connect_keeps_the_expectation_and_is_the_plain_layer_in_evaluation(device):
    torch.manual_seed(0)
    layer, x = DropConnect(20, 3, rate=0.4).to(device), torch.randn(1, 20, device=device)
    with torch.no_grad():
        draws = torch.cat([layer(x) for _ in range(8000)])
        plain = layer.eval()(x)
    torch.testing.assert_close(plain, nn.functional.linear(x, layer.weight, layer.bias).detach(), atol=0, rtol=0)
    assert bool(((draws.mean(0) - plain).abs() < 4 * draws.std(0) / math.sqrt(8000)).all())


def test_drop_connect_follows_the_generators(device):
    layer, x = DropConnect(20, 30, rate=0.5).to(device), torch.randn(4, 20, device=device)
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(layer(x))
    assert bool((outputs[0] == outputs[1]).all()) and bool((outputs[0] != outputs[2]).any())


def test_a_dropped_connection_gets_no_gradient(device):
    torch.manual_seed(0)
    layer = DropConnect(5, 4, rate=0.5).to(device)
    layer(torch.ones(1, 5, device=device)).sum().backward()
    assert sorted(layer.weight.grad.unique().tolist()) == [0, 2]


def test_drop_connect_is_in_the_hidden_layers_or_else_in_the_output():
    def dropped(hidden):
        linear = [layer for layer in fully_connected(6, hidden, 3, drop_connect=0.5) if isinstance(layer, nn.Linear)]
        return [isinstance(layer, DropConnect) for layer in linear]

    assert dropped([5, 4]) == [True, True, False] and dropped([]) == [True]
    assert not any(isinstance(layer, DropConnect) for layer in fully_connected(6, [5], 3))


@pytest.mark.parametrize("shape", [(7, 20), (7, 5, 3, 3)])
def test_norms_are_limited_for_each_unit(shape, device):
    """w becomes w · min(1, c/‖w‖) for the weights w into each unit (Srivastava et al., 2014)."""
    torch.manual_seed(0)
    weight = torch.randn(shape, device=device) * torch.linspace(0.1, 1, 7, device=device).view(
        -1, *[1] * len(shape[1:])
    )
    norms = weight.flatten(1).norm(dim=1)
    assert float(norms.min()) < 3 < float(norms.max())
    expected = weight * (3 / norms).clamp(max=1).view(-1, *[1] * len(shape[1:]))
    parameter = nn.Parameter(weight.clone(memory_format=torch.preserve_format))
    bias = nn.Parameter(torch.full((7,), 100.0, device=device))
    address = parameter.data_ptr()
    limit_norms([parameter, bias], 3.0)
    torch.testing.assert_close(parameter.detach(), expected, atol=1e-5, rtol=1e-5)
    assert parameter.data_ptr() == address and bool((bias == 100).all())


def test_limited_norms_keep_the_memory_format(device):
    model = nn.Conv2d(4, 8, 3).to(device, memory_format=torch.channels_last)
    limit_norms(model.parameters(), 0.1)
    assert model.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model.weight.detach().flatten(1).norm(dim=1), torch.full((8,), 0.1, device=device))


def test_drop_rates_grow_linearly_to_the_last_block():
    assert drop_rates(0.5, 5) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


def test_batch_mode_truly_skips_and_keeps_the_expectation(device):
    torch.manual_seed(0)
    branch, drop = Ones().to(device), StochasticDepth(0.3)
    x, shortcut = torch.zeros(2, 1, 1, 1, device=device), torch.full((2, 1, 1, 1), 5.0, device=device)
    outputs = torch.stack([drop(branch, x, shortcut) for _ in range(4000)]).detach() - 5
    survivals = outputs[:, 0].count_nonzero().item()
    assert branch.calls == survivals  # a dropped branch is not computed
    assert survivals / 4000 == pytest.approx(0.7, abs=4 * math.sqrt(0.3 * 0.7 / 4000))
    assert bool((outputs[:, 0] == outputs[:, 1]).all())  # one draw for the batch
    assert sorted(outputs.unique().tolist()) == pytest.approx([0, 1 / 0.7], abs=1e-5)


def test_sample_mode_draws_for_each_image(device):
    torch.manual_seed(0)
    drop = StochasticDepth(0.3, "sample")
    zeros = torch.zeros(20000, 1, 1, 1, device=device)
    output = drop(Ones().to(device), zeros, zeros).detach()
    assert sorted(output.unique().tolist()) == pytest.approx([0, 1 / 0.7], abs=1e-5)
    assert float(output.mean()) == pytest.approx(1, abs=4 * math.sqrt(0.3 / 0.7 / 20000))


@pytest.mark.parametrize("mode", ["batch", "sample"])
def test_stochastic_depth_is_the_plain_sum_in_evaluation(mode, device):
    drop, branch = StochasticDepth(0.9, mode).eval(), Ones().to(device)
    x = torch.randn(3, 2, 4, 4, device=device)
    for _ in range(5):
        torch.testing.assert_close(drop(branch, x, x), x + 1)


def test_a_skipped_branch_gets_zero_gradients_and_leaves_its_input_alone(device):
    drop, branch = StochasticDepth(0.999999), Ones().to(device)
    x = torch.randn(3, 2, 4, 4, device=device, requires_grad=True)
    output = drop(branch, x, x)
    output.mul_(2).sum().backward()
    assert branch.calls == 0 and output.data_ptr() != x.data_ptr()
    assert branch.weight.grad.tolist() == [0] and bool((x.grad == 2).all())

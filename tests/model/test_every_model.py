"""Properties of every model: shapes, finite gradients for every choice of its settings, the first loss."""

import math
from typing import get_args

import pytest
import torch
from torch.nn.functional import cross_entropy

from deeptrain.model.alexnet import AlexNet
from deeptrain.model.fcn import FCN
from deeptrain.model.layers import Activation, DropConnect, Initialization, Norm, StochasticDepth
from deeptrain.model.pooling import Pool
from deeptrain.model.preact_resnet import PreActResNet
from deeptrain.model.resnet import ResNet
from deeptrain.model.rnn import RNN
from deeptrain.model.vgg import VGG
from deeptrain.model.wide_resnet import WideResNet

RESIDUAL = [ResNet, PreActResNet, WideResNet]
FEEDFORWARD = [FCN, AlexNet, VGG, *RESIDUAL]
MODELS = [*FEEDFORWARD, RNN]
SMALL = {
    FCN: {"hidden": [16]},
    AlexNet: {"width": 0.1, "classifier": [16]},
    VGG: {"width": 0.1, "classifier": [16]},
    ResNet: {"blocks": [1, 1], "widths": [8, 16]},
    PreActResNet: {"blocks": [1, 1], "widths": [8, 16]},
    WideResNet: {"depth": 10, "width": 0.5},
    RNN: {"hidden": 16},
}
SHAPES = [(1, 8, 8), (3, 32, 32), (1, 28, 28), (3, 48, 32), (3, 8, 40), (3, 9, 11), (3, 224, 224)]


def images_of(shape: tuple[int, int, int], device: torch.device, count: int = 8) -> torch.Tensor:
    return torch.randn(count, *shape, device=device).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_every_shape_gives_one_logit_a_class(model, shape, device):
    logits = model(shape, 7, **SMALL[model]).to(device)(images_of(shape, device, count=2))
    assert logits.shape == (2, 7) and logits.dtype == torch.float32


@pytest.mark.parametrize("norm", get_args(Norm))
@pytest.mark.parametrize("model", FEEDFORWARD)
def test_every_norm_has_finite_gradients(model, norm, device):
    torch.manual_seed(0)
    network = model((1, 8, 8), 10, **SMALL[model], norm=norm).to(device)
    kinds = {"batch": (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d), "none": ()}.get(norm, torch.nn.GroupNorm)
    found = [m for m in network.modules() if isinstance(m, torch.nn.GroupNorm | torch.nn.modules.batchnorm._BatchNorm)]
    assert all(isinstance(layer, kinds) for layer in found) and bool(found) == (norm != "none")
    assert_finite_gradients(network, device)


@pytest.mark.parametrize("norm", ["group", "layer", "none"])
@pytest.mark.parametrize("model", FEEDFORWARD)
def test_without_batch_norm_an_image_does_not_depend_on_the_others(model, norm, device):
    torch.manual_seed(0)
    network = model((1, 8, 8), 10, **SMALL[model], norm=norm, **({"dropout": 0.0} if model in (AlexNet, VGG) else {}))
    images = images_of((1, 8, 8), device)
    network.to(device)
    torch.testing.assert_close(network(images)[:1], network(images[:1]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pool", get_args(Pool))
@pytest.mark.parametrize("shape", SHAPES[:-1], ids=str)
@pytest.mark.parametrize("model", [AlexNet, VGG])
def test_every_pool_takes_every_shape(model, shape, pool, device):
    network = model(shape, 7, **SMALL[model], pool=pool).to(device)
    assert network(images_of(shape, device, count=3)).shape == (3, 7)


@pytest.mark.parametrize("model", [FCN, AlexNet, VGG])
def test_drop_connect_is_off_in_evaluation(model, device):
    torch.manual_seed(0)
    network = model((1, 8, 8), 10, **SMALL[model], drop_connect=0.5).to(device)
    assert [module.rate for module in network.modules() if isinstance(module, DropConnect)] == [0.5]
    assert_finite_gradients(network, device)
    plain = model((1, 8, 8), 10, **SMALL[model]).to(device).eval()
    plain.load_state_dict(network.eval().state_dict())
    images = images_of((1, 8, 8), device)
    torch.testing.assert_close(network(images), plain(images), atol=0, rtol=0)


@pytest.mark.parametrize("mode", ["batch", "sample"])
@pytest.mark.parametrize("model", RESIDUAL)
def test_stochastic_depth_is_off_in_evaluation(model, mode, device):
    torch.manual_seed(0)
    network = model((1, 8, 8), 10, **SMALL[model], stochastic_depth=0.9, stochastic_depth_mode=mode).to(device)
    rates = [module.rate for module in network.modules() if isinstance(module, StochasticDepth)]
    assert rates == pytest.approx([0.9 * block / len(rates) for block in range(1, len(rates) + 1)])
    plain = model((1, 8, 8), 10, **SMALL[model]).to(device).eval()
    plain.load_state_dict(network.eval().state_dict())
    images = images_of((1, 8, 8), device)
    torch.testing.assert_close(network(images), plain(images), atol=0, rtol=0)


@pytest.mark.parametrize("activation", get_args(Activation))
@pytest.mark.parametrize("model", FEEDFORWARD)
def test_every_activation_has_finite_gradients(model, activation, device):
    torch.manual_seed(0)
    assert_finite_gradients(model((1, 8, 8), 10, **SMALL[model], activation=activation).to(device), device)


@pytest.mark.parametrize("initialization", get_args(Initialization))
@pytest.mark.parametrize("model", FEEDFORWARD)
def test_every_initialization_has_finite_gradients(model, initialization, device):
    torch.manual_seed(0)
    assert_finite_gradients(model((1, 8, 8), 10, **SMALL[model], initialization=initialization).to(device), device)


@pytest.mark.parametrize("model", MODELS)
def test_bfloat16_autocast_has_finite_gradients(model, device):
    torch.manual_seed(0)
    network = model((1, 8, 8), 10, **SMALL[model]).to(device)
    with torch.autocast(device.type, torch.bfloat16):
        assert_finite_gradients(network, device)


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("model", MODELS)
def test_the_first_loss_is_about_log_of_the_classes(model, classes, device):
    """Within 0.15, with dropout and batch statistics, for inputs of unit variance."""
    torch.manual_seed(0)
    network, labels = model((3, 16, 16), classes).to(device), torch.arange(200, device=device) % classes
    with torch.no_grad():
        loss = cross_entropy(network(images_of((3, 16, 16), device, count=200)), labels)
    assert float(loss) == pytest.approx(math.log(classes), abs=0.15)


def assert_finite_gradients(network: torch.nn.Module, device: torch.device) -> None:
    loss = cross_entropy(network(images_of((1, 8, 8), device)), torch.arange(8, device=device))
    loss.backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert bool(loss.isfinite()) and all(g is not None and bool(g.isfinite().all()) for g in gradients)
    assert any(bool(g.any()) for g in gradients if g is not None)

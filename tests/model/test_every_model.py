"""What holds for every model: shapes, finite gradients for every activation and initialisation, the first loss."""

import math
from typing import get_args

import pytest
import torch
from torch.nn.functional import cross_entropy

from deeptrain.model.alexnet import AlexNet
from deeptrain.model.fcn import FCN
from deeptrain.model.layers import Activation, Initialization
from deeptrain.model.resnet import ResNet
from deeptrain.model.vgg import VGG

MODELS = [FCN, AlexNet, VGG, ResNet]
SMALL = {
    FCN: {"hidden": [16]},
    AlexNet: {"width": 0.1, "classifier": [16]},
    VGG: {"width": 0.1, "classifier": [16]},
    ResNet: {"blocks": [1, 1], "widths": [8, 16]},
}
SHAPES = [(1, 8, 8), (3, 32, 32), (1, 28, 28), (3, 48, 32), (3, 8, 40), (3, 9, 11), (3, 224, 224)]


def images_of(shape: tuple[int, int, int], device: torch.device, count: int = 8) -> torch.Tensor:
    return torch.randn(count, *shape, device=device).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_every_shape_gives_one_logit_a_class(model, shape, device):
    logits = model(shape, 7, **SMALL[model]).to(device)(images_of(shape, device, count=2))
    assert logits.shape == (2, 7) and logits.dtype == torch.float32


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("model", [FCN, AlexNet, VGG])
def test_batch_norm_may_be_left_out(model, batch_norm, device):
    network = model((1, 8, 8), 10, **SMALL[model], batch_norm=batch_norm).to(device)
    assert any("running_mean" in name for name in network.state_dict()) == batch_norm
    assert_finite_gradients(network, device)


@pytest.mark.parametrize("activation", get_args(Activation))
@pytest.mark.parametrize("model", MODELS)
def test_every_activation_has_finite_gradients(model, activation, device):
    torch.manual_seed(0)
    assert_finite_gradients(model((1, 8, 8), 10, **SMALL[model], activation=activation).to(device), device)


@pytest.mark.parametrize("initialization", get_args(Initialization))
@pytest.mark.parametrize("model", MODELS)
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

"""Layers of a network, lowest first, and what of it learns."""

import pytest
import torch
from torch import nn

from deeptrain.model.freezing import backbone, layer_rates, layers_of
from deeptrain.model.published import torchvision_network
from deeptrain.model.resnet import ResNet
from deeptrain.model.vgg import VGG


def depth(network: nn.Module) -> int:
    layers = layers_of(network, set(backbone(network, 7)))
    found = [name for layer in layers for name in layer]
    assert sorted(found) == sorted(backbone(network, 7)), "each parameter below the head is in one layer"
    return len(layers)


@pytest.mark.parametrize(
    ("name", "layers"),
    [("resnet18", 1 + 8), ("convnext_tiny", 1 + 3 + 3 + 9 + 3 + 3), ("vit_b_16", 1 + 12), ("vgg11_bn", 8 + 2)],
)
def test_a_block_is_a_layer(name, layers):
    with torch.device("meta"):
        assert depth(torchvision_network((3, 224, 224), 7, name=name)) == layers


def test_our_own_networks_have_layers_too():
    assert depth(ResNet((3, 32, 32), 7, depth=20)) == 1 + 9
    assert depth(VGG((3, 32, 32), 7, width=0.1)) == 8 + 1


def test_the_rate_falls_from_layer_to_layer():
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 7))
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    rates = {names[id(parameter)]: factor for parameter, factor in layer_rates(network, 7, 0.1, 0.5)}
    low, high = pytest.approx(0.1 * 0.25), pytest.approx(0.1 * 0.5)
    assert rates == {"0.weight": low, "0.bias": low, "1.weight": low, "1.bias": low, "2.weight": high, "2.bias": high}

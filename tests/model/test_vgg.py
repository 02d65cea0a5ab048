"""VGG: torchvision's counts and features, the number of pools for small images."""

import pytest
import torch
from torch import nn

from deeptrain.model.vgg import VGG

COUNTS = {11: 132_868_840, 13: 133_053_736, 16: 138_365_992, 19: 143_678_248}


@pytest.mark.parametrize("depth", COUNTS)
def test_large_layout_has_the_known_number_of_parameters(depth):
    with torch.device("meta"):
        model = VGG((3, 224, 224), 1000, depth=depth)
    assert sum(p.numel() for p in model.parameters()) == COUNTS[depth]


def test_features_are_what_torchvision_computes(device):
    vgg = pytest.importorskip("torchvision.models.vgg")
    theirs = vgg.make_layers(vgg.cfgs["A"], batch_norm=True).eval()
    ours = VGG((3, 32, 32), 10, depth=11, classifier=[]).features.eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 32, 32, device=device)
    with torch.no_grad():
        torch.testing.assert_close(ours.to(device)(images), theirs.to(device)(images), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("size", "pools"), [((8, 8), 3), ((8, 40), 3), ((16, 16), 4), ((28, 28), 4), ((32, 32), 5)])
def test_pools_stop_at_one_pixel(size, pools):
    model = VGG((1, *size), 10, width=0.05, classifier=[])
    assert sum(isinstance(layer, nn.MaxPool2d) for layer in model.features) == pools
    assert model.classifier[-1].in_features == round(0.05 * 512)  # the small layout averages the map


def test_pool_takes_the_largest_of_four(device):
    pool = next(layer for layer in VGG((1, 8, 8), 10, width=0.05).features if isinstance(layer, nn.MaxPool2d))
    x = torch.tensor([[1.0, 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]], device=device)
    assert pool(x[None, None])[0, 0].tolist() == [[6, 8], [3, 4]]

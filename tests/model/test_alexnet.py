"""AlexNet: torchvision's counts and outputs in the large layout, any size in the small one."""

import pytest
import torch

from deeptrain.model.alexnet import AlexNet


def test_large_layout_has_the_known_number_of_parameters():
    with torch.device("meta"):
        model = AlexNet((3, 224, 224), 1000, norm="none")
    assert sum(p.numel() for p in model.parameters()) == 61_100_840


def test_large_layout_computes_what_torchvision_does(device):
    alexnet = pytest.importorskip("torchvision.models.alexnet")
    theirs = alexnet.AlexNet(10).eval()
    ours = AlexNet((3, 224, 224), 10, norm="none").eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.randn(1, 3, 224, 224, device=device)
    with torch.no_grad():
        torch.testing.assert_close(ours.to(device)(images), theirs.to(device)(images), atol=1e-3, rtol=1e-3)


def test_layout_goes_by_the_short_side():
    first = [AlexNet((3, side, 200), 2, width=0.1, classifier=[]).features[0] for side in (23, 24, 95, 96)]
    assert [(layer.kernel_size[0], layer.stride[0]) for layer in first] == [(5, 1), (5, 2), (5, 2), (11, 4)]


def test_large_layout_refuses_small_images():
    with pytest.raises(ValueError, match=r"^layout=large: needs images of 63 px .* use layout=small"):
        AlexNet((3, 62, 100), 10, layout="large")
    AlexNet((3, 63, 63), 10, layout="large", width=0.1, classifier=[4])(torch.zeros(2, 3, 63, 63))

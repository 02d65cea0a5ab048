"""Random grayscale: torchvision's brightness in all three channels."""

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as F

from deeptrain.aug.random_grayscale import Gray


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_it_equals_torchvision(device, dtype):
    images = torch.randint(256, (8, 3, 16, 12)).to(dtype)
    found, _ = Gray()(images.to(device), torch.zeros(8), np.random.default_rng(0))
    assert found.dtype == dtype
    expected = F.rgb_to_grayscale(images, 3)
    if dtype == torch.uint8 and device.type == "cpu":
        assert torch.equal(found, expected)
    else:  # a product and its sum may be rounded once there
        torch.testing.assert_close(
            found.cpu().float(), expected.float(), rtol=1e-5, atol=1.01 if dtype == torch.uint8 else 1e-3
        )


def test_grey_images_stay(device):
    images = torch.randint(256, (8, 1, 16, 12), device=device, dtype=torch.uint8)
    assert torch.equal(Gray()(images, torch.zeros(8), np.random.default_rng(0))[0], images)

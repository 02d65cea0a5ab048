"""Gaussian blur: torchvision's, each image with its own width."""

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import functional as F

from deeptrain.aug.gaussian_blur import Blur


@pytest.mark.parametrize(("shape", "kernel"), [((12, 3, 32, 32), 0.1), ((5, 1, 20, 28), 0.3), ((1, 3, 8, 8), 0.6)])
def test_it_equals_torchvision_on_single_images(device, shape, kernel):
    images = torch.randint(256, shape, dtype=torch.uint8)
    blur = Blur(shape[1:], kernel=kernel)
    side, sigmas = 2 * blur.radius + 1, 0.1 + 1.9 * np.random.default_rng(0).random(shape[0])
    for batch in (images, images.float()):
        pairs = zip(batch, sigmas.tolist(), strict=True)
        expected = torch.stack([F.gaussian_blur(image, [side, side], [sigma, sigma]) for image, sigma in pairs])
        found, _ = blur(batch.to(device), torch.zeros(shape[0]), np.random.default_rng(0))
        difference = (found.cpu().float() - expected.float()).abs()
        if batch is images:  # a half may round either way
            assert found.dtype == torch.uint8 and difference.max() <= 1 and difference.mean() < 1e-3
        else:
            assert difference.max() < 1e-3


@pytest.mark.parametrize(
    ("shorter", "kernel", "side"), [(32, 0.1, 3), (28, 0.1, 3), (224, 0.1, 23), (8, 0.1, 3), (96, 0.1, 9)]
)
def test_the_kernel_is_odd_and_next_to_its_share(shorter, kernel, side):
    assert 2 * Blur((3, shorter, shorter + 7), kernel=kernel).radius + 1 == side


def test_widths_are_uniform_and_in_the_captions():
    words = Blur((1, 4, 4)).describe(torch.zeros(4000, 1, 4, 4), torch.zeros(4000), np.random.default_rng(0))
    widths = [float(word.removeprefix("blur ")) for word in words]
    assert stats.kstest(np.array(widths), stats.uniform(0.1, 1.9).cdf).statistic < 0.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"sigma": [2.0, 0.1]}, r"sigma=\[2,0.1\]: must be"), ({"sigma": [0.0, 1.0]}, "sigma=.*every item must be > 0")],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Blur((3, 8, 8), **settings)


def test_a_kernel_must_fit():
    with pytest.raises(ValueError, match=r"kernel=0\.1: 3 pixels are too many for a side of 1"):
        Blur((3, 1, 8))

"""Color jitter: torchvision's four operations in the given order, each image with its own factors."""

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import functional as F

from deeptrain.aug.color_jitter import ColorJitter

REFERENCE = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": F.adjust_hue,
}
OFF = dict.fromkeys(REFERENCE, 0.0)


def factors(settings, count, rng):
    """Sample as the docstring says: 1 ± setting, at least 0; the hue around 0."""
    even = rng.random((4, count))
    for (name, setting), row in zip(settings.items(), even, strict=True):
        low, high = (-setting, setting) if name == "hue" else (max(0.0, 1 - setting), 1 + setting)
        yield name, (low + (high - low) * row).tolist()


def by_torchvision(images, settings, rng):
    samples = dict(factors(settings, len(images), rng))
    results = []
    for index, image in enumerate(images):
        for name, setting in settings.items():
            if setting:
                image = REFERENCE[name](image, samples[name][index])
        results.append(image)
    return torch.stack(results)


def smooth(shape):
    coarse = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (*shape[:2], 4, 4)).astype(np.float32))
    return torch.nn.functional.interpolate(coarse, shape[2:], mode="bilinear").round().to(torch.uint8)


@pytest.mark.parametrize("name", REFERENCE)
@pytest.mark.parametrize("shape", [(16, 3, 32, 32), (7, 3, 20, 28)])
def test_each_step_equals_torchvision_on_bytes(device, name, shape):
    images, settings = smooth(shape), OFF | {name: 0.5}
    expected = by_torchvision(images, settings, np.random.default_rng(1))
    found, _ = ColorJitter(**settings)(images.to(device), torch.zeros(shape[0]), np.random.default_rng(1))
    difference = (found.cpu().int() - expected.int()).abs()
    if name == "hue" or device.type != "cpu":
        assert difference.max() <= 1 and (difference > 0).float().mean() < 0.005
    else:
        assert difference.max() == 0


def test_all_together_in_their_order():
    images, settings = smooth((12, 3, 32, 32)), {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
    expected = by_torchvision(images, settings, np.random.default_rng(2))
    found, _ = ColorJitter(**settings)(images, torch.zeros(12), np.random.default_rng(2))
    difference = (found.int() - expected.int()).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 0.005


def test_floats_keep_their_decimals():
    images, settings = (
        smooth((6, 3, 16, 16)).float(),
        {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1},
    )
    expected = 255 * by_torchvision(images / 255, settings, np.random.default_rng(3))
    found, _ = ColorJitter(**settings)(images, torch.zeros(6), np.random.default_rng(3))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-2)


def test_one_channel_changes_as_in_torchvision(device):
    images, settings = smooth((8, 1, 16, 16)), {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
    expected = by_torchvision(images, settings, np.random.default_rng(4))
    found, _ = ColorJitter(**settings)(images.to(device), torch.zeros(8), np.random.default_rng(4))
    assert (found.cpu().int() - expected.int()).abs().max() <= (0 if device.type == "cpu" else 1)


def test_factors_are_uniform():
    images = torch.full((3000, 1, 2, 2), 100.0)
    found, _ = ColorJitter(**OFF | {"brightness": 0.4})(images, torch.zeros(3000), np.random.default_rng(0))
    assert stats.kstest(found[:, 0, 0, 0].numpy() / 100, stats.uniform(0.6, 0.8).cdf).pvalue > 1e-3


def test_a_setting_that_is_off_moves_no_other_draw():
    images = smooth((8, 3, 16, 16))
    one = ColorJitter(**OFF | {"contrast": 0.4}).describe(images, images, np.random.default_rng(0))
    both = ColorJitter(**OFF | {"brightness": 0.2, "contrast": 0.4}).describe(images, images, np.random.default_rng(0))
    assert one[0].startswith("contrast ") and [word.partition(" · ")[2] for word in both] == one


@pytest.mark.parametrize(("name", "value"), [("hue", 0.6), ("brightness", -1), ("contrast", -0.1), ("saturation", "x")])
def test_mistakes_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}: must be"):
        ColorJitter(**{name: value})

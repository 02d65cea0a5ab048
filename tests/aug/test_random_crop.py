"""Random crop: windows of the padded image at uniform offsets, with black or reflected padding."""

import numpy as np
import pytest
import torch
from scipy import stats

from deeptrain.aug.random_crop import Crop


@pytest.mark.parametrize("mode", ["zero", "reflect"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("shape", "padding"), [((12, 3, 32, 32), 4), ((7, 1, 9, 6), 5), ((1, 3, 5, 7), 1)])
def test_it_equals_padding_and_slicing(device, mode, dtype, shape, padding):
    images = torch.randint(256, shape, device=device).to(dtype)
    found, _ = Crop(shape[1:], padding=padding, mode=mode)(images, torch.zeros(shape[0]), np.random.default_rng(0))
    assert found.dtype == dtype
    down, across = np.random.default_rng(0).integers(2 * padding + 1, size=(2, shape[0]))
    pads = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    padded = np.pad(images.cpu().numpy(), pads, mode="reflect" if mode == "reflect" else "constant")
    for image, top, left, expected in zip(found.cpu().numpy(), down, across, padded, strict=True):
        assert np.array_equal(image, expected[:, top : top + shape[2], left : left + shape[3]])


def test_offsets_are_uniform():
    """A white pixel in the middle of a black image shows the offset of each window."""
    images = torch.zeros(8100, 1, 9, 9, dtype=torch.uint8)
    images[:, :, 4, 4] = 1
    found, _ = Crop((1, 9, 9), padding=4, mode="zero")(images, torch.zeros(8100), np.random.default_rng(0))
    position = found.flatten(1).argmax(1).numpy()
    assert stats.chisquare(np.bincount(position, minlength=81)).pvalue > 1e-3


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="padding=8: must be below 8, the image's shorter side"):
        Crop((1, 8, 12), padding=8)
    with pytest.raises(ValueError, match="mode=wrap: choose from zero, reflect"):
        Crop((1, 8, 12), mode="wrap")

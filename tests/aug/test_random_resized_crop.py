"""Random resized crop: every image is its own rectangle, cropped and resized as in torchvision."""

import numpy as np
import pytest
import torch
from torch.nn.functional import grid_sample
from torchvision.transforms import functional as F

from deeptrain.aug import random_resized_crop
from deeptrain.aug.pixel_rows import sample_rectangles
from deeptrain.aug.random_resized_crop import ScaleCrop


@pytest.mark.parametrize("shape", [(24, 3, 32, 32), (9, 1, 20, 28), (1, 3, 7, 5)])
def test_it_equals_torchvision_on_single_images(device, shape):
    images = 255 * torch.rand(shape)
    crop = ScaleCrop()
    boxes = sample_rectangles(np.random.default_rng(0), shape[0], shape[2:], crop.area, crop.aspect).tolist()
    expected = torch.stack(
        [
            F.resized_crop(image, top, left, bottom - top, right - left, list(shape[2:]), antialias=False)
            for image, (top, bottom, left, right) in zip(images, boxes, strict=True)
        ]
    )
    found, _ = crop(images.to(device), torch.zeros(shape[0]), np.random.default_rng(0))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=2e-3)
    bytes_, _ = crop(images.to(device, torch.uint8), torch.zeros(shape[0]), np.random.default_rng(0))
    exact, _ = crop(images.to(torch.uint8).float(), torch.zeros(shape[0]), np.random.default_rng(0))
    assert bytes_.dtype == torch.uint8 and (bytes_.cpu().float() - exact).abs().max() < 0.51


@pytest.mark.parametrize("area", [[0.02, 0.3], [0.9, 1.0]])
def test_inside_a_box_zeros_around_the_image_are_borders(area, monkeypatch):
    """MPS lacks the border mode before torch 2.13. No position is outside the outermost pixel centres."""
    images = 255 * torch.rand(16, 3, 20, 28)
    crop, modes = ScaleCrop(area=area), []

    def sample(planes, grid, padding_mode, align_corners):
        modes.append(padding_mode)
        both = [
            grid_sample(planes, grid, padding_mode=mode, align_corners=align_corners) for mode in ("border", "zeros")
        ]
        torch.testing.assert_close(*both, rtol=1e-4, atol=2e-3)
        return both[0]

    monkeypatch.setattr(random_resized_crop, "grid_sample", sample)
    crop(images, torch.zeros(16), np.random.default_rng(0))
    assert modes == ["border"]


def test_the_whole_image_stays(device):
    images = torch.randint(256, (4, 3, 12, 12), device=device, dtype=torch.uint8)
    found, _ = ScaleCrop(area=[1.0, 1.0])(images, torch.zeros(4), np.random.default_rng(0))
    assert torch.equal(found, images)


@pytest.mark.parametrize("name", ["area", "aspect"])
def test_mistakes_are_named(name):
    with pytest.raises(ValueError, match=rf"{name}=\[0.9,0.1\]: must be \[smallest,largest\]"):
        ScaleCrop(**{name: [0.9, 0.1]})


@pytest.mark.parametrize(
    ("shape", "area", "aspect"),
    [((3, 8, 8), [0.5, 1.0], [3.0, 4.0]), ((3, 8, 8), [0.5, 1.0], [0.1, 0.4]), ((1, 8, 16), [1.0, 1.0], [0.75, 1.33])],
)
def test_what_can_never_fit_is_refused(shape, area, aspect):
    with pytest.raises(ValueError, match=r"^aspect=\[.*\]: no box of area=.* fits into 8x(8|16) pixels; choose"):
        ScaleCrop(area=area, aspect=aspect, input_shape=shape)
    ScaleCrop(area=[0.1, 1.0], aspect=aspect, input_shape=shape)

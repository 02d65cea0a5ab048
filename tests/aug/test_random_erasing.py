"""Random erasing: the box fits, its area and shape follow their distributions, only the box is filled."""

import numpy as np
import pytest
import torch
from scipy import stats

from deeptrain.aug.pixel_rows import sample_rectangles
from deeptrain.aug.random_erasing import RandomErasing

MEAN = (10.4, 20.6, 30.0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("fill", ["zero", "mean", "noise"])
@pytest.mark.parametrize("shape", [(16, 3, 32, 32), (5, 1, 9, 13), (1, 3, 8, 8)])
def test_only_the_box_is_filled(device, dtype, fill, shape):
    images = torch.randint(100, 256, shape, device=device).to(dtype)
    before = images.clone()
    erasing = RandomErasing(MEAN[: shape[1]], fill=fill)
    found, _ = erasing(images, torch.zeros(shape[0]), np.random.default_rng(0))
    assert torch.equal(images, before) and found.dtype == dtype
    boxes = sample_rectangles(np.random.default_rng(0), shape[0], shape[2:], erasing.area, erasing.aspect)
    for image, original, (top, bottom, left, right) in zip(found, images, boxes, strict=True):
        inside = torch.zeros(shape[2:], dtype=torch.bool, device=device)
        inside[top:bottom, left:right] = True
        assert torch.equal(image[:, ~inside], original[:, ~inside])
        for channel, values in enumerate(image[:, inside]):
            mean = MEAN[channel] if dtype == torch.float32 else round(MEAN[channel])
            if fill != "noise":
                torch.testing.assert_close(
                    values.float(), torch.full_like(values.float(), 0 if fill == "zero" else mean)
                )


def test_noise_is_uniform_and_new_for_every_pixel(device):
    images = torch.zeros(300, 3, 32, 32, dtype=torch.uint8, device=device)
    erasing = RandomErasing(MEAN, area=[1.0, 1.0], aspect=[1.0, 1.0])
    found, _ = erasing(images, torch.zeros(300), np.random.default_rng(0))
    assert stats.chisquare(np.bincount(found.cpu().numpy().reshape(-1), minlength=256)).pvalue > 1e-3
    assert abs(np.corrcoef(found.cpu().numpy()[:, 0].reshape(-1), found.cpu().numpy()[:, 1].reshape(-1))[0, 1]) < 0.01


@pytest.mark.parametrize("size", [(600, 600), (400, 900)])
@pytest.mark.parametrize(("area", "aspect"), [((0.02, 0.4), (0.3, 3.3)), ((0.1, 0.2), (1.0, 2.0))])
def test_area_aspect_and_position_follow_their_distributions(size, area, aspect):
    """The reference samples by hand until the box fits. Rounding has no effect at this size."""
    height, width = size
    top, bottom, left, right = sample_rectangles(np.random.default_rng(0), 3000, size, area, aspect).T
    assert top.min() >= 0 and left.min() >= 0 and bottom.max() <= height and right.max() <= width
    box_height, box_width = bottom - top, right - left
    found = box_height * box_width / (height * width)
    assert stats.kstest(found, stats.uniform(area[0], area[1] - area[0]).cdf).pvalue > 1e-3
    rng, expected = np.random.default_rng(1), []
    for share in rng.uniform(*area, 3000):
        while True:
            ratio = np.exp(rng.uniform(*np.log(aspect)))
            pixels = share * height * width
            if np.sqrt(pixels * ratio) <= height and np.sqrt(pixels / ratio) <= width:
                break
        expected.append(ratio)
    assert stats.ks_2samp(box_height / box_width, expected).pvalue > 1e-3
    for start, side, extent in ((top, box_height, height), (left, box_width, width)):
        free = extent - side
        assert stats.kstest((start + 0.5) / (free + 1), "uniform").pvalue > 1e-3


def test_the_whole_image_can_be_erased():
    boxes = sample_rectangles(np.random.default_rng(0), 50, (8, 12), (1.0, 1.0), (0.3, 3.3))
    assert (boxes == [0, 8, 0, 12]).all()
    assert (sample_rectangles(np.random.default_rng(0), 50, (8, 12), (0.0, 0.0), (1.0, 1.0))[:, 1::2] > 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"area": [0.4, 0.1]}, r"area=\[0.4,0.1\]: must be \[smallest,largest\]"),
        ({"area": [0.4]}, r"area=\[0.4\]: must be \[smallest,largest\]"),
        ({"area": [0.1, 1.5]}, "area=.*: every item must be"),
        ({"aspect": [0.0, 1.0]}, "aspect=.*: every item must be > 0"),
        ({"fill": "blue"}, "fill=blue: choose from zero, mean, noise"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        RandomErasing(MEAN, **settings)


@pytest.mark.parametrize(
    ("shape", "area", "aspect"),
    [((3, 8, 8), [0.5, 1.0], [3.0, 4.0]), ((3, 8, 8), [0.5, 1.0], [0.1, 0.4]), ((1, 8, 16), [1.0, 1.0], [0.75, 1.33])],
)
def test_what_can_never_fit_is_refused(shape, area, aspect):
    with pytest.raises(ValueError, match=r"^aspect=\[.*\]: no box of area=.* fits into 8x(8|16) pixels; choose"):
        RandomErasing(MEAN, area=area, aspect=aspect, input_shape=shape)
    RandomErasing(MEAN, area=[0.1, 1.0], aspect=aspect, input_shape=shape)

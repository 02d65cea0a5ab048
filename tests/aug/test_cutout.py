"""Cutout against a slow reference: the square's side, its clipping, its fill and the other pixels."""

import numpy as np
import pytest
import torch

from deeptrain.aug.cutout import Cutout

MEAN = (10.4, 20.6, 30.0)


def by_hand(images, side, rng):
    """Run the paper's loop: a centre for every image, the square clipped at the border and filled with the mean."""
    cut, (count, channels, height, width) = images.clone(), images.shape
    tops, lefts = rng.integers(height, size=count) - side // 2, rng.integers(width, size=count) - side // 2
    for image, top, left in zip(cut, tops, lefts, strict=True):
        for channel in range(channels):
            fill = MEAN[channel] if images.is_floating_point() else round(MEAN[channel])
            image[channel, max(top, 0) : top + side, max(left, 0) : left + side] = fill
    return cut


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    ("shape", "size", "side"), [((8, 3, 32, 32), 16, 16), ((5, 3, 9, 13), 0.5, 4), ((1, 1, 8, 8), 3, 3)]
)
def test_it_equals_the_slow_reference(device, dtype, layout, shape, size, side):
    images = torch.randint(100, 256, shape).to(device, dtype).contiguous(memory_format=layout)
    before, targets = images.clone(), torch.arange(shape[0], device=device)
    cut, same = Cutout(shape[1:], MEAN[: shape[1]], size=size)(images, targets, np.random.default_rng(3))
    assert torch.equal(cut, by_hand(images, side, np.random.default_rng(3)))
    assert cut.dtype == dtype and same is targets and torch.equal(images, before)


def test_hidden_area_has_its_expectation(device):
    """The expectation sums over all centres. A clipped edge has a mean of about s - (s/2)² / e (side s, extent e)."""
    images = torch.full((4000, 1, 32, 32), 255, dtype=torch.uint8, device=device)
    cut, _ = Cutout((1, 32, 32), (0.0,))(images, torch.zeros(4000), np.random.default_rng(0))
    areas = (cut == 0).sum((1, 2, 3)).double()
    edges = np.array([min(c + 8, 32) - max(c - 8, 0) for c in range(32)])
    assert edges.max() == 16 and areas.max() == 256 and areas.min() >= 64
    spread = np.outer(edges, edges).std() / np.sqrt(len(areas))
    assert abs(areas.mean().item() - edges.mean() ** 2) < 4 * spread
    assert len(cut.flatten(1).unique(dim=0)) > 900, "every image has its own square"


def test_the_default_is_the_papers_sixteen_at_32():
    assert Cutout((3, 32, 32), MEAN).side == 16
    assert Cutout((3, 28, 40), MEAN).side == 14
    assert Cutout((1, 8, 8), (0.0,), size=0.01).side == 1
    assert Cutout((1, 8, 8), (0.0,), size=1.0).side == 8


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (16, "size=16: must be at most 8, the image's shorter side"),
        (0, "size=0: must be"),
        (1.5, "size=1.5: must be"),
        (-3, "size=-3: must be"),
    ],
)
def test_mistakes_are_named(size, message):
    with pytest.raises(ValueError) as error:
        Cutout((1, 8, 12), (0.0,), size=size)
    assert str(error.value).startswith(message)

"""Flip: the right direction, at the right rates, with independent coins for each image."""

import numpy as np
import pytest
import torch
from scipy import stats

from deeptrain.aug.flip import Flip


def halves(found, images):
    """Return for each image whether it was mirrored left to right, and whether upside down."""
    options = {(a, b): images.flip([d for d, on in ((3, a), (2, b)) if on]) for a in (0, 1) for b in (0, 1)}
    same = {key: (found == option).flatten(1).all(1) for key, option in options.items()}
    assert torch.stack(list(same.values())).sum(0).eq(1).all()
    return (same[1, 0] | same[1, 1]).numpy(), (same[0, 1] | same[1, 1]).numpy()


@pytest.mark.parametrize(("horizontal", "vertical"), [(0.5, 0.0), (0.3, 0.8), (1.0, 0.0), (0.0, 0.0), (1.0, 1.0)])
def test_rates_and_independence(horizontal, vertical):
    images = torch.arange(4, dtype=torch.uint8).view(1, 1, 2, 2).expand(5000, 3, 2, 2).contiguous()
    flip = Flip(horizontal=horizontal, vertical=vertical)
    found, _ = flip(images, torch.zeros(5000), np.random.default_rng(0))
    across, down = halves(found, images)
    for coins, rate in ((across, horizontal), (down, vertical)):
        assert stats.binomtest(int(coins.sum()), 5000, rate).pvalue > 1e-3
    if 0 < horizontal < 1 and 0 < vertical < 1:
        table = np.histogram2d(across, down, bins=2)[0]
        assert stats.chi2_contingency(table).pvalue > 1e-3, "the two coins are independent"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images_are_mirrored_and_no_more(device, dtype):
    images = torch.randint(256, (40, 3, 5, 7), device=device).to(dtype)
    found, _ = Flip(vertical=0.5)(images, torch.zeros(40), np.random.default_rng(1))
    assert found.dtype == dtype
    halves(found.cpu(), images.cpu())


def test_captions_describe_the_samples():
    images = torch.randint(256, (40, 3, 5, 7), dtype=torch.uint8)
    flip = Flip(vertical=0.5)
    words = flip.describe(images, torch.zeros(40), np.random.default_rng(2))
    across, down = halves(flip(images, torch.zeros(40), np.random.default_rng(2))[0], images)
    captions = {(False, False): "", (True, False): "flipped", (False, True): "upside down", (True, True): "turned"}
    assert words == [captions[bool(a), bool(b)] for a, b in zip(across, down, strict=True)]


@pytest.mark.parametrize("name", ["horizontal", "vertical"])
def test_mistakes_are_named(name):
    with pytest.raises(ValueError, match=f"{name}=1.5: must be"):
        Flip(**{name: 1.5})

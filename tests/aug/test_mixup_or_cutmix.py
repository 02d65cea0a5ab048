"""Mixup or CutMix: each batch gets one of them, with the set probability."""

import numpy as np
import pytest
import torch
from scipy import stats

from deeptrain.aug.cutmix import CutMix
from deeptrain.aug.mixup import Mixup
from deeptrain.aug.mixup_or_cutmix import MixupOrCutMix
from deeptrain.aug.pipeline import RandomApply

IDS = torch.arange(4)


@pytest.mark.parametrize(("probability", "cutmix"), [(1.0, 0.5), (0.7, 0.25), (0.4, 1.0), (1.0, 0.0)])
def test_choices_have_their_frequencies(probability, cutmix):
    """Unchanged, CutMix and Mixup: bytes with ids, bytes with soft targets, floats."""
    images = torch.randint(256, (4, 1, 4, 4), dtype=torch.uint8)
    mix, rng = RandomApply(MixupOrCutMix(4, cutmix=cutmix), probability=probability), np.random.default_rng(0)
    counts = np.zeros(3)
    for _ in range(1500):
        mixed, targets = mix(images, IDS, rng)
        counts[2 if mixed.dtype == torch.float32 else targets.ndim - 1] += 1
        assert counts[0] or targets is not IDS or mixed is images
    expected = np.array([1 - probability, probability * cutmix, probability * (1 - cutmix)]) * 1500
    assert (counts[expected == 0] == 0).all()
    if (expected > 0).sum() > 1:
        assert stats.chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 1e-3


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_it_is_one_or_the_other(device, per_image, count):
    images = torch.randint(256, (count, 3, 8, 8), device=device, dtype=torch.uint8)
    ids = IDS.to(device).repeat(2)[:count]
    mix = MixupOrCutMix(4, mixup_alpha=0.3, cutmix_alpha=0.7, per_image=per_image)
    for seed in range(8):
        found, targets = mix(images, ids, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        cut = rng.random() < 0.5
        alone = CutMix(4, alpha=0.7, per_image=per_image) if cut else Mixup(4, alpha=0.3, per_image=per_image)
        expected, expected_targets = alone(images, ids, rng)
        assert torch.equal(found, expected) and torch.equal(targets, expected_targets)
        captions = mix.describe(images, ids, np.random.default_rng(seed))
        assert captions == ["CutMix" if cut else "Mixup"] * count


@pytest.mark.parametrize(
    ("name", "value", "rule"), [("cutmix", 2, "<= 1"), ("mixup_alpha", 0, "> 0"), ("cutmix_alpha", -1, "> 0")]
)
def test_mistakes_are_named(name, value, rule):
    with pytest.raises(ValueError, match=f"{name}={value}: must be .*{rule}"):
        MixupOrCutMix(4, **{name: value})

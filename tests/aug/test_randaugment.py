"""RandAugment and TrivialAugment: the samples and their frequencies. test_operations.py tests the operations."""

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import _apply_op

from deeptrain.aug.operations import OPERATION_NAMES, SIGNED_NAMES
from deeptrain.aug.randaugment import RandAugment
from deeptrain.aug.trivial_augment import TrivialAugment

EACH = pytest.mark.parametrize("kind", [RandAugment, TrivialAugment])


def noise(count, shape=(3, 32, 32)):
    images = torch.randint(256, (count, *shape), generator=torch.Generator().manual_seed(0))
    return images.to(torch.uint8).contiguous(memory_format=torch.channels_last)


def choices_of(kind, count):
    operations = kind((3, 32, 32)).operations
    return [operations.choices[choice] for choice in operations.sample(count, np.random.default_rng(0))]


@EACH
def test_operations_are_equally_frequent(kind):
    drawn = [name for name, _ in choices_of(kind, 28_000)]
    assert stats.chisquare([drawn.count(name) for name in OPERATION_NAMES]).pvalue > 1e-3


@EACH
def test_signs_are_a_fair_coin_for_each_operation_that_has_them(kind):
    drawn = choices_of(kind, 40_000)
    signs = np.array([[sum(n == name and s * m > 0 for n, m in drawn) for s in (1, -1)] for name in SIGNED_NAMES])
    assert all(stats.binomtest(int(up), int(up + down)).pvalue > 1e-3 for up, down in signs)
    assert all(magnitude >= 0 for name, magnitude in drawn if name not in SIGNED_NAMES)


def test_trivial_augment_draws_magnitudes_evenly():
    drawn = choices_of(TrivialAugment, 100_000)
    for name in ("Rotate", "ShearX", "Solarize"):
        sizes, counts = np.unique([abs(m) for n, m in drawn if n == name], return_counts=True)
        assert len(sizes) == 31 and stats.chisquare(counts).pvalue > 1e-3


def test_randaugment_keeps_to_its_magnitude():
    operations = RandAugment((3, 24, 40), magnitude=30).operations
    largest = {name: abs(magnitude) for name, magnitude in operations.choices}
    expected = {"ShearX": 0.3, "TranslateX": 150 / 331 * 40, "TranslateY": 150 / 331 * 24, "Rotate": 30}
    expected |= {"Sharpness": 0.9, "Posterize": 4, "Solarize": 0}
    for name, magnitude in expected.items():
        assert largest[name] == pytest.approx(magnitude)


def test_rounds_and_images_are_drawn_independently():
    first, second = RandAugment((3, 32, 32))._sample(40_000, np.random.default_rng(0))
    kinds = [np.searchsorted(RandAugment((3, 32, 32)).operations.edges, draws, "right") for draws in (first, second)]
    for one, other in (kinds, (kinds[0][:-1], kinds[0][1:])):
        pairs = np.zeros((15, 15))
        np.add.at(pairs, (one, other), 1)
        assert stats.chi2_contingency(pairs[1:, 1:]).pvalue > 1e-3


@EACH
def test_copies_of_an_image_become_different(device, kind):
    images = noise(1).repeat(64, 1, 1, 1).to(device)
    found, _ = kind((3, 32, 32))(images, torch.zeros(64), np.random.default_rng(0))
    assert len(found.flatten(1).unique(dim=0)) > (20 if kind is TrivialAugment else 40)


@EACH
@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 24, 40), (1, 28, 28), (1, 3, 2)])
@pytest.mark.parametrize("count", [1, 2, 33])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_the_draws_alone_decide_on_every_device(device, kind, shape, count, layout):
    augment, images = kind(shape), noise(count, shape)
    targets, before = torch.arange(count, device=device), images.clone()
    cpu_rng, device_rng = np.random.default_rng(5), np.random.default_rng(5)
    on_cpu, _ = augment(images, torch.arange(count), cpu_rng)
    found, same = augment(images.to(device).contiguous(memory_format=layout), targets, device_rng)
    assert torch.equal(found.cpu(), on_cpu) and cpu_rng.random() == device_rng.random()
    assert found.dtype == torch.uint8 and found.shape == images.shape and same is targets
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before), "the input is not changed"


@pytest.mark.parametrize("num_operations", [1, 2, 3])
def test_captions_say_what_happens_to_each_image(num_operations):
    augment, images, rng = RandAugment((3, 32, 32), num_operations=num_operations), noise(50), np.random.default_rng(2)
    captions = augment.describe(images, torch.zeros(50), copy.deepcopy(rng))
    found, _ = augment(images, torch.zeros(50), rng)
    values = {augment.operations.describe(i): choice for i, choice in enumerate(augment.operations.choices)}
    for image, result, words in zip(images, found, captions, strict=True):
        parts = words.split(" · ")
        assert len(parts) == num_operations
        for part in parts:
            image = _apply_op(image, *values[part], InterpolationMode.NEAREST, None)
        assert torch.equal(image, result), words


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"magnitude": 31}, "magnitude=31: must be below bins=31"),
        ({"magnitude": -1}, "magnitude=-1: must be"),
        ({"num_operations": 0}, "num_operations=0: must be"),
        ({"bins": 1, "magnitude": 0}, "bins=1: must be"),
    ],
)
def test_mistakes_are_named(settings, message):
    with pytest.raises(ValueError) as error:
        RandAugment((3, 32, 32), **settings)
    assert str(error.value).startswith(message)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@EACH
def test_nothing_waits_for_the_gpu(kind):
    augment, images, rng = kind((3, 32, 32)), noise(512).cuda(), np.random.default_rng(0)
    augment(images, images, rng)  # the source pixels are copied once
    torch.cuda.set_sync_debug_mode("error")
    try:
        augment(images, images, rng)
    finally:
        torch.cuda.set_sync_debug_mode("default")

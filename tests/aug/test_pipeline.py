"""The pipeline: the given order, one exact normalisation, no change of the input, no wait for the device."""

import numpy as np
import pytest
import torch
from scipy import stats

from deeptrain.aug.cutmix import CutMix
from deeptrain.aug.cutout import Cutout
from deeptrain.aug.mixup import Mixup
from deeptrain.aug.pipeline import Pipeline, RandomApply
from deeptrain.aug.random_grayscale import Gray

MEAN, STD = (125.3, 123.0, 113.9), (63.0, 62.1, 66.7)


def normalised_by_hand(images, mean=MEAN, std=STD):
    mean, std = (torch.tensor(v, dtype=torch.float64, device=images.device)[:, None, None] for v in (mean, std))
    return (images.double() - mean) / std


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("shape", [(4, 3, 32, 32), (1, 3, 5, 7), (3, 1, 8, 8), (2, 3, 1, 1)])
def test_normalisation_is_exact_and_channels_last(device, dtype, layout, shape):
    images = torch.randint(256, shape).to(device, dtype).contiguous(memory_format=layout)
    before, channels = images.clone(), shape[1]
    found = Pipeline([], MEAN[:channels], STD[:channels]).evaluate(images)
    expected = normalised_by_hand(images, MEAN[:channels], STD[:channels])
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    assert found.dtype == torch.float32 and found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before) and found.data_ptr() != images.data_ptr()


def test_a_view_of_a_batch_is_normalised_too(device):
    images = torch.randint(256, (6, 3, 8, 8), device=device).float().contiguous(memory_format=torch.channels_last)
    view = images[::2, :, 1:7, 2:6]
    found = Pipeline([], MEAN, STD).evaluate(view)
    torch.testing.assert_close(found.double(), normalised_by_hand(view), rtol=1e-5, atol=1e-6)


def test_image_mean_is_one_number_an_image(device):
    images = torch.randint(256, (4, 3, 8, 8), device=device, dtype=torch.uint8)
    found = Pipeline([], MEAN, STD, subtract_image_mean=True).evaluate(images).double()
    plain = normalised_by_hand(images)
    torch.testing.assert_close(found, plain - plain.mean((1, 2, 3), keepdim=True), rtol=1e-4, atol=1e-5)


def test_a_constant_channel_stays_finite(device):
    images = torch.full((2, 1, 4, 4), 125, dtype=torch.uint8, device=device)
    assert (Pipeline([], (124.99999,), (1e-6,)).evaluate(images).abs() < 1e-4).all()


def test_augmentations_run_in_order_on_the_pixel_scale_and_share_one_generator(device):
    calls = []

    def augmentation(name):
        def call(images, targets, rng):
            calls.append((name, images.dtype, rng))
            return images, targets

        return call

    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8, device=device)
    rng, targets = np.random.default_rng(0), torch.zeros(2)
    pipeline = Pipeline([augmentation("first"), augmentation("second")], MEAN, STD)
    result, same = pipeline.train(images, targets, rng)
    assert calls == [("first", torch.uint8, rng), ("second", torch.uint8, rng)]
    assert same is targets and torch.equal(result, pipeline.evaluate(images))


def test_train_is_augment_then_evaluate(device):
    augmentations = [Cutout((3, 8, 8), MEAN), Mixup(10), CutMix(10, per_image=True)]
    pipeline = Pipeline(augmentations, MEAN, STD)
    images = torch.randint(256, (16, 3, 8, 8), device=device, dtype=torch.uint8)
    before, ids = images.clone(), torch.arange(16, device=device) % 10
    found, targets = pipeline.train(images, ids, np.random.default_rng(0))
    pictures, same = pipeline.augment(images, ids, np.random.default_rng(0))
    torch.testing.assert_close(found, pipeline.evaluate(pictures))
    assert torch.equal(targets, same) and torch.equal(images, before)
    torch.testing.assert_close(targets.sum(1), torch.ones(16, device=device))
    assert pictures.min() >= 0 and pictures.max() <= 255


def test_cutout_leaves_about_zero_after_normalisation(device):
    images = torch.full((8, 3, 8, 8), 255, dtype=torch.uint8, device=device)
    found, _ = Pipeline([Cutout((3, 8, 8), MEAN, size=8)], MEAN, STD).train(
        images, torch.zeros(8), np.random.default_rng(0)
    )
    hidden = found[found < 1]
    assert hidden.numel() and hidden.abs().max() < 0.5 / min(STD) + 1e-6, "a rounded mean is within half a level"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("per_image", [False, True])
def test_no_augmentation_waits_for_the_gpu(per_image):
    augmentations = [Cutout((3, 8, 8), MEAN), CutMix(10, per_image=per_image), Mixup(10, per_image=per_image)]
    pipeline = Pipeline(augmentations, MEAN, STD, subtract_image_mean=True)
    images = torch.randint(256, (64, 3, 8, 8), device="cuda", dtype=torch.uint8)
    ids, rng = torch.arange(64, device="cuda") % 10, np.random.default_rng(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        pipeline.train(images, ids, rng)
    finally:
        torch.cuda.set_sync_debug_mode("default")


# --- probability and until -------------------------------------------------------------------------------------------


def invert(images, targets, rng):
    """Augment like a user's function, with a visible sample for each image."""
    return 255 - images // 2 - torch.from_numpy(rng.integers(10, size=(len(images), 1, 1, 1))).to(images), targets


def some_images(count, device, dtype=torch.uint8):
    images = torch.randint(256, (count, 3, 6, 5), device=device).to(dtype)
    return images, torch.arange(count, device=device)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("count", [1, 2, 33])
def test_a_drawn_subset_is_changed_and_the_rest_stays(device, dtype, count):
    images, ids = some_images(count, device, dtype)
    before = images.clone()
    applied = RandomApply(invert, probability=0.5)
    found, targets = applied(images, ids, np.random.default_rng(1))
    assert torch.equal(images, before) and targets is ids and found.dtype == dtype
    rng = np.random.default_rng(1)
    coins = rng.random(count) < 0.5
    index = torch.from_numpy(np.flatnonzero(coins)).to(device)
    expected = images.clone()
    expected[index] = invert(images[index], ids[index], rng)[0]
    assert torch.equal(found, expected)


def test_each_image_is_drawn_at_the_rate_and_by_itself():
    images, ids = torch.zeros(40, 1, 2, 2, dtype=torch.uint8), torch.zeros(40)
    applied, rng, table = RandomApply(invert, probability=0.3), np.random.default_rng(0), []
    for _ in range(500):
        found, _ = applied(images, ids, rng)
        table.append((found[:, 0, 0, 0] > 0).numpy())
    table = np.stack(table)
    assert stats.binomtest(int(table.sum()), table.size, 0.3).pvalue > 1e-3
    for axis, trials in ((0, 500), (1, 40)):  # neither an image nor a batch is favoured
        counts = table.sum(axis)
        assert stats.chi2.sf(((counts - 0.3 * trials) ** 2 / (0.21 * trials)).sum(), len(counts)) > 1e-3


@pytest.mark.parametrize("kind", [Mixup, CutMix])
def test_mixing_is_for_the_whole_batch_by_one_coin(device, kind):
    images, ids = some_images(8, device)
    applied, rng, mixed = RandomApply(kind(8, per_image=True), probability=0.25), np.random.default_rng(0), 0
    for _ in range(400):
        found, targets = applied(images, ids, rng)
        mixed += targets is not ids
        assert targets.shape == (8, 8) if targets is not ids else found is images
    assert stats.binomtest(mixed, 400, 0.25).pvalue > 1e-3


@pytest.mark.parametrize("augmentation", [invert, Cutout((3, 6, 5), MEAN), Mixup(10), CutMix(10, per_image=True)])
def test_with_probability_one_nothing_is_drawn_for_it(device, augmentation):
    images, ids = some_images(7, device)
    expected, wanted = augmentation(images, ids, np.random.default_rng(3))
    for each in (augmentation, RandomApply(augmentation), RandomApply(augmentation, probability=1.0, until=1.0)):
        found, targets = Pipeline([each], MEAN, STD).augment(images, ids, np.random.default_rng(3))
        assert torch.equal(found, expected) and torch.equal(targets, wanted)


def test_all_or_none_of_the_images(device):
    images, ids = some_images(4, device)

    class Coins:
        def __init__(self, value):
            self.value = value

        def random(self, count):
            return np.full(count, self.value)

        def integers(self, high, size):
            return np.zeros(size, np.int64)

    applied = RandomApply(invert, probability=0.5)
    found, targets = applied(images, ids, Coins(0.9))
    assert found is images and targets is ids
    assert torch.equal(applied(images, ids, Coins(0.1))[0], 255 - images // 2)
    assert RandomApply(invert, probability=0.0)(images, ids, np.random.default_rng(0))[0] is images


def test_a_mixed_batch_of_floats_gets_bytes_back(device):
    """Bytes that an operation returns for some images of a float batch become floats."""

    def to_bytes(images, targets, rng):
        return images.to(torch.uint8), targets

    images, ids = some_images(16, device, torch.float32)
    images = images + 0.25
    found, _ = RandomApply(to_bytes, probability=0.5)(images, ids, np.random.default_rng(0))
    assert found.dtype == torch.float32 and set((images - found).unique().tolist()) == {0.0, 0.25}
    back, _ = RandomApply(lambda images, *rest: (images.float() + 0.5, *rest[:1]), probability=0.5)(
        images.to(torch.uint8), ids, np.random.default_rng(0)
    )
    assert back.dtype == torch.float32 and set((back - images).unique().tolist()) == {-0.25, 0.25}


def test_until_stops_an_augmentation(device):
    images, ids = some_images(4, device)
    applied = RandomApply(invert, until=0.5)
    for progress, works in ((0.0, True), (0.499, True), (0.5, False), (1.0, False)):
        found, _ = applied(images, ids, np.random.default_rng(0), progress)
        assert (found is not images) == works
    assert RandomApply(invert)(images, ids, np.random.default_rng(0), 1.0)[0] is not images, "1 never stops it"
    assert RandomApply(invert, until=0.0)(images, ids, np.random.default_rng(0), 0.0)[0] is images


def test_progress_reaches_every_augmentation(device):
    images, ids = some_images(8, device)
    pipeline = Pipeline([RandomApply(Mixup(8), until=0.9), Cutout((3, 6, 5), MEAN)], MEAN, STD)
    for progress, targets_dimensions in ((0.0, 2), (0.89, 2), (0.9, 1)):
        found, targets = pipeline.train(images, ids, np.random.default_rng(0), progress)
        assert targets.ndim == targets_dimensions and found.dtype == torch.float32


def test_some_targets_may_change_but_not_their_form(device):
    images, ids = some_images(20, device)
    found, targets = RandomApply(lambda images, targets, rng: (images, targets * 0 - 1), probability=0.5)(
        images, ids, np.random.default_rng(0)
    )
    assert torch.equal(found, images) and 0 < (targets == -1).sum() < 20
    assert ((targets == -1) | (targets == ids)).all()
    mix = Mixup(20)
    with pytest.raises(ValueError, match=r"probability=0\.5: <lambda> mixes targets, so it must have mixes = True"):
        RandomApply(lambda *batch: mix(*batch), probability=0.5)(images, ids, np.random.default_rng(0))


def test_captions_describe_the_sampled_images():
    class Describing:
        def __call__(self, images, targets, rng):
            return images, targets

        def describe(self, images, targets, rng):
            samples = rng.integers(9, size=len(images))
            return [f"{target} {value}" for target, value in zip(targets.tolist(), samples, strict=True)]

    images, ids = some_images(12, "cpu")
    words = RandomApply(Describing(), probability=0.5).describe(images, ids, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    indices = np.flatnonzero(rng.random(12) < 0.5)
    values = dict(zip(indices.tolist(), rng.integers(9, size=len(indices)).tolist(), strict=True))
    assert words == [f"{image} {values[image]}" if image in values else "" for image in range(12)]
    assert RandomApply(invert).describe(images, ids, np.random.default_rng(0)) == [""] * 12


def test_an_augmentation_without_describe_shows_its_name_at_a_probability():
    images, ids = some_images(12, "cpu")
    for augmentation, name in ((Gray(), "Gray"), (invert, "invert")):
        applied = RandomApply(augmentation, probability=0.5)
        words = applied.describe(images, ids, np.random.default_rng(0))
        result, _ = applied(images, ids, np.random.default_rng(0))
        changed = (result != images).flatten(1).any(1).tolist()
        assert words == [name if is_changed else "" for is_changed in changed] and 0 < sum(changed) < 12
    assert RandomApply(Gray()).describe(images, ids, np.random.default_rng(0)) == [""] * 12


@pytest.mark.parametrize("name", ["probability", "until"])
@pytest.mark.parametrize("value", [-0.1, 1.1, "x"])
def test_their_mistakes_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}: must be"):
        RandomApply(invert, **{name: value})

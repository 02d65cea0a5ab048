"""The pipeline: order as written, one exact normalisation, nothing that came in changed, nothing that waits."""

import numpy as np
import pytest
import torch

from deeptrain.aug.cutmix import CutMix
from deeptrain.aug.cutout import Cutout
from deeptrain.aug.mixup import Mixup
from deeptrain.aug.pipeline import Pipeline

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
    seen = []

    def augmentation(name):
        def call(images, targets, rng):
            seen.append((name, images.dtype, rng))
            return images, targets

        return call

    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8, device=device)
    rng, targets = np.random.default_rng(0), torch.zeros(2)
    pipeline = Pipeline([augmentation("first"), augmentation("second")], MEAN, STD)
    result, same = pipeline.train(images, targets, rng)
    assert seen == [("first", torch.uint8, rng), ("second", torch.uint8, rng)]
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

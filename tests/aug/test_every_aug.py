"""Properties of every augmentation: dtypes, shapes, any batch, nothing changed in place, one generator."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from deeptrain.aug.pipeline import Pipeline, RandomApply

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "aug"
NODES = {
    path.stem: node
    for path in sorted(CONFIGS.glob("*.yaml"))
    for node in (yaml.safe_load(path.read_text()) or {}).values()
    if "_target_" in node  # aug=off has none
}
MEAN, COVARIANCE = (125.3, 123.0, 113.9), np.array([[4e3, 3.7e3, 3.2e3], [3.7e3, 3.9e3, 3.6e3], [3.2e3, 3.6e3, 4.4e3]])
EVERY = pytest.mark.parametrize("name", NODES)
SHAPES = pytest.mark.parametrize(
    "shape", [(8, 3, 32, 32), (7, 3, 20, 28), (1, 3, 16, 16), (5, 1, 28, 28), (1, 1, 8, 12)]
)


def build(name, shape):
    """Make an augmentation for images (N, C, H, W) of four classes, as the builder does."""
    node = dict(NODES[name])
    module, _, kind = node.pop("_target_").rpartition(".")
    factory, channels = getattr(import_module(module), kind), shape[1]
    facts = {
        "input_shape": shape[1:],
        "num_classes": 4,
        "mean": MEAN[:channels],
        "covariance": COVARIANCE[:channels, :channels],
    }
    when = {key: node.pop(key) for key in ("probability", "until")}
    accepted = import_module("inspect").signature(factory).parameters
    return RandomApply(factory(**node, **{key: fact for key, fact in facts.items() if key in accepted}), **when)


def batch(shape, device="cpu", seed=0):
    """Make smooth images with a little noise: operations on edges and on colours then have an effect."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (*shape[:2], 4, 4)).astype(np.float32))
    images = torch.nn.functional.interpolate(coarse, shape[2:], mode="bilinear")
    images = (images + torch.from_numpy(rng.normal(0, 4, shape).astype(np.float32))).clamp(0, 255).to(torch.uint8)
    return images.contiguous(memory_format=torch.channels_last).to(device), (torch.arange(shape[0]) % 4).to(device)


@EVERY
@SHAPES
def test_any_batch_works_and_is_not_changed(device, name, shape):
    images, ids = batch(shape, device)
    before = images.clone()
    augment = build(name, shape)
    found, targets = augment(images, ids, np.random.default_rng(0))
    assert torch.equal(images, before) and torch.equal(ids.cpu(), torch.arange(shape[0]) % 4)
    assert found.shape == images.shape and found.dtype in (torch.uint8, torch.float32)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert found.min() >= 0 and found.max() <= 255
    if augment.mixes:
        assert targets.shape == (shape[0], 4)
        torch.testing.assert_close(targets.sum(1), torch.ones(shape[0], device=device))
    else:
        assert targets is ids and found.dtype == torch.uint8


@EVERY
@SHAPES
def test_layout_makes_no_difference(device, name, shape):
    images, ids = batch(shape, device)
    augment = build(name, shape)
    one, _ = augment(images, ids, np.random.default_rng(1))
    other, _ = augment(images.contiguous(), ids, np.random.default_rng(1))
    assert torch.equal(one, other)


@EVERY
def test_float_images_change_like_bytes(device, name):
    """After Mixup images are float32. They stay float32, or become bytes where an operation needs bytes."""
    shape = (16, 3, 16, 16)
    images, ids = batch(shape, device)
    augment = build(name, shape)
    floats = images.float()
    before = floats.clone()
    one, _ = augment(images, ids, np.random.default_rng(2))
    other, _ = augment(floats, ids, np.random.default_rng(2))
    assert torch.equal(floats, before) and other.dtype in (torch.float32, torch.uint8)
    difference = (one.float() - other.float()).abs()
    assert (difference <= 4).float().mean() > 0.99, "except decimals, and pixels with another rounding"


@EVERY
def test_the_draws_are_the_generators_alone(name):
    images, ids = batch((16, 3, 16, 16))
    augment = build(name, (16, 3, 16, 16))
    torch.manual_seed(0)
    one, _ = augment(images, ids, np.random.default_rng(3))
    state = torch.get_rng_state()
    torch.manual_seed(1)
    other, _ = augment(images, ids, np.random.default_rng(3))
    assert torch.equal(one, other)
    torch.manual_seed(0)
    assert torch.equal(state, torch.get_rng_state()), "torch's own generator is not touched"
    if name != "random_grayscale":  # whose only draw is the coin
        assert not torch.equal(one, augment(images, ids, np.random.default_rng(4))[0])


@EVERY
def test_every_device_sees_the_same(device, name):
    images, ids = batch((32, 3, 24, 20))
    augment = build(name, (32, 3, 24, 20))
    cpu_rng, device_rng = np.random.default_rng(5), np.random.default_rng(5)
    on_cpu, soft = augment(images, ids, cpu_rng)
    on_device, same = augment(images.to(device), ids.to(device), device_rng)
    assert cpu_rng.random() == device_rng.random()
    difference = (on_cpu.float() - on_device.cpu().float()).abs()
    assert difference.max() <= 1 and (difference > 1e-3).float().mean() < 1e-3
    torch.testing.assert_close(soft, same.cpu())


@EVERY
def test_no_two_images_share_a_draw(name):
    """Copies of one image become different, except a few with the same sample by chance."""
    images, ids = batch((1, 3, 32, 32))
    images = images.expand(64, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    augment = build(name, (64, 3, 32, 32))
    if augment.mixes or name in ("flip", "random_grayscale"):
        return  # a mixture of copies is a copy; the others have two or four possible results only
    augment.probability = 1.0
    found, _ = augment(images, ids.expand(64), np.random.default_rng(0))
    assert len(found.flatten(1).unique(dim=0)) > 40


@EVERY
def test_captions_belong_to_the_images(name):
    images, ids = batch((9, 3, 16, 16))
    rng = np.random.default_rng(6)
    words = build(name, (9, 3, 16, 16)).describe(images, ids, rng)
    assert len(words) == 9 and all(isinstance(word, str) for word in words)


@EVERY
def test_two_in_a_list_go_together(device, name):
    """Before and after Mixup, which makes float32 images and soft targets."""
    shape = (6, 3, 16, 16)
    images, ids = batch(shape, device)
    for names in ((name, "mixup"), ("mixup", name)):
        pipeline = Pipeline([build(item, shape) for item in names], MEAN, MEAN)
        found, targets = pipeline.train(images, ids, np.random.default_rng(7))
        assert found.shape == shape and found.dtype == torch.float32 and found.isfinite().all()
        torch.testing.assert_close(targets.sum(1), torch.ones(6, device=device))


@EVERY
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nothing_waits_for_the_gpu(name):
    shape = (64, 3, 16, 16)
    images, ids = batch(shape, "cuda")
    augment, rng = build(name, shape), np.random.default_rng(0)
    augment(images, ids, rng)  # constants are uploaded once
    torch.cuda.set_sync_debug_mode("error")
    try:
        augment(images, ids, rng)
    finally:
        torch.cuda.set_sync_debug_mode("default")

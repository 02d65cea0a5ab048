"""Mixup and CutMix: target weights are the image proportions, λ follows its distribution, any batch works."""

import numpy as np
import pytest
import torch
from scipy import stats

from deeptrain.aug.cutmix import CutMix
from deeptrain.aug.mixup import Mixup

BOTH = pytest.mark.parametrize("kind", [Mixup, CutMix])
EACH = pytest.mark.parametrize("per_image", [False, True])


def constant_images(count, device, shape=(3, 16, 12), dtype=torch.float32):
    """Make image number i with the value i everywhere and class i: a mixture then shows its components."""
    ids = torch.arange(count, device=device)
    return ids.to(dtype)[:, None, None, None].expand(count, *shape).contiguous(memory_format=torch.channels_last), ids


@BOTH
@EACH
@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_target_weights_are_image_proportions(device, kind, per_image, count):
    images, ids = constant_images(count, device)
    mixed, targets = kind(count, alpha=1.0, per_image=per_image)(images, ids, np.random.default_rng(count))
    assert mixed.dtype == targets.dtype == torch.float32 and targets.shape == (count, count)
    torch.testing.assert_close(targets.sum(1), torch.ones(count, device=device))
    values = torch.arange(count, dtype=torch.float32, device=device)
    torch.testing.assert_close(mixed.mean((1, 2, 3)), targets @ values, rtol=1e-4, atol=1e-4)
    assert ((targets > 0).sum(1) <= 2).all()
    partners = targets - torch.diag(targets.diagonal())
    assert ((partners > 0).nonzero()[:, 1] == (partners > 0).nonzero()[:, 0].sub(1) % count).all()


@EACH
def test_cutmix_pastes_one_box_and_nothing_else(device, per_image):
    images, ids = constant_images(64, device, dtype=torch.uint8)
    mixed, targets = CutMix(64, per_image=per_image)(images, ids, np.random.default_rng(0))
    assert mixed.dtype == torch.uint8
    partner = (ids - 1) % 64
    for i in range(64):
        foreign = mixed[i, 0] != i
        assert torch.equal(mixed[i], torch.where(foreign, partner[i], ids[i]).to(torch.uint8).expand_as(mixed[i]))
        rows, columns = foreign.any(1), foreign.any(0)
        assert torch.equal(foreign, rows[:, None] & columns), "a rectangle"
        assert all((edge.int().diff().abs().sum() <= 2) for edge in (rows, columns)), "in one piece"
        assert targets[i, partner[i]].item() == pytest.approx(foreign.float().mean().item(), abs=1e-6)


@BOTH
@EACH
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 7), (3, 1, 1)])
def test_dtype_and_layout_make_no_difference(device, kind, per_image, shape):
    images = torch.randint(256, (6, *shape), device=device, dtype=torch.uint8)
    ids, before = torch.arange(6, device=device) % 3, images.clone()
    results = []
    for variant in (images, images.contiguous(memory_format=torch.channels_last), images.float()):
        mixed, targets = kind(3, per_image=per_image)(variant, ids, np.random.default_rng(5))
        results.append((mixed.float(), targets))
    for other in results[1:]:
        assert torch.equal(results[0][0], other[0]) and torch.equal(results[0][1], other[1])
    assert torch.equal(images, before), "the input batch is not changed"


@BOTH
@EACH
def test_a_batch_of_one_stays_itself(device, kind, per_image):
    images = torch.rand(1, 3, 8, 8, device=device) * 255
    mixed, targets = kind(4, per_image=per_image)(images, torch.tensor([2], device=device), np.random.default_rng(0))
    assert torch.equal(mixed, images) and targets.tolist() == [[0, 0, 1, 0]]


@BOTH
@EACH
def test_soft_targets_mix_like_their_ids(device, kind, per_image):
    images, ids = constant_images(9, device)
    mix = kind(9, per_image=per_image)
    _, hard = mix(images, ids, np.random.default_rng(0))
    _, soft = mix(images, torch.eye(9, device=device), np.random.default_rng(0))
    assert torch.equal(hard, soft)
    _, twice = mix(images, hard, np.random.default_rng(1))
    torch.testing.assert_close(twice.sum(1), torch.ones(9, device=device))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_weights_follow_beta(alpha):
    images, ids = constant_images(2000, "cpu", (1, 1, 1))
    _, targets = Mixup(2000, alpha=alpha, per_image=True)(images, ids, np.random.default_rng(0))
    weights = targets.diagonal().double().numpy()
    assert stats.kstest(weights, stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    assert len(np.unique(weights)) > 1000, "one an image"


def test_mixup_of_a_batch_has_one_weight_drawn_anew_each_time():
    images, ids = constant_images(3, "cpu", (1, 1, 1))
    rng, weights = np.random.default_rng(0), []
    for _ in range(1000):
        _, targets = Mixup(3, alpha=0.4)(images, ids, rng)
        assert targets.diagonal().unique().numel() == 1
        weights.append(targets[0, 0].item())
    assert stats.kstest(weights, stats.beta(0.4, 0.4).cdf).pvalue > 1e-3


def cutmix_areas_by_hand(alpha, count, height, width, rng):
    """Yield the partner's share of the pixels of the paper's box: sides √(1 - λ), uniform centre, clipped."""
    for _ in range(count):
        cut = np.sqrt(1 - rng.beta(alpha, alpha))
        inside = 1
        for extent in (height, width):
            side, centre = int(extent * cut), rng.integers(extent)
            start = centre - side // 2
            inside *= len(set(range(start, start + side)) & set(range(extent)))
        yield inside / (height * width)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_cutmix_areas_follow_the_papers_box(alpha):
    images, ids = constant_images(1500, "cpu", (1, 32, 24), torch.uint8)
    _, targets = CutMix(1500, alpha=alpha, per_image=True)(images, ids, np.random.default_rng(0))
    found = 1 - targets.diagonal().double().numpy()
    expected = list(cutmix_areas_by_hand(alpha, 6000, 32, 24, np.random.default_rng(1)))
    assert stats.ks_2samp(found, expected).pvalue > 1e-3
    one, labels = constant_images(2, "cpu", (1, 32, 24), torch.uint8)
    rng = np.random.default_rng(2)
    a_batch = [CutMix(2, alpha=alpha)(one, labels, rng)[1][0, 1].item() for _ in range(1000)]
    assert stats.ks_2samp(a_batch, expected).pvalue > 1e-3


@BOTH
@EACH
def test_the_draws_are_the_same_on_every_device(device, kind, per_image):
    images, ids = torch.randint(256, (32, 3, 8, 8), dtype=torch.uint8), torch.arange(32) % 10
    cpu_rng, device_rng = np.random.default_rng(0), np.random.default_rng(0)
    on_cpu = kind(10, per_image=per_image)(images, ids, cpu_rng)
    on_device = kind(10, per_image=per_image)(images.to(device), ids.to(device), device_rng)
    for one, other in zip(on_cpu, on_device, strict=True):
        torch.testing.assert_close(one, other.cpu(), rtol=1e-6, atol=1e-4)
    assert cpu_rng.random() == device_rng.random()


def test_the_lectures_mixture():
    """60 % pretzels + 40 % robot has the target (0.6, 0.4)."""

    class Fixed:
        def beta(self, a, b, size):
            return 0.6 if size is None else np.full(size, 0.6)

    images, ids = constant_images(2, "cpu")
    mixed, targets = Mixup(2)(images, ids, Fixed())
    torch.testing.assert_close(targets[0], torch.tensor([0.6, 0.4]))
    torch.testing.assert_close(mixed[0], torch.full((3, 16, 12), 0.4))


@BOTH
@pytest.mark.parametrize("alpha", [0, -1, "x"])
def test_mistakes_are_named(kind, alpha):
    with pytest.raises(ValueError, match=f"alpha={alpha}: must be"):
        kind(10, alpha=alpha)

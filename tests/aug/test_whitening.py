"""Whitening: the result is uncorrelated, has variance 1 and the same shape, and has the same bits everywhere."""

import numpy as np
import pytest
import torch

from deeptrain.aug.pipeline import Pipeline
from deeptrain.aug.whitening import Whitening

SHAPE = (3, 4, 5)


def correlated(count, shape=SHAPE, seed=0):
    """Sample images with correlated values and a range of variances, like real images."""
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape))
    mixing = rng.normal(size=(size, size)) * np.linspace(1.5, 0.1, size)
    values = rng.normal(size=(count, size)) @ mixing.T / np.sqrt(size) + rng.normal(size=size)
    return torch.from_numpy(values.astype(np.float32)).view(count, *shape).contiguous(memory_format=torch.channels_last)


def flat(images):
    return images.permute(0, 2, 3, 1).flatten(1).double()


@pytest.mark.parametrize("kind", ["pca", "zca"])
def test_train_comes_out_white(device, kind):
    images = correlated(2000)
    white = Whitening.fit(images, kind, 1e-9)(images.to(device))
    assert white.shape == images.shape and white.is_contiguous(memory_format=torch.channels_last)
    values = flat(white.cpu())
    torch.testing.assert_close(values.mean(0), torch.zeros(60).double(), rtol=0, atol=1e-3)
    torch.testing.assert_close(values.T @ values / 2000, torch.eye(60).double(), rtol=0, atol=1e-2)


def test_pca_orders_its_components_and_eps_damps_the_weak():
    images, eps = correlated(500), 0.05
    values = flat(Whitening.fit(images, "pca", eps)(images))
    variances = np.linalg.eigvalsh(np.cov(flat(images).numpy().T, bias=True))[::-1]
    found = values.var(0, correction=0).numpy()
    np.testing.assert_allclose(found, variances / (variances + eps), rtol=1e-3)
    assert (np.diff(found) < 1e-6).all()


def test_zca_by_its_formula():
    """(x - mean) (C + eps)^(-1/2): a symmetric matrix, the whitening that changes an image least."""
    images, eps = correlated(300), 0.01
    rows = flat(images).numpy()
    covariance = np.cov(rows.T, bias=True)
    variances, components = np.linalg.eigh(covariance)
    matrix = components @ np.diag((variances + eps) ** -0.5) @ components.T
    whitening = Whitening.fit(images, "zca", eps)
    np.testing.assert_allclose(whitening.weight, matrix, atol=1e-4)
    np.testing.assert_allclose(flat(whitening(images)), (rows - rows.mean(0)) @ matrix, atol=1e-3)


def test_the_pipeline_whitens_last_and_restores_the_same_bits(device):
    images = (64 * correlated(400) + 128).clamp(0, 255).to(torch.uint8)
    mean, std = (130.0, 120.0, 125.0), (60.0, 62.0, 64.0)
    plain = Pipeline([], mean, std, subtract_image_mean=True)
    whitening = Whitening.fit(plain.evaluate(images), "zca", 0.01)
    pipeline = Pipeline([], mean, std, True, whitening)
    found = pipeline.evaluate(images.to(device))
    torch.testing.assert_close(found, whitening(plain.evaluate(images.to(device))), rtol=0, atol=0)
    again = Pipeline([], mean, std, True, Whitening(**whitening.state_dict()))
    assert torch.equal(again.evaluate(images.to(device)), found)
    trained, _ = pipeline.train(images.to(device), torch.zeros(400), None)
    assert torch.equal(trained, found)


def test_the_networks_precision_makes_no_difference(device):
    images = correlated(100)
    whitening = Whitening.fit(images, "pca", 0.01)
    expected = whitening(images.to(device))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with torch.autocast(device.type, torch.bfloat16):
            found = whitening(images.to(device))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


def test_fewer_images_than_values_stay_finite():
    images = correlated(5)
    assert Whitening.fit(images, "zca", 0.01)(correlated(3, seed=1)).isfinite().all()

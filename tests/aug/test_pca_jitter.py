"""PCA jitter: all pixels of an image have one shift along the principal components, in proportion to σ_k."""

import numpy as np
import pytest
import torch
from scipy import stats

from deeptrain.aug.pca_jitter import PCAJitter

COVARIANCE = np.array([[4e3, 3.7e3, 3.2e3], [3.7e3, 3.9e3, 3.6e3], [3.2e3, 3.6e3, 4.4e3]])


def test_shifts_are_normal_along_the_components():
    """Each coordinate of the shift, divided by its component's standard deviation, is N(0, strength²)."""
    images = torch.full((4000, 3, 2, 2), 127.5)
    found, _ = PCAJitter(COVARIANCE, strength=0.1)(images, torch.zeros(4000), np.random.default_rng(0))
    shifts = (found - 127.5).double()
    assert (shifts.amax((2, 3)) == shifts.amin((2, 3))).all(), "one shift per image"
    variances, components = np.linalg.eigh(COVARIANCE)
    alphas = shifts[:, :, 0, 0].numpy() @ components / np.sqrt(variances)
    for alpha in alphas.T:
        assert stats.kstest(alpha, stats.norm(0, 0.1).cdf).pvalue > 1e-3
    np.testing.assert_allclose(np.cov(shifts[:, :, 0, 0].numpy().T), 0.01 * COVARIANCE, rtol=0.15)


def test_bytes_are_rounded_and_clamped(device):
    images = torch.randint(256, (64, 3, 5, 7), device=device, dtype=torch.uint8)
    jitter = PCAJitter(COVARIANCE, strength=1.0)
    exact, _ = jitter(images.float(), torch.zeros(64), np.random.default_rng(1))
    found, _ = jitter(images, torch.zeros(64), np.random.default_rng(1))
    assert found.dtype == torch.uint8
    assert (found.float() - exact).abs().max() <= 0.5 + 1e-4
    assert found.min() == 0 and found.max() == 255


def test_one_channel_gets_brighter_or_darker(device):
    images = torch.full((500, 1, 4, 4), 128.0, device=device)
    found, _ = PCAJitter([[2500.0]], strength=0.2)(images, torch.zeros(500), np.random.default_rng(0))
    shifts = found[:, 0, 0, 0].cpu().numpy() - 128
    assert stats.kstest(shifts, stats.norm(0, 10).cdf).pvalue > 1e-3


def test_no_strength_no_change(device):
    images = torch.randint(256, (4, 3, 5, 7), device=device, dtype=torch.uint8)
    assert torch.equal(PCAJitter(COVARIANCE, strength=0.0)(images, torch.zeros(4), np.random.default_rng(1))[0], images)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="strength=-1: must be >= 0"):
        PCAJitter(COVARIANCE, strength=-1)

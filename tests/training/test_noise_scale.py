"""The noise scale of gradients whose signal and noise are known, with and without clipping, and after a resume."""

import copy
import math

import pytest
import torch
from torch import nn

from deeptrain.training.noise_scale import NoiseScale
from deeptrain.training.vitals import Vitals

WIDTH, SIGNAL, NOISE = 20000, 0.5, 3.0  # |G|² = WIDTH SIGNAL², tr Σ = WIDTH NOISE²
KNOWN = NOISE**2 / SIGNAL**2  # 36 images


class Progress:
    step = step_in_epoch = 0


def run(steps, clip_norm=None, sizes=(8,)):
    """Minimise the mean of w · x over x ~ N(SIGNAL, NOISE²): the gradient is that mean, wherever w is."""
    torch.manual_seed(0)
    weight, vitals, progress = nn.Parameter(torch.randn(1, WIDTH)), Vitals(200), Progress()
    model = nn.ParameterList([weight])
    vitals.bind(model, [weight], clip_norm, "fp32")

    def step(images, labels):
        weight.grad = None
        (images @ weight.T).mean().backward()
        if clip_norm:
            vitals.add_clip_norm(nn.utils.clip_grad_norm_([weight], clip_norm))

    measured = vitals.sampled(step, progress, sizes)
    for number in range(steps):
        progress.step_in_epoch = number % len(sizes)
        if steps - number <= 4:
            measured(SIGNAL + NOISE * torch.randn(sizes[progress.step_in_epoch], WIDTH), None)
        progress.step += 1
    return vitals


@pytest.mark.parametrize("clip_norm", [None, 0.01])
@pytest.mark.parametrize("sizes", [(8,), (8, 4, 16)], ids=["even", "uneven"])
def test_a_known_noise_scale_is_found(clip_norm, sizes):
    assert run(100, clip_norm, sizes).read()["vitals/noise_scale"] == pytest.approx(KNOWN, rel=0.1)


def test_signal_and_noise_are_averaged_apart():
    """Two samples whose ratios, 1 and 9, have the mean 5."""
    scale, read = NoiseScale(), []
    for signal, noise in ((1.0, 1.0), (0.5, 4.5)):
        scale._sample = torch.tensor([4 * (signal + noise), 16 * signal + 4 * noise]), 4, 4.0
        read.append(scale.read())
    assert read == pytest.approx([1.0, (1.0 + 4.5) / (1.0 + 0.5)])


def test_noise_without_signal_and_values_that_are_not_finite_give_none():
    scale = NoiseScale()
    for total in (3.0, math.inf, math.nan):
        scale._sample = torch.tensor([4.0, total]), 4, 4.0
        assert scale.read() is None
    assert scale.read() is None, "nothing new"


@pytest.mark.parametrize("stopped", [98, 100])
def test_a_sample_that_is_interrupted_goes_on(stopped):
    """98: two of the four gradients are known; 100: all, and not read yet."""
    vitals = run(100)
    expected = vitals.read()["vitals/noise_scale"]
    one, other = NoiseScale(), NoiseScale()
    torch.manual_seed(0)
    weight = torch.randn(1, WIDTH)
    for number in range(97, 101):
        gradient = (SIGNAL + NOISE * torch.randn(8, WIDTH)).mean(0, keepdim=True)
        one.add([gradient], gradient.norm(), 8)
        if number == 100:
            one.close()
        if number == stopped:
            other.load_state_dict(copy.deepcopy(one.state_dict()), [weight])
            one = other
    assert one.read() == pytest.approx(expected, rel=1e-3)


def test_a_state_holds_nothing_that_is_not_finite_and_foreign_tensors_are_left_out():
    scale, weight = NoiseScale(), torch.ones(3)
    scale.add([torch.tensor([1.0, math.inf, 0.0])], torch.tensor(math.inf), 8)
    assert scale.state_dict() == {"means": []}
    other = NoiseScale()
    other.load_state_dict({"sum": [torch.ones(2)], "squares": [2.0], "inverse": 0.1}, [weight])
    assert not other.is_open

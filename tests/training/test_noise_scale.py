"""The noise scale of gradients whose signal and noise are known; measuring it leaves the run its bits."""

import math

import pytest
import torch
from torch import nn

from deeptrain.training.noise_scale import NoiseScale
from deeptrain.training.vitals import Vitals

WIDTH, SIGNAL, NOISE = 20000, 0.5, 3.0  # |G|² = WIDTH SIGNAL², tr Σ = WIDTH NOISE²
KNOWN = NOISE**2 / SIGNAL**2  # 36 images


def mean_output(outputs, targets):
    return outputs.mean()


@pytest.mark.parametrize(("images", "accumulate"), [(32, 1), (30, 1), (64, 4)], ids=["even", "uneven", "accumulate"])
def test_a_known_noise_scale_is_found(images, accumulate):
    """The mean of w · x over x ~ N(SIGNAL, NOISE²) has the mean of x as its gradient, wherever w is."""
    torch.manual_seed(0)
    model, vitals = nn.Linear(WIDTH, 1, bias=False), Vitals(200)
    vitals.bind(model, [model.weight], None, "fp32")
    inputs = SIGNAL + NOISE * torch.randn(images, WIDTH)
    vitals.measure_noise(inputs, torch.zeros(images), mean_output, accumulate)
    assert vitals.read()["vitals/noise_scale"] == pytest.approx(KNOWN, rel=0.1)


def test_measuring_changes_neither_model_nor_gradient_nor_generator():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3))
    vitals = Vitals(200)
    parameters: list[torch.Tensor] = list(model.parameters())
    vitals.bind(model, parameters, None, "fp32")
    model(torch.randn(16, 5)).square().mean().backward()
    kept = [*model.state_dict().values(), *(parameter.grad for parameter in parameters), torch.get_rng_state()]
    before = [tensor.clone() for tensor in kept]
    inputs, targets = torch.arange(80.0).reshape(16, 5).sin(), torch.arange(16) % 3
    vitals.measure_noise(inputs, targets, nn.functional.cross_entropy, 1)
    after = [*model.state_dict().values(), *(parameter.grad for parameter in parameters), torch.get_rng_state()]
    assert "vitals/noise_scale" in vitals.read()
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory"), ValueError("a bug")], ids=str)
def test_too_little_memory_ends_the_measurement_alone(error):
    model, vitals = nn.Linear(2, 2), Vitals(200)
    vitals.bind(model, list(model.parameters()), None, "fp32")

    def loss(outputs, targets):
        raise error

    if isinstance(error, ValueError):
        with pytest.raises(ValueError, match="a bug"):
            vitals.measure_noise(torch.ones(8, 2), torch.zeros(8), loss, 1)
    else:
        vitals.measure_noise(torch.ones(8, 2), torch.zeros(8), loss, 1)
    assert "vitals/noise_scale" not in vitals.read() and model.training


def test_recurrent_layers_stay_in_training_for_cudnn():
    model, vitals, modes = nn.Sequential(nn.Dropout(), nn.GRU(2, 3)), Vitals(200), []
    vitals.bind(model, list(model.parameters()), None, "fp32")
    model.register_forward_hook(lambda *_: modes.append([layer.training for layer in model]))
    vitals.measure_noise(torch.ones(4, 2), torch.zeros(4), lambda outputs, targets: outputs[0].mean(), 1)
    assert modes == [[False, True]] * 2


@pytest.mark.parametrize("images", [1, 3])
def test_too_few_images_make_no_sample(images):
    model, vitals = nn.Linear(2, 1), Vitals(200)
    vitals.bind(model, list(model.parameters()), None, "fp32")
    vitals.measure_noise(torch.ones(images, 2), torch.zeros(images), mean_output, 1)
    assert vitals.read() == {}


def test_it_is_measured_at_the_100th_step_and_every_1000th():
    class Progress:
        step = 0

    model, vitals, progress, measured = nn.Linear(2, 1), Vitals(200), Progress(), []
    vitals.bind(model, list(model.parameters()), None, "fp32")
    step = vitals.sampled(lambda *_: None, progress, lambda *_: measured.append(progress.step + 1))
    for progress.step in range(2100):
        step(torch.ones(4, 2), torch.zeros(4))
    assert measured == [100, 1000, 2000]


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


def test_a_sample_that_is_not_read_yet_goes_on():
    one, other = NoiseScale(), NoiseScale()
    one._means, one._sample = [2.0, 3.0], (torch.tensor([8.0, 20.0]), 4, 4.0)
    other.load_state_dict(one.state_dict())
    assert other.read() == one.read()


def test_a_state_holds_nothing_that_is_not_finite():
    scale = NoiseScale()
    scale._sample = torch.tensor([1.0, math.inf]), 4, 4.0
    assert scale.state_dict() == {"means": []}

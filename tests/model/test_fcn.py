"""The fully connected network: parameter counts, memory formats, and the lectures' worked examples."""

import math

import pytest
import torch

from deeptrain.model.fcn import FCN


def test_softmax_regression_has_one_weight_a_pixel_and_class():
    model = FCN((3, 5, 4), 7, hidden=[])
    assert sum(p.numel() for p in model.parameters()) == 60 * 7 + 7


def test_one_hidden_layer_has_d_plus_l_plus_1_times_q_plus_l_parameters():
    d, q, classes = 3 * 5 * 4, 11, 7
    model = FCN((3, 5, 4), classes, hidden=[q])
    assert sum(p.numel() for p in model.parameters()) == (d + classes + 1) * q + classes


def test_pixels_keep_their_order_in_channels_last(device):
    model, images = FCN((3, 5, 4), 7).to(device), torch.randn(6, 3, 5, 4, device=device)
    torch.testing.assert_close(model(images.contiguous(memory_format=torch.channels_last)), model(images))


def test_dropout_without_hidden_units_is_refused():
    with pytest.raises(ValueError, match=r"^dropout=0.5: hidden=\[\] has no hidden units"):
        FCN((1, 8, 8), 10, hidden=[], dropout=0.5)


def test_xor_by_hand(device):
    model = FCN((1, 1, 2), 1, hidden=[2]).to(device)
    values = [[[1, 1], [1, 1]], [0, -1], [[1, -2]], [-0.5]]  # hidden weights and biases, output weights and bias
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), values, strict=True):
            parameter.copy_(torch.tensor(value))
    inputs = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]], device=device).view(4, 1, 1, 2)
    assert (model(inputs).flatten() > 0).tolist() == [False, True, True, False]


def test_the_worked_step_of_backpropagation(device):
    """Sigmoid units, biases held at 0, error ½(t - o)², rate 1; figures as rounded in the lecture."""
    model = FCN((1, 1, 2), 1, hidden=[2], activation="sigmoid").to(device)
    hidden, output = model.layers[0].weight, model.layers[2].weight
    with torch.no_grad():
        hidden.copy_(torch.tensor([[0.1, 0.8], [0.4, 0.6]]))
        output.copy_(torch.tensor([[0.3, 0.9]]))
    inputs = torch.tensor([0.35, 0.9], device=device).view(1, 1, 1, 2)

    before = torch.sigmoid(model(inputs))
    assert float(before.detach()) == pytest.approx(0.69, abs=5e-4)
    (0.5 * (0.5 - before) ** 2).sum().backward()
    with torch.no_grad():
        hidden -= hidden.grad
        output -= output.grad
        after = float(torch.sigmoid(model(inputs)))
    assert output.flatten().tolist() == pytest.approx([0.2724, 0.8731], abs=2e-4)
    assert hidden.flatten().tolist() == pytest.approx([0.0991, 0.7976, 0.3971, 0.5927], abs=2e-4)
    assert math.isclose(after, 0.682, abs_tol=5e-4)

"""Recurrent networks: the Elman recursion row by row, torch's cells, initial weights, training."""

import math

import pytest
import torch
from torch import nn

from deeptrain.model.rnn import CELLS, GATES, RNN


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_elman_is_its_recursion_with_the_same_weights_at_every_row(activation, device):
    """h_t = f(W x_t + U h_{t-1} + b), the logits an affine map of the last h."""
    torch.manual_seed(0)
    model = RNN((2, 5, 3), 4, hidden=7, activation=activation).to(device)
    images = torch.randn(6, 2, 5, 3, device=device)
    w, u, b, c = model.recurrent.parameters()
    state = torch.zeros(6, 7, device=device)
    for row in range(5):
        pixels = images[:, :, row].transpose(1, 2).flatten(1)  # (N, W·C)
        state = getattr(torch, activation)(pixels @ w.T + b + state @ u.T + c)
    torch.testing.assert_close(model(images), state @ model.classifier.weight.T + model.classifier.bias)


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_is_torchs_own(cell, device):
    torch.manual_seed(0)
    model = RNN((3, 6, 4), 5, cell=cell, hidden=8, layers=2).to(device)
    theirs = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell](12, 8, 2, batch_first=True).to(device)
    theirs.load_state_dict(model.recurrent.state_dict())
    images = torch.randn(2, 3, 6, 4, device=device)
    outputs, _ = theirs(images.permute(0, 2, 3, 1).flatten(2))
    torch.testing.assert_close(model(images), model.classifier(outputs[:, -1]))


def test_pixels_keep_their_order_in_channels_last(device):
    model, images = RNN((3, 5, 4), 7).to(device), torch.randn(6, 3, 5, 4, device=device)
    torch.testing.assert_close(model(images.contiguous(memory_format=torch.channels_last)), model(images))


@pytest.mark.parametrize(("cell", "count"), [("elman", 1), ("gru", 3), ("lstm", 4)])
def test_number_of_parameters(cell, count):
    model = RNN((1, 28, 28), 10, cell=cell, hidden=100)
    assert sum(p.numel() for p in model.parameters()) == count * (28 * 100 + 100 * 100 + 2 * 100) + 100 * 10 + 10


@pytest.mark.parametrize("cell", CELLS)
def test_initial_weights(cell, device):
    torch.manual_seed(0)
    model = RNN((1, 40, 40), 10, cell=cell, hidden=60).to(device)
    for matrix in model.recurrent.weight_hh_l0.detach().chunk(GATES[cell]):
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(60, device=device), atol=1e-5, rtol=0)
    assert float(model.recurrent.weight_ih_l0.detach().std()) == pytest.approx(1 / math.sqrt(40), rel=0.05)
    bias = model.recurrent.bias_ih_l0.detach() + model.recurrent.bias_hh_l0.detach()
    ones = [float(part.mean()) for part in bias.chunk(GATES[cell])]
    assert ones == ([0, 1, 0, 0] if cell == "lstm" else [0] * GATES[cell]) and set(bias.tolist()) <= {0, 1}


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_reach_every_parameter(cell, device):
    torch.manual_seed(0)
    model = RNN((1, 8, 8), 10, cell=cell, hidden=8, layers=2, dropout=0.2).to(device)
    nn.functional.cross_entropy(
        model(torch.randn(8, 1, 8, 8, device=device)), torch.arange(8, device=device)
    ).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) and bool(p.grad.any()) for p in model.parameters())


@pytest.mark.parametrize("cell", CELLS)
def test_it_learns_from_the_first_row_alone(cell, device):
    """The state carries the answer over the next seven rows of noise."""
    torch.manual_seed(0)
    model = RNN((1, 8, 8), 2, cell=cell, hidden=16).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        images = torch.randn(64, 1, 8, 8, device=device)
        labels = (images[:, 0, 0].sum(1) > 0).long()
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.45


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cell": "gru", "activation": "relu"}, "activation=relu: only cell=elman reads it, here it is gru"),
        ({"dropout": 0.5}, "dropout=0.5: it is between layers, and layers=1; set dropout=0 or add a layer"),
        ({"cell": "elmann"}, "cell=elmann: did you mean elman"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        RNN((1, 8, 8), 10, **settings)

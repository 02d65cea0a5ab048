"""Wide residual networks: the paper's counts, dropout between the convolutions."""

import pytest
import torch
from torch import nn

from deeptrain.model.preact_resnet import PreActBlock
from deeptrain.model.wide_resnet import WideResNet

# million, table 3 and 4 of the paper
PAPER = {(40, 1): 0.6, (40, 2): 2.2, (40, 4): 8.9, (16, 8): 11.0, (22, 8): 17.2, (28, 10): 36.5, (28, 12): 52.5}


@pytest.mark.parametrize(("depth", "width"), PAPER)
def test_networks_have_the_papers_number_of_parameters(depth, width):
    with torch.device("meta"):
        model = WideResNet((3, 32, 32), 10, depth=depth, width=width)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(PAPER[depth, width], abs=0.06)


def test_wrn_28_10_has_the_known_number_of_parameters():
    with torch.device("meta"):
        model = WideResNet((3, 32, 32), 10, depth=28, width=10)
    assert sum(p.numel() for p in model.parameters()) == 36_479_194


def test_default_has_0_7_million_parameters():
    with torch.device("meta"):
        model = WideResNet((3, 32, 32), 10)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(0.69e6, rel=0.01)


def test_dropout_is_in_front_of_the_second_convolution(device):
    torch.manual_seed(0)
    model = WideResNet((1, 8, 8), 10, depth=10, width=0.5, dropout=0.3).to(device)
    for block in (module for module in model.modules() if isinstance(module, PreActBlock)):
        assert isinstance(block.branch[-2], nn.Dropout) and block.branch[-2].p == 0.3
        assert isinstance(block.branch[-1], nn.Conv2d)
    images = torch.randn(4, 1, 8, 8, device=device)
    assert bool((model(images) != model(images)).any())
    plain = WideResNet((1, 8, 8), 10, depth=10, width=0.5).to(device).eval()
    values = model.eval().state_dict().values()  # the same tensors under other numbers
    plain.load_state_dict(dict(zip(plain.state_dict(), values, strict=True)))
    torch.testing.assert_close(model(images), plain(images), atol=0, rtol=0)


def test_stages_of_width_1_keep_the_stems_channels(device):
    model = WideResNet((3, 9, 11), 10, depth=10, width=1).to(device)
    assert not len(model.stages[0][0].shortcut) and len(model.stages[1][0].shortcut)
    assert model(torch.randn(2, 3, 9, 11, device=device)).shape == (2, 10)


@pytest.mark.parametrize("depth", [4, 17, 20])
def test_depths_that_are_not_6n_plus_4_are_refused(depth):
    with pytest.raises(ValueError, match=rf"^depth={depth}: must be 6n \+ 4, as 10, 16, 22, 28"):
        WideResNet((3, 32, 32), 10, depth=depth)

"""Pre-activation residual networks: known counts, the block against its formula, the path of the sums."""

import pytest
import torch
from torch import nn

from deeptrain.model.layers import BATCH_NORM, StochasticDepth
from deeptrain.model.preact_resnet import PreActBlock, PreActResNet

PAPER = {110: 1.7, 164: 1.7, 1001: 10.2}  # million, of the CIFAR networks
TINY = {"blocks": [2, 2], "widths": [4, 8], "stem": "patch", "patch_size": 4}


def blocks(model: nn.Module) -> list[PreActBlock]:
    return [module for module in model.modules() if isinstance(module, PreActBlock)]


@pytest.mark.parametrize("depth", PAPER)
def test_cifar_networks_have_the_papers_number_of_parameters(depth):
    with torch.device("meta"):
        model = PreActResNet((3, 32, 32), 10, depth=depth)
    own = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    shortcuts = sum(len(block.shortcut) for block in blocks(model))
    assert len(own) - shortcuts + 1 == depth
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(PAPER[depth], rel=0.03)


def test_depth_18_has_the_known_number_of_parameters():
    """11,171,146 is the count of the usual implementation for CIFAR-10, which has no last norm."""
    with torch.device("meta"):
        model = PreActResNet((3, 32, 32), 10, depth=18)
    assert sum(p.numel() for p in model.parameters()) == 11_171_146 + 2 * 512


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_block_that_keeps_the_shape_adds_to_its_input(bottleneck, device):
    torch.manual_seed(0)
    block = make_block(32 if bottleneck else 8, 1, bottleneck).to(device)
    x = torch.randn(4, block.channels, 6, 6, device=device)
    original = x.clone()
    y = x
    for norm, activation, conv in zip(*[iter(block.branch)] * 3, strict=True):
        assert isinstance(norm, nn.BatchNorm2d) and isinstance(activation, nn.ReLU) and isinstance(conv, nn.Conv2d)
        y = conv(norm(y).relu())
    torch.testing.assert_close(block(x), x + y)
    assert bool((x == original).all())


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_block_that_changes_the_shape_projects_what_its_first_norm_makes(bottleneck, device):
    torch.manual_seed(0)
    block = make_block(8, 2, bottleneck).to(device)
    x = torch.randn(4, 8, 7, 6, device=device)
    entered = block.enter[0](x).relu()
    expected = block.shortcut[0](entered) + block.branch(entered)
    assert expected.shape == (4, block.channels, 4, 3)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "maxout"])
def test_without_norms_the_shortcut_is_not_overwritten(activation, device):
    torch.manual_seed(0)
    model = PreActResNet((1, 8, 8), 3, **TINY, activation=activation, norm="none").to(device)
    block, x = blocks(model)[1], torch.randn(2, 8 if activation == "maxout" else 4, 2, 2, device=device)
    torch.testing.assert_close(block(x.clone()), block.branch(x.clone()) + x)
    assert all(layer.bias is not None for layer in model.modules() if isinstance(layer, nn.Conv2d))


def test_the_last_stage_ends_with_norm_and_activation(device):
    model = PreActResNet((3, 32, 32), 10).to(device).eval()
    maps = model.stages(model.stem(torch.randn(2, 3, 32, 32, device=device)))
    assert maps.shape == (2, 128, 4, 4) and float(maps.detach().min()) == 0


def test_stem_and_depth_go_by_the_short_side():
    small, large = (PreActResNet((3, side, 200), 2, depth=18).stem for side in (47, 96))
    assert [type(layer) for layer in small] == [nn.Conv2d]
    assert [type(layer) for layer in large] == [nn.Conv2d, nn.MaxPool2d] and large[0].kernel_size == (7, 7)
    assert len(blocks(PreActResNet((3, 32, 32), 2))) == 3 and len(blocks(PreActResNet((3, 96, 96), 2))) == 8


@pytest.mark.parametrize("activation", ["relu", "maxout"])
@pytest.mark.parametrize("mode", ["batch", "sample"])
def test_training_with_stochastic_depth_reaches_every_parameter(mode, activation, device):
    torch.manual_seed(0)
    settings = {"activation": activation, "stochastic_depth": 0.8, "stochastic_depth_mode": mode}
    model = PreActResNet((1, 8, 8), 3, **TINY, **settings).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=True)
    images, labels = torch.randn(8, 1, 8, 8, device=device), torch.arange(8, device=device) % 3
    for _ in range(12):  # enough for every block to be skipped at first and run later
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
        optimizer.step()


@pytest.mark.parametrize("mode", ["batch", "sample"])
def test_blocks_survive_at_rates_that_fall_linearly(mode, device):
    """A block drops batches or images; a dropped branch adds nothing to its input."""
    torch.manual_seed(0)
    settings = {"stochastic_depth": 0.6, "stochastic_depth_mode": mode}
    model = PreActResNet((1, 4, 4), 3, blocks=[4], widths=[4], stem="small", **settings).to(device)
    runs, x = 300, torch.randn(8, 4, 4, 4, device=device)
    for block, rate in zip(blocks(model), [0.15, 0.3, 0.45, 0.6], strict=True):
        with torch.no_grad():
            added = torch.stack([(block(x) - x).abs().amax((1, 2, 3)) > 1e-6 for _ in range(runs)])
        draws = added if mode == "sample" else added[:, 0]
        assert mode == "sample" or bool((added == added[:, :1]).all())
        survived = float(draws.float().mean())
        assert survived == pytest.approx(1 - rate, abs=4 * (rate * (1 - rate) / draws.numel()) ** 0.5)


def test_compiled_network_is_one_graph(device):
    torch._dynamo.reset()
    model = PreActResNet((1, 8, 8), 3, blocks=[1], widths=[4], stochastic_depth=0.5).to(device)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert compiled(torch.randn(4, 1, 8, 8, device=device)).shape == (4, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 21}, r"^depth=21: .*choose from .*20"),
        ({"depth": 164, "blocks": [1, 1]}, r"^blocks=\[1, 1\]: must have one number for each of widths=\[16, 32, 64\]"),
        ({"norm": "batsch"}, r"^norm=batsch: did you mean batch"),
        ({"norm": "group", "norm_momentum": 0.2}, r"^norm_momentum=0.2: only norm=batch reads it, here it is group"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message):
        PreActResNet((1, 28, 28), 10, **settings)


def make_block(channels: int, stride: int, bottleneck: bool) -> PreActBlock:
    settings = {"bottleneck": bottleneck, "activation": "relu", "norm": BATCH_NORM}
    return PreActBlock(channels, 8, stride, StochasticDepth(0.0), **settings)

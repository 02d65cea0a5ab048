"""Residual networks: known counts, torchvision's outputs, stems, blocks, stochastic depth in the network."""

from functools import partial

import pytest
import torch
from torch import nn

from deeptrain.model.preact_resnet import PreActResNet
from deeptrain.model.resnet import Block, ResNet
from deeptrain.model.wide_resnet import WideResNet

IMAGENET = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032, 101: 44_549_160, 152: 60_192_808}
CIFAR = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7}  # million, table 6 of the paper
TINY = {"blocks": [2, 2], "widths": [4, 8], "stem": "patch", "patch_size": 4}


def blocks(model: nn.Module) -> list[Block]:
    return [module for module in model.modules() if isinstance(module, Block)]


@pytest.mark.parametrize("depth", IMAGENET)
def test_imagenet_family_has_the_known_number_of_parameters(depth):
    with torch.device("meta"):
        model = ResNet((3, 224, 224), 1000, depth=depth)
    assert sum(p.numel() for p in model.parameters()) == IMAGENET[depth]


@pytest.mark.parametrize("depth", CIFAR)
def test_cifar_family_has_the_papers_number_of_parameters(depth):
    with torch.device("meta"):
        model = ResNet((3, 32, 32), 10, depth=depth)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(layers) + 1 == depth
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(CIFAR[depth], rel=0.03)


@pytest.mark.parametrize("depth", [18, 50])
def test_computes_what_torchvision_does(depth, device):
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    theirs = getattr(models, f"resnet{depth}")(num_classes=10).eval()
    ours = ResNet((3, 64, 64), 10, depth=depth, stem="large").eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, 64, 64, device=device)
    with torch.no_grad():
        torch.testing.assert_close(ours.to(device)(images), theirs.to(device)(images), atol=1e-3, rtol=1e-3)


def test_stem_goes_by_the_short_side():
    small, large = (ResNet((3, side, 200), 2).stem for side in (95, 96))
    assert small[0].kernel_size == (3, 3) and small[0].stride == (1, 1)
    assert large[0].kernel_size == (7, 7) and large[0].stride == (2, 2) and isinstance(large[-1], nn.MaxPool2d)


@pytest.mark.parametrize("make", [partial(ResNet, depth=18), partial(PreActResNet, depth=18), WideResNet])
def test_the_first_stage_sees_24_to_47_pixels(make):
    """A stem of 3x3 at 64 px trains 3 to 5 times slower; auto is the rule of 0.3.0, which old runs keep."""
    kinds = {side: make((3, side, 200), 2).stem_kind for side in (32, 47, 48, 64, 95, 96)}
    assert list(kinds.values()) == ["small", "small", "pool", "pool", "pool", "large"]
    assert [make((3, side, 200), 2, stem="auto").stem_kind for side in (47, 48, 95, 96)] == [*["small"] * 3, "large"]
    model = make((1, 48, 48), 2)
    assert model.stem(torch.zeros(1, 1, 48, 48)).shape[2:] == (24, 24)


def test_patch_stem_cuts_the_image():
    model = ResNet((3, 12, 8), 2, depth=20, stem="patch", patch_size=4)
    assert model.stem(torch.randn(2, 3, 12, 8)).shape == (2, 16, 3, 2)


def test_blocks_and_widths_replace_those_of_the_depth():
    model = ResNet((3, 32, 32), 10, blocks=[1, 2], widths=[24, 40])
    assert [len(stage) for stage in model.stages] == [1, 2] and model.classifier.in_features == 40
    assert len(blocks(ResNet((3, 32, 32), 10, depth=18, blocks=[1, 1, 1, 1]))) == 4
    assert ResNet((3, 32, 32), 10, depth=50, blocks=[1], widths=[8]).classifier.in_features == 32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 21}, r"^depth=21: .*choose from .*20"),
        ({"depth": 20, "blocks": [1, 1]}, r"^blocks=\[1, 1\]: must have one number for each of widths=\[16, 32, 64\]"),
        ({"blocks": []}, r"^blocks=\[\]: must have"),
        ({"depth": 20, "widths": [8, 8]}, r"^widths=\[8, 8\]: must have one number for each of blocks=\[3, 3, 3\]"),
        ({"stem": "patch", "patch_size": 3}, r"^patch_size=3: must divide the image, 28 x 28: choose from 1, 2, 4, 7"),
        ({"patch_size": 4}, r"^patch_size=4: only stem=patch reads it"),
        ({"activation": "rely"}, r"^activation=rely: did you mean relu"),
        ({"stochastic_depth": 1.0}, r"^stochastic_depth=1.0: must be >= 0 and < 1"),
        ({"init_std": 0.1}, r"^init_std=0.1: only initialization=normal"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as refusal:
        ResNet((1, 28, 28), 10, **settings)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
@pytest.mark.parametrize("activation", ["relu", "maxout"])
@pytest.mark.parametrize("depth", [20, 50])
def test_zero_init_makes_every_block_its_shortcut(depth, activation, norm, device):
    settings = {"depth": depth, "blocks": [1, 1], "widths": [8, 16]}
    model = ResNet((3, 8, 8), 10, **settings, activation=activation, norm=norm, zero_init_residual=True).to(device)
    for block in blocks(model):
        x = torch.rand(2, next(block.branch.children()).in_channels, 4, 4, device=device)
        expected = block.shortcut(x)
        torch.testing.assert_close(block(x), expected if activation == "maxout" else expected.relu())
    plain = ResNet((3, 8, 8), 10)
    assert all(bool(m.weight.all()) for m in plain.modules() if isinstance(m, nn.BatchNorm2d))


def test_maxout_block_is_the_larger_of_two_sums(device):
    torch.manual_seed(0)
    model = ResNet((3, 8, 8), 10, depth=20, activation="maxout").to(device)
    block, x = blocks(model)[0], torch.randn(2, 16, 4, 4, device=device)
    first, second = block.branch[:-1](x).chunk(2, dim=1)
    torch.testing.assert_close(block(x), torch.maximum(first + x, second + x))


def test_blocks_survive_at_rates_that_fall_linearly(device):
    torch.manual_seed(0)
    model, runs = ResNet((1, 8, 8), 3, **TINY, stochastic_depth=0.6).to(device), 300
    calls = [0] * 4
    for index, block in enumerate(blocks(model)):

        def count(module, args, index=index):
            calls[index] += 1

        block.branch.register_forward_pre_hook(count)
    images = torch.randn(4, 1, 8, 8, device=device)
    with torch.no_grad():
        for _ in range(runs):
            model(images)
    for survived, rate in zip(calls, [0.15, 0.3, 0.45, 0.6], strict=True):
        assert survived / runs == pytest.approx(1 - rate, abs=4 * (rate * (1 - rate) / runs) ** 0.5)


@pytest.mark.parametrize("mode", ["batch", "sample"])
def test_evaluation_is_the_plain_network(mode, device):
    plain = ResNet((1, 8, 8), 3, **TINY).to(device).eval()
    model = ResNet((1, 8, 8), 3, **TINY, stochastic_depth=0.9, stochastic_depth_mode=mode).to(device).eval()
    model.load_state_dict(plain.state_dict())
    images = torch.randn(4, 1, 8, 8, device=device)
    torch.testing.assert_close(model(images), plain(images), atol=0, rtol=0)


@pytest.mark.parametrize("activation", ["relu", "elu", "maxout"])
@pytest.mark.parametrize("mode", ["batch", "sample"])
def test_training_with_stochastic_depth_reaches_every_parameter(mode, activation, device):
    torch.manual_seed(0)
    model = ResNet((1, 8, 8), 3, **TINY, activation=activation, stochastic_depth=0.8, stochastic_depth_mode=mode)
    optimizer = torch.optim.SGD(model.to(device).parameters(), lr=0.01, momentum=0.9, fused=True)
    images, labels = torch.randn(8, 1, 8, 8, device=device), torch.arange(8, device=device) % 3
    for _ in range(12):  # enough for every block to be skipped at first and run later
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
        optimizer.step()


def test_compiled_stochastic_depth_is_one_graph_without_recompilation(device):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    torch.manual_seed(0)
    model = ResNet((1, 8, 8), 3, blocks=[1], widths=[4], stochastic_depth=0.5).to(device)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    images = torch.randn(4, 1, 8, 8, device=device)
    outputs = {round(float(compiled(images).detach().sum()), 4) for _ in range(12)}
    assert len(graphs) == 1 and len(outputs) == 2  # with the branch and without


def test_auto_depth_is_quick_on_small_images_and_18_on_large():
    """The quick network halves small images in its stem and pools between stages. From 96 px on it is ResNet-18."""
    quick = ResNet((3, 32, 32), 10)
    assert sum(p.numel() for p in quick.parameters()) == 308_650
    assert quick.stages(quick.stem(torch.randn(1, 3, 32, 32))).shape == (1, 128, 4, 4)
    assert not [m for m in quick.modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
    with torch.device("meta"):
        large = ResNet((3, 224, 224), 1000)
    assert sum(p.numel() for p in large.parameters()) == IMAGENET[18]


def test_pooling_and_striding_halve_alike():
    """Odd sizes round up in both, so branch and shortcut have one shape. The parameters are the same."""
    for depth in (20, 50):
        strided, pooled = (ResNet((3, 29, 21), 10, depth=depth, downsample=way) for way in ("stride", "pool"))
        assert [p.shape for p in strided.parameters()] == [p.shape for p in pooled.parameters()]
        maps = torch.randn(2, 3, 29, 21)
        assert strided.stages(strided.stem(maps)).shape == pooled.stages(pooled.stem(maps)).shape

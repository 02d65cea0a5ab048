"""Residual networks: the CIFAR family, the ImageNet family, and any other number of blocks and widths."""

from typing import Literal

from torch import Tensor, nn

from deeptrain.model.layers import (
    ACTIVATIONS,
    LARGE_IMAGE,
    Activation,
    Initialization,
    StochasticDepth,
    convolution,
    drop_rates,
    initialize,
)
from deeptrain.schema import Count, Positive, Rate, checked

Depth = Literal["auto", 18, 20, 32, 34, 44, 50, 56, 101, 110, 152]
Stem = Literal["auto", "small", "large", "pool", "patch"]
Downsample = Literal["auto", "stride", "pool"]

CIFAR = {depth: [(depth - 2) // 6] * 3 for depth in (20, 32, 44, 56, 110)}  # blocks in each stage
IMAGENET = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}
BOTTLENECK = (50, 101, 152)
QUICK = [1, 1, 1]  # of depth=auto on small images: three wide blocks at half the resolution
QUICK_WIDTHS = [32, 64, 128]


class ResNet(nn.Module):
    """Residual network (He et al., 2016).

    (N, C, H, W) -> logits (N, num_classes). Depths 20, 32, 44, 56 and 110 are the paper's CIFAR family (widths 16, 32,
    64), 18 and 34 the ImageNet family's basic blocks (64 to 512), 50, 101 and 152 its bottlenecks, with the stride on
    the 3x3 convolution, as in torchvision, whose parameter counts these five have. Where the shape changes, the
    shortcut is a 1x1 projection (the paper's option B) in every family. `blocks` and `widths`, one number a stage,
    replace those of `depth`, which then only names the kind of block. Every stage but the first halves the map, by the
    stride of its first convolution, or with downsample="pool" by a max pool behind it, before norm and activation.

    The stem goes by the short side: from 96 px "large", 7x7 at stride 2 and a max pool, else "small", 3x3 at stride 1.
    "pool" adds a 2x2 max pool to the small one. "patch" cuts the image into squares of patch_size (2 if not given) by a
    convolution of that stride: the cheapest.

    depth="auto" is 18 on large images. On small ones it is no network of the paper but a quick one to start with: three
    blocks of 32, 64 and 128 channels with stem and downsample "pool", which learns more from the same seconds on a CPU.
    `stochastic_depth` is the drop rate of the last block; the others' grow to it linearly. With `zero_init_last` every
    residual branch starts at 0 (Goyal et al., 2017).
    """

    @checked
    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        *,
        depth: Depth = "auto",
        blocks: list[Count] | None = None,
        widths: list[Count] | None = None,
        stem: Stem = "auto",
        patch_size: Count | None = None,
        downsample: Downsample = "auto",
        activation: Activation = "relu",
        stochastic_depth: Rate = 0.0,
        stochastic_depth_mode: Literal["batch", "sample"] = "batch",
        initialization: Initialization = "kaiming",
        init_std: Positive | None = None,
        zero_init_last: bool = False,
    ):
        super().__init__()
        large = min(input_shape[1:]) >= LARGE_IMAGE
        if depth == "auto" and large:
            depth = 18
        if stem == "auto":
            stem = "large" if large else "pool" if depth == "auto" else "small"
        pooled = downsample == "pool" or (downsample == "auto" and depth == "auto")
        blocks, widths = _plan(depth, blocks, widths)
        self.stem = nn.Sequential(*_stem(input_shape, widths[0], stem, patch_size, activation))
        rates = iter(drop_rates(stochastic_depth, sum(blocks)))
        channels, stages = widths[0], []
        for index, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            drops = [StochasticDepth(next(rates), stochastic_depth_mode) for _ in range(count)]
            stages.append(_stage(channels, width, 2 if index else 1, depth in BOTTLENECK, activation, drops, pooled))
            channels = stages[-1][-1].channels
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(channels, num_classes)
        initialize(self, initialization, activation, init_std, output=self.classifier)
        if zero_init_last:
            for block in self.modules():
                if isinstance(block, Block):
                    block.start_at_zero()

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stages(self.stem(images))  # (N, C, H, W)
        return self.classifier(maps.mean((2, 3)))


class Block(nn.Module):
    """Residual block, activation(branch(x) + shortcut(x)); its branch is 3x3, 3x3 or the bottleneck 1x1, 3x3, 1x1.

    (N, C, H, W) -> (N, self.channels, H / stride, W / stride), rounded up. Maxout folds the branch before the sum,
    which is the same: max(a + s, b + s) = max(a, b) + s.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int,
        bottleneck: bool,
        activation: Activation,
        drop: StochasticDepth,
        pooled: bool = False,
    ):
        super().__init__()
        self.channels = 4 * width if bottleneck else width
        last = "maxout" if activation == "maxout" else None
        same = stride == 1 and channels == self.channels
        pool: list[nn.Module] = (
            [nn.MaxPool2d(stride, ceil_mode=True)] if pooled and stride > 1 else []
        )  # rounds up, as a stride does
        stride = 1 if pool else stride
        if bottleneck:
            layers = [
                *convolution(channels, width, 1, activation=activation),
                *_pooled(convolution(width, width, 3, stride=stride, activation=activation), pool),
                *convolution(width, self.channels, 1, activation=last),
            ]
        else:
            layers = [
                *_pooled(convolution(channels, width, 3, stride=stride, activation=activation), pool),
                *convolution(width, width, 3, activation=last),
            ]
        self.branch = nn.Sequential(*layers)
        projection = [] if same else convolution(channels, self.channels, 1, stride=stride)
        self.shortcut = nn.Sequential(*pool, *projection)
        self.drop = drop
        self.activation = nn.Identity() if last else ACTIVATIONS[activation]()

    def start_at_zero(self) -> None:
        """Zero the scale of the branch's last norm, so that the block starts as its shortcut."""
        nn.init.zeros_([layer for layer in self.branch if isinstance(layer, nn.BatchNorm2d)][-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.drop(self.branch, x, self.shortcut(x)))


def _pooled(convolved: list[nn.Module], pool: list[nn.Module]) -> list[nn.Module]:
    """Put a pool, if there is one, right behind the convolution: norm and activation then have a quarter to do."""
    return [convolved[0], *pool, *convolved[1:]]


def _stage(
    channels: int,
    width: int,
    stride: int,
    bottleneck: bool,
    activation: Activation,
    drops: list[StochasticDepth],
    pooled: bool,
) -> nn.Sequential:
    """Make one block for each of `drops`; the first takes the stride."""
    stage = nn.Sequential()
    for drop in drops:
        block = Block(channels, width, stride, bottleneck, activation, drop, pooled)
        stage.append(block)
        channels, stride = block.channels, 1
    return stage


def _plan(depth: Depth, blocks: list[int] | None, widths: list[int] | None) -> tuple[list[int], list[int]]:
    """Look up the blocks and widths of a depth, except those that are given."""
    own_blocks = {**CIFAR, **IMAGENET, "auto": QUICK}[depth]
    own_widths = QUICK_WIDTHS if depth == "auto" else [16, 32, 64] if depth in CIFAR else [64, 128, 256, 512]
    if blocks == [] or (blocks and len(blocks) != len(widths or own_widths)):
        raise ValueError(f"blocks={blocks}: must have one number for each of widths={widths or own_widths}")
    if widths == [] or (widths and len(widths) != len(blocks or own_blocks)):
        raise ValueError(f"widths={widths}: must have one number for each of blocks={blocks or own_blocks}")
    return blocks or own_blocks, widths or own_widths


def _stem(
    input_shape: tuple[int, int, int], width: int, stem: str, patch_size: int | None, activation: Activation
) -> list[nn.Module]:
    """List the layers in front of the first stage."""
    channels, height, breadth = input_shape
    if patch_size is not None and stem != "patch":
        raise ValueError(f"patch_size={patch_size}: only stem=patch reads it, here it is {stem}")
    if stem == "patch":
        side = patch_size or 2
        if height % side or breadth % side:
            fitting = [size for size in range(1, min(height, breadth) + 1) if not (height % size or breadth % size)]
            fits = ", ".join(map(str, fitting))
            raise ValueError(f"patch_size={side}: must divide the image, {height} x {breadth}: choose from {fits}")
        return convolution(channels, width, side, stride=side, padding=0, activation=activation)
    if stem == "large":
        pool = nn.MaxPool2d(3, stride=2, padding=1)
        return [*convolution(channels, width, 7, stride=2, activation=activation), pool]
    return _pooled(convolution(channels, width, 3, activation=activation), [nn.MaxPool2d(2)] if stem == "pool" else [])

"""Residual networks: the CIFAR family, the ImageNet family, and any other blocks and widths."""

from functools import partial
from typing import Literal

from torch import Tensor, nn

from deeptrain.model.layers import (
    ACTIVATIONS,
    Activation,
    Initialization,
    Momentum,
    Norm,
    Normalization,
    StochasticDepth,
    convolution,
    initialize,
)
from deeptrain.model.residual import (
    CIFAR_BLOCKS,
    IMAGENET_BLOCKS,
    DropMode,
    ResidualNetwork,
    Stem,
    make_stages,
    make_stem,
    pool_early,
    resolve_layout,
    resolve_stem,
)
from deeptrain.schema import DropRate, PositiveFloat, PositiveInt, validate_call

Depth = Literal["auto", 18, 20, 32, 34, 44, 50, 56, 101, 110, 152]
Downsample = Literal["auto", "stride", "pool"]

BOTTLENECK_DEPTHS = (50, 101, 152)


class ResNet(ResidualNetwork):
    """Residual network (He et al., 2016).

    (N, C, H, W) -> logits (N, num_classes). Depths 20, 32, 44, 56 and 110 are the paper's CIFAR family (widths 16, 32,
    64). Depths 18 and 34 are the ImageNet family's basic blocks (64 to 512), and 50, 101 and 152 its bottlenecks. The
    stride of a bottleneck is on its 3x3 convolution. These five depths have torchvision's parameter counts. Where the
    shape changes, the shortcut is a 1x1 projection (the paper's option B) in every family.

    `blocks` and `widths`, one number per stage, replace those of `depth`; `depth` then only selects the kind of block.
    Every stage but the first halves the map, by the stride of its first convolution. With downsample="pool" a max pool
    after that convolution does it, before norm and activation.

    The stem depends on the short side. From 96 px it is "large", 7x7 at stride 2 and a max pool. Below 48 px it is
    "small", 3x3 at stride 1. Between them it is "pool", the small one with a 2x2 max pool. "patch" is the cheapest: a
    convolution cuts the image into squares of patch_size (2 if not given).

    depth="auto" is 18 on large images. On small images it is a quick network that is not in the paper: three blocks of
    32, 64 and 128 channels, with stem and downsample "pool". It learns more in the same seconds on a CPU.
    `stochastic_depth` is the drop rate of the last block; the rates grow to it linearly. With `zero_init_residual`
    every residual branch starts at 0 (Goyal et al., 2017).
    """

    @validate_call
    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        *,
        depth: Depth = "auto",
        blocks: list[PositiveInt] | None = None,
        widths: list[PositiveInt] | None = None,
        stem: Stem | None = None,
        patch_size: PositiveInt | None = None,
        downsample: Downsample = "auto",
        activation: Activation = "relu",
        norm: Norm = "batch",
        norm_momentum: Momentum | None = None,
        norm_eps: PositiveFloat | None = None,
        norm_groups: PositiveInt | None = None,
        stochastic_depth: DropRate = 0.0,
        stochastic_depth_mode: DropMode = "batch",
        initialization: Initialization = "kaiming",
        init_std: PositiveFloat | None = None,
        zero_init_residual: bool = False,
    ):
        layout, blocks, widths = resolve_layout(depth, input_shape, CIFAR_BLOCKS, IMAGENET_BLOCKS, blocks, widths)
        quick = layout == "auto"
        norms = Normalization(norm, norm_momentum, norm_eps, norm_groups)
        stem = resolve_stem(input_shape, stem, quick)
        stem_layers = make_stem(input_shape, widths[0], stem, patch_size, norm=norms, activation=activation)
        block = partial(
            Block,
            bottleneck=layout in BOTTLENECK_DEPTHS,
            activation=activation,
            norm=norms,
            pooled=downsample == "pool" or (downsample == "auto" and quick),
        )
        stages, channels = make_stages(block, widths[0], blocks, widths, stochastic_depth, stochastic_depth_mode)
        super().__init__(stem_layers, stages, channels, num_classes, stem_kind=stem)
        initialize(self, initialization, activation, init_std, output=self.classifier)
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, Block):
                    module.zero_init_residual()


class Block(nn.Module):
    """Residual block, activation(branch(x) + shortcut(x)). The branch is 3x3, 3x3 or the bottleneck 1x1, 3x3, 1x1.

    (N, C, H, W) -> (N, self.channels, H / stride, W / stride), rounded up. Maxout is applied to the branch before the
    sum. The result is the same: max(a + s, b + s) = max(a, b) + s.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        stride: int,
        drop: StochasticDepth,
        *,
        bottleneck: bool,
        activation: Activation,
        norm: Normalization,
        pooled: bool = False,
    ):
        super().__init__()
        self.channels = 4 * width if bottleneck else width
        last_activation = "maxout" if activation == "maxout" else None
        same_shape = stride == 1 and channels == self.channels
        pool: list[nn.Module] = []
        if pooled and stride > 1:
            pool = [nn.MaxPool2d(stride, ceil_mode=True)]  # rounds up, as a stride does
        stride = 1 if pool else stride
        convolve = partial(convolution, norm=norm)
        if bottleneck:
            layers = [
                *convolve(channels, width, 1, activation=activation),
                *pool_early(convolve(width, width, 3, stride=stride, activation=activation), pool),
                *convolve(width, self.channels, 1, activation=last_activation),
            ]
        else:
            layers = [
                *pool_early(convolve(channels, width, 3, stride=stride, activation=activation), pool),
                *convolve(width, width, 3, activation=last_activation),
            ]
        self.branch = nn.Sequential(*layers)
        projection = [] if same_shape else convolve(channels, self.channels, 1, stride=stride)
        self.shortcut = nn.Sequential(*pool, *projection)
        self.drop = drop
        self.activation = nn.Identity() if last_activation else ACTIVATIONS[activation]()

    def zero_init_residual(self) -> None:
        """Zero the scale of the branch's last norm, or the last convolution: the block is then its shortcut."""
        kinds = (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm)
        nn.init.zeros_([layer for layer in self.branch if isinstance(layer, kinds)][-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.drop(self.branch, x, self.shortcut(x)))

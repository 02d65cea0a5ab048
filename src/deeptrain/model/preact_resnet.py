"""Pre-activation residual networks: norm and activation are in front of each convolution, and none after a sum."""

from functools import partial
from typing import Literal

from torch import Tensor, nn

from deeptrain.model.layers import (
    ACTIVATIONS,
    NO_NORM,
    Activation,
    Initialization,
    Momentum,
    Norm,
    Normalization,
    StochasticDepth,
    channel_multiplier,
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
    resolve_layout,
    resolve_stem,
)
from deeptrain.schema import DropRate, PositiveFloat, PositiveInt, validate_call

Depth = Literal["auto", 18, 20, 32, 34, 44, 50, 56, 101, 110, 152, 164, 200, 1001]

SMALL_BLOCKS = {**CIFAR_BLOCKS, 164: [18, 18, 18], 1001: [111, 111, 111]}  # blocks in each stage
LARGE_BLOCKS = {**IMAGENET_BLOCKS, 200: [3, 24, 36, 3]}
BOTTLENECK_DEPTHS = (50, 101, 152, 164, 200, 1001)


class PreActResNet(ResidualNetwork):
    """Pre-activation residual network (He et al., 2016, "Identity mappings in deep residual networks").

    (N, C, H, W) -> logits (N, num_classes). Depths, `blocks`, `widths`, stems, stochastic depth and depth="auto" are
    those of model=resnet. The only difference: every halving is a stride. The paper's networks are 110, 164 and 1001
    for CIFAR (the last two with bottlenecks), and 200 for ImageNet. Depth 18 on small images, as in most later work,
    has 11.17 million parameters. Where the shape changes, the shortcut is a 1x1 projection. The block's first norm and
    activation are then in front of the shortcut too. (The paper does the same in the very first block. Here that block
    starts from the stem's convolution.)
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
        activation: Activation = "relu",
        norm: Norm = "batch",
        norm_momentum: Momentum | None = None,
        norm_eps: PositiveFloat | None = None,
        norm_groups: PositiveInt | None = None,
        stochastic_depth: DropRate = 0.0,
        stochastic_depth_mode: DropMode = "batch",
        initialization: Initialization = "kaiming",
        init_std: PositiveFloat | None = None,
    ):
        layout, blocks, widths = resolve_layout(depth, input_shape, SMALL_BLOCKS, LARGE_BLOCKS, blocks, widths)
        norms = Normalization(norm, norm_momentum, norm_eps, norm_groups)
        stem = resolve_stem(input_shape, stem, layout == "auto")
        stem_layers = bare_stem(input_shape, widths[0], stem, patch_size, activation, norms)
        block = partial(PreActBlock, bottleneck=layout in BOTTLENECK_DEPTHS, activation=activation, norm=norms)
        stages, channels = make_stages(block, widths[0], blocks, widths, stochastic_depth, stochastic_depth_mode)
        last = nn.Sequential(*preactivation(channels, activation, norms))
        super().__init__(stem_layers, [*stages, last], channels, num_classes, stem_kind=stem)
        initialize(self, initialization, activation, init_std, output=self.classifier)


class PreActBlock(nn.Module):
    """Residual block, branch(x) + shortcut(x), with a norm and an activation in front of each of its convolutions.

    (N, C, H, W) -> (N, C', H / stride, W / stride), rounded up. `channels` is the number after the activation: C, or
    C / 2 with maxout. self.channels is the same for C'. Dropout is in front of the last convolution.
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
        dropout: float = 0.0,
    ):
        super().__init__()
        self.channels = 4 * width if bottleneck else width
        out_channels = self.channels * channel_multiplier(activation)
        bare_convolution = partial(convolution, norm=NO_NORM, bias=norm.kind == "none")
        convolve = partial(convolution, norm=norm, activation=activation)
        dropouts = [nn.Dropout(dropout)] if dropout else []
        first_layers = preactivation(channels, activation, norm)
        if bottleneck:
            layers = [*convolve(channels, width, 1), *convolve(width, width, 3, stride=stride)]
        else:
            layers = convolve(channels, width, 3, stride=stride)
        layers += [*dropouts, *bare_convolution(width, out_channels, 1 if bottleneck else 3)]
        same_shape = stride == 1 and channels == self.channels
        self.enter = nn.Sequential(*([] if same_shape else first_layers))
        self.branch = nn.Sequential(*(first_layers if same_shape else []), *layers)
        self.shortcut = nn.Sequential(
            *([] if same_shape else bare_convolution(channels, out_channels, 1, stride=stride))
        )
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.drop(self.branch, x, self.shortcut(x))


def preactivation(channels: int, activation: Activation, norm: Normalization) -> list[nn.Module]:
    """List norm and activation with `channels` outputs."""
    layer = ACTIVATIONS[activation]()
    if norm.kind == "none" and isinstance(layer, nn.ReLU | nn.LeakyReLU | nn.ELU):
        layer.inplace = False  # the shortcut needs the input, which the activation would overwrite
    return [*norm.layers_2d(channels * channel_multiplier(activation)), layer]


def bare_stem(
    input_shape: tuple[int, int, int],
    width: int,
    stem: Stem,
    patch_size: int | None,
    activation: Activation,
    norm: Normalization,
) -> list[nn.Module]:
    """List the layers in front of the first stage, without norm and activation: the first block starts with them."""
    width *= channel_multiplier(activation)
    return make_stem(input_shape, width, stem, patch_size, norm=NO_NORM, bias=norm.kind == "none")

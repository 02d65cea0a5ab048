"""VGG, with its ImageNet classifier and a small one for small images."""

from typing import Literal

from torch import nn

from deeptrain.model.layers import (
    MIN_LARGE_SIDE,
    Activation,
    Initialization,
    Layout,
    Momentum,
    Norm,
    Normalization,
    adaptive_pool,
    convolution,
    fully_connected,
    initialize,
)
from deeptrain.model.pooling import Features, MultiDrawClassifier, Pool, Pooling, Ratio
from deeptrain.schema import DropRate, PositiveFloat, PositiveInt, validate_call

WIDTHS = [64, 128, 256, 512, 512]
STAGE_CONVOLUTIONS = {
    11: [1, 1, 2, 2, 2],
    13: [2, 2, 2, 2, 2],
    16: [2, 2, 3, 3, 3],
    19: [2, 2, 4, 4, 4],
}  # in each of the five stages


class VGG(MultiDrawClassifier):
    """VGG (Simonyan & Zisserman, 2015): 3x3 convolutions in five stages, each with a 2x2 max pool at its end.

    (N, C, H, W) -> logits (N, num_classes). The large layout is torchvision's: a map of at most 7x7 and two fully
    connected layers of 4096; 138,365,992 parameters at depth 16, 224 px and 1000 classes. Images with a short side
    under 96 px get the small layout. It averages the map to one pixel and has one fully connected layer of 512, as is
    usual for CIFAR. A map with a short side of one pixel is not pooled: 8 px images have three pools, 16 px ones four.

    `width` multiplies the convolutions' channels. `classifier` lists the hidden fully connected layers; each has
    DropConnect and is followed by dropout. `blocks` and `widths`, the convolutions and channels of each stage, replace
    those of `depth`. With `early_pool` a stage pools right after its last convolution. Norm and activation then work on
    a quarter of the pixels: nearly the same function in less time. Fractional pools (FractionalMaxPool) leave larger
    maps, which cost more. Evaluation averages them over `test_samples` draws (MultiDrawClassifier).
    """

    @validate_call
    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        *,
        depth: Literal[11, 13, 16, 19] = 11,
        layout: Layout = "auto",
        width: PositiveFloat = 1.0,
        blocks: list[PositiveInt] | None = None,
        widths: list[PositiveInt] | None = None,
        early_pool: bool = False,
        pool: Pool = "max",
        pool_ratio: Ratio | None = None,
        test_samples: PositiveInt = 1,
        classifier: list[PositiveInt] | None = None,
        activation: Activation = "relu",
        norm: Norm = "batch",
        norm_momentum: Momentum | None = None,
        norm_eps: PositiveFloat | None = None,
        norm_groups: PositiveInt | None = None,
        dropout: DropRate = 0.5,
        drop_connect: DropRate = 0.0,
        initialization: Initialization = "kaiming",
        init_std: PositiveFloat | None = None,
    ):
        super().__init__()
        large = layout == "large" or (layout == "auto" and min(input_shape[1:]) >= MIN_LARGE_SIDE)
        norms = Normalization(norm, norm_momentum, norm_eps, norm_groups)
        pools = Pooling(pool, pool_ratio, test_samples)
        blocks = STAGE_CONVOLUTIONS[depth] if blocks is None else blocks
        stages = _stages(blocks, WIDTHS if widths is None else widths, width)
        layers, channels, sides = _convolutions(input_shape, stages, early_pool, norms, pools, activation)
        average, (rows, columns) = adaptive_pool(sides, 7 if large else 1)
        self.features, self.test_samples = Features(*layers, average), test_samples
        hidden = ([4096, 4096] if large else [512]) if classifier is None else classifier
        self.classifier = fully_connected(
            channels * rows * columns,
            hidden,
            num_classes,
            activation=activation,
            dropout=dropout,
            drop_connect=drop_connect,
        )
        initialize(self, initialization, activation, init_std, output=self.classifier[-1])


def _stages(blocks: list[int], widths: list[int], width: float) -> list[tuple[int, int]]:
    """Return convolutions and channels of each stage; ValueError if the lengths differ."""
    if not blocks or len(blocks) != len(widths):
        raise ValueError(f"blocks={blocks}: must have one number for each of widths={widths}")
    return [(count, max(1, round(width * channels))) for count, channels in zip(blocks, widths, strict=True)]


def _convolutions(
    input_shape: tuple[int, int, int],
    stages: list[tuple[int, int]],
    early_pool: bool,
    norms: Normalization,
    pools: Pooling,
    activation: Activation,
) -> tuple[list[nn.Module], int, tuple[int, int]]:
    """Return the layers of all stages, and the channels and sides of what they give."""
    channels, rows, columns = input_shape
    layers: list[nn.Module] = []
    for count, out_channels in stages:
        for _ in range(count):  # the bias in front of a norm has no effect; it gives the known parameter counts
            layers += convolution(channels, out_channels, 3, bias=True, norm=norms, activation=activation)
            channels = out_channels
        if min(rows, columns) > 1:
            index = len(layers) if not early_pool else len(layers) - (1 if norms.kind == "none" else 2)
            layers.insert(index, pools.layer(2, index=index))
            rows, columns = pools.output_size(rows, 2), pools.output_size(columns, 2)
    return layers, channels, (rows, columns)

"""AlexNet, with its ImageNet layout and one for small images."""

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

# Each convolution: channels, kernel, stride, padding, followed by a pool.
SHARED_LAYERS = [(192, 5, 1, 2, True), (384, 3, 1, 1, False), (256, 3, 1, 1, False), (256, 3, 1, 1, True)]
LARGE_LAYERS = [(64, 11, 4, 2, True), *SHARED_LAYERS]
SMALL_LAYERS = [(64, 5, 2, 2, True), *SHARED_LAYERS]  # from 24 px: takes a quarter of the time of stride 1
TINY_LAYERS = [(64, 5, 1, 2, True), *SHARED_LAYERS]


class AlexNet(MultiDrawClassifier):
    """AlexNet (Krizhevsky et al., 2012) with the channels of its one-column form (Krizhevsky, 2014), as in torchvision.

    (N, C, H, W) -> logits (N, num_classes). The large layout is torchvision's: 61,100,840 parameters at 224 px and 1000
    classes with norm="none". Images with a short side under 96 px get the small layout. It starts with 5x5 kernels, at
    stride 2 from 24 px and stride 1 below. It has one fully connected layer of 512 instead of two of 4096.

    `width` multiplies the convolutions' channels. `classifier` lists the hidden fully connected layers; each has
    DropConnect and is followed by dropout. The paper has no batch norm. It is on by default because SGD at the usual
    rate of 0.1 diverges without it. SGD diverges with group and layer norm too. Pools are 3x3 at stride 2, or
    fractional (FractionalMaxPool). Fractional pools leave larger maps, which cost more. Evaluation averages them over
    `test_samples` draws (MultiDrawClassifier).
    """

    @validate_call
    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        *,
        layout: Layout = "auto",
        width: PositiveFloat = 1.0,
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
        short = min(input_shape[1:])
        large = layout == "large" or (layout == "auto" and short >= MIN_LARGE_SIDE)
        if large and short < 63:
            raise ValueError(f"layout=large: needs images of 63 px or more, these have {short}: use layout=small")
        plan = LARGE_LAYERS if large else SMALL_LAYERS if short >= 24 else TINY_LAYERS
        norms, pools = (
            Normalization(norm, norm_momentum, norm_eps, norm_groups),
            Pooling(pool, pool_ratio, test_samples),
        )
        self.features, features = _features(input_shape, plan, 0 if large else 1, width, activation, norms, pools)
        self.test_samples = test_samples
        hidden = ([4096, 4096] if large else [512]) if classifier is None else classifier
        self.classifier = fully_connected(
            features, hidden, num_classes, activation=activation, dropout=dropout, drop_connect=drop_connect
        )
        initialize(self, initialization, activation, init_std, output=self.classifier[-1])


def _features(
    input_shape: tuple[int, int, int],
    plan: list[tuple[int, int, int, int, bool]],
    border: int,
    width: float,
    activation: Activation,
    norm: Normalization,
    pooling: Pooling,
) -> tuple[Features, int]:
    """Make the convolutions and pools; return them with the number of output features.

    Pools are 3x3 at stride 2 and overlap, as in the paper. `border` is their padding: 1 fits a map of any size.
    Fractional pools need sides of two pixels or more.
    """
    channels, *size = input_shape
    layers: list[nn.Module] = []
    for base_channels, kernel, stride, padding, pool in plan:
        out_channels = max(1, round(width * base_channels))
        layers += convolution(
            channels, out_channels, kernel, stride=stride, padding=padding, norm=norm, activation=activation
        )
        size = [(side + 2 * padding - kernel) // stride + 1 for side in size]
        channels = out_channels
        if pool and (pooling.kind != "fractional" or min(size) > 1):
            layers.append(pooling.layer(3, border, index=len(layers)))
            size = [pooling.output_size(side, 3, border) for side in size]
    average, (rows, columns) = adaptive_pool((size[0], size[1]), 6)
    return Features(*layers, average), channels * rows * columns

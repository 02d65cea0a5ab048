"""AlexNet, in its ImageNet layout and in one for small images."""

from torch import Tensor, nn

from deeptrain.model.layers import (
    LARGE_IMAGE,
    Activation,
    Initialization,
    Layout,
    convolution,
    fully_connected,
    initialize,
    shrink,
)
from deeptrain.schema import Count, Positive, Rate, checked

# Each convolution: channels, kernel, stride, padding, and whether a pool follows.
LATER = [(192, 5, 1, 2, True), (384, 3, 1, 1, False), (256, 3, 1, 1, False), (256, 3, 1, 1, True)]
LARGE = [(64, 11, 4, 2, True), *LATER]
SMALL = [(64, 5, 2, 2, True), *LATER]  # 24 px and more: a quarter of the time of stride 1
TINY = [(64, 5, 1, 2, True), *LATER]


class AlexNet(nn.Module):
    """AlexNet (Krizhevsky et al., 2012) with the channels of its one-column form (Krizhevsky, 2014), as in torchvision.

    (N, C, H, W) -> logits (N, num_classes). The large layout is torchvision's: 61,100,840 parameters at 224 px and 1000
    classes without batch norm. The small one, taken where the short side is under 96 px, starts with 5x5 kernels, at
    stride 2 from 24 px and 1 below, and has one fully connected layer of 512 in place of two of 4096. `width`
    multiplies the convolutions' channels, `classifier` lists the hidden fully connected layers; dropout follows each.
    Batch norm is later than the paper: it is on because without it SGD at the usual rate of 0.1 diverges.
    """

    @checked
    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        *,
        layout: Layout = "auto",
        width: Positive = 1.0,
        classifier: list[Count] | None = None,
        activation: Activation = "relu",
        batch_norm: bool = True,
        dropout: Rate = 0.5,
        initialization: Initialization = "kaiming",
        init_std: Positive | None = None,
    ):
        super().__init__()
        short = min(input_shape[1:])
        large = layout == "large" or (layout == "auto" and short >= LARGE_IMAGE)
        if large and short < 63:
            raise ValueError(f"layout=large: needs images of 63 px or more, these have {short}: use layout=small")
        plan = LARGE if large else SMALL if short >= 24 else TINY
        self.features, features = _features(input_shape, plan, 0 if large else 1, width, activation, batch_norm)
        hidden = ([4096, 4096] if large else [512]) if classifier is None else classifier
        self.classifier = fully_connected(features, hidden, num_classes, activation=activation, dropout=dropout)
        initialize(self, initialization, activation, init_std, output=self.classifier[-1])

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).flatten(1))


def _features(
    input_shape: tuple[int, int, int],
    plan: list[tuple[int, int, int, int, bool]],
    border: int,
    width: float,
    activation: Activation,
    batch_norm: bool,
) -> tuple[nn.Sequential, int]:
    """Make the convolutions and the pools, 3x3 at stride 2: they overlap, as in the paper; count the features left.

    The pools are padded by `border`: 1 lets them fit a map of any size.
    """
    channels, *size = input_shape
    layers: list[nn.Module] = []
    for maps, kernel, stride, padding, pool in plan:
        maps = max(1, round(width * maps))
        shape = {"stride": stride, "padding": padding, "bias": not batch_norm, "batch_norm": batch_norm}
        layers += convolution(channels, maps, kernel, **shape, activation=activation)
        size = [(side + 2 * padding - kernel) // stride + 1 for side in size]
        channels = maps
        if pool:
            layers.append(nn.MaxPool2d(3, stride=2, padding=border))
            size = [(side + 2 * border - 3) // 2 + 1 for side in size]
    average, (rows, columns) = shrink((size[0], size[1]), 6)
    return nn.Sequential(*layers, average), channels * rows * columns

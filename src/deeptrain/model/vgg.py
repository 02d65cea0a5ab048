"""VGG, with its ImageNet classifier or a small one for small images."""

from typing import Literal

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

WIDTHS = [64, 128, 256, 512, 512]
STAGES = {11: [1, 1, 2, 2, 2], 13: [2, 2, 2, 2, 2], 16: [2, 2, 3, 3, 3], 19: [2, 2, 4, 4, 4]}  # convolutions in each


class VGG(nn.Module):
    """VGG (Simonyan & Zisserman, 2015): 3x3 convolutions in five stages, each closed by a 2x2 max pool.

    (N, C, H, W) -> logits (N, num_classes). The large layout is torchvision's: a map of at most 7x7 and two fully
    connected layers of 4096; 138,365,992 parameters at depth 16, 224 px and 1000 classes. The small one, taken where
    the short side is under 96 px, averages the map to one pixel and has one fully connected layer of 512, as is usual
    for CIFAR. A pool is left out where the map is already down to one pixel on its short side: 8 px images go through
    three pools, 16 px through four. `width` multiplies the convolutions' channels, `classifier` lists the hidden fully
    connected layers; dropout follows each of these. `blocks` and `widths`, convolutions and channels of each stage,
    replace those of `depth`. With `early_pool` a stage pools right behind its last convolution, so that norm and
    activation work on a quarter of the pixels: nearly the same function, for less time.
    """

    @checked
    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        *,
        depth: Literal[11, 13, 16, 19] = 11,
        layout: Layout = "auto",
        width: Positive = 1.0,
        blocks: list[Count] | None = None,
        widths: list[Count] | None = None,
        early_pool: bool = False,
        classifier: list[Count] | None = None,
        activation: Activation = "relu",
        batch_norm: bool = True,
        dropout: Rate = 0.5,
        initialization: Initialization = "kaiming",
        init_std: Positive | None = None,
    ):
        super().__init__()
        large = layout == "large" or (layout == "auto" and min(input_shape[1:]) >= LARGE_IMAGE)
        channels, rows, columns = input_shape
        layers: list[nn.Module] = []
        for count, maps in _stages(STAGES[depth] if blocks is None else blocks, WIDTHS if widths is None else widths):
            maps = max(1, round(width * maps))
            for _ in range(count):  # a bias in front of a norm does nothing: kept for the known parameter counts
                layers += convolution(channels, maps, 3, bias=True, batch_norm=batch_norm, activation=activation)
                channels = maps
            if min(rows, columns) > 1:
                behind = len(layers) if not early_pool else len(layers) - (2 if batch_norm else 1)
                layers.insert(behind, nn.MaxPool2d(2))
                rows, columns = rows // 2, columns // 2
        pool, (rows, columns) = shrink((rows, columns), 7 if large else 1)
        self.features = nn.Sequential(*layers, pool)
        hidden = ([4096, 4096] if large else [512]) if classifier is None else classifier
        self.classifier = fully_connected(
            channels * rows * columns, hidden, num_classes, activation=activation, dropout=dropout
        )
        initialize(self, initialization, activation, init_std, output=self.classifier[-1])

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images).flatten(1))


def _stages(blocks: list[int], widths: list[int]) -> list[tuple[int, int]]:
    """Pair the convolutions of each stage with its channels."""
    if not blocks or len(blocks) != len(widths):
        raise ValueError(f"blocks={blocks}: must have one number for each of widths={widths}")
    return list(zip(blocks, widths, strict=True))

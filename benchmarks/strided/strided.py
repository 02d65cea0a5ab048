"""A network that costs next to nothing, so that a benchmark sees what happens to pictures before it."""

from torch import nn


class Strided(nn.Sequential):
    """Means of 4x4 pixels, then one linear layer: (N, C, H, W) -> logits (N, num_classes)."""

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int):
        channels, height, width = input_shape
        super().__init__(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(channels * (height // 4) * (width // 4), num_classes))

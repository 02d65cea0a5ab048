"""The fully connected network. Without hidden layers it is softmax regression."""

import math

from torch import Tensor, nn

from deeptrain.model.layers import (
    Activation,
    Initialization,
    Momentum,
    Norm,
    Normalization,
    fully_connected,
    initialize,
)
from deeptrain.schema import DropRate, PositiveFloat, PositiveInt, validate_call


class FCN(nn.Module):
    """Fully connected layers on the pixels, in the order (C, H, W) for every memory format.

    (N, C, H, W) -> logits (N, num_classes). `hidden` lists the layers' widths. Each has DropConnect and is followed by
    norm and dropout. Without hidden layers DropConnect is in the output layer.
    """

    @validate_call
    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        *,
        hidden: list[PositiveInt] = [512, 256],  # noqa: B006 (never changed)
        activation: Activation = "relu",
        norm: Norm = "none",
        norm_momentum: Momentum | None = None,
        norm_eps: PositiveFloat | None = None,
        norm_groups: PositiveInt | None = None,
        dropout: DropRate = 0.0,
        drop_connect: DropRate = 0.0,
        initialization: Initialization = "kaiming",
        init_std: PositiveFloat | None = None,
    ):
        super().__init__()
        if dropout and not hidden:
            raise ValueError(f"dropout={dropout}: hidden=[] has no hidden units to drop; set dropout=0 or add a layer")
        self.layers = fully_connected(
            math.prod(input_shape),
            hidden,
            num_classes,
            activation=activation,
            norm=Normalization(norm, norm_momentum, norm_eps, norm_groups),
            dropout=dropout,
            drop_connect=drop_connect,
        )
        initialize(self, initialization, activation, init_std, output=self.layers[-1])

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images.flatten(1))

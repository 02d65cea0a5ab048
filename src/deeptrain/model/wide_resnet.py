"""Wide residual networks: few blocks with many channels, and dropout between their convolutions."""

from functools import partial

from torch import nn

from deeptrain.model.layers import Activation, Initialization, Momentum, Norm, Normalization, initialize
from deeptrain.model.preact_resnet import PreActBlock, bare_stem, preactivation
from deeptrain.model.residual import CIFAR_WIDTHS, DropMode, ResidualNetwork, Stem, make_stages, resolve_stem
from deeptrain.schema import DropRate, PositiveFloat, PositiveInt, validate_call


class WideResNet(ResidualNetwork):
    """Wide residual network WRN-depth-width (Zagoruyko & Komodakis, 2016), for small images.

    (N, C, H, W) -> logits (N, num_classes). A convolution of 16 channels is followed by three stages. Each has
    n = (depth - 4) / 6 pre-activation blocks, with 16, 32 or 64 times `width` channels. The paper's best is depth 28,
    width 10, with 36.5 million parameters. Depth 16, width 2 has 0.7 million and trains on a CPU. `dropout` is between
    the convolutions of each block (0.3 in the paper). Stems and stochastic depth are those of model=resnet. Large
    images get the large stem in front of the same stages.
    """

    @validate_call
    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_classes: int,
        *,
        depth: PositiveInt = 16,
        width: PositiveFloat = 2.0,
        stem: Stem | None = None,
        patch_size: PositiveInt | None = None,
        activation: Activation = "relu",
        norm: Norm = "batch",
        norm_momentum: Momentum | None = None,
        norm_eps: PositiveFloat | None = None,
        norm_groups: PositiveInt | None = None,
        dropout: DropRate = 0.0,
        stochastic_depth: DropRate = 0.0,
        stochastic_depth_mode: DropMode = "batch",
        initialization: Initialization = "kaiming",
        init_std: PositiveFloat | None = None,
    ):
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"depth={depth}: must be 6n + 4, as 10, 16, 22, 28, 34 or 40")
        blocks, widths = [(depth - 4) // 6] * 3, [max(1, round(width * channels)) for channels in CIFAR_WIDTHS]
        norms = Normalization(norm, norm_momentum, norm_eps, norm_groups)
        stem = resolve_stem(input_shape, stem, quick=False)
        stem_layers = bare_stem(input_shape, CIFAR_WIDTHS[0], stem, patch_size, activation, norms)
        block = partial(PreActBlock, bottleneck=False, activation=activation, norm=norms, dropout=dropout)
        stages, channels = make_stages(block, CIFAR_WIDTHS[0], blocks, widths, stochastic_depth, stochastic_depth_mode)
        last = nn.Sequential(*preactivation(channels, activation, norms))
        super().__init__(stem_layers, [*stages, last], channels, num_classes, stem_kind=stem)
        initialize(self, initialization, activation, init_std, output=self.classifier)

"""What models are made of: activations, norms, convolution and fully connected layers, weights, stochastic depth."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from deeptrain.schema import Range

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "quick_gelu", "tanh", "sigmoid", "softplus", "maxout"]
Norm = Literal["batch", "group", "layer", "none"]
Momentum = Annotated[float, Range(above=0, maximum=1)]  # weight of the newest batch in a running mean
Initialization = Literal["kaiming", "xavier", "lecun", "normal"]
Layout = Literal["auto", "small", "large"]

MIN_LARGE_SIDE = 96  # pixels: from this short side on, models take their ImageNet layout


class QuickGELU(nn.Module):
    """Compute x·sigmoid(1.702x), an approximation of GELU (Hendrycks & Gimpel, 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Maxout(nn.Module):
    """Take the larger of two affine maps, the two halves of the channels: 2C in, C out (Goodfellow et al., 2013)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(*x.chunk(2, dim=1))


# In place where a layer's output is all it needs for its backward pass: one tensor less to write and keep.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.1, inplace=True),
    "elu": lambda: nn.ELU(inplace=True),
    "gelu": nn.GELU,
    "quick_gelu": QuickGELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "maxout": Maxout,
}

# 1 / √E[f(z)²] for a standard normal z: with it, unit variance in front of one activation is unit variance in front of
# the next. √2 for ReLU is He et al.'s (2015); the others follow by integration (maxout: the larger of two normals).
GAINS: dict[str, float] = {
    "relu": math.sqrt(2),
    "leaky_relu": math.sqrt(2 / 1.01),
    "elu": 1.2452,
    "gelu": 1.5335,
    "quick_gelu": 1.5395,
    "tanh": 1.5925,
    "sigmoid": 1.8462,
    "softplus": 1.0419,
    "maxout": 1.0,
}


def channel_multiplier(activation: Activation | None) -> int:
    """Return how many input channels an activation needs for each output channel: 2 for maxout, else 1."""
    return 2 if activation == "maxout" else 1


@dataclass(frozen=True)
class Normalization:
    """The norms of a model, as its settings `norm`, `norm_momentum`, `norm_eps` and `norm_groups` ask for them.

    batch: each channel over all images (Ioffe & Szegedy, 2015), in evaluation by running means, in which the newest
    batch has weight `momentum` (0.1 if not given). group: each image by itself, over groups of channels (Wu & He,
    2018): `groups` (32) or the next smaller number that makes equal groups of two channels or more. layer: each image,
    over all its channels (Ba et al., 2016). `eps` (1e-5) is added to the variance. Raises ValueError for a setting that
    the norm does not read.
    """

    kind: Norm = "batch"
    momentum: float | None = None
    eps: float | None = None
    groups: int | None = None

    def __post_init__(self):
        readers = {"momentum": ["batch"], "groups": ["group"], "eps": ["batch", "group", "layer"]}
        for name, kinds in readers.items():
            value = getattr(self, name)
            if value is not None and self.kind not in kinds:
                readers_text = " or ".join(kinds)
                raise ValueError(f"norm_{name}={value}: only norm={readers_text} reads it, here it is {self.kind}")

    def layers_2d(self, channels: int) -> list[nn.Module]:
        """Return the norm of feature maps (N, channels, H, W): a list of one layer, or none."""
        return self._layers(nn.BatchNorm2d, channels)

    def layers_1d(self, width: int) -> list[nn.Module]:
        """Return the norm of features (N, width): a list of one layer, or none."""
        return self._layers(nn.BatchNorm1d, width)

    def _layers(self, batch_norm: type[nn.BatchNorm1d | nn.BatchNorm2d], channels: int) -> list[nn.Module]:
        eps = 1e-5 if self.eps is None else self.eps
        if self.kind == "none":
            return []
        if self.kind == "batch":
            return [batch_norm(channels, eps, 0.1 if self.momentum is None else self.momentum)]
        limit = 1 if self.kind == "layer" else min(self.groups or 32, channels // 2)
        groups = next((count for count in range(limit, 1, -1) if channels % count == 0), 1)
        return [nn.GroupNorm(groups, channels, eps)]


BATCH_NORM = Normalization()
NO_NORM = Normalization("none")


def convolution(
    channels: int,
    width: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int | None = None,
    bias: bool | None = None,
    norm: Normalization = BATCH_NORM,
    activation: Activation | None = None,
) -> list[nn.Module]:
    """List convolution, norm and activation that turn `channels` into `width`.

    If not given, the padding keeps the size, and there is a bias where there is no norm, whose own replaces it.
    """
    out_channels = width * channel_multiplier(activation)
    padding = kernel // 2 if padding is None else padding
    bias = norm.kind == "none" if bias is None else bias
    layers: list[nn.Module] = [nn.Conv2d(channels, out_channels, kernel, stride, padding, bias=bias)]
    layers += norm.layers_2d(out_channels)
    if activation:
        layers.append(ACTIVATIONS[activation]())
    return layers


def fully_connected(
    features: int,
    hidden: list[int],
    num_classes: int,
    *,
    activation: Activation = "relu",
    norm: Normalization = NO_NORM,
    dropout: float = 0.0,
    drop_connect: float = 0.0,
) -> nn.Sequential:
    """Stack hidden layers and the output layer; dropout after each hidden one, DropConnect in each.

    With none hidden, dropout is on the features, DropConnect in the output layer.
    """
    dropouts = [nn.Dropout(dropout)] if dropout else []
    connected = partial(DropConnect, rate=drop_connect) if drop_connect else nn.Linear
    layers: list[nn.Module] = [] if hidden else [*dropouts]
    for width in hidden:
        out_features = width * channel_multiplier(activation)
        linear = connected(features, out_features)
        layers += [linear, *norm.layers_1d(out_features), ACTIVATIONS[activation](), *dropouts]
        features = width
    return nn.Sequential(*layers, (nn.Linear if hidden else connected)(features, num_classes))


class DropConnect(nn.Linear):
    """A fully connected layer that drops connections, single weights and biases, while training (Wan et al., 2013).

    What is kept is divided by the keep rate, so that the expectation is the plain layer, which evaluation computes. One
    mask serves the whole batch. The paper draws one for each image, which regularizes more, but needs a weight matrix
    for each: one matrix product becomes N matrices of random numbers and N products with a vector, for 128 images of
    32 px into 512 units 200 million draws a step. Its test, a Gaussian of each unit's input, is replaced by the mean.

    Not what EfficientNet's code and its descendants call drop_connect: there a residual branch is left out for an
    image, and no weight is touched. That is stochastic depth (StochasticDepth below).
    """

    def __init__(self, features: int, width: int, rate: float):
        super().__init__(features, width)
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        weight = nn.functional.dropout(self.weight, self.rate, self.training)
        bias = nn.functional.dropout(self.bias, self.rate, self.training)
        return nn.functional.linear(x, weight, bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rate={self.rate:.3g}"


def adaptive_pool(size: tuple[int, int], limit: int) -> tuple[nn.Module, tuple[int, int]]:
    """Return average pooling of a map (H, W) to at most limit x limit, and the size of its output."""
    output_size = (min(size[0], limit), min(size[1], limit))
    return (nn.Identity() if output_size == size else nn.AdaptiveAvgPool2d(output_size)), output_size


def initialize(
    model: nn.Module,
    initialization: Initialization,
    activation: Activation,
    init_std: float | None,
    output: nn.Module,
) -> None:
    """Draw every weight from a normal law of the named deviation; biases become 0, norms 1 and 0.

    kaiming: gain/√fan_in (He et al., 2015), xavier: √(2/(fan_in + fan_out)) (Glorot & Bengio, 2010), lecun: 1/√fan_in,
    normal: init_std, 0.01 if not given. The first three give the `output` layer a tenth of that: its logits then start
    near 0 and the loss near log(num_classes), the first thing to check in a training run.
    """
    if init_std is not None and initialization != "normal":
        raise ValueError(f"init_std={init_std}: only initialization=normal reads it, here it is {initialization}")
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            fan_in, fan_out = module.weight[0].numel(), module.weight[:, 0].numel()
            deviation = {
                "kaiming": GAINS[activation] / math.sqrt(fan_in),
                "xavier": math.sqrt(2 / (fan_in + fan_out)),
                "lecun": 1 / math.sqrt(fan_in),
                "normal": 0.01 if init_std is None else init_std,
            }[initialization]
            small = module is output and initialization != "normal"
            nn.init.normal_(module.weight, std=0.1 * deviation if small else deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm):
            module.reset_parameters()


@torch.no_grad()
def limit_norms(parameters: Iterable[Tensor], max_norm: float) -> None:
    """Scale the weights into a unit down, in place, where their L2 norm is above max_norm (Srivastava et al., 2014).

    A unit is a row of a fully connected or recurrent layer's matrix, or an output channel of a convolution. Biases and
    norms (one dimension) stay as they are. To be called after an optimizer step; the host waits for nothing.
    """
    for parameter in parameters:
        if parameter.ndim > 1:
            parameter.renorm_(2, 0, max_norm)


class StochasticDepth(nn.Module):
    """Drop a residual branch at random while training (Huang et al., 2016).

    "batch": one draw for the whole batch; a dropped branch is not computed at all, which saves its time. "sample": one
    draw for each image; everything is computed and the dropped images' branch multiplied by 0. The paper scales the
    branch by its survival rate when testing; here a surviving branch is divided by that rate while training, the same
    in expectation, so that evaluation is the plain network.
    """

    def __init__(self, rate: float, mode: Literal["batch", "sample"] = "batch"):
        super().__init__()
        self.rate = rate
        self.mode = mode

    def forward(self, branch: nn.Module, x: Tensor, shortcut: Tensor) -> Tensor:
        """Return shortcut + branch(x) or what is left of it, a new tensor; overwrites what the branch returns."""
        if not self.training or self.rate == 0:
            return branch(x).add_(shortcut)
        survival = 1 - self.rate
        if self.mode == "batch" and not torch.compiler.is_compiling():
            # Drawn on the host, so that the decision does not wait for the device.
            if float(torch.rand((), device="cpu")) < self.rate:
                return _Skip.apply(shortcut, *branch.parameters())
            return branch(x).mul_(1 / survival).add_(shortcut)
        # A compiled graph cannot branch without compiling again: its "batch" mode multiplies, and saves no time.
        draws = torch.rand(len(x) if self.mode == "sample" else 1, 1, 1, 1, device=x.device)
        return branch(x).mul_((draws >= self.rate) / survival).add_(shortcut)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3g}, mode={self.mode}"


class _Skip(torch.autograd.Function):
    """Copy x, and give the parameters of a branch that was not computed the gradient they have: 0.

    With none at all, their momentum and decay would stop for the step, fused optimizers refuse a group of which only a
    part has momentum yet, and data-parallel processes would wait for a gradient that never comes.
    """

    @staticmethod
    def forward(ctx, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(*parameters)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, ...]:
        return gradient, *map(torch.zeros_like, ctx.saved_tensors)


def drop_rates(last: float, blocks: int) -> list[float]:
    """Let the rate grow linearly with depth, from last/blocks in the first block to `last` (Huang et al., 2016)."""
    return [last * block / blocks for block in range(1, blocks + 1)]

"""Parts of models: activations, norms, convolution and fully connected layers, initial weights, stochastic depth."""

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

MIN_LARGE_SIDE = 96  # pixels: models use their ImageNet layout from this short side on


class QuickGELU(nn.Module):
    """Compute x·sigmoid(1.702x), an approximation of GELU (Hendrycks & Gimpel, 2016)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Maxout(nn.Module):
    """Return the larger of two affine maps, the two halves of the channels: 2C in, C out (Goodfellow et al., 2013)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.maximum(*x.chunk(2, dim=1))


# In place where the backward pass needs the output only: this saves one tensor.
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

# 1 / √E[f(z)²] for a standard normal z. This gain keeps unit variance from one preactivation to the next. √2 for ReLU
# is He et al.'s (2015). The others follow by integration (maxout: the larger of two normals).
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
    """The norms of a model, from its settings `norm`, `norm_momentum`, `norm_eps` and `norm_groups`.

    batch: each channel over all images (Ioffe & Szegedy, 2015). Evaluation uses running means; the newest batch has
    weight `momentum` in them (0.1 if not given).
    group: each image by itself, over groups of channels (Wu & He, 2018). There are `groups` (32) groups, or the next
    smaller number of equal groups with two channels or more.
    layer: each image by itself, over all its channels (Ba et al., 2016).

    `eps` (1e-5) is added to the variance. Raises ValueError for a setting that the norm does not read.
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
        """Return the norm of feature maps (N, channels, H, W): a list of one layer, or an empty one."""
        return self._layers(nn.BatchNorm2d, channels)

    def layers_1d(self, width: int) -> list[nn.Module]:
        """Return the norm of features (N, width): a list of one layer, or an empty one."""
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

    Defaults: a padding that keeps the size, and a bias where there is no norm (a norm has its own).
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
    """Stack hidden layers and the output layer. Each hidden layer has DropConnect and is followed by dropout.

    Without hidden layers, dropout is on the features and DropConnect in the output layer.
    """
    dropouts = [nn.Dropout(dropout)] if dropout else []
    make_linear = partial(DropConnect, rate=drop_connect) if drop_connect else nn.Linear
    layers: list[nn.Module] = [] if hidden else [*dropouts]
    for width in hidden:
        out_features = width * channel_multiplier(activation)
        linear = make_linear(features, out_features)
        layers += [linear, *norm.layers_1d(out_features), ACTIVATIONS[activation](), *dropouts]
        features = width
    return nn.Sequential(*layers, (nn.Linear if hidden else make_linear)(features, num_classes))


class DropConnect(nn.Linear):
    """A fully connected layer that drops single weights and biases during training (Wan et al., 2013).

    The other weights are divided by the keep rate, so the expectation is nn.Linear, which evaluation computes. One mask
    serves the batch. The paper samples one mask per image. That regularizes more, but one matrix product becomes N
    random matrices and N products with a vector: for 128 images of 32 px into 512 units, 200 million draws a step. The
    paper's test samples a Gaussian of each unit's input; here the mean replaces it.

    EfficientNet's code uses the name drop_connect for stochastic depth (StochasticDepth below). That drops a residual
    branch of an image, and no weight.
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
    """Return average pooling of a map (H, W) to at most limit x limit, and its output size."""
    output_size = (min(size[0], limit), min(size[1], limit))
    return (nn.Identity() if output_size == size else nn.AdaptiveAvgPool2d(output_size)), output_size


def initialize(
    model: nn.Module,
    initialization: Initialization,
    activation: Activation,
    init_std: float | None,
    output: nn.Module,
) -> None:
    """Sample every weight from a normal distribution with the named deviation. Biases become 0, norms 1 and 0.

    kaiming: gain/√fan_in (He et al., 2015). xavier: √(2/(fan_in + fan_out)) (Glorot & Bengio, 2010). lecun: 1/√fan_in.
    normal: init_std, 0.01 if not given. The first three give the `output` layer a tenth of it. Its logits then start
    near 0 and the loss near log(num_classes): check this first in a training run.
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
            scale_down = module is output and initialization != "normal"
            nn.init.normal_(module.weight, std=0.1 * deviation if scale_down else deviation)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm):
            module.reset_parameters()


@torch.no_grad()
def limit_norms(parameters: Iterable[Tensor], max_norm: float) -> None:
    """Scale down, in place, the weights into each unit whose L2 norm is above max_norm (Srivastava et al., 2014).

    A unit is a row of a fully connected or recurrent matrix, or an output channel of a convolution. Biases and norms
    (one dimension) are not changed. Call it after an optimizer step. The host waits for nothing.
    """
    for parameter in parameters:
        if parameter.ndim > 1:
            parameter.renorm_(2, 0, max_norm)


class StochasticDepth(nn.Module):
    """Drop a residual branch at random during training (Huang et al., 2016).

    "batch": one draw for the batch. A dropped branch is not computed, which saves its time.
    "sample": one draw per image. The branch is computed for all images, and multiplied by 0 for the dropped ones.

    The paper scales the branch by its survival rate at test time. Here training divides a surviving branch by that
    rate, which has the same expectation. Evaluation is the network without drops.
    """

    def __init__(self, rate: float, mode: Literal["batch", "sample"] = "batch"):
        super().__init__()
        self.rate = rate
        self.mode = mode

    def forward(self, branch: nn.Module, x: Tensor, shortcut: Tensor) -> Tensor:
        """Return shortcut + branch(x), with drops in training: a new tensor. Overwrites the branch's output."""
        if not self.training or self.rate == 0:
            return branch(x).add_(shortcut)
        survival = 1 - self.rate
        if self.mode == "batch" and not torch.compiler.is_compiling():
            # The draw is on the host, so the decision does not wait for the device.
            if float(torch.rand((), device="cpu")) < self.rate:
                return _Skip.apply(shortcut, *branch.parameters())
            return branch(x).mul_(1 / survival).add_(shortcut)
        # A compiled graph would have to recompile for a branch. Its "batch" mode multiplies, and saves no time.
        uniform = torch.rand(len(x) if self.mode == "sample" else 1, 1, 1, 1, device=x.device)
        return branch(x).mul_((uniform >= self.rate) / survival).add_(shortcut)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3g}, mode={self.mode}"


class _Skip(torch.autograd.Function):
    """Copy x, and give the parameters of the skipped branch their true gradient, 0.

    Three things would fail without any gradient. Momentum and decay would stop for the step. Fused optimizers refuse a
    group in which only some parameters have momentum. Data-parallel processes would wait for the gradient forever.
    """

    @staticmethod
    def forward(ctx, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(*parameters)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, ...]:
        return gradient, *map(torch.zeros_like, ctx.saved_tensors)


def drop_rates(last: float, blocks: int) -> list[float]:
    """Return rates that grow linearly with depth, from last/blocks to `last` (Huang et al., 2016)."""
    return [last * block / blocks for block in range(1, blocks + 1)]

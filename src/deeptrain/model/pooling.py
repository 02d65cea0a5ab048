"""Pooling between convolutions: max, average or fractional; and networks that average over fractional draws."""

import math
import random
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from deeptrain.schema import Range

Pool = Literal["max", "average", "fractional"]
Ratio = Annotated[float, Range(above=1, maximum=2)]


@dataclass(frozen=True)
class Pooling:
    """The pools of a model, from its settings `pool`, `pool_ratio` and `test_samples`.

    max and average halve each side. fractional divides it by `ratio` (√2 if not given) with random windows; evaluation
    uses `test_samples` fixed draws. Raises ValueError for a setting that the pool does not read.
    """

    kind: Pool = "max"
    ratio: float | None = None
    test_samples: int = 1

    def __post_init__(self):
        for name, value, default in (("pool_ratio", self.ratio, None), ("test_samples", self.test_samples, 1)):
            if value != default and self.kind != "fractional":
                raise ValueError(f"{name}={value}: only pool=fractional reads it, here it is {self.kind}")

    def layer(self, window: int, padding: int = 0, *, index: int) -> nn.Module:
        """Make a pool; `index` is its position in the model. Fractional pools have a 2x2 window and no padding."""
        if self.kind == "fractional":
            return FractionalMaxPool(self.ratio or math.sqrt(2), self.test_samples, index)
        if self.kind == "average":
            return nn.AvgPool2d(window, stride=2, padding=padding, count_include_pad=False)
        return nn.MaxPool2d(window, stride=2, padding=padding)

    def output_size(self, side: int, window: int, padding: int = 0) -> int:
        """Return the length of a side after the pool, in pixels."""
        if self.kind == "fractional":
            return int(side / (self.ratio or math.sqrt(2)))
        return (side + 2 * padding - window) // 2 + 1


class FractionalMaxPool(nn.Module):
    """Divide sides of maps by a ratio in (1, 2], with maxima over 2x2 windows at random positions (Graham, 2014).

    (N, C, H, W) -> (N, C, int(H / ratio), int(W / ratio)); sides of 2 pixels or more. This is the paper's overlapping,
    pseudorandom form. The windows step by 1 or 2; one number in (0, 1) per axis decides, as in
    torch.nn.FractionalMaxPool2d. There every channel has its own numbers. Here the channels of an image share them and
    stay aligned, as in the paper. Training samples numbers per image. Evaluation uses draw number `draw` of
    `test_samples` fixed ones for all images. On channels_last maps it takes a quarter of the time of torch's on a CPU.
    """

    def __init__(self, ratio: float, test_samples: int = 1, index: int = 0):
        super().__init__()
        self.ratio = ratio
        generator = random.Random(index)  # each pool of a model has its own numbers, the same in every run
        self.fixed = [(generator.random(), generator.random()) for _ in range(test_samples)]

    def forward(self, x: Tensor, draw: int = 0) -> Tensor:
        if self.training:
            down, right = torch.rand(2, len(x), 1, device=x.device)
        else:
            down, right = (torch.full((1, 1), number, device=x.device) for number in self.fixed[draw])
        windows = max_pool2d(x, 2, stride=1)  # all windows, (N, C, H-1, W-1); the index below selects rows and columns
        count, channels, height, width = windows.shape
        rows = window_starts(int(x.shape[2] / self.ratio), height, down)
        columns = window_starts(int(x.shape[3] / self.ratio), width, right)
        batch = torch.arange(count, device=x.device).view(-1, 1, 1)
        index = (batch * height + rows[:, :, None]) * width + columns[:, None, :]  # (N, rows, columns)
        pooled = windows.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, index.flatten())
        return pooled.view(*index.shape, channels).permute(0, 3, 1, 2)

    def extra_repr(self) -> str:
        return f"ratio={self.ratio:.3g}, test_samples={len(self.fixed)}"


def window_starts(count: int, available: int, number: Tensor) -> Tensor:
    """Return `count` window starts in 0 ... available - 1 for each number (N, 1), with the first and the last one."""
    step = (available - 1) / max(count - 1, 1)
    starts = ((torch.arange(count, device=number.device) + number) * step).floor() - (number * step).floor()
    starts[:, -1] = available - 1
    return starts.long()


class Features(nn.Sequential):
    """Convolutions and pools. `draw` is the number of the fixed draw for fractional pools in evaluation."""

    def forward(self, images: Tensor, draw: int = 0) -> Tensor:
        for layer in self:
            images = layer(images, draw) if isinstance(layer, FractionalMaxPool) else layer(images)
        return images


class MultiDrawClassifier(nn.Module):
    """Features, then fully connected layers.

    Evaluation runs the network `test_samples` times, with different windows of the fractional pools. It returns the
    logarithm of the mean probability of each class.
    """

    features: Features
    classifier: nn.Sequential
    test_samples: int = 1

    def forward(self, images: Tensor) -> Tensor:
        samples = 1 if self.training else self.test_samples
        logits = [self.classifier(self.features(images, draw).flatten(1)) for draw in range(samples)]
        if samples == 1:
            return logits[0]
        return torch.stack(logits).log_softmax(-1).logsumexp(0) - math.log(samples)

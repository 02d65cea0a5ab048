"""Shared parts of residual networks: stem, stages of blocks, and the forward pass."""

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn

from deeptrain.model.layers import MIN_LARGE_SIDE, StochasticDepth, convolution, drop_rates

Stem = Literal["auto", "small", "large", "pool", "patch"]
DropMode = Literal["batch", "sample"]  # of stochastic depth

CIFAR_BLOCKS = {depth: [(depth - 2) // 6] * 3 for depth in (20, 32, 44, 56, 110)}  # blocks in each stage
IMAGENET_BLOCKS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}
CIFAR_WIDTHS = [16, 32, 64]
IMAGENET_WIDTHS = [64, 128, 256, 512]
MIN_POOL_SIDE = 48  # pixels: the stem pools from this short side on, so that the first stage sees 24 to 47
QUICK_BLOCKS = [1, 1, 1]  # depth=auto on small images: three wide blocks at half the resolution
QUICK_WIDTHS = [32, 64, 128]


class ResidualNetwork(nn.Module):
    """A stem, stages of residual blocks, the mean of each map, and a fully connected layer.

    (N, C, H, W) -> logits (N, num_classes). The last stage has `channels` outputs. `stem_kind` is for the reader.
    """

    def __init__(
        self, stem: list[nn.Module], stages: list[nn.Module], channels: int, num_classes: int, *, stem_kind: Stem
    ):
        super().__init__()
        self.stem_kind = stem_kind
        self.stem = nn.Sequential(*stem)
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stages(self.stem(images))  # (N, C, H, W)
        return self.classifier(features.mean((2, 3)))


def is_large(input_shape: tuple[int, int, int]) -> bool:
    """Return True if the short side is long enough for the ImageNet layout."""
    return min(input_shape[1:]) >= MIN_LARGE_SIDE


def resolve_stem(input_shape: tuple[int, int, int], stem: Stem | None, quick: bool) -> Stem:
    """Return the stem itself, or for None and "auto" the one that the short side asks for.

    None: "small", from 48 px on "pool", from 96 px on "large". auto, as in 0.3.0, is "small" up to 96 px. A quick
    network has "pool" in place of "small".
    """
    if stem not in (None, "auto"):
        return stem
    if is_large(input_shape):
        return "large"
    return "pool" if quick or (stem is None and min(input_shape[1:]) >= MIN_POOL_SIDE) else "small"


def make_stem(
    input_shape: tuple[int, int, int], width: int, stem: Stem, patch_size: int | None, **settings: Any
) -> list[nn.Module]:
    """List the layers in front of the first stage. `settings` go to `convolution`.

    Raises ValueError for a patch size that does not divide the image.
    """
    channels, rows, columns = input_shape
    if patch_size is not None and stem != "patch":
        raise ValueError(f"patch_size={patch_size}: only stem=patch reads it, here it is {stem}")
    if stem == "patch":
        side = patch_size or 2
        if rows % side or columns % side:
            divisors = [size for size in range(1, min(rows, columns) + 1) if not (rows % size or columns % size)]
            choices = ", ".join(map(str, divisors))
            raise ValueError(f"patch_size={side}: must divide the image, {rows} x {columns}: choose from {choices}")
        return convolution(channels, width, side, stride=side, padding=0, **settings)
    if stem == "large":
        return [*convolution(channels, width, 7, stride=2, **settings), nn.MaxPool2d(3, stride=2, padding=1)]
    return pool_early(convolution(channels, width, 3, **settings), [nn.MaxPool2d(2)] if stem == "pool" else [])


def pool_early(layers: list[nn.Module], pool: list[nn.Module]) -> list[nn.Module]:
    """Insert a pool, if any, after the convolution: norm and activation then work on a quarter of the pixels."""
    return [layers[0], *pool, *layers[1:]]


def make_stages(
    block: Callable[[int, int, int, StochasticDepth], Any],
    channels: int,
    blocks: list[int],
    widths: list[int],
    stochastic_depth: float,
    mode: DropMode,
) -> tuple[list[nn.Module], int]:
    """Make the stages from block(channels, width, stride, drop); return them with their number of output channels.

    Every stage but the first halves the map in its first block.
    """
    rates = iter(drop_rates(stochastic_depth, sum(blocks)))
    stages: list[nn.Module] = []
    for count, width in zip(blocks, widths, strict=True):
        stage, stride = nn.Sequential(), 2 if stages else 1
        for _ in range(count):
            module = block(channels, width, stride, StochasticDepth(next(rates), mode))
            stage.append(module)
            channels, stride = module.channels, 1
        stages.append(stage)
    return stages, channels


def resolve_layout(
    depth: int | Literal["auto"],
    input_shape: tuple[int, int, int],
    small: dict[int, list[int]],
    large: dict[int, list[int]],
    blocks: list[int] | None,
    widths: list[int] | None,
) -> tuple[int | Literal["auto"], list[int], list[int]]:
    """Return the depth, and the blocks and widths of its stages; given blocks and widths replace the depth's own.

    auto becomes 18 on large images. On small images it stays auto, the quick network. `small` and `large` map the
    depths for CIFAR and ImageNet to their blocks. Raises ValueError if blocks and widths differ in length.
    """
    if depth == "auto":
        depth = 18 if is_large(input_shape) else "auto"
    own_blocks = QUICK_BLOCKS if depth == "auto" else {**small, **large}[depth]
    own_widths = QUICK_WIDTHS if depth == "auto" else CIFAR_WIDTHS if depth in small else IMAGENET_WIDTHS
    if blocks == [] or (blocks and len(blocks) != len(widths or own_widths)):
        raise ValueError(f"blocks={blocks}: must have one number for each of widths={widths or own_widths}")
    if widths == [] or (widths and len(widths) != len(blocks or own_blocks)):
        raise ValueError(f"widths={widths}: must have one number for each of blocks={blocks or own_blocks}")
    return depth, blocks or own_blocks, widths or own_widths

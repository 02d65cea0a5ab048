"""The fourteen operations of RandAugment on batches: every image has its own operation and magnitude.

Each equals torchvision's on one uint8 image bit for bit, with nearest sampling and black fill. Images of one operation
are sorted next to each other, so a few calls do all of them. The operations are sampled on the host, so nothing waits
for the device. Below the class, images are pixel rows of bytes, (M, H, W·C).
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from deeptrain.aug.pixel_rows import pixel_rows, select, tile_channels, to_dtype
from deeptrain.aug.random_grayscale import LUMA_WEIGHTS
from deeptrain.runtime.upload import upload

GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
ENHANCE = ("Brightness", "Color", "Contrast", "Sharpness")
OPERATION_NAMES = ("Identity", *GEOMETRIC, *ENHANCE, "Posterize", "Solarize", "AutoContrast", "Equalize")
SIGNED_NAMES = GEOMETRIC + ENHANCE  # either direction
WITHOUT_MAGNITUDE = ("Identity", "AutoContrast", "Equalize")


def magnitude_table(
    bins: int, *, shear: float, translate: tuple[float, float], rotate: float, blend: float, posterize: int
) -> dict[str, list[float]]:
    """List each operation's magnitudes in equal steps from no change to the largest, as torchvision does.

    shear: slope. translate: pixels along x and y. rotate: degrees. blend: added to a factor of 1. posterize: largest
    number of the 8 bits to drop. Solarize has a threshold that falls from 255 to 0.
    """
    largest = {"ShearX": shear, "ShearY": shear, "TranslateX": translate[0], "TranslateY": translate[1]}
    largest |= {"Rotate": rotate} | dict.fromkeys(ENHANCE, blend)
    dropped_bits = (torch.arange(bins) / ((bins - 1) / posterize)).round()
    table = {name: torch.linspace(0, top, bins).tolist() for name, top in largest.items()}
    return table | {"Posterize": (8 - dropped_bits).tolist(), "Solarize": torch.linspace(255, 0, bins).tolist()}


class Operations:
    """All operations at their possible magnitudes, on images of one shape (C, H, W).

    A choice is an operation at one magnitude with one sign. sample() samples choices; a call applies them.
    """

    def __init__(self, input_shape: tuple[int, int, int], magnitudes: Mapping[str, Sequence[float]]):
        channels, height, width = input_shape
        self.choices = [
            (name, sign * magnitude)
            for name in OPERATION_NAMES
            for sign in ((1, -1) if name in SIGNED_NAMES else (1,))
            for magnitude in magnitudes.get(name, [0.0])
        ]
        operations = [OPERATION_NAMES.index(name) for name, _ in self.choices]
        # The choices of operation i are edges[i] to edges[i + 1] - 1.
        self.edges = np.searchsorted(operations, np.arange(len(OPERATION_NAMES) + 1))
        without_effect = {"Color"} if channels == 1 else set()
        without_effect |= {"Sharpness"} if min(height, width) <= 2 else set()  # no pixel has eight neighbours
        self.magnitudes = np.array([0 if name in without_effect else m for name, m in self.choices], np.float32)
        moves = [(name, m) for name, m in self.choices if name in GEOMETRIC]
        self.sources = torch.stack([source_pixels(name, m, height, width) for name, m in moves])  # (moves, H·W)

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Sample an operation for each image, uniformly, and then one of its choices: (count,)."""
        operation = rng.integers(len(OPERATION_NAMES), size=count)
        first, last = self.edges[operation], self.edges[operation + 1]
        return first + ((last - first) * rng.random(count)).astype(np.int64)

    def describe(self, choice: int) -> str:
        """Return the text of a choice, such as "ShearX -0.09"."""
        name, magnitude = self.choices[choice]
        magnitude = int(magnitude) if name.startswith("Translate") else round(magnitude, 2)
        return name if name in WITHOUT_MAGNITUDE else f"{name} {magnitude:g}"

    def __call__(self, images: Tensor, *rounds: np.ndarray) -> Tensor:
        """Apply each round's choices (N,), one per image; return new images (N, C, H, W), uint8 channels_last.

        Float images are rounded to bytes first: some operations are defined on bytes only.
        """
        if images.is_floating_point():
            images = to_dtype(images.round().clamp_(0, 255), torch.uint8)
        position = np.arange(len(images))  # of each image in the sorted batch
        for choices in rounds:
            order = np.argsort(choices, kind="stable")
            images = select(images, position[order])
            self._apply(pixel_rows(images), choices[order], images.shape[1])
            position[order] = np.arange(len(order))
        return select(images, position)

    def _apply(self, batch: Tensor, choices: np.ndarray, channels: int) -> None:
        """Apply sorted choices (M,) to pixel rows in place."""
        starts = dict(zip((*OPERATION_NAMES, "end"), np.searchsorted(choices, self.edges).tolist(), strict=True))
        magnitude = upload(self.magnitudes[choices], batch.device)[:, None, None]
        geometric = slice(starts["ShearX"], starts["Brightness"])
        if geometric.start < geometric.stop:
            self.sources = upload(self.sources, batch.device)
            source_index = upload(choices[geometric] - self.edges[OPERATION_NAMES.index("ShearX")], batch.device)
            sources = self.sources.index_select(0, source_index)
            batch[geometric] = move_pixels(batch[geometric], sources, channels)
        enhanced = slice(starts["Brightness"], starts["Posterize"])
        if enhanced.start < enhanced.stop:
            others = [starts[name] - enhanced.start for name in ("Color", "Contrast", "Sharpness")]
            batch[enhanced] = enhance(batch[enhanced], magnitude[enhanced], channels, *others)
        for name, next_name in pairwise(("Posterize", "Solarize", "AutoContrast", "Equalize", "end")):
            part = slice(starts[name], starts[next_name])
            if part.start < part.stop:
                batch[part] = TONE[name](batch[part], magnitude[part], channels)


def source_pixels(name: str, magnitude: float, height: int, width: int) -> Tensor:
    """Return the source pixel of each pixel of a moved image: int32 (H·W,), counted from 1; 0 is outside.

    torch's own sampler moves an image of pixel numbers, in torchvision's steps. A position halfway between two pixels
    is therefore rounded to the same one.
    """
    angle, pixels = math.radians(magnitude), int(magnitude)
    x, y = {  # coordinates relative to the image's centre
        "ShearX": ((1, magnitude, magnitude * height / 2), (0, 1, 0)),
        "ShearY": ((1, 0, 0), (magnitude, 1, magnitude * width / 2)),
        "TranslateX": ((1, 0, -pixels), (0, 1, 0)),
        "TranslateY": ((1, 0, 0), (0, 1, -pixels)),
        "Rotate": ((math.cos(angle), -math.sin(angle), 0), (math.sin(angle), math.cos(angle), 0)),
    }[name]
    down, across = (torch.arange(extent) - (extent - 1) / 2 for extent in (height, width))
    points = torch.stack([across.repeat(height), down.repeat_interleave(width), torch.ones(height * width)], dim=1)
    grid = points[None].bmm((torch.tensor([x, y]).T / torch.tensor([width / 2, height / 2]))[None])
    numbers = torch.arange(1.0, height * width + 1).view(1, 1, height, width)
    sources = grid_sample(numbers, grid.view(1, height, width, 2), mode="nearest", align_corners=False)
    return sources.view(-1).to(torch.int32)


def move_pixels(images: Tensor, sources: Tensor, channels: int) -> Tensor:
    """Copy each pixel from its source (M, H·W). A black pixel in front of each image stands for the outside."""
    count, size = sources.shape
    pixels = images.new_zeros(count * (size + 1) + 1, channels)  # the last one is for gather_pixels
    pixels[:-1].view(count, size + 1, channels)[:, 1:] = images.view(count, size, channels)
    first = torch.arange(0, len(pixels) - 1, size + 1, dtype=torch.int32, device=images.device)
    return gather_pixels(pixels, (sources + first[:, None]).view(-1)).view_as(images)


def gather_pixels(pixels: Tensor, index: Tensor) -> Tensor:
    """Return the byte pixels (P, C) at an index (any but the last one), as index_select does.

    On the host, colours are copied as words of four bytes, in half the time. The fourth byte belongs to the next pixel,
    which overwrites it.
    """
    if pixels.device.type != "cpu" or pixels.shape[1] != 3:
        return pixels.index_select(0, index)
    words = torch.from_numpy(np.ascontiguousarray(_words(pixels)))
    result = torch.empty(len(index) + 1, 3, dtype=torch.uint8)
    _words(result)[:] = words.index_select(0, index).numpy()
    return result[:-1]


def _words(pixels: Tensor) -> np.ndarray:
    """View all pixels (P, 3) but the last as words of four bytes. Each word starts with a pixel."""
    return np.ndarray((len(pixels) - 1,), np.int32, buffer=pixels.numpy(), strides=(3,))


def enhance(images: Tensor, magnitude: Tensor, channels: int, color: int, contrast: int, sharpness: int) -> Tensor:
    """Blend images with a degenerate version of themselves: (1 + magnitude) · image - magnitude · degenerate.

    The three integers are the first images of the operations. The degenerate image is black for Brightness (the first
    ones) and grey for Color. It is the mean grey for Contrast, and blurred for Sharpness.
    """
    result = images.to(torch.float32)
    degenerate = torch.empty_like(result[color:])
    grey, mean, smooth = degenerate.tensor_split((contrast - color, sharpness - color))
    levels = _gray_levels(result[color:sharpness], channels)
    for channel in grey.view(*levels[: len(grey)].shape, channels).unbind(3):
        channel.copy_(levels[: len(grey)])
    mean.copy_(_mean(levels[len(grey) :]))
    _blur(result[sharpness:], channels, out=smooth)
    result.mul_(1 + magnitude)
    result[color:] -= degenerate.mul_(magnitude[color:])
    return result.to(torch.int16).clamp_(0, 255)


def _gray_levels(images: Tensor, channels: int) -> Tensor:
    """Return the brightness of pixels, rounded down to integers: float32 (M, H, W)."""
    count, height, length = images.shape
    if channels == 1:
        return images
    weighted = (images * tile_channels(LUMA_WEIGHTS, length // channels, images.dtype, images.device)).view(-1)
    sums = weighted[:-2] + weighted[1:-1]
    sums += weighted[2:]  # a third of the sums belong to pixels; to select them first would take longer
    return sums[::3].floor().view(count, height, length // channels)


def _mean(images: Tensor) -> Tensor:
    """Return each image's mean (M, 1, 1), rounded the same on every device.

    The divisor is a tensor: a GPU would multiply by the reciprocal of a Python number.
    """
    total = images.sum((1, 2), keepdim=True)
    return total.div_(total.new_full((), images.shape[1] * images.shape[2]))


def _blur(images: Tensor, channels: int, out: Tensor) -> None:
    """Write to `out` the mean of each pixel (weight 5) and its eight neighbours (weight 1). The border stays."""
    one, two = channels, 2 * channels  # pixels
    columns = images[:, :-2] + images[:, 1:-1]
    columns += images[:, 2:]
    sums = columns[:, :, :-two] + columns[:, :, one:-one]
    sums += columns[:, :, two:]
    sums.add_(images[:, 1:-1, one:-one], alpha=4)
    out.copy_(images)
    out[:, 1:-1, one:-one] = sums.div_(13).round_()


def posterize(images: Tensor, magnitude: Tensor, channels: int) -> Tensor:
    """Keep the highest bits; the magnitude is their number."""
    dropped_bits = (8 - magnitude).to(torch.uint8)
    return (images >> dropped_bits).bitwise_left_shift_(dropped_bits)


def solarize(images: Tensor, magnitude: Tensor, channels: int) -> Tensor:
    """Invert values >= magnitude."""
    threshold = magnitude.ceil().to(torch.uint8)
    below = (threshold - torch.minimum(images, threshold)).clamp_(max=1)  # 1 or 0; a comparison takes 3 times as long
    return below.sub_(1).bitwise_xor_(images)  # 0 - 1 is 255


def auto_contrast(images: Tensor, magnitude: Tensor, channels: int) -> Tensor:
    """Stretch each channel to the full range; a constant channel stays."""
    result = images.to(torch.float32)
    shape = len(images), -1, channels
    low = result.amin(1).view(shape).amin(1)  # (M, C)
    span = result.amax(1).view(shape).amax(1) - low
    is_constant = span == 0
    low.masked_fill_(is_constant, 0)
    scale = 255 / span.masked_fill_(is_constant, 255)
    width = images.shape[2] // channels
    result.sub_(_along_rows(low, width)).mul_(_along_rows(scale, width))
    return result.to(torch.int16).clamp_(0, 255)


def equalize(images: Tensor, magnitude: Tensor, channels: int) -> Tensor:
    """Map each channel by a curve that makes all levels about equally frequent, computed as in Pillow."""
    count, height, length = images.shape
    width = length // channels
    starts = torch.arange(
        0, 256 * count * channels, 256, dtype=torch.int32, device=images.device
    )  # of each channel's histogram
    bin_index = (images + _along_rows(starts.view(count, channels), width)).view(-1)
    histogram = _histogram(bin_index, 256 * count * channels).view(-1, 256)
    darker = (histogram.cumsum(1) - histogram).to(torch.float32)  # number of darker pixels
    up_to_brightest = (height * width - darker).clamp_(max=1)  # 1 up to the brightest value that occurs, then 0
    step = (darker * up_to_brightest).amax(1, keepdim=True).add_(0.5).div_(255).floor_()  # + 0.5: a GPU's reciprocals
    is_constant = step == 0  # almost all pixels have the brightest value: the channel stays
    curves = darker.add_((step / 2).floor_()).div_(step.masked_fill_(is_constant, 1)).floor_()
    curves.lerp_(torch.arange(256.0, device=images.device), is_constant.to(torch.float32))
    return to_dtype(curves.clamp_(0, 255), torch.uint8).view(-1).index_select(0, bin_index).view_as(images)


def _along_rows(values: Tensor, width: int) -> Tensor:
    """Repeat values (M, C) along the rows of their images: (M, 1, W·C)."""
    return values[:, None].expand(-1, width, -1).reshape(len(values), 1, -1)


def _histogram(values: Tensor, bins: int) -> Tensor:
    """Count each number below `bins`. bincount is twice as fast on the CPU, but waits for a GPU."""
    if values.device.type == "cpu":
        return torch.bincount(values, minlength=bins)
    counts = torch.zeros(bins, dtype=torch.int32, device=values.device)
    return counts.scatter_add_(0, values.to(torch.int64), torch.ones_like(values))


TONE = {"Posterize": posterize, "Solarize": solarize, "AutoContrast": auto_contrast, "Equalize": equalize}

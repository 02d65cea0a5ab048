"""The fourteen operations of RandAugment on whole batches: every image has an operation and a magnitude of its own.

Each gives, bit for bit, what torchvision's gives on one uint8 image with nearest sampling and black for what comes in.
Images of one operation are brought side by side, so that a few calls do them all; who gets which is drawn on the host,
so that nothing waits for the device. Below the class, images are lines of bytes, (M, H, W·C).
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
from deeptrain.aug.sampling import to_device

GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
ENHANCE = ("Brightness", "Color", "Contrast", "Sharpness")
OPERATION_NAMES = ("Identity", *GEOMETRIC, *ENHANCE, "Posterize", "Solarize", "AutoContrast", "Equalize")
SIGNED_NAMES = GEOMETRIC + ENHANCE  # they go either way
WITHOUT_MAGNITUDE = ("Identity", "AutoContrast", "Equalize")


def magnitude_table(
    bins: int, *, shear: float, translate: tuple[float, float], rotate: float, blend: float, posterize: int
) -> dict[str, list[float]]:
    """List each operation's magnitudes, from none in even steps to the largest, as torchvision counts them.

    Shears are slopes, translations pixels (along x and y), rotations degrees, blends what is added to a factor of 1;
    `posterize` is how many of the 8 bits are dropped at most, and solarizing starts from ever darker pixels.
    """
    largest = {"ShearX": shear, "ShearY": shear, "TranslateX": translate[0], "TranslateY": translate[1]}
    largest |= {"Rotate": rotate} | dict.fromkeys(ENHANCE, blend)
    dropped = (torch.arange(bins) / ((bins - 1) / posterize)).round()
    listed = {name: torch.linspace(0, top, bins).tolist() for name, top in largest.items()}
    return listed | {"Posterize": (8 - dropped).tolist(), "Solarize": torch.linspace(255, 0, bins).tolist()}


class Operations:
    """All operations at the magnitudes that may be drawn for each, on images of one shape (C, H, W).

    A choice is an operation at one magnitude with one sign; `draw` draws choices, a call applies them.
    """

    def __init__(self, input_shape: tuple[int, int, int], magnitudes: Mapping[str, Sequence[float]]):
        channels, height, width = input_shape
        self.choices = [
            (name, sign * magnitude)
            for name in OPERATION_NAMES
            for sign in ((1, -1) if name in SIGNED_NAMES else (1,))
            for magnitude in magnitudes.get(name, [0.0])
        ]
        kinds = [OPERATION_NAMES.index(name) for name, _ in self.choices]
        self.edges = np.searchsorted(
            kinds, np.arange(len(OPERATION_NAMES) + 1)
        )  # between them lie an operation's choices
        without_effect = {"Color"} if channels == 1 else set()
        without_effect |= {"Sharpness"} if min(height, width) <= 2 else set()  # no pixel has all its neighbours
        self.magnitudes = np.array([0 if name in without_effect else m for name, m in self.choices], np.float32)
        moves = [(name, m) for name, m in self.choices if name in GEOMETRIC]
        self.sources = torch.stack([source_pixels(name, m, height, width) for name, m in moves])  # (moves, H·W)

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw for each of count images an operation, all being as likely, and then one of its choices: (count,)."""
        operation = rng.integers(len(OPERATION_NAMES), size=count)
        first, last = self.edges[operation], self.edges[operation + 1]
        return first + ((last - first) * rng.random(count)).astype(np.int64)

    def describe(self, choice: int) -> str:
        """Word a choice, such as "ShearX -0.09"."""
        name, magnitude = self.choices[choice]
        magnitude = int(magnitude) if name.startswith("Translate") else round(magnitude, 2)
        return name if name in WITHOUT_MAGNITUDE else f"{name} {magnitude:g}"

    def __call__(self, images: Tensor, *rounds: np.ndarray) -> Tensor:
        """Return new images (N, C, H, W), uint8 channels_last, after every round's choices (N,), one for each image.

        Float images are rounded to bytes first: some operations are defined on nothing else.
        """
        if images.is_floating_point():
            images = to_dtype(images.round().clamp_(0, 255), torch.uint8)
        place = np.arange(len(images))  # where each image lies
        for choices in rounds:
            order = np.argsort(choices, kind="stable")
            images = select(images, place[order])
            self._apply(pixel_rows(images), choices[order], images.shape[1])
            place[order] = np.arange(len(order))
        return select(images, place)

    def _apply(self, batch: Tensor, choices: np.ndarray, channels: int) -> None:
        """Apply sorted choices (M,) to lines, in place."""
        starts = dict(zip((*OPERATION_NAMES, "end"), np.searchsorted(choices, self.edges).tolist(), strict=True))
        magnitude = to_device(self.magnitudes[choices], batch.device)[:, None, None]
        moves = slice(starts["ShearX"], starts["Brightness"])
        if moves.start < moves.stop:
            self.sources = self.sources.to(batch.device, non_blocking=True)
            move = to_device(choices[moves] - self.edges[OPERATION_NAMES.index("ShearX")], batch.device)
            batch[moves] = move_pixels(batch[moves], self.sources.index_select(0, move), channels)
        blends = slice(starts["Brightness"], starts["Posterize"])
        if blends.start < blends.stop:
            others = [starts[name] - blends.start for name in ("Color", "Contrast", "Sharpness")]
            batch[blends] = enhance(batch[blends], magnitude[blends], channels, *others)
        for name, following in pairwise(("Posterize", "Solarize", "AutoContrast", "Equalize", "end")):
            part = slice(starts[name], starts[following])
            if part.start < part.stop:
                batch[part] = TONE[name](batch[part], magnitude[part], channels)


def source_pixels(name: str, magnitude: float, height: int, width: int) -> Tensor:
    """Return where each pixel of a moved image comes from: int32 (H·W,), pixels counted from 1, 0 for the outside.

    torch's own sampler moves a picture of pixel numbers, in torchvision's steps, so that what falls halfway between
    two pixels comes from the same one.
    """
    angle, pixels = math.radians(magnitude), int(magnitude)
    x, y = {  # in coordinates from the image's centre
        "ShearX": ((1, magnitude, magnitude * height / 2), (0, 1, 0)),
        "ShearY": ((1, 0, 0), (magnitude, 1, magnitude * width / 2)),
        "TranslateX": ((1, 0, -pixels), (0, 1, 0)),
        "TranslateY": ((1, 0, 0), (0, 1, -pixels)),
        "Rotate": ((math.cos(angle), -math.sin(angle), 0), (math.sin(angle), math.cos(angle), 0)),
    }[name]
    down, across = (torch.arange(extent) - (extent - 1) / 2 for extent in (height, width))
    places = torch.stack([across.repeat(height), down.repeat_interleave(width), torch.ones(height * width)], dim=1)
    grid = places[None].bmm((torch.tensor([x, y]).T / torch.tensor([width / 2, height / 2]))[None])
    numbers = torch.arange(1.0, height * width + 1).view(1, 1, height, width)
    found = grid_sample(numbers, grid.view(1, height, width, 2), mode="nearest", align_corners=False)
    return found.view(-1).to(torch.int32)


def move_pixels(images: Tensor, sources: Tensor, channels: int) -> Tensor:
    """Fetch each pixel from where sources (M, H·W) say; a black one, put before each image's own, is the outside."""
    count, size = sources.shape
    pixels = images.new_zeros(count * (size + 1) + 1, channels)  # the last one is for `fetch`
    pixels[:-1].view(count, size + 1, channels)[:, 1:] = images.view(count, size, channels)
    first = torch.arange(0, len(pixels) - 1, size + 1, dtype=torch.int32, device=images.device)
    return gather_pixels(pixels, (sources + first[:, None]).view(-1)).view_as(images)


def gather_pixels(pixels: Tensor, index: Tensor) -> Tensor:
    """Return the pixels (P, C) of bytes at index (any but the last), as index_select does.

    On the host colours travel as words of four bytes, in half the time: the fourth is the first of the next pixel, and
    is written over by it.
    """
    if pixels.device.type != "cpu" or pixels.shape[1] != 3:
        return pixels.index_select(0, index)
    words = torch.from_numpy(np.ascontiguousarray(_words(pixels)))
    found = torch.empty(len(index) + 1, 3, dtype=torch.uint8)
    _words(found)[:] = words.index_select(0, index).numpy()
    return found[:-1]


def _words(pixels: Tensor) -> np.ndarray:
    """View the pixels (P, 3) but the last as words of four bytes, each beginning with a pixel."""
    return np.ndarray((len(pixels) - 1,), np.int32, buffer=pixels.numpy(), strides=(3,))


def enhance(images: Tensor, magnitude: Tensor, channels: int, color: int, contrast: int, sharpness: int) -> Tensor:
    """Move images away from a plain version of their own, or towards it: (1 + magnitude) · own - magnitude · plain.

    The first change in brightness, for which plain is black; from `color` on it is grey, from `contrast` on the mean
    grey and from `sharpness` on blurred.
    """
    own = images.to(torch.float32)
    plain = torch.empty_like(own[color:])
    grey, flat, smooth = plain.tensor_split((contrast - color, sharpness - color))
    levels = _gray_levels(own[color:sharpness], channels)
    for channel in grey.view(*levels[: len(grey)].shape, channels).unbind(3):
        channel.copy_(levels[: len(grey)])
    flat.copy_(_mean(levels[len(grey) :]))
    _blur(own[sharpness:], channels, out=smooth)
    own.mul_(1 + magnitude)
    own[color:] -= plain.mul_(magnitude[color:])
    return own.to(torch.int16).clamp_(0, 255)


def _gray_levels(images: Tensor, channels: int) -> Tensor:
    """Return how bright pixels are, in whole levels: float32 (M, H, W)."""
    count, height, length = images.shape
    if channels == 1:
        return images
    weighted = (images * tile_channels(LUMA_WEIGHTS, length // channels, images.dtype, images.device)).view(-1)
    sums = weighted[:-2] + weighted[1:-1]
    sums += weighted[2:]  # a third of them are pixels; picking those first would take longer
    return sums[::3].floor().view(count, height, length // channels)


def _mean(images: Tensor) -> Tensor:
    """Return each image's mean (M, 1, 1), rounded alike on every device: a GPU takes a plain number's reciprocal."""
    total = images.sum((1, 2), keepdim=True)
    return total.div_(total.new_full((), images.shape[1] * images.shape[2]))


def _blur(images: Tensor, channels: int, out: Tensor) -> None:
    """Write the mean of each pixel and its eight neighbours, itself counted five times; the border stays."""
    near, far = channels, 2 * channels
    columns = images[:, :-2] + images[:, 1:-1]
    columns += images[:, 2:]
    sums = columns[:, :, :-far] + columns[:, :, near:-near]
    sums += columns[:, :, far:]
    sums.add_(images[:, 1:-1, near:-near], alpha=4)
    out.copy_(images)
    out[:, 1:-1, near:-near] = sums.div_(13).round_()


def posterize(images: Tensor, magnitude: Tensor, channels: int) -> Tensor:
    """Keep the highest bits, as many as the magnitude says."""
    dropped = (8 - magnitude).to(torch.uint8)
    return (images >> dropped).bitwise_left_shift_(dropped)


def solarize(images: Tensor, magnitude: Tensor, channels: int) -> Tensor:
    """Invert what is as bright as the magnitude, or brighter."""
    threshold = magnitude.ceil().to(torch.uint8)
    below = (threshold - torch.minimum(images, threshold)).clamp_(max=1)  # 1 or 0; comparing takes 3 times as long
    return below.sub_(1).bitwise_xor_(images)  # 0 - 1 is 255


def auto_contrast(images: Tensor, magnitude: Tensor, channels: int) -> Tensor:
    """Stretch each channel to the full range; a channel of one value stays."""
    own = images.to(torch.float32)
    shape = len(images), -1, channels
    low = own.amin(1).view(shape).amin(1)  # (M, C)
    span = own.amax(1).view(shape).amax(1) - low
    flat = span == 0
    low.masked_fill_(flat, 0)
    scale = 255 / span.masked_fill_(flat, 255)
    width = images.shape[2] // channels
    own.sub_(_along_lines(low, width)).mul_(_along_lines(scale, width))
    return own.to(torch.int16).clamp_(0, 255)


def equalize(images: Tensor, magnitude: Tensor, channels: int) -> Tensor:
    """Give each channel's values curves that make all levels about as frequent, counted as Pillow does."""
    count, height, length = images.shape
    width = length // channels
    starts = torch.arange(0, 256 * count * channels, 256, dtype=torch.int32, device=images.device)  # of each channel's
    places = (images + _along_lines(starts.view(count, channels), width)).view(-1)
    histogram = _histogram(places, 256 * count * channels).view(-1, 256)
    darker = (histogram.cumsum(1) - histogram).to(torch.float32)  # how many pixels are
    brightest = (height * width - darker).clamp_(max=1)  # 1 up to the brightest value that occurs, then 0
    step = (darker * brightest).amax(1, keepdim=True).add_(0.5).div_(255).floor_()  # + 0.5: for a GPU's reciprocals
    flat = step == 0  # next to nothing but the brightest: stays
    curves = darker.add_((step / 2).floor_()).div_(step.masked_fill_(flat, 1)).floor_()
    curves.lerp_(torch.arange(256.0, device=images.device), flat.to(torch.float32))
    return to_dtype(curves.clamp_(0, 255), torch.uint8).view(-1).index_select(0, places).view_as(images)


def _along_lines(values: Tensor, width: int) -> Tensor:
    """Lay values (M, C) along lines of their images: (M, 1, W·C)."""
    return values[:, None].expand(-1, width, -1).reshape(len(values), 1, -1)


def _histogram(values: Tensor, bins: int) -> Tensor:
    """Count how often each number below bins occurs; bincount is twice as fast, but waits for a GPU."""
    if values.device.type == "cpu":
        return torch.bincount(values, minlength=bins)
    counts = torch.zeros(bins, dtype=torch.int32, device=values.device)
    return counts.scatter_add_(0, values.to(torch.int64), torch.ones_like(values))


TONE = {"Posterize": posterize, "Solarize": solarize, "AutoContrast": auto_contrast, "Equalize": equalize}

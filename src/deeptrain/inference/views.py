"""Averaging at test time: a network answers to several views of a picture, and its probabilities are averaged."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from deeptrain.data.crop_flip import EpochSamples, HostCrops
from deeptrain.data.decode import Decoder
from deeptrain.errors import UsageError
from deeptrain.inference.predictor import Predictor
from deeptrain.run.calibration import WITHOUT_PROBABILITIES
from deeptrain.runtime.random import fold_in, generator

Tta = Literal["flip", "shift", "train", "ten_crop", "multi_scale", "dropout"]
TTA: tuple[str, ...] = get_args(Tta)
CROP_SCALES = (8 / 7,)  # of the input's side: 256 for crops of 224 (AlexNet, 2012; ResNet, 2016)
ALL_SCALES = (1, 8 / 7, 12 / 7, 15 / 7, 20 / 7)  # 224, 256, 384, 480, 640 (ResNet, 2016)
MIN_SIDE = 96  # below it, enlarged pictures are unlike those of training
PADDING = 2  # of small pictures for ten crops, by reflection
DRAWS = 16
PASS = 512  # views that go through the network at once

Pass = tuple[np.ndarray, np.ndarray, np.ndarray]  # views (M, H, W, C), the picture of each (M,), its weight (M,)


@dataclass
class Picture:
    """A decoded picture at the input's size, uint8 (H, W, C), and its file if there is one."""

    pixels: np.ndarray
    path: Path | None = None


@dataclass
class Recipe:
    """The random changes of a run's training pictures."""

    crop_padding: int = 0
    flip: bool = False
    augmentations: list[Any] = field(default_factory=list)  # those that mix no images
    seed: int = 0


@dataclass
class Views:
    """Which views of a picture a network sees. draws: of `train` and `dropout`."""

    name: str
    recipe: Recipe = field(default_factory=Recipe)
    draws: int = DRAWS

    def of(self, pictures: Sequence[Picture], decoder: Decoder, first: int) -> Iterator[Pass]:
        """Yield the views of pictures. first: the number of the first one, by which random views are keyed."""
        if self.name in ("ten_crop", "multi_scale"):
            yield from _gathered(_crops(self.name, picture, decoder) for picture in pictures)
            return
        pixels, ids = np.stack([picture.pixels for picture in pictures]), np.arange(len(pictures))
        if self.name in ("train", "dropout"):
            for draw in range(self.draws):
                views = pixels if self.name == "dropout" else self._draw(pictures, pixels, decoder, draw, first)
                yield views, ids, np.full(len(ids), 1 / self.draws)
            return
        for views, weight in _flips(pixels, 1 / 2) if self.name == "flip" else _shifts(pixels):
            yield views, ids, np.full(len(ids), weight)

    def _draw(
        self, pictures: Sequence[Picture], pixels: np.ndarray, decoder: Decoder, draw: int, first: int
    ) -> np.ndarray:
        """Return the pictures changed as in training, each anew: crop, flip, then the augmentations."""
        recipe, count = self.recipe, len(pictures)
        rng = generator(recipe.seed, "tta", draw, first)
        if decoder.short_side_range is not None and all(picture.path for picture in pictures):
            rngs = [generator(recipe.seed, "tta picture", draw, first + index) for index in range(count)]
            views = [decoder.decode_random(one.path, own, recipe.flip) for one, own in zip(pictures, rngs, strict=True)]  # pyright: ignore[reportArgumentType]
            pixels = np.stack(views)
        elif recipe.crop_padding or recipe.flip:
            top, left = rng.integers(0, 2 * recipe.crop_padding + 1, (2, count))
            samples = EpochSamples(np.arange(count), top, left, (rng.random(count) < 0.5) & recipe.flip)
            around = (recipe.crop_padding, recipe.crop_padding)
            padded = np.pad(pixels, ((0, 0), around, around, (0, 0)))
            pixels = HostCrops(samples, padded, decoder.height, decoder.width).crop_batch(slice(None))
        if not recipe.augmentations:
            return pixels
        images, targets = torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.zeros(count, dtype=torch.int64)
        for augmentation in recipe.augmentations:
            images, targets = augmentation(images, targets, rng, 0.0)
        return images.permute(0, 2, 3, 1).numpy()


# --- views ---


def _flips(pixels: np.ndarray, weight: float) -> Iterator[tuple[np.ndarray, float]]:
    yield pixels, weight
    yield pixels[:, :, ::-1], weight


def _shifts(pixels: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    """Yield half the picture and half the picture moved by a pixel up-left and down-right, each with its flip.

    The border is reflected. These are the six views of airbench94 (Jordan, 2024).
    """
    yield from _flips(pixels, 1 / 4)
    padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    yield from _flips(padded[:, :-2, :-2], 1 / 8)
    yield from _flips(padded[:, 2:, 2:], 1 / 8)


def ten_crops(height: int, width: int, tall: int, wide: int) -> dict[tuple[int, int, bool], int]:
    """Return top, left and mirroring of the ten windows (height, width) in a picture, and how often each comes.

    Four corners and the centre, of the picture and of its mirror image, where the coordinates count anew. Of a picture
    of the window's size only two differ.
    """
    bottom, right = tall - height, wide - width
    places = [(0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))]
    found: dict[tuple[int, int, bool], int] = {}
    for mirrored in (False, True):
        for top, left in places:
            found[top, left, mirrored] = found.get((top, left, mirrored), 0) + 1
    return found


def _crops(name: str, picture: Picture, decoder: Decoder) -> Iterator[tuple[np.ndarray, float]]:
    """Yield the different windows of a picture at each size, with their weights."""
    scales = CROP_SCALES if name == "ten_crop" else ALL_SCALES
    for scale in scales:
        whole = _resized(picture, decoder, scale, pad_small=name == "ten_crop")
        windows = ten_crops(decoder.height, decoder.width, *whole.shape[:2])
        for (top, left, mirrored), count in windows.items():
            source = whole[:, ::-1] if mirrored else whole
            yield source[top : top + decoder.height, left : left + decoder.width], count / (10 * len(scales))


def _resized(picture: Picture, decoder: Decoder, scale: float, pad_small: bool) -> np.ndarray:
    """Return the whole picture, so large that the window times `scale` just fits in; of a file in full detail.

    pad_small: a picture that has no more detail is padded by reflection instead of enlarged.
    """
    if picture.path is not None and decoder.resize != "fit":
        found = decoder.decode_whole(picture.path, scale, enlarge=not pad_small)
        if found is not None:
            return found
    elif not pad_small:
        from PIL import Image

        image = Image.fromarray(picture.pixels.squeeze(2) if picture.pixels.shape[2] == 1 else picture.pixels)
        size = round(decoder.width * scale), round(decoder.height * scale)
        found = np.asarray(image.resize(size, decoder.resampling))
        return found.reshape(*found.shape[:2], -1)
    around = (min(PADDING, min(picture.pixels.shape[:2]) - 1),) * 2
    return np.pad(picture.pixels, (around, around, (0, 0)), mode="reflect")


def _gathered(pictures: Any) -> Iterator[Pass]:
    """Yield the views of many pictures in passes of one size."""
    views, ids, weights = [], [], []
    for index, windows in enumerate(pictures):
        for view, weight in windows:
            views, ids, weights = [*views, view], [*ids, index], [*weights, weight]
            if len(views) == PASS:
                yield np.stack(views), np.array(ids), np.array(weights)
                views, ids, weights = [], [], []
    if views:
        yield np.stack(views), np.array(ids), np.array(weights)


# --- answers ---


def average(network: Predictor, views: Views, pictures: Sequence[Picture], first: int = 0) -> tuple[Tensor, int]:
    """Return the logits (N, K) of the averaged probabilities, and how many views the network has seen.

    Of a loss without probabilities the logits themselves are averaged.
    """
    total = torch.zeros(len(pictures), len(network.classes), dtype=torch.float64)
    seen, answers = 0, []
    mode = _draw_at_random if views.name == "dropout" else nn.Module.eval
    for number, (pixels, ids, weights) in enumerate(views.of(pictures, network.decoder, first)):
        if views.name == "dropout":
            network.runtime.seed(fold_in(views.recipe.seed, "tta", number, first))
        logits = torch.from_numpy(network.forward(np.ascontiguousarray(pixels), mode)).double()
        answers = [*answers[-1:], logits]
        if views.name == "dropout" and number == 1 and torch.equal(*answers):
            raise UsageError(["tta=dropout: this network draws nothing at random, so all its answers are alike"])
        shares = as_shares(logits, network.loss) * torch.from_numpy(weights)[:, None]
        total.index_add_(0, torch.from_numpy(ids), shares)
        seen += len(ids)
    network.model.eval()
    return as_logits(total, network.loss).float(), seen


def as_shares(logits: Tensor, loss: str) -> Tensor:
    """Return what is averaged of logits (N, K): probabilities, or the logits of a loss that has none."""
    if loss in WITHOUT_PROBABILITIES:
        return logits.double()
    return logits.double().sigmoid() if loss == "BCE" else logits.double().softmax(1)


def as_logits(shares: Tensor, loss: str) -> Tensor:
    """Return logits of averaged shares (N, K): the loss makes the same probabilities of them."""
    if loss in WITHOUT_PROBABILITIES:
        return shares
    tiny = torch.finfo(torch.float64).tiny
    return shares.logit(eps=1e-16) if loss == "BCE" else shares.clamp(min=tiny).log()


def _draw_at_random(model: nn.Module) -> None:
    """Let everything draw as in training but the norms, which keep their statistics."""
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


def check(views: Views, network: Predictor, characters: bool) -> list[str]:
    """Return a warning if the views are unlike pictures of training; UsageError if they cannot be right."""
    if characters and views.name in ("flip", "shift", "ten_crop", "multi_scale"):
        raise UsageError([f"tta={views.name} mirrors characters, and a mirrored 2 is no 2: leave it out"])
    side = min(network.decoder.height, network.decoder.width)
    if views.name == "multi_scale" and side < MIN_SIDE:
        reason = f"the input has {side} px, and enlarged parts of it are unlike what the network has learned"
        return [f"tta=multi_scale: {reason}; below {MIN_SIDE} px expect many more mistakes, or take tta=shift"]
    return []

"""The data set's own augmentation: every image padded with zeros, cut at random, mirrored by the toss of a coin.

The draws of an epoch are made on the host at its start, so every loader, device and resumed run sees the same ones.
"""

from dataclasses import dataclass

import numpy as np
import torch

from deeptrain.runtime.random import generator


@dataclass
class EpochSamples:
    """Everything random about one epoch, by position in it; each array has one value an image."""

    order: np.ndarray  # which image, int64
    down: np.ndarray  # where its window starts, from 0 to twice the padding
    across: np.ndarray
    flips: np.ndarray  # bool

    def __getitem__(self, part: slice) -> "EpochSamples":
        return EpochSamples(self.order[part], self.down[part], self.across[part], self.flips[part])


def draw_epoch(seed: int, epoch: int, count: int, padding: int, flip: bool) -> EpochSamples:
    """Draw the order, the crops and the flips of one epoch over count images."""
    order = generator(seed, "order", epoch).permutation(count)
    rng = generator(seed, "recipe", epoch)
    down, across = rng.integers(0, 2 * padding + 1, (2, count))
    return EpochSamples(order, down, across, (rng.random(count) < 0.5) & flip)


def cut_out(padded: np.ndarray, draws: EpochSamples, height: int, width: int) -> np.ndarray:
    """Gather windows of uint8 (M, H + 2p, W + 2p, C) on the host: (B, H, W, C), 1.5 us for an image of 32 x 32 x 3.

    The store is seen as overlapping opaque elements of one row of a window each, so that a crop is H copies of W x C
    bytes instead of H x W x C copies of one.
    """
    _, tall, wide, channels = padded.shape
    rows, block = (height, width * channels) if wide > width else (1, tall * wide * channels)
    flat = padded.reshape(-1)
    windows = np.ndarray((max(flat.size - block + 1, 0),), f"V{block}", buffer=flat, strides=(1,))
    start = ((draws.order * tall + draws.down) * wide + draws.across) * channels
    cut = windows[start[:, None] + np.arange(rows) * (wide * channels)]
    images = cut.view(np.uint8).reshape(-1, height, width, channels)
    chosen = np.flatnonzero(draws.flips)
    if len(chosen):  # torch mirrors several times as fast as numpy
        images[chosen] = torch.from_numpy(images[chosen]).permute(0, 3, 1, 2).flip(-1).permute(0, 2, 3, 1).numpy()
    return images


class DeviceDraws:
    """The draws of one epoch as pixel positions in a padded store, uploaded at once, without a wait."""

    def __init__(self, draws: EpochSamples, labels: np.ndarray, padded: torch.Tensor, height: int, width: int):
        tall, wide = padded.shape[1:3]
        first = (draws.order * tall + draws.down) * wide + draws.across + draws.flips * (width - 1)
        columns = torch.from_numpy(np.stack([first, draws.flips, labels[draws.order]]))  # int64 (3, N)
        columns = columns.pin_memory() if padded.device.type == "cuda" else columns
        self.first, self.flips, self.labels = columns.to(padded.device, non_blocking=True)
        down = torch.arange(height, device=padded.device)[:, None] * wide
        across = torch.arange(width, device=padded.device)
        self.window = torch.stack(
            [down + across, down - across]
        )  # (2, H, W): pixels from the first, plain and mirrored
        self.pixels = padded.view(-1, padded.shape[3])

    def cut_out(self, part: slice) -> torch.Tensor:
        """Gather the same windows as on the host, by one index: uint8 (B, H, W, C)."""
        return self.pixels[self.first[part, None, None] + self.window[self.flips[part]]]

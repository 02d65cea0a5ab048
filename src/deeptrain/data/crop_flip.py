"""The data set's own augmentation: pad each image with zeros, crop a random window, mirror half of the images.

The random numbers of an epoch are made on the host at its start. Every loader, device and resumed run uses the same.
"""

from dataclasses import dataclass

import numpy as np
import torch

from deeptrain.runtime.random import generator
from deeptrain.runtime.upload import upload


@dataclass
class EpochSamples:
    """The random numbers of one epoch, in the order of its images: four arrays (N,)."""

    order: np.ndarray  # index of the image, int64
    top: np.ndarray  # first row of its window, from 0 to twice the padding
    left: np.ndarray  # first column
    flips: np.ndarray  # bool

    def __getitem__(self, batch: slice) -> "EpochSamples":
        return EpochSamples(self.order[batch], self.top[batch], self.left[batch], self.flips[batch])


def sample_epoch(seed: int, epoch: int, count: int, padding: int, flip: bool) -> EpochSamples:
    """Sample the order, the crops and the flips of one epoch over count images."""
    order = generator(seed, "order", epoch).permutation(count)
    rng = generator(seed, "recipe", epoch)
    top, left = rng.integers(0, 2 * padding + 1, (2, count))
    return EpochSamples(order, top, left, (rng.random(count) < 0.5) & flip)


class HostCrops:
    """Crop windows of an epoch from padded images on the host: uint8 (M, H + 2p, W + 2p, C).

    One row of a window is one opaque element of W x C bytes, and these elements overlap. So a crop is H copies of a row
    instead of H x W x C copies of a byte: 1.5 us for an image of 32 x 32 x 3.
    """

    def __init__(self, samples: EpochSamples, padded: np.ndarray, height: int, width: int):
        _, tall, wide, channels = padded.shape
        rows, block = (height, width * channels) if wide > width else (1, tall * wide * channels)
        flat = padded.reshape(-1)
        self.rows = np.ndarray((max(flat.size - block + 1, 0),), f"V{block}", buffer=flat, strides=(1,))
        self.starts = (((samples.order * tall + samples.top) * wide + samples.left) * channels)[:, None]
        self.offsets = np.arange(rows) * (wide * channels)
        self.flips = samples.flips if samples.flips.any() else None
        self.shape = (-1, height, width, channels)

    def crop_batch(self, batch: slice) -> np.ndarray:
        """Gather the windows of a batch: a new array uint8 (B, H, W, C)."""
        images = self.rows[self.starts[batch] + self.offsets].view(np.uint8).reshape(self.shape)
        if self.flips is None:
            return images
        flipped = np.flatnonzero(self.flips[batch])
        if len(flipped):  # torch mirrors several times as fast as numpy
            mirrored = torch.from_numpy(images[flipped]).permute(0, 3, 1, 2).flip(-1).permute(0, 2, 3, 1)
            images[flipped] = mirrored.numpy()
        return images


class DeviceCrops:
    """The samples of one epoch as pixel positions in padded images, uploaded once, without waiting for the device."""

    def __init__(self, samples: EpochSamples, labels: np.ndarray, padded: torch.Tensor, height: int, width: int):
        tall, wide = padded.shape[1:3]
        first = (samples.order * tall + samples.top) * wide + samples.left + samples.flips * (width - 1)
        packed = np.stack([first, samples.flips, labels[samples.order]])  # int64 (3, N)
        self.first, self.flips, self.labels = upload(packed, padded.device)
        rows = torch.arange(height, device=padded.device)[:, None] * wide
        columns = torch.arange(width, device=padded.device)
        # (2, H, W): distance of each pixel from the first one, plain and mirrored
        self.window = torch.stack([rows + columns, rows - columns])
        self.pixels = padded.view(-1, padded.shape[3])

    def crop_batch(self, batch: slice) -> torch.Tensor:
        """Gather the windows of a batch with one index: uint8 (B, H, W, C), bytes as on the host."""
        return self.pixels[self.first[batch, None, None] + self.window[self.flips[batch]]]

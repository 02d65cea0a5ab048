"""Two loaders with the same batches: small sets stay on the device as one tensor, others stream from workers."""

import math
import os
import sys
import warnings
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from deeptrain.data.crop_flip import DeviceCrops, EpochSamples, HostCrops, sample_epoch
from deeptrain.data.dataset import DataSource, LazyRows, Samples
from deeptrain.data.decode import UnreadableImageError
from deeptrain.data.decoded_images import chunks
from deeptrain.data.workers import FEWER, as_it_is, batches, end_workers, init_worker, share, warn_of_space
from deeptrain.runtime.memory import free_memory, too_large
from deeptrain.runtime.random import generator
from deeptrain.runtime.resources import command
from deeptrain.runtime.signals import Interrupted
from deeptrain.runtime.upload import upload
from deeptrain.runtime.world import SINGLE, World

BYTES = 5  # of a value in a batch: as it is stored, and as float32
Shared = torch.Tensor | np.ndarray
Batch = tuple[torch.Tensor, torch.Tensor]  # uint8 (N, C, H, W) stored channels_last, int64 (N,), both on the device


def make_loader(
    source: DataSource,
    samples: Samples,
    *,
    batch_size: int,
    device: torch.device,
    seed: int = 0,
    workers: int = 0,
    train: bool = False,
    world: World = SINGLE,
    min_batch: int = 2,
    stream: bool = False,
) -> "ResidentLoader | StreamLoader":
    """Choose a loader by the source's setting and the free memory. train: shuffle, apply its crop and flip.

    world: each rank gets its shard of every batch. All shards make the batch that one process would see.
    min_batch: in training, an epoch leaves out a last batch of fewer images.
    stream: for a few batches, which are not worth a copy of the whole set on the device.
    Raises ValueError "batch_size=...: ..." if there are not enough training images for one batch.
    """
    if train and batch_size > len(samples):
        raise ValueError(f"batch_size={batch_size}: must be at most {len(samples)}, the number of training images")
    if reason := too_large(min(batch_size, len(samples)) * math.prod(samples.shape) * BYTES, free_memory(swap=True)):
        raise ValueError(f"batch_size={batch_size}: {reason}; take a smaller batch_size{_or_smaller_images(source)}")
    augment = train and source.augment
    crop_padding, flip = (source.crop_padding, source.flip) if augment else (0, False)
    if train and not augment and samples.decoder is not None:
        samples = replace(samples, decoder=replace(samples.decoder, short_side_range=None))
    stream = stream and samples.images is not None
    if not stream and (
        source.loader == "resident" or (source.loader == "auto" and fits(samples, crop_padding, device))
    ):
        if samples.images is None:
            raise ValueError("loader=resident: these pictures are not decoded; load them with the same setting")
        if reason := too_large(_size_on_device(samples, crop_padding), _free(device, swap=True)):
            raise ValueError(f"data.loader=resident: {reason}; write data.loader=stream{_or_smaller_images(source)}")
        return ResidentLoader(samples, batch_size, device, seed, train, crop_padding, flip, world, min_batch)
    return StreamLoader(samples, batch_size, device, seed, train, crop_padding, flip, workers, world, min_batch)


def fits(samples: Samples, crop_padding: int, device: torch.device) -> bool:
    """Return whether the decoded and padded images need at most a quarter of the device's free memory."""
    if samples.images is None:
        return False
    return _size_on_device(samples, crop_padding) <= _free(device) / 4


def _size_on_device(samples: Samples, crop_padding: int) -> int:
    """Return the bytes of a set with zeros around its images."""
    channels, height, width = samples.shape
    return len(samples) * (height + 2 * crop_padding) * (width + 2 * crop_padding) * channels


def _free(device: torch.device, *, swap: bool = False) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory(swap=swap)


def _or_smaller_images(source: DataSource) -> str:
    return ", or a smaller data.image_size" if hasattr(source, "image_size") else ""


class ResidentLoader:
    """The whole set is one uint8 tensor on the device, padded once. A batch is one gather."""

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        device: torch.device,
        seed: int = 0,
        train: bool = False,
        crop_padding: int = 0,
        flip: bool = False,
        world: World = SINGLE,
        min_batch: int = 2,
    ):
        assert samples.images is not None
        self.batches = _batches(len(samples), batch_size, min_batch if train else 1)
        self.shards = [_shard(batch, world) for batch in self.batches]
        self.sizes = [_size(batch) for batch in self.batches]  # images of each step, over all ranks
        self.num_images = sum(self.sizes)
        self.seed, self.train, self.flip = seed, train, flip
        self.padding = crop_padding if train else 0
        self.device = torch.device(device)
        self.host_labels = samples.labels
        self.labels = torch.from_numpy(samples.labels).to(self.device)
        self.images = _padded(samples.images, self.padding, self.device)  # (N, H + 2p, W + 2p, C)

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from first_step on. Without train, the order of the samples is kept."""
        if not self.train:
            return self._slices(first_step)
        samples = sample_epoch(self.seed, epoch, len(self.host_labels), self.padding, self.flip)
        return self._on_host(samples, first_step) if self.device.type == "cpu" else self._on_device(samples, first_step)

    def indices(self, epoch: int, step: int) -> np.ndarray:
        """Return the indices of the images in a batch."""
        return sample_epoch(self.seed, epoch, len(self.host_labels), 0, False).order[self.batches[step]]

    @property
    def samples(self) -> Samples:
        """Return its images, without the zeros around them, and their labels."""
        rows, columns = (slice(self.padding, self.padding + size) for size in self._window())
        return Samples(self.images[:, rows, columns].cpu().numpy(), None, self.host_labels)

    def first_images(self, count: int) -> "ResidentLoader":
        """Return a loader of the first batches of each epoch, with about `count` images. It shares the images."""
        loader = copy(self)
        loader.batches, loader.sizes = _first_batches(self.batches, count)
        loader.shards, loader.num_images = self.shards[: len(loader.sizes)], sum(loader.sizes)
        return loader

    def close(self) -> None:
        """Free the memory. A second call does nothing."""
        self.__dict__.pop("images", None)

    def _slices(self, first_step: int) -> Iterator[Batch]:
        for shard in self.shards[first_step:]:
            yield self.images[shard].permute(0, 3, 1, 2), self.labels[shard]

    def _on_host(self, samples: EpochSamples, first_step: int) -> Iterator[Batch]:
        height, width = self._window()
        crop_batch = HostCrops(samples, self.images.numpy(), height, width).crop_batch
        labels, from_numpy = torch.from_numpy(self.host_labels[samples.order]), torch.from_numpy
        for shard in self.shards[first_step:]:
            yield from_numpy(crop_batch(shard)).permute(0, 3, 1, 2), labels[shard]

    def _on_device(self, samples: EpochSamples, first_step: int) -> Iterator[Batch]:
        height, width = self._window()
        crops = DeviceCrops(samples, self.host_labels, self.images, height, width)
        for shard in self.shards[first_step:]:
            yield crops.crop_batch(shard).permute(0, 3, 1, 2), crops.labels[shard]

    def _window(self) -> tuple[int, int]:
        return self.images.shape[1] - 2 * self.padding, self.images.shape[2] - 2 * self.padding


class StreamLoader:
    """Batches come from worker processes, or from this process without workers. Their bits are always the same."""

    def __init__(
        self,
        samples: Samples,
        batch_size: int,
        device: torch.device,
        seed: int = 0,
        train: bool = False,
        crop_padding: int = 0,
        flip: bool = False,
        workers: int = 0,
        world: World = SINGLE,
        min_batch: int = 2,
    ):
        self.device, self.seed, self.count = torch.device(device), seed, len(samples)
        self.batches = _batches(len(samples), batch_size, min_batch if train else 1)
        self.sizes = [_size(batch) for batch in self.batches]  # images of each step, over all ranks
        self.num_images = sum(self.sizes)
        self.steps = StepSampler(len(self.batches))
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores: the user's choice
        shards = [_shard(batch, world) for batch in self.batches]
        self.dataset = BatchDataset(samples, shards, seed, train, crop_padding, flip)
        self.loader = self._open(workers)

    def _open(self, workers: int) -> DataLoader:
        return DataLoader(
            self.dataset,
            batch_size=None,  # the dataset returns whole batches
            sampler=self.steps,
            num_workers=workers,
            collate_fn=as_it_is,
            persistent_workers=workers > 0,
            pin_memory=self.device.type == "cuda",
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            worker_init_fn=init_worker,
            generator=torch.Generator(),  # its random number must not come from the generator that models use
        )

    def __len__(self) -> int:
        return self.steps.count

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from first_step on. ValueError names an image that cannot be read.

        WorkerError and Interrupted as in `batches`. Afterwards this process reads: figures can still be drawn.
        """
        self.steps.epoch, self.steps.first = epoch, first_step
        try:
            for images, labels, error in batches(self.loader):
                if error:
                    raise ValueError(error)
                if isinstance(images, np.ndarray):
                    warn_of_space()
                yield upload(images, self.device).permute(0, 3, 1, 2), upload(labels, self.device)
        except (ValueError, Interrupted):
            end_workers(self.loader)
            self.loader = self._open(0)
            raise

    def indices(self, epoch: int, step: int) -> np.ndarray:
        """Return the indices of the images in a batch."""
        return sample_epoch(self.seed, epoch, self.count, 0, False).order[self.batches[step]]

    @property
    def samples(self) -> Samples:
        """Return its images and their labels."""
        files = [Path(os.fsdecode(name)) for name in self.dataset.files] or None
        data = self.dataset
        return Samples(data.images, files, data.labels, data.decoder, store=data.store)

    def first_images(self, count: int) -> "StreamLoader":
        """Return a loader of the first batches of each epoch, with about `count` images, which this process reads."""
        loader = copy(self)
        loader.batches, loader.sizes = _first_batches(self.batches, count)
        loader.num_images, loader.steps = sum(loader.sizes), StepSampler(len(loader.sizes))
        loader.loader = loader._open(0)
        return loader

    def close(self) -> None:
        """End the workers. A second call does nothing."""
        if "loader" in self.__dict__:
            end_workers(self.__dict__.pop("loader"))


class StepSampler:
    """Yield the (epoch, step) of the next batches."""

    def __init__(self, count: int):
        self.count, self.epoch, self.first = count, 0, 0

    def __len__(self) -> int:
        return self.count - self.first

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, step) for step in range(self.first, self.count))


class BatchDataset(TorchDataset):
    """Runs in the workers: makes the batch of an (epoch, step) from the seed and the samples alone."""

    def __init__(self, samples: Samples, batches: list[slice], seed: int, train: bool, crop_padding: int, flip: bool):
        self.images, self.labels, self.decoder = samples.images, samples.labels, samples.decoder
        self.store = samples.store
        # one flat array: a list's reference counts would copy it, page by page, into every worker
        names = [] if samples.images is not None else samples.files or []
        self.files = np.array([os.fsencode(path) for path in names])
        self.batches, self.seed, self.train, self.padding, self.flip = batches, seed, train, crop_padding, flip
        self.random_windows = train and self.decoder is not None and self.decoder.short_side_range is not None
        self.epoch: tuple[int, EpochSamples] | None = None  # the latest one

    def __getitem__(self, key: tuple[int, int]) -> tuple[Shared, Shared, str]:
        """Return images uint8 (B, H, W, C), labels and "", or an error message: a worker's exception is a page long."""
        epoch, step = key
        try:
            images, labels = self._assemble(epoch, self.batches[step])
            return share(images), share(labels), ""
        except UnreadableImageError as error:
            message = f"{error}; {command('check-data')} DIR lists all such pictures"
        except ValueError as error:
            message = str(error)
        except MemoryError:
            message = f"no memory is left to read a batch of images; take a smaller batch_size, or {FEWER}"
        return np.empty(0), np.empty(0), message

    def _assemble(self, epoch: int, shard: slice) -> tuple[np.ndarray, np.ndarray]:
        if not self.train:
            indices = np.arange(shard.start, shard.stop)
            return self._read(indices), self.labels[indices]
        if self.epoch is None or self.epoch[0] != epoch:
            self.epoch = epoch, sample_epoch(self.seed, epoch, len(self.labels), self.padding, self.flip)
        samples = self.epoch[1][shard]
        labels = self.labels[samples.order]
        if self.random_windows:
            return self._read_random(epoch, samples.order), labels
        images = self._read(samples.order)
        samples.order = np.arange(len(labels))  # in this batch
        return HostCrops(samples, _pad(images, self.padding), *images.shape[1:3]).crop_batch(slice(None)), labels

    def _read(self, indices: np.ndarray) -> np.ndarray:
        if self.images is not None:
            return np.asarray(self.images[indices])
        assert self.decoder is not None
        pictures = self._pictures(indices, exact=True)
        return np.stack([self.decoder.decode_center(path, stored) for path, stored in pictures])

    def _read_random(self, epoch: int, indices: np.ndarray) -> np.ndarray:
        """Decode with random numbers that depend only on the image and the epoch, not on the worker."""
        assert self.decoder is not None
        generators = (generator(self.seed, "sample", epoch, index) for index in indices.tolist())
        pairs = zip(self._pictures(indices), generators, strict=True)
        return np.stack([self.decoder.decode_random(path, rng, self.flip, stored) for (path, stored), rng in pairs])

    def _pictures(self, indices: np.ndarray, exact: bool = False) -> Iterator[tuple[Path, Any]]:
        """Yield the paths, each with its picture from the cache, or None. What is measured never depends on a cache."""
        for index, name in zip(indices.tolist(), self.files[indices].tolist(), strict=True):
            yield Path(os.fsdecode(name)), self.store and self.store.get(index, exact)


def _shard(batch: slice, world: World) -> slice:
    """Return this rank's shard of a batch; if it is empty, the first image, which then has weight 0."""
    part = world.shard(batch)
    return part if _size(part) else slice(batch.start, batch.start + 1)


Loader = ResidentLoader | StreamLoader


def _size(part: slice) -> int:
    return part.stop - part.start


def _first_batches(batches: list[slice], count: int) -> tuple[list[slice], list[int]]:
    """Return the batches that start with the first `count` images, and their sizes."""
    first = [batch for batch in batches if batch.start < count]
    return first, [_size(batch) for batch in first]


def _batches(count: int, batch_size: int, min_batch: int) -> list[slice]:
    """Cut a set into batches. The last may be smaller; of fewer than min_batch images it is left out."""
    if count == 0:  # a process's share of a small validation set
        return []
    stops = [*range(batch_size, count, batch_size), count]
    if len(stops) > 1 and 0 < count % batch_size < min_batch:
        stops.pop()
    return [slice(start, stop) for start, stop in zip([0, *stops], stops, strict=False)]


def _padded(images: np.ndarray | LazyRows, padding: int, device: torch.device) -> torch.Tensor:
    """Copy a set to the device with zeros around every image, one chunk at a time."""
    count, height, width, channels = images.shape
    padded = torch.zeros((count, height + 2 * padding, width + 2 * padding, channels), dtype=torch.uint8, device=device)
    start = 0
    for chunk in chunks(images):
        inside = padded[start : start + len(chunk), padding : padding + height, padding : padding + width]
        inside.copy_(torch.from_numpy(np.array(chunk)))
        start += len(chunk)
    return padded


def _pad(images: np.ndarray, padding: int) -> np.ndarray:
    return np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

"""Two ways to the same batches: sets that fit live on the device as one tensor, others stream from worker processes."""

import os
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from deeptrain.data.crop_flip import DeviceEpochSamples, EpochSamples, crop_batch, sample_epoch
from deeptrain.data.dataset import DataSource, LazyRows, Samples
from deeptrain.data.decoded_images import chunks
from deeptrain.runtime import signals
from deeptrain.runtime.random import generator
from deeptrain.runtime.world import SINGLE, World

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
) -> "ResidentLoader | StreamLoader":
    """Choose a loader by the source's setting and by what fits; train shuffles and applies the source's crop and flip.

    world: each rank gets its shard of every batch. All shards make the batch that one process would see.
    Raises ValueError "batch_size=...: ..." if there are not enough training images for one batch.
    """
    if train and batch_size > len(samples):
        raise ValueError(f"batch_size={batch_size}: must be at most {len(samples)}, the number of training images")
    crop_padding, flip = (source.crop_padding, source.flip) if train else (0, False)
    if source.loader == "resident" or (source.loader == "auto" and fits(samples, crop_padding, device)):
        if samples.images is None:
            raise ValueError("loader=resident: these pictures are not decoded; load them with the same setting")
        return ResidentLoader(samples, batch_size, device, seed, train, crop_padding, flip, world)
    return StreamLoader(samples, batch_size, device, seed, train, crop_padding, flip, workers, world)


def fits(samples: Samples, crop_padding: int, device: torch.device) -> bool:
    """Say whether decoded images, padded, take up at most a quarter of the device's free memory."""
    if samples.images is None:
        return False
    channels, height, width = samples.shape
    size = len(samples) * (height + 2 * crop_padding) * (width + 2 * crop_padding) * channels
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _free_memory()
    return size <= free / 4


class ResidentLoader:
    """The whole set as one uint8 tensor on the device, padded once; a batch is one gather."""

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
    ):
        assert samples.images is not None
        self.batches = _batches(len(samples), batch_size, train)
        self.parts = [_part(batch, world) for batch in self.batches]
        self.sizes = [_size(batch) for batch in self.batches]  # images of each step, over all ranks
        self.num_images = sum(self.sizes)
        self.seed, self.train, self.flip = seed, train, flip
        self.padding = crop_padding if train else 0
        self.device = torch.device(device)
        self.host_labels = samples.labels
        self.labels = torch.from_numpy(samples.labels).to(self.device)
        self.store = _padded(samples.images, self.padding, self.device)  # (N, H + 2p, W + 2p, C)
        self.place = f"resident on {self.device}, {self.store.nbytes / 1e6:,.0f} MB"

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from first_step on; without train always the same, in the samples' order."""
        if not self.train:
            return self._slices(first_step)
        draws = sample_epoch(self.seed, epoch, len(self.host_labels), self.padding, self.flip)
        return self._on_host(draws, first_step) if self.device.type == "cpu" else self._on_device(draws, first_step)

    def indices(self, epoch: int, step: int) -> np.ndarray:
        """Say which training images a batch holds, by their place in the samples."""
        return sample_epoch(self.seed, epoch, len(self.host_labels), 0, False).order[self.batches[step]]

    def close(self) -> None:
        """Give the memory back; a second time does nothing."""
        self.__dict__.pop("store", None)

    def _slices(self, first_step: int) -> Iterator[Batch]:
        for part in self.parts[first_step:]:
            yield self.store[part].permute(0, 3, 1, 2), self.labels[part]

    def _on_host(self, draws: EpochSamples, first_step: int) -> Iterator[Batch]:
        height, width = self._window()
        store, labels = self.store.numpy(), torch.from_numpy(self.host_labels[draws.order])
        for part in self.parts[first_step:]:
            images = torch.from_numpy(crop_batch(store, draws[part], height, width))
            yield images.permute(0, 3, 1, 2), labels[part]

    def _on_device(self, draws: EpochSamples, first_step: int) -> Iterator[Batch]:
        height, width = self._window()
        uploaded = DeviceEpochSamples(draws, self.host_labels, self.store, height, width)
        for part in self.parts[first_step:]:
            yield uploaded.crop_batch(part).permute(0, 3, 1, 2), uploaded.labels[part]

    def _window(self) -> tuple[int, int]:
        return self.store.shape[1] - 2 * self.padding, self.store.shape[2] - 2 * self.padding


class StreamLoader:
    """Batches assembled by worker processes, or in this one if there are none; the bits do not depend on how many."""

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
    ):
        self.device, self.seed, self.count = torch.device(device), seed, len(samples)
        self.batches = batches = _batches(len(samples), batch_size, train)
        self.sizes = [_size(batch) for batch in batches]  # images of each step, over all ranks
        self.num_images = sum(self.sizes)
        self.steps = _Steps(len(batches))
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more workers than cores: the user's choice
        self.loader = DataLoader(
            _Assembler(samples, [_part(batch, world) for batch in batches], seed, train, crop_padding, flip),
            batch_size=None,  # the assembler makes whole batches
            sampler=self.steps,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.device.type == "cuda",
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
            worker_init_fn=_quiet,
            generator=torch.Generator(),  # its draw must not come from the generator that models use
        )
        self.place = f"streamed by {workers} workers" if workers else "streamed"

    def __len__(self) -> int:
        return self.steps.count

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from first_step on; ValueError naming the file if a picture cannot be read."""
        self.steps.epoch, self.steps.first = epoch, first_step
        for images, labels, trouble in self.loader:
            if trouble:
                break
            images = images.to(self.device, non_blocking=True)
            yield images.permute(0, 3, 1, 2), labels.to(self.device, non_blocking=True)
        else:
            return
        self.close()
        raise ValueError(trouble)

    def indices(self, epoch: int, step: int) -> np.ndarray:
        """Say which training images a batch holds, by their place in the samples."""
        return sample_epoch(self.seed, epoch, self.count, 0, False).order[self.batches[step]]

    def close(self) -> None:
        """End the workers now; left to the garbage collector they can take seconds each to notice.

        A second time does nothing: a picture that cannot be read ends them too.
        """
        iterator = getattr(self.__dict__.pop("loader", None), "_iterator", None)
        if iterator is None:  # no workers, or none yet
            return
        iterator._shutdown_workers()
        for worker in iterator._workers:  # one that hangs ignores what torch ends it with
            worker.kill()


class _Steps:
    """The sampler: which (epoch, step) to assemble next."""

    def __init__(self, count: int):
        self.count, self.epoch, self.first = count, 0, 0

    def __len__(self) -> int:
        return self.count - self.first

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, step) for step in range(self.first, self.count))


class _Assembler(TorchDataset):
    """Runs in the workers: makes the batch of an (epoch, step) from nothing but the seed and the samples."""

    def __init__(self, samples: Samples, batches: list[slice], seed: int, train: bool, crop_padding: int, flip: bool):
        self.images, self.labels, self.decoder = samples.images, samples.labels, samples.decoder
        # one flat array: a list's reference counts would copy it, page by page, into every worker
        names = [] if samples.images is not None else samples.files or []
        self.files = np.array([os.fsencode(path) for path in names])
        self.batches, self.seed, self.train, self.padding, self.flip = batches, seed, train, crop_padding, flip
        self.drawn = train and self.decoder is not None and self.decoder.short_side_range is not None
        self.draws: tuple[int, EpochSamples] | None = None  # of the latest epoch

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, str]:
        """Return uint8 (B, H, W, C), labels and no word; or what went wrong: a worker's exception is a page long."""
        epoch, step = key
        try:
            images, labels = self._assemble(epoch, self.batches[step])
        except ValueError as error:
            return torch.empty(0), torch.empty(0), str(error)
        return torch.from_numpy(images), torch.from_numpy(labels), ""

    def _assemble(self, epoch: int, part: slice) -> tuple[np.ndarray, np.ndarray]:
        if not self.train:
            indices = np.arange(part.start, part.stop)
            return self._read(indices), self.labels[indices]
        if self.draws is None or self.draws[0] != epoch:
            self.draws = epoch, sample_epoch(self.seed, epoch, len(self.labels), self.padding, self.flip)
        draws = self.draws[1][part]
        labels = self.labels[draws.order]
        if self.drawn:
            return self._read_drawn(epoch, draws.order), labels
        images = self._read(draws.order)
        draws.order = np.arange(len(labels))  # of the batch in hand
        return crop_batch(_pad(images, self.padding), draws, *images.shape[1:3]), labels

    def _read(self, indices: np.ndarray) -> np.ndarray:
        if self.images is not None:
            return np.asarray(self.images[indices])
        assert self.decoder is not None
        return np.stack([self.decoder.decode_center(path) for path in self._paths(indices)])

    def _read_drawn(self, epoch: int, indices: np.ndarray) -> np.ndarray:
        """Decode with a draw that belongs to the picture and the epoch, whoever makes it."""
        assert self.decoder is not None
        generators = (generator(self.seed, "sample", epoch, index) for index in indices.tolist())
        pairs = zip(self._paths(indices), generators, strict=True)
        return np.stack([self.decoder.decode_random(path, rng, self.flip) for path, rng in pairs])

    def _paths(self, indices: np.ndarray) -> list[Path]:
        return [Path(os.fsdecode(name)) for name in self.files[indices].tolist()]


def _part(batch: slice, world: World) -> slice:
    """Return this rank's shard of a batch; if it is empty, the first image, which then has weight 0."""
    part = world.shard(batch)
    return part if _size(part) else slice(batch.start, batch.start + 1)


Loader = ResidentLoader | StreamLoader


def _size(part: slice) -> int:
    return part.stop - part.start


def _batches(count: int, batch_size: int, train: bool) -> list[slice]:
    """Cut a set into batches. The last may be smaller, but not a single image in training: batch norm needs two."""
    if count == 0:  # a process's share of a small validation set
        return []
    stops = [*range(batch_size, count, batch_size), count]
    if train and len(stops) > 1 and batch_size > 1 and count % batch_size == 1:
        stops.pop()
    return [slice(start, stop) for start, stop in zip([0, *stops], stops, strict=False)]


def _padded(images: np.ndarray | LazyRows, padding: int, device: torch.device) -> torch.Tensor:
    """Copy a set to the device with zeros around every image, a piece at a time."""
    count, height, width, channels = images.shape
    store = torch.zeros((count, height + 2 * padding, width + 2 * padding, channels), dtype=torch.uint8, device=device)
    start = 0
    for piece in chunks(images):
        inside = store[start : start + len(piece), padding : padding + height, padding : padding + width]
        inside.copy_(torch.from_numpy(np.array(piece)))
        start += len(piece)
    return store


def _pad(images: np.ndarray, padding: int) -> np.ndarray:
    return np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))


def _quiet(worker: int) -> None:
    """Leave signals to the main process, which ends the step, saves and then stops its workers.

    Ctrl-C and whoever runs the machine tell all processes at once. A worker whose main process has died ends by itself.
    """
    for number in signals.SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _free_memory() -> int:
    """Return the bytes of host memory that this process may still take, of the machine or of its container."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        facts = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        total = int(facts["MemAvailable"].split()[0]) * 1024
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        return min(total, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # no container, or no limit ("max")
        return total

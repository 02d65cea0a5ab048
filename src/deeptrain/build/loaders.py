"""Loaders of a run: batches to train on, and images to be evaluated."""

import os
from typing import TYPE_CHECKING, Any, Literal

from deeptrain.build.setup import Setup
from deeptrain.config.settings import RunConfig
from deeptrain.errors import UsageError
from deeptrain.runtime.world import SINGLE, World, get_world

if TYPE_CHECKING:  # a part that needs no torch is built without importing it
    from deeptrain.data.dataset import Samples
    from deeptrain.data.loader import Loader
    from deeptrain.runtime.device import Runtime

EVAL_BATCH = 512


def train_loader(setup: Setup, count: int | None = None, world: World = SINGLE, stream: bool = False) -> "Loader":
    """Make the loader of the training images, in random order and with the data set's own crop and flip.

    With a count it has so many of them only, evenly spread; of several processes each gets its part of every batch.
    stream: for a few batches, which are not worth a copy of the whole set on the device.
    """
    from deeptrain.data.loader import make_loader

    settings, device = setup.run.settings, setup.runtime.device
    samples = setup.dataset.train if count is None else setup.dataset.train.evenly_spaced(count)
    size, workers = setup.batch_size, 0 if stream else worker_count(settings.workers)
    try:
        return make_loader(
            setup.source,
            samples,
            batch_size=size if count is None else min(size, len(samples)),
            device=device,
            seed=settings.seed,
            workers=workers,
            train=True,
            world=world,
            min_batch=max(2, setup.min_images * setup.world.size) if size > 1 else 1,
            stream=stream,
        )
    except ValueError as error:
        raise UsageError([str(error)]) from error


def eval_loader(source: Any, samples: Any, run: RunConfig, runtime: "Runtime") -> "Loader":
    """Make the loader of images to be evaluated: in their order, as they are."""
    from deeptrain.data.loader import make_loader

    workers = worker_count(run.settings.workers)
    return make_loader(source, samples, batch_size=EVAL_BATCH, device=runtime.device, workers=workers)


def worker_count(workers: int | Literal["auto"]) -> int:
    return max(1, min(os.cpu_count() or 1, 8) // get_world().local_size) if workers == "auto" else workers


def shard(samples: "Samples", world: World) -> "Samples":
    """Pick a process's share of the images to be evaluated: each belongs to one process."""
    import numpy as np

    part = world.shard(slice(0, len(samples)))
    everything = part == slice(0, len(samples))
    return samples if everything else samples.select(np.arange(part.start, part.stop))

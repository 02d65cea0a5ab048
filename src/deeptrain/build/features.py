"""Features below a head that learns alone: computed once, where images never change."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from deeptrain.build.loaders import EVAL_BATCH, worker_count
from deeptrain.build.setup import Setup

if TYPE_CHECKING:  # a part that needs no torch is built without importing it
    from torch import Tensor, nn

    from deeptrain.data.dataset import Samples

logger = logging.getLogger(__name__)


def remember_features(setup: Setup, network: "nn.Module") -> None:
    """Let a network whose head alone learns compute the features of images once, where that is possible.

    On a GPU the images would have to come to the host each time, to be recognised.
    """
    from deeptrain.data.loader import make_loader
    from deeptrain.model import feature_memory
    from deeptrain.runtime.memory import free_memory

    samples, source, runtime = setup.dataset.train, setup.source, setup.runtime
    moves = source.augment and (source.crop_padding or source.flip or samples.images is None)
    if setup.run.settings.finetune.head_only < 1 or setup.pipeline.augmentations or moves:
        return
    if runtime.device.type != "cpu" or runtime.compile or not setup.world.is_single:
        return

    def inputs(chosen: "Samples", workers: int) -> "Iterator[Tensor]":
        settings = {"batch_size": min(EVAL_BATCH, len(chosen)), "device": runtime.device, "workers": workers}
        loader = make_loader(source, chosen, **settings, stream=True)
        try:
            for images, _ in loader.epoch(0):
                yield setup.pipeline.evaluate(images)
        finally:
            loader.close()

    def fill() -> "Iterator[Tensor]":
        logger.info("computing the features of %s images, once", f"{len(samples):,}")
        return inputs(samples, worker_count(setup.run.settings.workers))

    with runtime.autocast:
        some = next(inputs(samples.evenly_spaced(2), 0))
        room, classes = free_memory() // 4, len(setup.dataset.classes)
        feature_memory.remember_features(network, classes, some, fill, len(samples), room)

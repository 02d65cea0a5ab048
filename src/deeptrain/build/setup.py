"""What training and evaluation both need: the data, the machine and the way from pixels to the network."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deeptrain.build.data import data_info, data_source, load_data, smaller_than_known
from deeptrain.build.initial import check_inputs, initial_weights
from deeptrain.build.inputs import input_pipeline, normalised_as
from deeptrain.build.measures import check_loggers
from deeptrain.config import checks
from deeptrain.config.settings import RunConfig
from deeptrain.errors import UsageError
from deeptrain.runtime.world import SINGLE, World, get_world

if TYPE_CHECKING:  # a part that needs no torch is built without importing it
    from deeptrain.aug.pipeline import Pipeline
    from deeptrain.data.dataset import Dataset
    from deeptrain.runtime.device import Runtime
    from deeptrain.training.initial_weights import InitialWeights


@dataclass
class Setup:
    """What training and evaluation both need: the data, the machine and the way from pixels to the network."""

    run: RunConfig
    source: Any
    dataset: "Dataset"
    runtime: "Runtime"
    pipeline: "Pipeline"
    world: World = SINGLE  # the processes that train together
    machine: str = ""  # device, threads and precision, for the reader
    initial_weights: "InitialWeights | None" = None  # of another run, that training starts from
    min_images: int = 1  # that a process sends through the network at once in training
    warnings: list[str] = field(default_factory=list)  # a sentence for every setting that has no effect

    @property
    def batch_size(self) -> int:
        """Return the images of a step; auto: the power of two that makes about 100 steps an epoch, from 16 to 128."""
        wanted, available = self.run.settings.batch_size, len(self.dataset.train)
        if wanted != "auto":
            return wanted
        power = 1 << max(1, available // 100).bit_length() - 1
        return min(available, 128, max(16, power))

    @property
    def rate_factor(self) -> float:
        """Return what scale_lr multiplies every rate by: by the images of a whole step, of all its pieces and ranks."""
        from deeptrain.optimizer import batch_factor

        settings = self.run.settings
        return batch_factor(settings.scale_lr, min(self.batch_size, len(self.dataset.train)), settings.base_batch)


def open_setup(
    run: RunConfig, learned_classes: list[str] | None = None, initial: "InitialWeights | None" = None
) -> Setup:
    """Open the data (decoding it the first time) and set up the machine.

    learned_classes: of a run that goes on, in its own order. initial: the weights that a run which goes on, or is
    repeated, has started from; those of another run are read here.
    """
    from deeptrain.data.leaks import describe_leaks
    from deeptrain.runtime import dynamo
    from deeptrain.runtime.device import Runtime, pick_device, pick_precision, use_threads

    settings, world = run.settings, get_world()
    try:
        device, reason = pick_device(settings.device, world)
    except ValueError as error:
        raise UsageError([str(error)]) from error
    check_loggers(run)
    val_images = "train" if settings.overfit else settings.validate.images
    source = data_source(run, learned_classes=learned_classes, val_images=val_images)
    dataset = load_data(run, source.load)
    if (initial := initial_weights(run, initial)) is not None and initial.mean:
        check_inputs(run, initial, source, dataset)
        dataset = normalised_as(initial, source, dataset)
    precision = pick_precision(settings.precision, device)
    runtime = Runtime(device, precision, settings.compile)
    if not settings.compile:
        dynamo.leave_out()
    pipeline = input_pipeline(run, source, dataset, initial)
    setup = Setup(run, source, dataset, runtime, pipeline, world, initial_weights=initial)
    pixels = setup.batch_size * math.prod(dataset.image_shape[1:]) // world.size
    threads = use_threads(settings.threads, pixels)
    reason += f", {threads}" if device.type == "cpu" else ""
    reason += f", {precision} (auto)" if settings.precision == "auto" else ""
    reason += ", products in TF32" if device.type == "cuda" and precision == "fp32" else ""
    setup.machine = reason
    setup.warnings = [*checks.check(run, known_facts(setup)), *dataset.warnings, *describe_leaks(source, dataset)]
    setup.warnings += smaller_than_known(run, dataset)
    return setup


def known_facts(setup: Setup) -> checks.Facts:
    """Return what the data add to the settings when their combination is checked."""
    counts, decoder = data_info(setup.dataset)["class_counts"], setup.dataset.train.decoder
    drawn = decoder is not None and decoder.short_side_range is not None
    names, augs = tuple(setup.dataset.classes), zip(setup.run.parts["aug"], setup.pipeline.augmentations, strict=True)
    return checks.Facts(
        setup.dataset.image_shape,
        counts,
        setup.batch_size,
        setup.runtime.device.type,
        names,
        drawn,
        characters=getattr(setup.source, "characters", False),
        mixing=tuple(name for name, applied in augs if applied.mixes),
    )

"""From configuration to objects: a node to its part, all parts to a Trainer. A failure names the key to change."""

import copy
import inspect
import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from deeptrain.config import checks
from deeptrain.config.compose import RunConfig, Settings, part_nodes
from deeptrain.errors import UsageError
from deeptrain.runtime.random import key as random_key
from deeptrain.runtime.world import SINGLE, World, get_world
from deeptrain.schema import choose

if TYPE_CHECKING:  # a part that needs no torch is built without importing it
    from torch import Tensor, nn

    from deeptrain.aug.pipeline import Pipeline, RandomApply
    from deeptrain.aug.whitening import Whitening
    from deeptrain.average import Average
    from deeptrain.data.dataset import Dataset, Samples
    from deeptrain.data.loader import Loader
    from deeptrain.loggers.run_logger import RunLogger
    from deeptrain.runtime.device import Runtime
    from deeptrain.training.progress import Plan
    from deeptrain.training.trainer import Trainer
    from deeptrain.training.validation import Validator

EVAL_BATCH = 512
T = TypeVar("T")


def part(key: str, node: Mapping[str, Any], **runtime: Any) -> Any:
    """Call what a node's `_target_` names, with the node's values and those runtime objects that it asks for.

    The target has been checked against the allowed packages (config.py). Raises UsageError: "key.name=value: ...".
    """
    settings = {name: value for name, value in node.items() if name != "_target_"}
    target = _locate(key, node["_target_"])
    accepted = inspect.signature(target).parameters
    wanted = {name: value for name, value in runtime.items() if name in accepted and name not in settings}
    if "parameters" in runtime and "parameters" not in accepted:  # torch's own optimizers call them params
        wanted["params"] = runtime["parameters"]
    try:
        return target(**settings, **wanted)
    except (ValueError, TypeError) as error:
        raise UsageError([_named(key, str(error).partition("\n")[0], settings)]) from error


def _locate(key: str, path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        raise UsageError([f"{key}._target_={path}: cannot be imported ({error})"]) from error
    except AttributeError as error:
        public = [word for word in dir(import_module(module)) if not word.startswith("_")]
        raise UsageError([f"{key}._target_={path}: {module} has no {name}; {choose(name, public)}"]) from error


def _named(key: str, message: str, settings: Mapping[str, Any]) -> str:
    """Put a constructor's complaint behind its key: `alpha=-1: ...` of aug.mixup becomes `aug.mixup.alpha=-1: ...`."""
    about = re.match(r"(\w+)=", message)
    return f"{key}.{message}" if about and about[1] in settings else message if about else f"{key}: {message}"


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
    warnings: list[str] = field(default_factory=list)  # a sentence for every setting that has no effect

    @property
    def batch_size(self) -> int:
        """Return the images of a step; auto: the power of two that makes about 100 steps an epoch, from 16 to 128."""
        wanted, available = self.run.spine.batch_size, len(self.dataset.train)
        if wanted != "auto":
            return wanted
        power = 1 << max(1, available // 100).bit_length() - 1
        return min(available, 128, max(16, power))


def check_settings(run: RunConfig) -> list[str]:
    """Build what needs no torch, the data source and the schedule, so that their mistakes are told within a second.

    Returns a sentence for every setting that will have no effect, as far as the settings alone can tell.
    """
    mistakes = _rehearse_parts(run.parts, run.spine)
    try:
        warnings = checks.check(run)
    except UsageError as wrong:
        raise UsageError([*mistakes, *wrong.lines]) from None
    if mistakes:
        raise UsageError(mistakes)
    return warnings


def with_settings_checked(wrong: UsageError) -> UsageError:
    """Add to what is wrong with a command's words what a rehearsal finds wrong with those that are sound."""
    return UsageError([*wrong.lines, *_rehearse_parts(wrong.valid_parts)])


def _rehearse_parts(parts: Mapping[str, Any], spine: Settings | None = None) -> list[str]:
    """Build the data source, and with the settings of every run the schedule; return what is wrong with them."""
    mistakes = []
    try:
        available = getattr(part("data", parts["data"]), "available", math.inf) if "data" in parts else math.inf
        if spine is not None and spine.batch_size != "auto" and spine.batch_size > available:
            mistakes.append(
                f"batch_size={spine.batch_size}: must be at most {available}, the number of images there are"
            )
    except UsageError as wrong:
        mistakes += wrong.lines
    try:
        if spine is not None:
            part("schedule", parts["schedule"], epochs=spine.epochs)
    except UsageError as wrong:
        mistakes += wrong.lines
    return mistakes


def open_setup(run: RunConfig) -> Setup:
    """Open the data (decoding it the first time) and set up the machine."""
    from deeptrain.runtime.device import keep_malloc_arena

    keep_malloc_arena()
    return _open_setup(run)


def _open_setup(run: RunConfig) -> Setup:
    from deeptrain.aug.pipeline import Pipeline
    from deeptrain.runtime.device import Runtime, pick_device, pick_precision, use_threads

    spine, world = run.spine, get_world()
    try:
        device, reason = pick_device(spine.device, world)
    except ValueError as error:
        raise UsageError([str(error)]) from error
    source = part("data", run.parts["data"])
    dataset = opened(run, source.load)
    nodes = [(key, node) for key, node in part_nodes(run.parts) if key.startswith("aug.")]
    augmentations = [augmentation(key, node, run, dataset) for key, node in nodes]
    pipeline = Pipeline(augmentations, dataset.mean, dataset.std, subtract_image_mean=source.subtract_image_mean)
    pipeline.whitening = whitening(run, source, dataset, pipeline)
    precision = pick_precision(spine.precision, device)
    runtime = Runtime(device, precision, spine.compile)
    setup = Setup(run, source, dataset, runtime, pipeline, world)
    pixels = setup.batch_size * math.prod(dataset.image_shape[1:]) // world.size
    threads = use_threads(spine.threads, pixels)
    reason += f", {threads}" if device.type == "cpu" else ""
    reason += f", {precision} (auto)" if spine.precision == "auto" else ""
    setup.machine = reason
    setup.warnings = checks.check(run, _known(setup))
    return setup


def check_by_building(run: RunConfig) -> list[str]:
    """Build all parts of a run to find mistakes; return warnings.

    It is let go of again, and was built without a copy of its images, on the CPU: other processes are to train.
    """
    import torch

    from deeptrain.runtime.device import Runtime

    tried = _open_setup(run)
    tried.source.loader, tried.runtime = "stream", Runtime(torch.device("cpu"))
    trainer(tried)
    return tried.warnings


def _known(setup: Setup) -> checks.Facts:
    """Return what the data add to the settings when their combination is checked."""
    counts, decoder = data_info(setup.dataset)["class_counts"], setup.dataset.train.decoder
    drawn = decoder is not None and decoder.short_side_range is not None
    return checks.Facts(setup.dataset.image_shape, counts, setup.batch_size, setup.runtime.device.type, drawn)


def augmentation(key: str, node: Mapping[str, Any], run: RunConfig, dataset: "Dataset") -> "RandomApply":
    """Build an augmentation and how often and until when it is applied, unless its constructor takes that itself."""
    from deeptrain.aug.pipeline import RandomApply
    from deeptrain.data.statistics import covariance

    accepted, facts = inspect.signature(_locate(key, node["_target_"])).parameters, data_info(dataset)
    if "covariance" in accepted:  # it takes a look at thousands of images
        facts["covariance"] = opened(run, lambda cache_dir: covariance(dataset, cache_dir))
    when = {name: node[name] for name in ("probability", "until") if name in node and name not in accepted}
    own = {name: value for name, value in node.items() if name not in when}
    return RandomApply(part(key, own, **facts), **when)


def whitening(run: RunConfig, source: Any, dataset: "Dataset", pipeline: "Pipeline") -> "Whitening | None":
    """Compute the whitening of the pipeline's images from a spread of train; what takes long is kept in the cache."""
    if source.whiten is None:
        return None
    import torch

    from deeptrain.aug.whitening import FIT_IMAGES, MAX_INPUT_VALUES, MAX_UNCACHED_VALUES, Whitening
    from deeptrain.data.statistics import cached_arrays, sample_images

    values = math.prod(dataset.image_shape)
    if values > MAX_INPUT_VALUES:
        reason = f"an image has {values:,} values, each computed from all; more than {MAX_INPUT_VALUES:,} are too many"
        raise UsageError([f"data.whiten={source.whiten}: {reason}: choose smaller images or data.whiten=null"])

    def fit() -> list[Any]:
        if values > MAX_UNCACHED_VALUES:
            logging.getLogger(__name__).info("computing the whitening of %s values an image, once", f"{values:,}")
        images = torch.from_numpy(sample_images(dataset.train, FIT_IMAGES)).permute(0, 3, 1, 2)
        fitted = Whitening.fit(pipeline.evaluate(images), source.whiten, source.whiten_eps)
        return [fitted.weight.numpy(), fitted.bias.numpy()]

    normalisation = [pipeline.shift, pipeline.scale, source.subtract_image_mean]
    what = {"whiten": [source.whiten, source.whiten_eps, FIT_IMAGES], "normalisation": normalisation}
    if values <= MAX_UNCACHED_VALUES:
        arrays = fit()
    else:
        arrays = opened(run, lambda cache_dir: cached_arrays(dataset, what, fit, cache_dir))
    return Whitening(*map(torch.from_numpy, arrays))


def opened(run: RunConfig, load: Callable[[Path | None], T]) -> T:
    """Open data through a source's method, with the user's cache; UsageError that name the setting or the file."""
    cache = run.spine.cache_dir
    try:
        return load(Path(cache).expanduser() if cache else None)
    except ValueError as error:
        raise UsageError([_named("data", str(error), run.parts["data"])]) from error


def data_info(dataset: "Dataset") -> dict[str, Any]:
    """Return what parts may ask to know of the data."""
    return {
        "input_shape": dataset.image_shape,
        "num_classes": len(dataset.classes),
        "class_counts": np.bincount(dataset.train.labels, minlength=len(dataset.classes)).tolist(),
        "mean": [float(value) for value in dataset.mean],
    }


def model(setup: Setup) -> "nn.Module":
    """Build the model with weights drawn from the run's seed, on its device."""
    setup.runtime.seed(random_key(setup.run.spine.seed, "weights"))
    built = part("model", setup.run.parts["model"], **data_info(setup.dataset))
    return setup.runtime.place(built)


def loss(setup: Setup) -> "Callable[[Tensor, Tensor], Tensor]":
    """Build the loss and try it on zeros (2, K): one of your own may not know the targets that this run has."""
    import torch

    name, classes = setup.run.choices["loss"], len(setup.dataset.classes)
    built = part("loss", setup.run.parts["loss"], **data_info(setup.dataset))
    logits = torch.zeros(2, classes, device=setup.runtime.device)
    kinds = {"class ids": torch.zeros_like(logits[:, 0], dtype=torch.int64)}
    augs = zip(setup.run.parts["aug"], setup.pipeline.augmentations, strict=True)
    if mixing := [aug for aug, applied in augs if applied.mixes]:
        kinds[f"mixed targets, which aug={mixing[0]} makes"] = torch.full_like(logits, 1 / classes)
    for kind, targets in kinds.items():
        try:
            built(logits, targets)
        except Exception as error:  # whatever somebody's loss may raise
            reason = str(error).partition("\n")[0]
            raise UsageError([f"loss={name}: does not take {kind} ({reason})"]) from error
    return built


def accepts_single_image(network: "nn.Module", input_shape: tuple[int, int, int]) -> bool:
    """Tell whether training can pass images one at a time: a batch norm refuses a channel of a single number."""
    import torch

    shapes_alone = copy.deepcopy(network).to("meta").train()
    try:
        shapes_alone(torch.empty(1, *input_shape, device="meta"))
    except ValueError as error:
        return "more than 1 value per channel" not in str(error)
    return True


def train_loader(setup: Setup, count: int | None = None, world: World = SINGLE) -> "Loader":
    """Make the loader of the training images, in random order and with the data set's own crop and flip.

    With a count it has so many of them only, evenly spread; of several processes each gets its part of every batch.
    """
    from deeptrain.data.loader import make_loader

    spine, device = setup.run.spine, setup.runtime.device
    samples = setup.dataset.train if count is None else setup.dataset.train.evenly_spaced(count)
    size, workers = setup.batch_size, worker_count(spine.workers)
    try:
        return make_loader(
            setup.source,
            samples,
            batch_size=size if count is None else min(size, len(samples)),
            device=device,
            seed=spine.seed,
            workers=workers,
            train=True,
            world=world,
        )
    except ValueError as error:
        raise UsageError([str(error)]) from error


def eval_loader(source: Any, samples: Any, run: RunConfig, runtime: "Runtime") -> "Loader":
    """Make the loader of images to be evaluated: in their order, as they are."""
    from deeptrain.data.loader import make_loader

    workers = worker_count(run.spine.workers)
    return make_loader(source, samples, batch_size=EVAL_BATCH, device=runtime.device, workers=workers)


def worker_count(workers: int | Literal["auto"]) -> int:
    return max(1, min(os.cpu_count() or 1, 8) // get_world().local_size) if workers == "auto" else workers


def trainer(setup: Setup, metadata: dict[str, Any] | None = None, logger: "RunLogger | None" = None) -> "Trainer":
    """Build what a run still lacks and put all of it together; without a logger it trains in silence."""
    from deeptrain.loggers.console import Console
    from deeptrain.loggers.run_logger import RunLogger
    from deeptrain.optimizer import SAM, parameter_groups, plain_gradient
    from deeptrain.training.recovery import auto_accumulate
    from deeptrain.training.trainer import Trainer

    spine, parts, world = setup.run.spine, setup.run.parts, setup.world
    batches = train_loader(setup, world=world)
    network = model(setup)
    _check_batch_norm(setup, network)
    if spine.sync_batch_norm:
        world.sync_batch_norm(network)
    average = part("average", parts["average"], model=network) if parts["average"] else None
    optimizer = part("optimizer", parts["optimizer"], parameters=parameter_groups(network))
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    criterion = loss(setup)
    trainer = Trainer(
        network,
        optimizer,
        setup.pipeline,
        batches,
        _validator(setup, network, criterion, average),
        plan=_plan(spine),
        schedule=part("schedule", parts["schedule"], epochs=spine.epochs),
        loss=criterion,
        runtime=setup.runtime,
        logger=logger or RunLogger(Console(quiet=True)),
        gradient=SAM(network, parameters, spine.sam) if spine.sam else plain_gradient,
        penalty=part("penalty", parts["penalty"]) if parts["penalty"] else None,
        average=average,
        accumulate=1 if spine.accumulate == "auto" else spine.accumulate,
        clip_norm=spine.clip_norm,
        max_norm=spine.max_norm,
        seed=spine.seed,
        world=world,
        metadata=metadata or {},
    )
    if spine.accumulate == "auto":
        auto_accumulate(trainer)
    return trainer


def build_trainer(run: RunConfig) -> "Trainer":
    """Open the data of a composed run and build its trainer, without a run folder; it trains in silence."""
    return trainer(open_setup(run))


def _plan(settings: Settings) -> "Plan":
    from deeptrain.training.progress import Plan

    return Plan(
        epochs=settings.epochs,
        limit_steps=settings.limit_steps,
        max_seconds=settings.max_seconds,
        monitor=settings.monitor,
        patience=settings.early_stop.patience,
        min_delta=settings.early_stop.min_delta,
        validate_every_epochs=settings.validate.every_epochs,
        validate_every_steps=settings.validate.every_steps,
        save_every_steps=settings.checkpoint.every_steps,
        save_every_minutes=settings.checkpoint.every_minutes,
        log_every_steps=settings.log.every_steps,
    )


def _validator(setup: Setup, network: "nn.Module", criterion: Any, average: "Average | None") -> "Validator":
    from deeptrain.loss import for_evaluation
    from deeptrain.training.validation import Validator

    clean = setup.dataset.train.evenly_spaced(setup.run.spine.validate.clean_images)
    bn_images = average.bn_images if average is not None else 0

    def loader(samples: "Samples") -> "Loader":
        return eval_loader(setup.source, _own(samples, setup.world), setup.run, setup.runtime)

    return Validator(
        network,
        loader(setup.dataset.val),
        setup.pipeline,
        setup.runtime,
        for_evaluation(criterion),
        clean_loader=loader(clean) if len(clean) else None,
        bn_loader=train_loader(setup, bn_images) if bn_images else None,
        average=average,
        seed=setup.run.spine.seed,
        world=setup.world,
    )


def _check_batch_norm(setup: Setup, network: "nn.Module") -> None:
    """Raise UsageError if training would pass a single image through a batch norm."""
    one_at_a_time = checks.Combination(setup.run, _known(setup)).min_micro_batch() == 1
    if one_at_a_time and not accepts_single_image(network, setup.dataset.image_shape):
        size, count = setup.batch_size, setup.run.spine.accumulate
        message = f"batch_size={size}: model.norm=batch cannot norm a single image this small (accumulate={count})"
        raise UsageError([f"{message}; take a larger batch, or model.norm=group"])


def _own(samples: "Samples", world: World) -> "Samples":
    """Pick a process's share of the images to be evaluated: each is somebody's, once."""
    part = world.shard(slice(0, len(samples)))
    everything = part == slice(0, len(samples))
    return samples if everything else samples.select(np.arange(part.start, part.stop))

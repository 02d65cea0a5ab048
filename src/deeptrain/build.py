"""From configuration to objects: a node to its part, all parts to a Trainer. A failure names the key to change."""

import inspect
import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from deeptrain.config import checks
from deeptrain.config.instantiate import instantiate, locate, name_setting
from deeptrain.config.settings import RunConfig, part_nodes
from deeptrain.errors import UsageError, error_line
from deeptrain.model import published
from deeptrain.runtime.world import SINGLE, World, get_world
from deeptrain.schema import format_value

if TYPE_CHECKING:  # a part that needs no torch is built without importing it
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from deeptrain.aug.pipeline import Pipeline, RandomApply
    from deeptrain.aug.whitening import Whitening
    from deeptrain.average import Average
    from deeptrain.data.dataset import Dataset, Samples
    from deeptrain.data.loader import Loader
    from deeptrain.loggers.logger import Logger
    from deeptrain.loggers.run_logger import RunLogger
    from deeptrain.metrics.metric import Metric
    from deeptrain.model.published import InputRecipe
    from deeptrain.runtime.device import Runtime
    from deeptrain.training.initial_weights import InitialWeights
    from deeptrain.training.progress import Plan
    from deeptrain.training.trainer import Gradient, Trainer
    from deeptrain.training.validation import Validator

EVAL_BATCH = 512
VITALS_EVERY = 200  # steps
T = TypeVar("T")


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
    pipeline = input_pipeline(run, source, dataset, initial)
    setup = Setup(run, source, dataset, runtime, pipeline, world, initial_weights=initial)
    pixels = setup.batch_size * math.prod(dataset.image_shape[1:]) // world.size
    threads = use_threads(settings.threads, pixels)
    reason += f", {threads}" if device.type == "cpu" else ""
    reason += f", {precision} (auto)" if settings.precision == "auto" else ""
    reason += ", products in TF32" if device.type == "cuda" and precision == "fp32" else ""
    setup.machine = reason
    setup.warnings = [*checks.check(run, _known(setup)), *dataset.warnings, *describe_leaks(source, dataset)]
    setup.warnings += _smaller_than_known(run, dataset)
    return setup


def data_source(run: RunConfig, **facts: Any) -> Any:
    """Build the data source of a run. Its pictures get the size that published weights know."""
    return instantiate("data", run.parts["data"], **facts, input_recipe=input_recipe(run))


def _smaller_than_known(run: RunConfig, dataset: "Dataset") -> list[str]:
    """Return a line if images are less than half as large as those that published weights know."""
    recipe, side = input_recipe(run), min(dataset.image_shape[1:])
    if recipe is None or 2 * side > recipe.size or run.parts["data"].get("image_size"):
        return []
    remedy = "larger ones transfer better, as files with data=image_folder data.image_size=112"
    return [f"model.weights know images of {recipe.size}x{recipe.size}, these have a side of {side}: {remedy}"]


def input_recipe(run: RunConfig) -> "InputRecipe | None":
    """Return how the images of model.weights became inputs, None without; UsageError if there are no such weights."""
    try:
        return published.recipe(run.parts["model"])
    except ValueError as error:
        raise UsageError([f"model.weights={published.weights_of(run.parts['model'])}: {error}"]) from error


def normalised_as(initial: "InitialWeights", source: Any, dataset: "Dataset") -> "Dataset":
    """Return the data with mean and std of the initial weights, unless the user has set them."""
    import numpy as np

    mean, std = getattr(source, "mean", None), getattr(source, "std", None)
    known = np.array(initial.mean), np.array(initial.std)
    if dataset.image_shape[0] == 1:  # grey images for weights of colour ones
        known = known[0].mean(keepdims=True), known[1].mean(keepdims=True)
    return replace(dataset, mean=dataset.mean if mean else known[0], std=dataset.std if std else known[1])


def input_pipeline(run: RunConfig, source: Any, dataset: "Dataset", initial: "InitialWeights | None") -> "Pipeline":
    """Build the way from pixels to inputs: as it was for the initial weights, else as the data set asks."""
    from deeptrain.aug.pipeline import Pipeline
    from deeptrain.aug.whitening import Whitening

    nodes = [(key, node) for key, node in part_nodes(run.parts) if key.startswith("aug.")]
    augmentations = [augmentation(key, node, run, dataset) for key, node in nodes]
    pipeline = Pipeline(augmentations, dataset.mean, dataset.std, subtract_image_mean=source.subtract_image_mean)
    if initial is None or not initial.mean:
        pipeline.whitening = whitening(run, source, dataset, pipeline)
    else:
        pipeline.subtract_image_mean = initial.subtract_image_mean
        pipeline.whitening = Whitening(**initial.whitening) if initial.whitening else None
    return pipeline


def initial_weights(run: RunConfig, known: "InitialWeights | None" = None) -> "InitialWeights | None":
    """Return the weights to start from on all ranks, None without any. Only rank 0 reads them, unless it knows them."""
    from deeptrain.training.initial_weights import InitialWeights

    world = get_world()
    if run.origin is None:
        return None
    key, path = run.origin
    try:
        known = known or (_read_initial(run) if world.is_main else None)
    except ValueError as error:
        raise UsageError([f"{key}={path}: {error}".replace(f"{path}: {path}", path)]) from error
    fields: Any = world.broadcast(known and vars(known))
    return InitialWeights(**fields)


def _read_initial(run: RunConfig) -> "InitialWeights":
    """Read the weights of init_from or model.weights, fetched if they are not there; ValueError in a line."""
    from deeptrain.training.initial_weights import find, read, read_published

    if run.settings.init_from is not None:
        return read(find(run.settings.init_from))
    node = run.parts["model"]
    recipe = published.recipe(node)
    assert recipe is not None
    return read_published(published.find(node), recipe.mean, recipe.std)


def check_inputs(run: RunConfig, initial: "InitialWeights", source: Any, dataset: "Dataset") -> None:
    """Raise UsageError if images cannot become inputs as they did for the initial weights."""
    name = "{}={}".format(*(run.origin or ("init_from", initial.path)))
    if initial.is_of_a_run:
        _check_shape(run, initial, dataset, name)
    for key, asked, was in (
        ("data.whiten", source.whiten, bool(initial.whitening)),
        ("data.subtract_image_mean", source.subtract_image_mean, initial.subtract_image_mean),
    ):
        if asked and not was:
            raise UsageError([f"{key}={format_value(asked)}: {name} was trained without it; leave it out"])


def _check_shape(run: RunConfig, initial: "InitialWeights", dataset: "Dataset", name: str) -> None:
    channels, *sides = initial.input_shape
    if channels != dataset.image_shape[0]:
        remedy = f"; write data.channels={channels}" if "channels" in run.parts["data"] else ""
        count = f"{channels} channel" + "s" * (channels > 1)
        raise UsageError([f"{name}: was trained on images of {count}, these have {dataset.image_shape[0]}{remedy}"])
    if initial.whitening and tuple(initial.input_shape) != dataset.image_shape:
        raise UsageError([f"{name}: was trained on whitened images of {sides[0]}x{sides[1]}; take images of that size"])


def _known(setup: Setup) -> checks.Facts:
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


def augmentation(key: str, node: Mapping[str, Any], run: RunConfig, dataset: "Dataset") -> "RandomApply":
    """Build an augmentation and how often and until when it is applied, unless its constructor takes that itself."""
    from deeptrain.aug.pipeline import RandomApply
    from deeptrain.data.statistics import covariance

    accepted, facts = inspect.signature(locate(key, node["_target_"])).parameters, data_info(dataset)
    if "covariance" in accepted:  # it takes a look at thousands of images
        facts["covariance"] = load_data(run, lambda cache_dir: covariance(dataset, cache_dir))
    when = {name: node[name] for name in ("probability", "until") if name in node and name not in accepted}
    own = {name: value for name, value in node.items() if name not in when}
    return RandomApply(instantiate(key, own, **facts), **when)


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
        arrays = load_data(run, lambda cache_dir: cached_arrays(dataset, what, fit, cache_dir))
    return Whitening(*map(torch.from_numpy, arrays))


def load_data(run: RunConfig, load: Callable[[Path | None], T]) -> T:
    """Open data through a source's method, with the user's cache; UsageError that name the setting or the file."""
    cache = run.settings.cache_dir
    try:
        return load(Path(cache) if cache else None)
    except ValueError as error:
        lines = str(error).splitlines()
        raise UsageError(name_setting("data", line, run.parts["data"]) for line in lines) from error
    except OSError as error:
        raise UsageError([f"data={run.choices['data']}: {error_line(error)}"]) from error
    except MemoryError as error:
        message = f"data={run.choices['data']}: does not fit into memory; choose fewer or smaller images"
        raise UsageError([message]) from error


def data_info(dataset: "Dataset") -> dict[str, Any]:
    """Return what parts may ask to know of the data."""
    import numpy as np

    return {
        "input_shape": dataset.image_shape,
        "num_classes": len(dataset.classes),
        "class_names": dataset.classes,
        "class_counts": np.bincount(dataset.train.labels, minlength=len(dataset.classes)).tolist(),
        "mean": [float(value) for value in dataset.mean],
        "in_chans": dataset.image_shape[0],  # timm's word
    }


def model(setup: Setup) -> "nn.Module":
    """Build the model with weights drawn from the run's seed, on its device."""
    from deeptrain.runtime.random import fold_in

    setup.runtime.seed(fold_in(setup.run.settings.seed, "weights"))
    built = instantiate("model", setup.run.parts["model"], **data_info(setup.dataset))
    built = setup.runtime.to_device(built)
    if setup.initial_weights is not None and setup.initial_weights.tensors:
        _load_initial(setup, setup.initial_weights, built)
    return built


def _load_initial(setup: Setup, initial: "InitialWeights", network: "nn.Module") -> None:
    """Load the weights to start from; UsageError with what to type if they do not fit."""
    try:
        initial.load_into(network, setup.dataset.classes, setup.run.settings.init_match)
    except ValueError as error:
        if not initial.is_of_a_run:
            raise UsageError(["{}={}: {}".format(*(setup.run.origin or ("", "")), error)]) from error
        old, new = ("x".join(map(str, shape)) for shape in (initial.input_shape, setup.dataset.image_shape))
        images = f", images {old} there, here {new}" if old != new else ""
        words = _fitting_stem(setup, initial) or " ".join(initial.model_settings())
        remedy = f"write {words}" if words else "choose the model that it had"
        name = f"init_from={setup.run.settings.init_from}"
        raise UsageError([f"{name}: its weights do not fit this model ({error}{images}); {remedy}"]) from error


def _fitting_stem(setup: Setup, initial: "InitialWeights") -> str:
    """Return the setting of the stem with which the weights fit: it goes by the size of the images. "" if none does."""
    import torch

    node = setup.run.parts["model"]
    for stem in ("small", "pool", "large") if "stem" in node else ():
        try:
            with torch.device("meta"):
                network = instantiate("model", {**node, "stem": stem}, **data_info(setup.dataset))
            initial.load_into(network, setup.dataset.classes)
        except ValueError:  # of this stem, or of these weights
            continue
        return f"model.stem={stem}"
    return ""


def check_model(setup: Setup, network: "nn.Module") -> None:
    """Raise UsageError if the network fits neither the data nor the batch; warn of parameters without a gradient."""
    from deeptrain.training import rehearsal

    name = setup.run.choices["model"]
    what = network, setup.dataset.image_shape, len(setup.dataset.classes), setup.runtime
    try:
        idle = rehearsal.forward_backward(*what)
        setup.min_images = 1 if setup.run.settings.sync_batch_norm else rehearsal.min_images(*what)
    except ValueError as error:
        raise UsageError([f"model={name}: {error}"]) from error
    if idle:
        more = f" and {len(idle) - 1} more" if len(idle) > 1 else ""
        setup.warnings.append(f"model={name}: {idle[0]}{more} get no gradient, so they are never trained")
    if checks.CombinedSettings(setup.run, _known(setup)).micro_batch() < setup.min_images:
        size, count = setup.batch_size, setup.run.settings.accumulate
        message = f"batch_size={size}: model={name} cannot train on a single image (accumulate={count})"
        raise UsageError([f"{message}; take a larger batch, or a model without batch norm"])


def check_compiler(setup: Setup) -> None:
    """Raise UsageError if compile=true cannot work on this machine."""
    from deeptrain.training import rehearsal

    if setup.runtime.compile:
        try:
            rehearsal.compile_probe(setup.runtime.device)
        except ValueError as error:
            raise UsageError([f"compile=true: {error}; install one (g++), or write compile=false"]) from error


def loss(setup: Setup) -> "Callable[[Tensor, Tensor], Tensor]":
    """Build the loss and try it on zeros (2, K): one of your own may not know the targets that this run has."""
    import torch

    name, classes = setup.run.choices["loss"], len(setup.dataset.classes)
    built = instantiate("loss", setup.run.parts["loss"], **data_info(setup.dataset))
    logits = torch.zeros(2, classes, device=setup.runtime.device)
    kinds = {"class ids": torch.zeros_like(logits[:, 0], dtype=torch.int64)}
    augs = zip(setup.run.parts["aug"], setup.pipeline.augmentations, strict=True)
    if mixing := [aug for aug, applied in augs if applied.mixes]:
        kinds[f"mixed targets, which aug={mixing[0]} makes"] = torch.full_like(logits, 1 / classes)
    for kind, targets in kinds.items():
        try:
            built(logits, targets)
        except Exception as error:  # a loss of the user's own may raise anything
            reason = str(error).partition("\n")[0]
            raise UsageError([f"loss={name}: does not take {kind} ({reason})"]) from error
    return built


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


def trainer(setup: Setup, metadata: dict[str, Any] | None = None, logger: "RunLogger | None" = None) -> "Trainer":
    """Build what a run still lacks and put all of it together; without a logger it trains in silence."""
    from deeptrain.loggers.console import Console
    from deeptrain.loggers.run_logger import RunLogger
    from deeptrain.training.recovery import auto_accumulate
    from deeptrain.training.trainer import Trainer
    from deeptrain.training.vitals import Vitals

    settings, parts, world = setup.run.settings, setup.run.parts, setup.world
    network = _network(setup)
    batches = train_loader(setup, world=world)
    average = instantiate("average", parts["average"], model=network) if parts["average"] else None
    optimizer = _optimizer(setup, network)
    criterion = loss(setup)
    plan = replace(_plan(setup), steps_per_epoch=len(batches))
    trainer = Trainer(
        network,
        optimizer,
        setup.pipeline,
        batches,
        _validator(setup, network, criterion, average, plan),
        plan=plan,
        schedule=instantiate("schedule", parts["schedule"], epochs=settings.epochs),
        loss=criterion,
        runtime=setup.runtime,
        logger=logger or RunLogger(Console(quiet=True)),
        gradient=_gradient(setup, network, optimizer),
        penalty=instantiate("penalty", parts["penalty"]) if parts["penalty"] else None,
        average=average,
        accumulate=1 if settings.accumulate == "auto" else settings.accumulate,
        min_images=setup.min_images,
        clip_norm=settings.clip_norm,
        max_norm=settings.max_norm,
        seed=settings.seed,
        world=world,
        vitals=Vitals(VITALS_EVERY if settings.log.vitals and world.is_main else 0),
        metadata=metadata or {},
    )
    if settings.accumulate == "auto":
        auto_accumulate(trainer)
    return trainer


def _network(setup: Setup) -> "nn.Module":
    """Build the model and make it ready to train: checked, with batch norms of all processes, partly frozen."""
    network = model(setup)
    check_model(setup, network)
    check_compiler(setup)
    if setup.run.settings.sync_batch_norm:
        setup.world.sync_batch_norm(network)
    freeze_parts(setup, network)
    return network


def build_trainer(run: RunConfig) -> "Trainer":
    """Open the data of a composed run and build its trainer, without a run folder; it trains in silence."""
    from deeptrain.runtime.device import keep_malloc_arena

    keep_malloc_arena()
    return trainer(open_setup(run))


def _optimizer(setup: Setup, network: "nn.Module") -> "Optimizer":
    """Build the optimizer: with weight decay it gets two groups of parameters, else one."""
    from deeptrain.optimizer import multiply_rates, needs_closure, parameter_groups, unreached_optimizers

    node = setup.run.parts["optimizer"]
    groups = parameter_groups(network)
    if not _decays(node):
        groups = [{"params": [parameter for parameter in network.parameters() if parameter.requires_grad]}]
    optimizer = instantiate("optimizer", node, parameters=groups)
    if needs_closure(optimizer):
        _check_closure(setup)
    multiply_rates(optimizer, setup.rate_factor)
    _scale_backbone(setup, network, optimizer)
    setup.warnings += [
        f"optimizer={setup.run.choices['optimizer']}: the schedule does not reach {name}, an optimizer in it; "
        f"put the groups of {name} into its own param_groups"
        for name in unreached_optimizers(optimizer)
    ]
    return optimizer


def rates_of(setup: Setup, network: "nn.Module") -> Callable[[float], list[float]]:
    """Return what tells the rate of each group of parameters for another optimizer.lr.

    It is a straight line: some groups, such as AdamW's in Muon, have a rate of their own.
    """

    def rates(lr: float) -> list[float]:
        parts = {**setup.run.parts, "optimizer": {**setup.run.parts["optimizer"], "lr": lr}}
        other = replace(setup, run=replace(setup.run, parts=parts), warnings=[])
        return [group["lr"] for group in _optimizer(other, network).param_groups]

    low, high = 0.001, 0.002
    lines = [(rate, (other - rate) / (high - low)) for rate, other in zip(rates(low), rates(high), strict=True)]
    return lambda lr: [rate + slope * (lr - low) for rate, slope in lines]


def freeze_parts(setup: Setup, network: "nn.Module") -> None:
    """Freeze what finetune says; UsageError that names the setting."""
    from deeptrain.model.freezing import backbone, freeze, freeze_norms

    finetune, classes = setup.run.settings.finetune, len(setup.dataset.classes)
    try:
        if parts := backbone(network, classes) if finetune.head_only == 1 else finetune.freeze:
            freeze(network, parts)
    except ValueError as error:
        name = "finetune=head" if finetune.head_only == 1 else f"finetune.freeze={format_value(finetune.freeze)}"
        raise UsageError([f"{name}: {error}"]) from error
    if finetune.norms == "freeze":
        freeze_norms(network)
    learns = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    random = setup.initial_weights.random if setup.initial_weights else []
    known = {name for name, _ in network.named_parameters()}
    if still := [name for name in random if name in known - learns]:
        setup.warnings.append(f"{', '.join(still[:2])}: left at random, and frozen; train them too (finetune.freeze)")


def _scale_backbone(setup: Setup, network: "nn.Module", optimizer: "Optimizer") -> None:
    """Give the layers below the head their own rates and start; UsageError if they are not known, or not possible."""
    from deeptrain.model.freezing import layer_rates
    from deeptrain.optimizer import needs_closure, scale_rates

    finetune = setup.run.settings.finetune
    changed = [
        f"finetune.{name}={getattr(finetune, name):g}"
        for name, neutral in (("head_only", 0), ("backbone_lr_factor", 1), ("decay", 1))
        if getattr(finetune, name) != neutral
    ]
    if not changed or finetune.head_only == 1:
        return
    try:
        if needs_closure(optimizer):
            raise ValueError(f"does not go with optimizer={setup.run.choices['optimizer']}, which has one rate for all")
        factors = layer_rates(network, len(setup.dataset.classes), finetune.backbone_lr_factor, finetune.decay)
    except ValueError as error:
        raise UsageError([f"{changed[0]}: {error}"]) from error
    scale_rates(optimizer, factors, finetune.head_only)


def _gradient(setup: Setup, network: "nn.Module", optimizer: "Optimizer") -> "Gradient":
    from deeptrain.gradient import plain_gradient

    if not (node := setup.run.parts["gradient"]):
        return plain_gradient
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return instantiate("gradient", node, model=network, parameters=parameters)


def _decays(node: Mapping[str, Any]) -> bool:
    """Tell whether an optimizer has weight decay, for which parameters are grouped. Some take one group only."""
    parameters = inspect.signature(locate("optimizer", node["_target_"])).parameters.values()
    return any(p.name == "weight_decay" or p.kind == p.VAR_KEYWORD for p in parameters)


def metrics(run: RunConfig, dataset: "Dataset") -> "dict[str, Metric]":
    """Return what a run measures: the metrics of every run, then those of metrics=."""
    from deeptrain.metrics.metric import METRICS

    nodes = run.parts["metrics"].items()
    return {**METRICS, **{name: instantiate(f"metrics.{name}", node, **data_info(dataset)) for name, node in nodes}}


def loggers(run: RunConfig, **facts: Any) -> "list[Logger]":
    """Build the loggers of loggers=; UsageError if one cannot start."""
    built = []
    for name, node in run.parts["loggers"].items():
        try:
            built.append(instantiate(f"loggers.{name}", node, **facts))
        except (UsageError, OSError):
            raise
        except Exception as error:  # of a package that is not ours
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise UsageError([f"loggers={name}: cannot start ({reason[:300]}); leave it out, or mend that"]) from error
    return built


def check_loggers(run: RunConfig) -> None:
    """Raise UsageError if a logger needs a package that is not installed."""
    for name, node in run.parts["loggers"].items():
        package = getattr(locate(f"loggers.{name}", node["_target_"]), "requires", None)
        if package is not None and find_spec(package) is None:
            raise UsageError([f"loggers={name}: needs the package {package}; pip install 'deeptrain[{package}]'"])


def _plan(setup: Setup) -> "Plan":
    from deeptrain.training.progress import Plan

    settings = setup.run.settings
    return Plan(
        epochs=settings.epochs,
        limit_steps=settings.limit_steps,
        max_seconds=settings.max_seconds,
        monitor=settings.monitor,
        val_is_sample=not (settings.overfit or setup.source.val_is_train),
        patience=settings.early_stop.patience,
        min_delta=settings.early_stop.min_delta,
        validate_every_epochs=settings.validate.every_epochs,
        validate_every_steps=settings.validate.every_steps,
        save_every_steps=settings.checkpoint.every_steps,
        save_every_minutes=settings.checkpoint.every_minutes,
        log_every_steps=settings.log.every_steps,
    )


def _validator(
    setup: Setup, network: "nn.Module", criterion: Any, average: "Average | None", plan: "Plan"
) -> "Validator":
    from deeptrain.loss import for_evaluation
    from deeptrain.runtime.batch_norm import settling_batches
    from deeptrain.training.validation import BN_IMAGES, Validator

    clean = setup.dataset.train.evenly_spaced(setup.run.settings.validate.clean_images)
    is_early = settling_batches(network) > plan.first_validation
    bn_images = (average.bn_images if average is not None else 0) or (BN_IMAGES if is_early else 0)

    def loader(samples: "Samples") -> "Loader":
        return eval_loader(setup.source, _shard(samples, setup.world), setup.run, setup.runtime)

    return Validator(
        network,
        loader(setup.dataset.val),
        setup.pipeline,
        setup.runtime,
        for_evaluation(criterion),
        clean_loader=loader(clean) if len(clean) else None,
        bn_loader=train_loader(setup, bn_images) if bn_images else None,
        average=average,
        metrics=metrics(setup.run, setup.dataset),
        seed=setup.run.settings.seed,
        world=setup.world,
    )


def _check_closure(setup: Setup) -> None:
    """Raise UsageError if the gradient is not that of the loss, which a line search compares."""
    choices = setup.run.choices
    if setup.runtime.precision == "fp16":
        raise UsageError([f"optimizer={choices['optimizer']}: does not go with precision=fp16; write precision=fp32"])
    if setup.run.parts["gradient"]:
        reason = "which changes the gradient that its line search needs"
        message = f"optimizer={choices['optimizer']}: does not go with gradient={choices['gradient']}, {reason}"
        raise UsageError([f"{message}; write gradient=none"])


def _shard(samples: "Samples", world: World) -> "Samples":
    """Pick a process's share of the images to be evaluated: each belongs to one process."""
    import numpy as np

    part = world.shard(slice(0, len(samples)))
    everything = part == slice(0, len(samples))
    return samples if everything else samples.select(np.arange(part.start, part.stop))

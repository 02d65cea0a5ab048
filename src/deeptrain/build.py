"""From configuration to objects: a node to its part, all parts to a Trainer. A failure names the key to change."""

import inspect
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from deeptrain.config import Mistakes, Run, part_nodes
from deeptrain.randomness import key as random_key
from deeptrain.schema import choose

if TYPE_CHECKING:  # a part that needs no torch is built without importing it
    from torch import nn

    from deeptrain.aug.pipeline import Pipeline
    from deeptrain.data.dataset import Dataset
    from deeptrain.record.run import Record
    from deeptrain.runtime import Runtime
    from deeptrain.trainer import Loader, Trainer

EVAL_BATCH = 512
T = TypeVar("T")


def part(key: str, node: Mapping[str, Any], **runtime: Any) -> Any:
    """Call what a node's `_target_` names, with the node's values and those runtime objects that it asks for.

    The target has been checked against the allowed packages (config.py). Raises Mistakes: "key.name=value: ...".
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
        raise Mistakes([_named(key, str(error).partition("\n")[0], settings)]) from error


def _locate(key: str, path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        raise Mistakes([f"{key}._target_={path}: cannot be imported ({error})"]) from error
    except AttributeError as error:
        public = [word for word in dir(import_module(module)) if not word.startswith("_")]
        raise Mistakes([f"{key}._target_={path}: {module} has no {name}; {choose(name, public)}"]) from error


def _named(key: str, message: str, settings: Mapping[str, Any]) -> str:
    """Put a constructor's complaint behind its key: `alpha=-1: ...` of aug.mixup becomes `aug.mixup.alpha=-1: ...`."""
    about = re.match(r"(\w+)=", message)
    return f"{key}.{message}" if about and about[1] in settings else message if about else f"{key}: {message}"


@dataclass
class Bench:
    """What training and evaluation both need: the data, the machine and the way from pixels to the network."""

    run: Run
    source: Any
    dataset: "Dataset"
    runtime: "Runtime"
    pipeline: "Pipeline"
    machine: str = ""  # device, threads and precision, for the reader

    @property
    def batch_size(self) -> int:
        """Return the images of a step; auto: the power of two that makes about 100 steps an epoch, from 16 to 128."""
        wanted, available = self.run.spine.batch_size, len(self.dataset.train)
        if wanted != "auto":
            return wanted
        power = 1 << max(1, available // 100).bit_length() - 1
        return min(available, 128, max(16, power))


def rehearse(run: Run) -> None:
    """Build what needs no torch, the data source and the schedule, so that their mistakes are told within a second."""
    mistakes = []
    for name, runtime in (("data", {}), ("schedule", {"epochs": run.spine.epochs})):
        try:
            part(name, run.parts[name], **runtime)
        except Mistakes as wrong:
            mistakes += wrong.lines
    patience = run.spine.early_stop.patience
    if patience is not None and patience >= run.spine.epochs:
        mistakes.append(f"early_stop.patience={patience}: must be shorter than the run (epochs={run.spine.epochs})")
    if mistakes:
        raise Mistakes(mistakes)


def bench(run: Run) -> Bench:
    """Open the data (decoding it the first time) and set up the machine."""
    from deeptrain.aug.pipeline import Pipeline
    from deeptrain.runtime import Runtime, keep_freed_memory, pick_device, pick_precision, use_threads

    keep_freed_memory()
    spine = run.spine
    try:
        device, reason = pick_device(spine.device)
    except ValueError as error:
        raise Mistakes([str(error)]) from error
    source = part("data", run.parts["data"])
    dataset = opened(run, source.load)
    facts = shape_facts(dataset)
    augmentations = [part(key, node, **facts) for key, node in part_nodes(run.parts) if key.startswith("aug.")]
    pipeline = Pipeline(augmentations, dataset.mean, dataset.std, subtract_image_mean=source.subtract_image_mean)
    precision = pick_precision(spine.precision, device)
    runtime = Runtime(device, precision, spine.compile)
    bench = Bench(run, source, dataset, runtime, pipeline)
    threads = use_threads(spine.threads, bench.batch_size * math.prod(dataset.image_shape[1:]))
    reason += f", {threads}" if device.type == "cpu" else ""
    reason += f", {precision} (auto)" if spine.precision == "auto" else ""
    bench.machine = reason
    return bench


def opened(run: Run, load: Callable[[Path | None], T]) -> T:
    """Open data through a source's method, with the user's cache; Mistakes that name the setting or the file."""
    cache = run.spine.cache_dir
    try:
        return load(Path(cache).expanduser() if cache else None)
    except ValueError as error:
        raise Mistakes([_named("data", str(error), run.parts["data"])]) from error


def shape_facts(dataset: "Dataset") -> dict[str, Any]:
    """Return what parts may ask to know of the data."""
    return {
        "input_shape": dataset.image_shape,
        "num_classes": len(dataset.classes),
        "mean": [float(value) for value in dataset.mean],
    }


def model(bench: Bench) -> "nn.Module":
    """Build the model with weights drawn from the run's seed, on its device."""
    bench.runtime.seed(random_key(bench.run.spine.seed, "weights"))
    built = part("model", bench.run.parts["model"], **shape_facts(bench.dataset))
    return bench.runtime.place(built)


def train_loader(bench: Bench) -> "Loader":
    """Make the loader of the training images, in random order and with the data set's own crop and flip."""
    from deeptrain.data.loader import make_loader

    spine, device = bench.run.spine, bench.runtime.device
    size, workers = bench.batch_size, worker_count(spine.workers)
    try:
        return make_loader(
            bench.source,
            bench.dataset.train,
            batch_size=size,
            device=device,
            seed=spine.seed,
            workers=workers,
            train=True,
        )
    except ValueError as error:
        raise Mistakes([str(error)]) from error


def eval_loader(source: Any, samples: Any, run: Run, runtime: "Runtime") -> "Loader":
    """Make the loader of images to be evaluated: in their order, as they are."""
    from deeptrain.data.loader import make_loader

    workers = worker_count(run.spine.workers)
    return make_loader(source, samples, batch_size=EVAL_BATCH, device=runtime.device, workers=workers)


def worker_count(workers: int | Literal["auto"]) -> int:
    return min(os.cpu_count() or 1, 8) if workers == "auto" else workers


def trainer(bench: Bench, about: dict[str, Any] | None = None, record: "Record | None" = None) -> "Trainer":
    """Build what a run still lacks and put all of it together; without a record it trains in silence."""
    from deeptrain.optimizer import parameter_groups
    from deeptrain.record.run import Record
    from deeptrain.record.screen import Screen
    from deeptrain.trainer import Trainer

    spine, parts = bench.run.spine, bench.run.parts
    batches = train_loader(bench)
    if spine.accumulate > bench.batch_size:
        raise Mistakes([f"accumulate={spine.accumulate}: must be at most batch_size={bench.batch_size}"])
    network = model(bench)
    clean = bench.dataset.train.spread(spine.validate.clean_images)
    return Trainer(
        network,
        part("optimizer", parts["optimizer"], parameters=parameter_groups(network)),
        part("schedule", parts["schedule"], epochs=spine.epochs),
        part("loss", parts["loss"], **shape_facts(bench.dataset)),
        bench.pipeline,
        batches,
        eval_loader(bench.source, bench.dataset.val, bench.run, bench.runtime),
        bench.runtime,
        record or Record(Screen(quiet=True)),
        clean_loader=eval_loader(bench.source, clean, bench.run, bench.runtime) if len(clean) else None,
        average=part("average", parts["average"], model=network) if parts["average"] else None,
        seed=spine.seed,
        epochs=spine.epochs,
        limit_steps=spine.limit_steps,
        max_seconds=spine.max_seconds,
        accumulate=spine.accumulate,
        clip_norm=spine.clip_norm,
        monitor=spine.monitor,
        patience=spine.early_stop.patience,
        min_delta=spine.early_stop.min_delta,
        validate_every_epochs=spine.validate.every_epochs,
        validate_every_steps=spine.validate.every_steps,
        log_every_steps=spine.log.every_steps,
        about=about or {},
    )

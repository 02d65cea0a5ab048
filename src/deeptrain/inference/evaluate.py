"""Opening a held-out split with a run's weights: the one place that reads the test set, and notes that it did."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from deeptrain import build
from deeptrain.config.instantiate import instantiate
from deeptrain.config.settings import RunConfig
from deeptrain.data.dataset import Dataset, Samples
from deeptrain.data.loader import Loader
from deeptrain.errors import UsageError
from deeptrain.inference import restore, scores
from deeptrain.inference.predictor import Predictor
from deeptrain.inference.scores import Scores
from deeptrain.loss import for_evaluation
from deeptrain.metrics.confusion import Confusion, confusion_of
from deeptrain.metrics.metric import METRICS, Metric, informative
from deeptrain.metrics.per_class import ClassScore, per_class
from deeptrain.report import formatting
from deeptrain.run.saved import read_json
from deeptrain.runtime.device import Runtime, keep_malloc_arena, pick_precision, use_threads
from deeptrain.runtime.files import write_atomically
from deeptrain.schema import closest
from deeptrain.training import checkpoint
from deeptrain.training.data_description import describes_data, is_shape
from deeptrain.training.validation import predict, score

Split = Literal["test", "val", "all"]  # all: every picture of data.root, a folder that the run has not seen
IN_HEAD = ("accuracy", "top5", "loss")  # metrics of the first line


@dataclass
class Evaluation:
    """What a network says of a split; `confusion` counts which classes were taken for which."""

    split: str
    metrics: dict[str, float]
    classes: list[str]
    confusion: Confusion
    table: list[ClassScore]
    images: int
    formats: Mapping[str, Metric] = field(default_factory=lambda: METRICS)
    scores: Scores | None = None


@dataclass
class OpenSplit:
    """A split of a run's data, and the network that is asked about it."""

    split: str
    network: Predictor
    source: Any
    dataset: Dataset
    samples: Samples  # of the split
    run: RunConfig
    weights: str  # their digest

    @property
    def names(self) -> list[str]:
        """Return the file of each image, or its number."""
        files = self.samples.files
        return [str(file) for file in files] if files else [f"image {index}" for index in range(len(self.samples))]

    def batches(self) -> Loader:
        return build.eval_loader(self.source, self.samples, self.run, self.network.runtime)


@dataclass
class Answers:
    """What a checkpoint's network says of each image of a split: logits (N, K), beside the true classes (N,)."""

    logits: Tensor
    labels: Tensor
    opened: OpenSplit

    @property
    def dataset(self) -> Dataset:
        return self.opened.dataset

    @property
    def weights(self) -> str:
        return self.opened.weights


def evaluate_run(run: RunConfig, state_path: Path, split: Split = "test", typed: Sequence[str] = ()) -> Evaluation:
    """Evaluate a checkpoint on a split of its run's data; UsageError if the two do not fit.

    typed: the words that this evaluation was started with. They may change how pictures are read.
    """
    return evaluate_answers(answer(run, state_path, split, typed))


def evaluate_answers(answers: Answers) -> Evaluation:
    """Count and score answers."""
    logits, labels, dataset = answers.logits, answers.labels, answers.dataset
    run, split = answers.opened.run, answers.opened.split
    loss = for_evaluation(instantiate("loss", run.parts["loss"], **build.data_info(dataset)))
    confusion = confusion_of(logits.argmax(1), labels, len(dataset.classes))
    metrics = build.metrics(run, dataset)
    measured = score(logits, labels, loss, metrics)
    return Evaluation(split, measured, dataset.classes, confusion, per_class(confusion), len(labels), metrics)


def answer(run: RunConfig, state_path: Path, split: Split, typed: Sequence[str] = ()) -> Answers:
    """Ask the network of a checkpoint about each image of a split; arguments and errors as in `evaluate_run`."""
    opened = open_split(run, state_path, split, typed)
    network = opened.network
    logits, labels = predict(network.model, opened.batches().epoch(0), network.pipeline, network.runtime)
    return Answers(logits, labels, opened)


def open_split(run: RunConfig, state_path: Path, split: Split, typed: Sequence[str] = ()) -> OpenSplit:
    """Open a split of a run's data and the network of a checkpoint; arguments and errors as in `evaluate_run`."""
    keep_malloc_arena()
    state, device = restore.open_checkpoint(state_path, run.settings.device)
    val_images = "train" if run.settings.overfit else None
    facts = {"all_is_test": split == "all", "val_images": val_images}
    source = restore.open_source(run, state_path, state, typed, **facts)
    if split == "all" and not getattr(source, "all_is_test", False):
        raise UsageError(["split=all: is for folders of pictures alone; take split=test or split=val"])
    test = None if split == "val" else build.load_data(run, source.test)
    dataset = build.load_data(run, source.load)
    dataset.split.pop("range", None)
    held_out = read_json(state_path.parent.parent / "split.json", dict, None)
    if held_out is not None:
        held_out.pop("range", None)
    if split == "val" and held_out is not None and held_out != dataset.split:
        raise UsageError(["split=val: these settings hold out other images than the run did; leave data as it was"])
    samples = dataset.val if test is None else test
    _check_data(state_path, state, dataset, samples)
    runtime = Runtime(device, pick_precision(run.settings.precision, device))
    use_threads(run.settings.threads, build.EVAL_BATCH * math.prod(dataset.image_shape[1:]))
    state.setdefault("subtract_image_mean", source.subtract_image_mean)  # versions before 0.4 did not store it
    network = restore.restore(state_path, state, restore.network_settings(run), dataset.decoder, runtime)
    return OpenSplit(split, network, source, dataset, samples, run, checkpoint.digest(state["model"]))


def _check_data(state_path: Path, state: dict[str, Any], dataset: Dataset, samples: Samples) -> None:
    """Raise UsageError if a checkpoint was not trained on such images and classes."""
    shape = state.get("input_shape")
    if is_shape(shape):
        others = [found for found in (dataset.image_shape, samples.shape) if found != tuple(shape)]
        if others:
            differ = f"it was trained on images of {_sides(shape)}, the data has {_sides(others[0])}"
            raise UsageError([f"{state_path}: {differ}; leave the settings of the data as they were"])
    if not describes_data(state):
        raise restore.not_ours(state_path)
    if dataset.classes != state["classes"]:
        _rename_classes(dataset, samples, state["classes"])


def _rename_classes(dataset: Dataset, samples: Samples, learned: list[str]) -> None:
    """Give the data the classes of the run: their names decide, some may be absent. UsageError if one is unknown."""
    unknown = [name for name in dataset.classes if name not in learned]
    if unknown:
        few = f"{', '.join(learned[:8])}{', ...' if len(learned) > 8 else ''}"
        near = closest(unknown[0], learned)
        hint = f"did you mean {near}? " if near else ""
        raise UsageError([f"data: the run has not learned the class {unknown[0]}; {hint}it learned {few}"])
    table = np.array([learned.index(name) for name in dataset.classes])
    for part in {id(part): part for part in (dataset.train, dataset.val, samples)}.values():
        part.labels = table[part.labels]
    dataset.classes = learned


def _sides(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def append(folder: Path, evaluation: Evaluation, weights: str, changed: list[str]) -> None:
    """Note in evaluation.json that a split was opened and what was found."""
    path = folder / "evaluation.json"
    entries: list[dict[str, Any]] = read_json(path, list, [])
    entry = {
        "split": evaluation.split,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "metrics": evaluation.metrics,
        "weights": weights,
        "changed": changed,
        "images": evaluation.images,
        **({"scores": evaluation.scores.state_dict()} if evaluation.scores else {}),
    }
    write_atomically(path, json.dumps([*entries, entry], indent=1).encode())


def interval(accuracy: float, images: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy measured on so many images (Wilson, 1927)."""
    centre = (accuracy + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * math.sqrt(accuracy * (1 - accuracy) / images + z * z / (4 * images**2))
    return centre - half, centre + half


def lines(evaluation: Evaluation, opened: int) -> list[str]:
    """Compose what is shown: the metrics with their interval, then a table of the classes, the worst first."""
    metrics, confusion = evaluation.metrics, evaluation.confusion
    low, high = interval(metrics["accuracy"], evaluation.images)
    percent, visible = formatting.percent, informative(evaluation.formats, len(evaluation.classes))
    top5 = f"top-5 {percent(metrics['top5'])}, " if "top5" in visible else ""
    head = [
        f"{'all pictures:' if evaluation.split == 'all' else evaluation.split} accuracy {percent(metrics['accuracy'])} "
        f"(95 % interval {percent(low)} to {percent(high)}), "
        f"{top5}loss {formatting.format_loss(metrics['loss'])}, {evaluation.images:,} images, "
        f"largest class {percent(max(row.images for row in evaluation.table) / evaluation.images)}",
        *(
            f"{name} {formatting.format_metric(name, value, evaluation.formats)}"
            for name, value in metrics.items()
            if name not in IN_HEAD
        ),
        f"this run has opened split={evaluation.split} {opened} time{'s' if opened > 1 else ''}",
    ]
    width = max(5, *(len(name) for name in evaluation.classes))
    table = [f"{'class':<{width}}  precision  recall      f1  images  most taken for"]
    for index in sorted(range(len(evaluation.classes)), key=lambda index: evaluation.table[index].f1):
        row, (other, errors) = evaluation.table[index], confusion.most_taken_for(index)
        taken = f"{evaluation.classes[other]} ({errors})" if errors else ""
        numbers = f"{percent(row.precision):>9}  {percent(row.recall):>6}  {percent(row.f1):>6}  {row.images:>6}"
        table.append(f"{evaluation.classes[index]:<{width}}  {numbers}  {taken}")
    more = ["", *scores.lines(evaluation.scores)] if evaluation.scores else []
    return [*head, "", *table, *more]

"""Opening a held-out split with a run's weights: the one place that reads the test set, and notes that it did."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from deeptrain import build
from deeptrain.aug.pipeline import Pipeline
from deeptrain.aug.whitening import Whitening
from deeptrain.config.instantiate import instantiate
from deeptrain.config.settings import RunConfig
from deeptrain.errors import UsageError
from deeptrain.loss import for_evaluation
from deeptrain.metrics.metric import METRICS, Metric, informative
from deeptrain.metrics.per_class import ClassScore, confusion_matrix, per_class
from deeptrain.report import formatting
from deeptrain.run.folder import other_checkpoint
from deeptrain.run.saved import learned_classes, read_json
from deeptrain.runtime.device import Runtime, keep_malloc_arena, pick_device, pick_precision, use_threads
from deeptrain.runtime.files import write_atomically
from deeptrain.training import checkpoint
from deeptrain.training.validation import predict, score

Split = Literal["test", "val", "all"]  # all: every picture of data.root, a folder that the run has not seen
MAX_SIDE = 4096  # pixels of an input that a checkpoint may ask for: a stranger's could fill the memory
IN_HEAD = ("accuracy", "top5", "loss")  # metrics of the first line


@dataclass
class Evaluation:
    """What a network says of a split; `confusion` counts (K, K), true classes down, predicted ones across."""

    split: str
    metrics: dict[str, float]
    classes: list[str]
    confusion: Tensor
    table: list[ClassScore]
    images: int
    formats: Mapping[str, Metric] = field(default_factory=lambda: METRICS)


def evaluate_run(run: RunConfig, state_path: Path, split: Split = "test") -> Evaluation:
    """Evaluate a checkpoint on a split of its run's data; UsageError if the two do not fit."""
    keep_malloc_arena()
    try:
        device, _ = pick_device(run.settings.device)
        state = checkpoint.load(state_path)
    except checkpoint.Damaged as error:
        other = other_checkpoint(state_path)
        raise UsageError([f"{error}" + (f"; name another one: {other}" if other else "")]) from error
    except ValueError as error:
        raise UsageError([str(error)]) from error
    held_out = read_json(state_path.parent.parent / "split.json", dict, None)
    data = _with_range(run.parts["data"], held_out and held_out.pop("range", None))
    val_images = "train" if run.settings.overfit else None
    source = instantiate("data", data, **_learned(state), all_is_test=split == "all", val_images=val_images)
    if split == "all" and not getattr(source, "all_is_test", False):
        raise UsageError(["split=all: is for folders of pictures alone; take split=test or split=val"])
    test = None if split == "val" else build.load_data(run, source.test)
    dataset = build.load_data(run, source.load)
    dataset.split.pop("range", None)
    if split == "val" and held_out is not None and held_out != dataset.split:
        raise UsageError(["split=val: these settings hold out other images than the run did; leave data as it was"])
    if not _describes_data(state, dataset.image_shape):
        raise UsageError([f"{state_path}: does not say what it was trained on; is it from a run of deeptrain?"])
    classes, shape = state["classes"], tuple(state["input_shape"])
    if shape != dataset.image_shape:
        differ = f"it was trained on images of {_sides(shape)}, the data has {_sides(dataset.image_shape)}"
        raise UsageError([f"{state_path}: {differ}; leave the settings of the data as they were"])
    if dataset.classes != classes:
        raise UsageError([f"data: its classes are not those that the run learned ({', '.join(classes[:8])}, ...)"])
    loss = for_evaluation(instantiate("loss", run.parts["loss"], **build.data_info(dataset)))
    runtime = Runtime(device, pick_precision(run.settings.precision, device))
    use_threads(run.settings.threads, build.EVAL_BATCH * math.prod(dataset.image_shape[1:]))
    sizes = {"input_shape": shape, "num_classes": len(classes), "in_chans": shape[0]}
    model = runtime.to_device(instantiate("model", run.parts["model"], **sizes))
    try:
        whitening = Whitening(**state["whitening"]) if state.get("whitening") else None
        pipeline = Pipeline([], state["mean"], state["std"], source.subtract_image_mean, whitening)
        model.load_state_dict(state["model"])
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise UsageError(
            [f"{state_path}: its weights do not fit; leave the settings of the model as they were"]
        ) from error
    batches = build.eval_loader(source, dataset.val if test is None else test, run, runtime)
    logits, labels = predict(model, batches.epoch(0), pipeline, runtime)
    matrix = confusion_matrix(logits.argmax(1), labels, len(classes))
    metrics = build.metrics(run, dataset)
    measured = score(logits, labels, loss, metrics)
    return Evaluation(split, measured, classes, matrix, per_class(matrix), len(labels), metrics)


def _sides(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _learned(state: dict[str, Any]) -> dict[str, Any]:
    """Return what a source of files takes over from the run: the order of its classes, and the shape of its images."""
    classes, shape = learned_classes(state), state.get("input_shape")
    if classes is None or not isinstance(shape, list) or len(shape) != 3:
        return {}
    if not all(isinstance(side, int) and 0 < side <= MAX_SIDE for side in shape):
        return {}
    return {"learned_classes": classes, "input_shape": shape}


def _with_range(data: dict[str, Any], ends: Any) -> dict[str, Any]:
    """Set the range of deep pictures that the run found, so that other files are read in the same way."""
    is_pair = isinstance(ends, list) and len(ends) == 2
    if data.get("range") != "auto" or not is_pair or not all(isinstance(end, float) for end in ends):
        return data
    return {**data, "range": ends}


def _describes_data(state: dict[str, Any], image_shape: tuple[int, int, int]) -> bool:
    """Say whether a checkpoint tells the classes, the statistics of each channel and a shape, and sane ones."""
    classes, shape = state.get("classes"), state.get("input_shape")
    statistics, whitening = [state.get(name) for name in ("mean", "std")], state.get("whitening") or {}
    channels, values = image_shape[0], math.prod(image_shape)
    return (
        isinstance(classes, list)
        and all(isinstance(name, str) for name in classes)
        and isinstance(shape, list)
        and len(shape) == 3
        and all(isinstance(side, int) and side > 0 for side in shape)
        and all(isinstance(values, list) and len(values) == channels for values in statistics)
        and all(isinstance(value, float) and math.isfinite(value) for values in statistics for value in values or [])
        and all(value > 0 for value in state["std"])
        and isinstance(whitening, dict)
        and {name: getattr(part, "shape", ()) for name, part in whitening.items()}
        in ({}, {"weight": (values, values), "bias": (values,)})
    )


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
    }
    write_atomically(path, json.dumps([*entries, entry], indent=1).encode())


def times_opened(folder: Path, split: str) -> int:
    """Return how often a split was opened with the weights of a run."""
    entries = read_json(folder / "evaluation.json", list, [])
    return sum(isinstance(earlier, dict) and earlier.get("split") == split for earlier in entries)


def interval(accuracy: float, images: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy measured on so many images (Wilson, 1927)."""
    centre = (accuracy + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * math.sqrt(accuracy * (1 - accuracy) / images + z * z / (4 * images**2))
    return centre - half, centre + half


def lines(evaluation: Evaluation, opened: int) -> list[str]:
    """Compose what is shown: the metrics with their interval, then a table of the classes, the worst first."""
    metrics, matrix = evaluation.metrics, evaluation.confusion
    low, high = interval(metrics["accuracy"], evaluation.images)
    percent, shown = formatting.percent, informative(evaluation.formats, len(evaluation.classes))
    top5 = f"top-5 {percent(metrics['top5'])}, " if "top5" in shown else ""
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
        row, errors = evaluation.table[index], matrix[index].clone()
        errors[index] = 0
        taken = f"{evaluation.classes[int(errors.argmax())]} ({int(errors.max())})" if errors.any() else ""
        numbers = f"{percent(row.precision):>9}  {percent(row.recall):>6}  {percent(row.f1):>6}  {row.images:>6}"
        table.append(f"{evaluation.classes[index]:<{width}}  {numbers}  {taken}")
    return [*head, "", *table]

"""Test-time averaging of a run: its recipe of training, a whole split, and the table of gains and passes."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from deeptrain.build import EVAL_BATCH, augmentation
from deeptrain.config.settings import RunConfig, part_nodes
from deeptrain.errors import UsageError
from deeptrain.inference.evaluate import Answers, OpenSplit
from deeptrain.inference.predictor import Prediction, Predictor
from deeptrain.inference.scores import measure
from deeptrain.inference.views import TTA, Picture, Recipe, Views, average, check
from deeptrain.metrics.resampling import Estimate, estimate, mean_of
from deeptrain.report import formatting


@dataclass
class Averaged:
    """Answers to a split from several views of each picture, and what they cost."""

    name: str
    answers: Answers
    views: float  # of a picture, on average
    seconds: float


def make_views(name: str, run: RunConfig, draws: int, dataset: Any) -> Views:
    """Build the views of a run; UsageError if its recipe needs what is not there.

    dataset: of the run, or what `described` knows of it.
    """
    return Views(name, recipe_of(run, dataset) if name == "train" else Recipe(seed=run.settings.seed), draws)


def described(network: Predictor) -> Any:
    """Return what a network knows of the data that it was trained on, where the data are not there."""
    decoder, pipeline = network.decoder, network.pipeline
    return SimpleNamespace(
        image_shape=(decoder.channels, decoder.height, decoder.width),
        classes=network.classes,
        train=SimpleNamespace(labels=np.zeros(0, np.int64)),
        mean=[-shift / scale for shift, scale in zip(pipeline.shift, pipeline.scale, strict=True)],
    )


def recipe_of(run: RunConfig, dataset: Any) -> Recipe:
    """Return how a run changes its training pictures, without what mixes several."""
    is_described = isinstance(dataset, SimpleNamespace)
    data = run.parts["data"]
    found = []
    for key, node in part_nodes(run.parts):
        if key.startswith("aug."):
            if is_described and key == "aug.pca_jitter":
                raise UsageError(["tta=train: aug=pca_jitter needs the training pictures; evaluate has them"])
            made = augmentation(key, node, run, dataset)
            if not made.mixes:
                found.append(_without_end(made))
    if not data.get("augment", True):
        return Recipe(augmentations=found, seed=run.settings.seed)
    return Recipe(int(data.get("crop_padding") or 0), bool(data.get("flip")), found, run.settings.seed)


def _without_end(made: Any) -> Any:
    """Let an augmentation apply although training is over."""
    made.until = 1.0
    return made


def average_split(opened: OpenSplit, views: Views) -> Averaged:
    """Ask a network about several views of each picture of a split."""
    start, seen, first, parts = time.perf_counter(), 0, 0, []
    for pictures in _pictures(opened):
        logits, count = average(opened.network, views, pictures, first)
        parts.append(logits)
        seen, first = seen + count, first + len(pictures)
    labels = torch.from_numpy(np.asarray(opened.samples.labels))
    answers = Answers(torch.cat(parts), labels, opened)
    return Averaged(views.name, answers, seen / first, time.perf_counter() - start)


def _pictures(opened: OpenSplit) -> Iterator[list[Picture]]:
    """Yield the pictures of a split in batches, decoded as for an evaluation."""
    samples = opened.samples
    files = samples.files or [None] * len(samples)
    for start in range(0, len(samples), EVAL_BATCH):
        part = slice(start, start + EVAL_BATCH)
        if samples.images is not None:
            pixels = list(np.asarray(samples.images[part]))
        else:
            pixels = [image for _, image in next(opened.network.decoded(files[part], EVAL_BATCH))]
            if error := next((image for image in pixels if isinstance(image, str)), None):
                raise UsageError([error])
        decoded = [image for image in pixels if not isinstance(image, str)]
        yield [Picture(image, path) for image, path in zip(decoded, files[part], strict=True)]


def warnings(opened: OpenSplit, views: Views) -> list[str]:
    """Return warnings of views that are unlike the pictures of training; UsageError if they cannot be right."""
    return check(views, opened.network, written_characters(opened.network, opened.source))


def written_characters(network: Predictor, source: Any = None) -> bool:
    """Tell whether the classes are written characters, which no mirror shows rightly."""
    return getattr(source, "characters", False) or all(len(name) == 1 for name in network.classes)


def compare(
    opened: OpenSplit, run: RunConfig, names: Sequence[str], draws: int, single: Answers
) -> tuple[list[str], Answers]:
    """Compose the table of val: accuracy of one view and of each averaging, the paired gain, NLL, ECE, the price.

    Returns it with the answers of the last averaging.
    """
    right = (single.logits.argmax(1) == single.labels).numpy()
    head = f"{'averaging':<12}  views  accuracy  gain in points (95 % interval)       NLL     ECE  seconds"
    rows, answers = [head, _row("one view", 1, single, None, None)], single
    for name in names:
        views = make_views(name, run, draws, opened.dataset)
        try:
            rows += [f"warning: {line}" for line in warnings(opened, views)]
            found = average_split(opened, views)
        except UsageError as error:
            if len(names) == 1:
                raise
            rows += [f"{name:<12}  left out: {line}" for line in error.lines]
            continue
        answers = found.answers
        other = (answers.logits.argmax(1) == answers.labels).numpy()
        gain = estimate({"gain": mean_of(other.astype(float) - right)}, len(right))["gain"]
        rows.append(_row(name, found.views, answers, gain, found.seconds))
    return rows, answers


def _row(name: str, views: float, answers: Answers, gain: Estimate | None, seconds: float | None) -> str:
    points = formatting.format_points
    scores = measure(answers.logits, answers.labels, answers.opened.network.loss)
    table = scores.by_temperature.get(1.0)
    accuracy = formatting.percent(float((answers.logits.argmax(1) == answers.labels).float().mean()))
    text = "" if gain is None else f"{points(gain.value)} ({points(gain.low)} to {points(gain.high)})"
    nll = formatting.format_loss(table["nll"].value) if table else ""
    ece = formatting.percent(table["ece"].value) if table else ""
    spent = "" if seconds is None else f"{seconds:.1f}"
    return f"{name:<12}  {views:5.4g}  {accuracy:>8}  {text:<32}  {nll:>6}  {ece:>6}  {spent:>7}".rstrip()


def names_of(tta: str) -> list[str]:
    return list(TTA) if tta == "all" else [tta]


def predict_each(network: Predictor, views: Views, pictures: Sequence[Any], size: int | None) -> Iterator[Prediction]:
    """Yield predictions as `Predictor.predict_each` does, from several views of each picture."""
    first = 0
    for batch in network.decoded(pictures, size):
        read = [Picture(image, one if isinstance(one, Path) else None) for one, image in batch
                if not isinstance(image, str)]  # fmt: skip
        logits = average(network, views, read, first)[0].numpy() if read else np.zeros((0, len(network.classes)))
        yield from network.answers(batch, logits, first)
        first += len(batch)

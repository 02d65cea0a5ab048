"""Seeing before training: a batch as the network will see it, the whole shelf, and the learning rate over the run."""

import copy
from pathlib import Path

import numpy as np
from torch import Tensor

from deeptrain import build
from deeptrain.aug.pipeline import RandomApply
from deeptrain.config.compose import compose_run
from deeptrain.config.instantiate import instantiate
from deeptrain.config.options import options
from deeptrain.config.settings import RunConfig
from deeptrain.data.crop_flip import sample_epoch
from deeptrain.data.loader import make_loader
from deeptrain.report.figures import draw_schedule
from deeptrain.report.image_grid import grid, mixed_caption, save
from deeptrain.runtime.random import generator
from deeptrain.training.trainer import Loader

COLUMNS = 8
SHOWN = 2 * COLUMNS
ROW_TITLES = ("as stored", "as trained on")
MIXED = "\nmixed with\nthe one before"  # in the batch; of little weight itself, an image seems to be its neighbour
CELL = 128  # wide enough for a caption such as "TranslateX -14.4"


def draw_batch(run: RunConfig, path: Path) -> list[str]:
    """Write a picture of the first training batch; return what its settings lack in effect, a sentence each."""
    setup = build.open_setup(run)
    loader = build.train_loader(setup)
    save(path, training_samples(setup, loader))
    loader.close()
    return setup.warnings


def training_samples(
    setup: build.Setup, loader: Loader, epoch: int = 0, step: int = 0, progress: float = 0.0
) -> np.ndarray:
    """Draw images of a training batch as they are, and below each what the network sees of it; uint8 (H, W, 3).

    Under an image stands its class, under what the network sees the (mixed) target and the operations that were drawn.
    Two pairs of rows have the same length: one of an odd number of images may be missing.
    """
    seed, classes = setup.run.settings.seed, setup.dataset.classes
    images, targets = next(iter(loader.epoch(epoch, step)))
    columns = len(images) if len(images) <= COLUMNS else min(len(images), SHOWN) // 2
    count = min(len(images), 2 * columns)
    order = sample_epoch(seed, epoch, len(setup.dataset.train), 0, False).order[step * setup.batch_size :][:count]
    originals, labels = training_images(setup, order)
    rng = generator(seed, "augment", epoch, step)
    images, targets, words = augmented(setup.pipeline.augmentations, images, targets, rng, progress)
    names = [mixed_caption(label, classes) for label in labels.tolist()]
    captions = _captions(targets[:count], words, classes)
    rows = [slice(start, start + columns) for start in range(0, count, columns)]
    before, after = _pixels(originals), _pixels(images[:count])
    sheet = np.concatenate([part[row] for row in rows for part in (before, after)])
    texts = [text for row in rows for text in (*names[row], *captions[row])]
    titles = ROW_TITLES[0], ROW_TITLES[1] + MIXED * any(each.mixes for each in setup.pipeline.augmentations)
    return grid(sheet, texts, columns, CELL, titles * len(rows))


def draw_regularizers(run: RunConfig, path: Path) -> None:
    """Write a sheet with a row for each augmentation there is, all on the images of the run's first batch."""
    setup = build.open_setup(run)
    order = sample_epoch(run.settings.seed, 0, len(setup.dataset.train), 0, False).order[:COLUMNS]
    images, labels = training_images(setup, order)
    rows, titles = [_pixels(images)], ["as it is"]
    captions = [mixed_caption(label, setup.dataset.classes) for label in labels.tolist()]
    words = [word for word in run.overrides if not word.startswith(("aug=", "aug."))]
    for name in options("aug"):
        if name in ("none", "off"):
            continue
        node = compose_run([*words, f"aug={name}"]).parts["aug"][name]
        node |= {key: value for key, value in {"probability": 1.0, "per_image": True}.items() if key in node}
        augmentation = build.augmentation(f"aug.{name}", node, run, setup.dataset)
        rng = generator(run.settings.seed, "augment", 0, 0)
        seen, targets, drawn = augmented([augmentation], images, labels, rng)
        rows.append(_pixels(seen))
        titles.append(name + MIXED * augmentation.mixes)
        captions += _captions(targets, drawn, setup.dataset.classes, only_mixed=True)
    save(path, grid(np.concatenate(rows), captions, COLUMNS, CELL, titles))


def draw_rate(run: RunConfig, path: Path, points: int = 1000) -> None:
    """Write the curve of the learning rate: schedule(progress) times the optimizer's rate, over the epochs."""
    factor = instantiate("schedule", run.parts["schedule"], epochs=run.settings.epochs)
    curve = [(run.settings.epochs * index / points, factor(index / points)) for index in range(points + 1)]
    title = f"schedule={run.choices['schedule']}, {run.settings.epochs} epochs"
    draw_schedule(curve, path, title, run.parts["optimizer"].get("lr", 1.0))


def training_images(setup: build.Setup, indices: np.ndarray) -> tuple[Tensor, Tensor]:
    """Return training images as evaluation sees them, neither cropped at random nor mirrored, and their class ids."""
    samples = setup.dataset.train.select(indices)
    loader = make_loader(setup.source, samples, batch_size=len(indices), device=setup.runtime.device)
    return next(iter(loader.epoch(0)))


def augmented(
    augmentations: list[RandomApply], images: Tensor, targets: Tensor, rng: np.random.Generator, progress: float = 0.0
) -> tuple[Tensor, Tensor, list[str]]:
    """Apply augmentations as a pipeline does; return what it returns, and of every image what was drawn for it."""
    words: list[list[str]] = [[] for _ in images]
    for augmentation in augmentations:
        for image_words, drawn in zip(
            words, augmentation.describe(images, targets, copy.deepcopy(rng), progress), strict=True
        ):
            image_words += [drawn] if drawn else []
        images, targets = augmentation(images, targets, rng, progress)
    return images, targets, [" · ".join(image_words) for image_words in words]


def _captions(targets: Tensor, words: list[str], classes: list[str], only_mixed: bool = False) -> list[str]:
    """Write what the network is to answer, and below it what was drawn."""
    labels = [mixed_caption(target, classes) for target in targets.cpu().numpy()]
    labels = [label if targets.ndim == 2 or not only_mixed else "" for label in labels]
    return ["\n".join(filter(None, pair)) for pair in zip(labels, words, strict=False)]


def _pixels(images: Tensor) -> np.ndarray:
    return images.float().clamp(0, 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()

"""Seeing before training: a batch as the network will see it, and the learning rate over the run."""

from pathlib import Path

from deeptrain import build
from deeptrain.config import Run
from deeptrain.randomness import generator
from deeptrain.record.picture import grid, mixed_caption, save
from deeptrain.report.figures import draw_schedule


def draw_batch(run: Run, path: Path, count: int = 32) -> None:
    """Write a picture of the first training batch as the network would see it, the label under each image."""
    bench = build.bench(run)
    images, labels = next(iter(build.train_loader(bench).epoch(0)))
    images, targets = bench.pipeline.augment(images, labels, generator(run.spine.seed, "augment", 0, 0))
    pixels = images[:count].float().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    captions = [mixed_caption(target, bench.dataset.classes) for target in targets[:count].cpu().numpy()]
    save(path, grid(pixels, captions))


def draw_rate(run: Run, path: Path, points: int = 1000) -> None:
    """Write the curve of the learning rate: schedule(progress) times the optimizer's rate, over the epochs."""
    factor = build.part("schedule", run.parts["schedule"], epochs=run.spine.epochs)
    curve = [(run.spine.epochs * index / points, factor(index / points)) for index in range(points + 1)]
    title = f"schedule={run.choices['schedule']}, {run.spine.epochs} epochs"
    draw_schedule(curve, path, title, run.parts["optimizer"].get("lr", 1.0))

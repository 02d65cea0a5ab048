"""Do the intervals hold on real runs? python benchmarks/coverage_real.py DATA_ROOT KEPT.npz [seeds] [repetitions]

Trains seven settings of a small network on 500 images of MNIST, with many seeds each, and keeps their answers to 3,000
images in KEPT.npz. The same command goes on where it was stopped. Then it draws comparisons of n of these seeds and m
of these images. The truth is the mean over all of them.
"""

import sys
from pathlib import Path
from time import process_time

import numpy as np
import torch

from deeptrain import build
from deeptrain.compare.statistics import compare
from deeptrain.config.compose import compose_run
from deeptrain.training.validation import predict

COMMON = "data=mnist data.train_images=500 validate.images=3000 validate.clean_images=0 model=fcn model.hidden=[32] "
COMMON += "epochs=6 batch_size=50 threads=1 device=cpu loggers=none validate.every_epochs=6"
SETTINGS = (
    "aug=none",
    "aug=cutout",
    "aug=mixup",
    "loss.label_smoothing=0.1",
    "model.dropout=0.4",
    "optimizer.lr=0.001",
    "optimizer.lr=0.03",
)


def trained(root: str, kept: Path, seeds: int) -> np.ndarray:
    """Train all settings with each seed; return which images they get right, (settings, seeds, images)."""
    began = process_time()
    right = (
        list(np.load(kept, allow_pickle=False)["right"]) if kept.exists() else []
    )  # of each seed, (settings, images)
    for seed in range(len(right), seeds):
        right.append(np.array([answers(root, setting, seed) for setting in SETTINGS]))
        unfinished = kept.with_suffix(".unfinished.npz")
        np.savez_compressed(unfinished, right=right)
        unfinished.replace(kept)
        if seed % 10 == 9:
            print(f"{len(right)} seeds, {process_time() - began:.0f} s of CPU", flush=True)
    return np.array(right[:seeds]).swapaxes(0, 1)


def answers(root: str, setting: str, seed: int) -> np.ndarray:
    """Train one run; return which images it gets right, (m,)."""
    run = compose_run([*COMMON.split(), f"data.root={root}", setting, f"seed={seed}"])
    setup = build.open_setup(run)
    trainer = build.trainer(setup)
    trainer.fit()
    logits, labels = predict(trainer.model, trainer.validator.loader.epoch(0), trainer.pipeline, trainer.runtime)
    trainer.close()
    return (logits.argmax(1) == labels).numpy()


def coverage(right: np.ndarray, n: int, m: int, repetitions: int) -> None:
    """Draw comparisons of n seeds and m images from (settings, seeds, images); print how often all intervals hold."""
    rng, truth = np.random.default_rng([n, m]), right.mean((1, 2))
    held, widths = np.zeros(2), [[], []]
    for _ in range(repetitions):
        seeds = rng.choice(right.shape[1], n, replace=False)
        images = rng.choice(right.shape[2], m, replace=False)
        drawn = right[:, seeds][:, :, images].astype(np.float32)
        differences = [drawn[index] - drawn[0] for index in range(1, len(drawn))]
        means = [each.mean(1) for each in differences]
        for kind, by_image in enumerate((None, differences)):
            found = compare(means, by_image, resolution=1 / m)
            errors = [abs(each.mean - (truth[i + 1] - truth[0])) - each.half for i, each in enumerate(found)]
            held[kind] += max(errors) <= 0
            widths[kind].append(np.median([each.half for each in found]))
    halves = [100 * np.median(each) for each in widths]
    shares = held / repetitions
    text = f"seeds only {shares[0]:.1%} ({halves[0]:.2f} points)  seeds and images {shares[1]:.1%} ({halves[1]:.2f})"
    print(f"m={m:<5} n={n:<3} {text}")


def main(root: str, kept: str, seeds: int = 100, repetitions: int = 500) -> None:
    torch.set_num_threads(1)
    right = trained(root, Path(kept), seeds)
    for setting, rows in zip(SETTINGS, right, strict=True):
        values = 100 * rows.mean(1)
        print(f"{setting:<26} {values.mean():.2f} ± {values.std(ddof=1):.2f}")
    print(f"{right.shape[0] * seeds} runs")
    for m in (250, right.shape[2]):  # a small part of the images, and all: then only the seeds are luck
        for n in (3, 5, 10):
            coverage(right, n, m, repetitions)


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))

"""Does a search of 20 trials reach what a grid of 64 does, what does pruning save, and is its winner flattered?

    uv run benchmarks/tune.py mnist DIR [--repetitions 10] [--first 0] [--trials 20]
    uv run benchmarks/tune.py cifar DIR                 a folder with cifar10/train and cifar10/test

Each repetition draws images to train on and images to choose by. The 10,000 test images judge a choice, as the mean
over 12 seeds that chose nothing. A small network with one convolution learns the images at half their size. What draws,
prunes and chooses is the code of scripts/tune.py, on folders. Only the training is written here, for many networks at
once: a run alone would take a hundred times as long.
"""

import argparse
import itertools
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import process_time

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, one_hot, unfold
from torchvision.transforms.functional import pil_to_tensor

from deeptrain.config.axes import Axis, Interval
from deeptrain.run.pruning import MARGIN, MedianRule
from deeptrain.runtime.random import fold_in
from deeptrain.search import confirm, study, trials
from deeptrain.search.space import Space, Values
from deeptrain.search.study import Study
from deeptrain.sweep.ledger import Ledger
from deeptrain.sweep.plan import Plan, save

AXES: dict[str, Axis] = {
    "optimizer.lr": Interval(1e-4, 1e-1, log=True),
    "optimizer.weight_decay": Interval(1e-3, 3.0, log=True),
    "model.dropout": Interval(0.0, 0.8),
    "loss.label_smoothing": Interval(0.0, 0.4),
}
OWN = {"optimizer.lr": "0.003", "optimizer.weight_decay": "0.05", "model.dropout": "0.0", "loss.label_smoothing": "0.0"}
GRIDS = {  # 64 settings each, evenly over the ranges: from end to end, and in the middles of equal parts
    "ends": {
        "optimizer.lr": ("1e-4", "1e-3", "1e-2", "1e-1"),
        "optimizer.weight_decay": ("1e-3", "0.0144", "0.208", "3.0"),
        "model.dropout": ("0.0", "0.4"),
        "loss.label_smoothing": ("0.0", "0.2"),
    },
    "middles": {
        "optimizer.lr": ("2.371e-4", "1.334e-3", "7.499e-3", "4.217e-2"),
        "optimizer.weight_decay": ("2.72e-3", "0.02013", "0.149", "1.103"),
        "model.dropout": ("0.2", "0.6"),
        "loss.label_smoothing": ("0.1", "0.3"),
    },
}
CLASSES, RUNS = 10, 12  # runs: seeds that judge a setting
TOGETHER = 32  # networks that train at once
MONITOR = "accuracy/val"


@dataclass(frozen=True)
class Task:
    """What is learned. patch: side of the convolution's windows, which do not overlap, in images of half the size."""

    read: Callable[[Path], tuple[Tensor, ...]]
    train: int
    val: int
    epochs: int
    batch: int
    patch: int
    channels: int


@dataclass(frozen=True)
class Data:
    """The images of a repetition as patches, (N, P, D), normalised, with their labels."""

    task: Task
    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("root", type=Path, help="a folder with MNIST/raw, or with cifar10/train and cifar10/test")
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="repetition, to share them among processes")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--rows", type=Path, help="a JSON file that keeps the repetitions and is gone on with")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    study.server.call = lambda function, *values: function(*values)  # draws here, as each process imports Optuna anew
    task = TASKS[arguments.task]
    began, images = process_time(), task.read(arguments.root)
    kept = arguments.rows
    rows = json.loads(kept.read_text()) if kept and kept.exists() else {}
    for index in range(arguments.first, arguments.first + arguments.repetitions):
        if str(index) not in rows:
            rows[str(index)] = repetition(draw_data(task, images, index), index, arguments.trials)
            if kept:
                kept.write_text(json.dumps(rows))
    print(f"{len(rows)} repetitions, {process_time() - began:.0f} s of CPU in this process")
    summary(np.array(list(rows.values())))


def repetition(data: Data, index: int, count: int) -> list[float]:
    """Search and grid on the images of one repetition; return what they reached."""
    chosen = [best_of_grid(axes, index, data) for axes in GRIDS.values()]
    with tempfile.TemporaryDirectory() as home:
        searched, plan, whole = search(Path(home), data, index, count)
        known, objective = trials.read(Ledger(plan))
        best = objective.best_first(known)[0]
        over = np.array([trial.epochs for trial in known])
        is_kept = whole[:, -1].max() <= (best.value or 0.0)
        finalists = confirm.make(searched, plan, 5, 3)
    values = [{key: job.swept[key] for key in AXES} for job in finalists.jobs]
    confirmed, _ = train(values, [int(job.swept["seed"]) for job in finalists.jobs], data)
    by_setting = {json.dumps(each): confirmed[[other == each for other in values], -1] for each in values}
    winner = max(by_setting, key=lambda each: by_setting[each].mean())
    reported = confirm.expected(np.array(list(by_setting.values())), True)
    chosen += [best.values, json.loads(winner)]
    val, test = train([each for each in chosen for _ in range(RUNS)], [*range(10_000, 10_000 + RUNS)] * 4, data)
    val, test = val[:, -1].reshape(4, RUNS), test.reshape(4, RUNS).mean(1)
    over_by = [
        (claimed - each.mean()) / each.std(ddof=1)
        for claimed, each in ((reported, val[3]), (best.value or 0.0, val[2]))
    ]
    row = [*map(float, test), over.sum() / (data.task.epochs * count), float(is_kept), *over_by]
    print(
        f"{index:>3}  test: grids of 64 {row[0]:.2%} and {row[1]:.2%}, search {row[2]:.2%}, confirmed {row[3]:.2%}; "
        f"epochs {row[4]:.0%}; winner {'kept' if is_kept else 'lost'}; "
        f"overstated by {row[6]:+.2f} sd, unconfirmed {row[7]:+.2f}",
        flush=True,
    )
    return row


def best_of_grid(axes: Mapping[str, tuple[str, ...]], seed: int, data: Data) -> Values:
    """Return the best on val of all combinations."""
    combinations = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    val, _ = train(combinations, [seed] * len(combinations), data)
    return combinations[int(val[:, -1].argmax())]


def search(home: Path, data: Data, seed: int, count: int) -> tuple[Study, Plan, np.ndarray]:
    """Run a search in a folder; return it, its plan, and the whole curve of every trial, as if none was pruned."""
    searched = Study(Space(("model=fcn",), AXES), OWN)
    facts = {"sampler": "auto", "trials": count, "until": None, "confirm": None}
    plan = Plan(home, ("model=fcn", f"seed={seed}"), tuple(AXES), (), facts)
    plan = Plan(home, plan.words, plan.keys, (searched.first_job(plan),), facts)
    save(plan)
    curves = []
    while True:
        job = plan.jobs[-1]
        val, _ = train([{key: job.swept[key] for key in AXES}], [int(job.swept["seed"])], data)
        curves.append(val[0])
        write_run(job.folder, val[0])
        grown = searched.grow(Ledger(plan))
        if grown is None:
            return searched, plan, np.array(curves)
        plan = grown


def write_run(folder: Path, curve: np.ndarray) -> None:
    """Write what a run leaves behind, as far as it comes until it is pruned."""
    folder.mkdir()
    rule = MedianRule(folder, MONITOR, True, margin=MARGIN)
    ends = (epoch for epoch in range(1, len(curve)) if rule(epoch, float(curve[:epoch].max())))
    epochs = next(ends, len(curve))
    rows = [f"{epoch},{epoch},{value!r}" for epoch, value in enumerate(map(float, curve[:epochs]), start=1)]
    (folder / "metrics.csv").write_text("\n".join([f"epoch,step,{MONITOR}", *rows]) + "\n")
    final = {MONITOR: float(curve[-1])} if epochs == len(curve) else None
    result = {"status": "finished" if final else "pruned", "monitor": MONITOR, "higher_is_better": True}
    result |= {"as_percent": True, "best": float(curve[:epochs].max()), "final": final, "epochs": epochs}
    (folder / "result.json").write_text(json.dumps(result))


# --- training, many networks at once ---


def train(settings: list[Values], seeds: list[int], data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Train a network for each setting; return val accuracy by epoch (S, E), and final test accuracy (S,)."""
    found = [
        train_together(settings[begin : begin + TOGETHER], seeds[begin : begin + TOGETHER], data)
        for begin in range(0, len(settings), TOGETHER)
    ]
    curves, tests = zip(*found, strict=True)
    return np.concatenate(curves), np.concatenate(tests)


def train_together(settings: list[Values], seeds: list[int], data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Train as many networks as the cache holds. AdamW with a cosine schedule; the rest is the settings'."""
    images, labels = data.train
    epochs, batch, channels = data.task.epochs, data.task.batch, data.task.channels
    lr, decay, drop, smoothing = (
        torch.tensor([float(values[key]) for values in settings])[:, None, None] for key in AXES
    )
    sources = [torch.Generator().manual_seed(fold_in(seed, "benchmark") % 2**63) for seed in seeds]
    hidden = images.shape[1] * channels
    shapes = [(images.shape[2], channels), (1, channels), (hidden, CLASSES), (1, CLASSES)]
    weights = [torch.stack([_start(shape, source) for source in sources]).requires_grad_() for shape in shapes]
    means, squares = ([torch.zeros_like(weight) for weight in weights] for _ in "ab")
    steps, step, curve = epochs * len(images) // batch, 0, []
    for _ in range(epochs):
        orders = torch.stack([torch.randperm(len(images), generator=source) for source in sources])
        for begin in range(0, len(images), batch):
            chosen = orders[:, begin : begin + batch]
            mask = torch.stack([torch.rand(batch, hidden, generator=source) for source in sources]) >= drop
            logits = forward(weights, images[chosen], mask / (1 - drop))
            targets = one_hot(labels[chosen], CLASSES) * (1 - smoothing) + smoothing / CLASSES
            loss = -(targets * logits.log_softmax(-1)).sum(-1).mean(-1).sum()
            gradients = torch.autograd.grad(loss, weights)
            rate = lr * 0.5 * (1 + np.cos(np.pi * step / steps))
            step += 1
            adamw(weights, gradients, means, squares, rate, decay, step)
        curve.append(accuracy(weights, *data.val))
    return np.stack(curve, 1), accuracy(weights, *data.test)


def _start(shape: tuple[int, int], source: torch.Generator) -> Tensor:
    bound = 0.0 if shape[0] == 1 else (6 / shape[0]) ** 0.5
    return (2 * torch.rand(shape, generator=source) - 1) * bound


def forward(weights: list[Tensor], images: Tensor, mask: Tensor | float = 1.0) -> Tensor:
    """Return the logits, (S, B, CLASSES), of each network's own patches, (S, B, P, D)."""
    first, first_bias, last, last_bias = weights
    features = (images.flatten(1, 2) @ first + first_bias).relu()  # (S, B * P, C)
    return (features.view(*images.shape[:2], -1) * mask) @ last + last_bias


@torch.no_grad()
def adamw(
    weights: list[Tensor],
    gradients: tuple[Tensor, ...],
    means: list[Tensor],
    squares: list[Tensor],
    rate: Tensor,
    decay: Tensor,
    step: int,
) -> None:
    for weight, gradient, mean, square in zip(weights, gradients, means, squares, strict=True):
        mean.lerp_(gradient, 0.1)
        square.lerp_(gradient**2, 0.001)
        update = (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
        weight.sub_(rate * (update + decay * weight))


@torch.no_grad()
def accuracy(weights: list[Tensor], images: Tensor, labels: Tensor) -> np.ndarray:
    """Return what each network gets right, (S,), one after the other: all features of all would fill the memory."""
    networks = zip(*weights, strict=True)
    right = [forward([weight[None] for weight in each], images[None]).argmax(-1)[0] == labels for each in networks]
    return torch.stack(right).float().mean(-1).double().numpy()


# --- data and results ---


def read_mnist(root: Path) -> tuple[Tensor, ...]:
    """Read the images at 14 x 14, normalised, (N, 1, 14, 14), and the labels, of both splits."""
    from torchvision.datasets import MNIST

    found: list[Tensor] = []
    for is_train in (True, False):
        split = MNIST(str(root), train=is_train)
        found += [(avg_pool2d(split.data[:, None].float() / 255, 2) - 0.13) / 0.27, split.targets]
    return tuple(found)


def read_cifar(root: Path) -> tuple[Tensor, ...]:
    """Read the images at 16 x 16, normalised, (N, 3, 16, 16), and the labels, of both splits."""
    from torchvision.datasets import ImageFolder

    found: list[Tensor] = []
    for name in ("train", "test"):
        split = ImageFolder(str(root / "cifar10" / name))
        images = torch.stack([avg_pool2d(pil_to_tensor(image).float() / 255, 2) for image, _ in split])
        found += [(images - 0.47) / 0.23, torch.tensor(split.targets)]
    return tuple(found)


def draw_data(task: Task, images: tuple[Tensor, ...], index: int) -> Data:
    order = torch.randperm(len(images[0]), generator=torch.Generator().manual_seed(index))
    train, val = order[: task.train], order[task.train : task.train + task.val]
    splits = [(images[0][train], images[1][train]), (images[0][val], images[1][val]), images[2:]]
    return Data(task, *((patches(shown, task.patch), labels) for shown, labels in splits))


def patches(images: Tensor, side: int) -> Tensor:
    """Cut images into windows that do not overlap, (N, P, D)."""
    return unfold(images, side, stride=side).mT.contiguous()


TASKS = {
    "mnist": Task(read_mnist, train=1000, val=500, epochs=15, batch=50, patch=14, channels=64),
    "cifar": Task(read_cifar, train=5000, val=1000, epochs=15, batch=100, patch=4, channels=16),
}


def summary(rows: np.ndarray) -> None:
    """Print the means, and whether the goals hold."""
    *grids, searched, confirmed, epochs, kept, overstated, flattered = rows.T
    count = len(rows)
    print(f"test accuracy: search {searched.mean():.2%}, confirmed {confirmed.mean():.2%}")
    for name, grid in zip(GRIDS, grids, strict=True):
        for what, found in (("search", searched), ("confirmed", confirmed)):
            error = (found - grid).std(ddof=1) / count**0.5
            gain = f"{100 * (found - grid).mean():+.2f} ± {100 * error:.2f} points"
            print(f"grid of {name} {grid.mean():.2%}: {what} is {gain} over it (goal: not below)")
    print(
        f"epochs saved {1 - epochs.mean():.0%} (goal 40 %), winner kept in {kept.sum():.0f} of {count} (goal 9 of 10)"
    )
    spread = overstated.std(ddof=1) / count**0.5
    print(f"the winner is overstated by {overstated.mean():+.2f} ± {spread:.2f} sd (goal at most 0.4)")
    print(f"without confirm= by {flattered.mean():+.2f} sd")


if __name__ == "__main__":
    main()

"""Does a search of 20 trials reach what a grid of 64 does, what does pruning save, and is its winner flattered?

    uv run benchmarks/tune.py --root DIR [--repetitions 10] [--first 0] [--trials 20]

Each repetition draws 1,000 images of MNIST to train on and 500 to choose by; the 10,000 test images judge the choice. A
network of 64 units learns the images at 14 x 14. What draws, prunes and chooses is the code of scripts/tune.py, on
folders. Only the training is written here, for many networks at once: a run alone would take a hundred times as long.
"""

import argparse
import itertools
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import process_time

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, one_hot

from deeptrain.config.axes import Axis, Interval
from deeptrain.run.pruning import MedianRule
from deeptrain.runtime.random import fold_in
from deeptrain.search import confirm, trials
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
EPOCHS, BATCH, HIDDEN, CLASSES = 15, 50, 64, 10
MONITOR = "accuracy/val"


@dataclass
class Data:
    """The images of a repetition, flat and normalised, with their labels."""

    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="a folder with MNIST/raw")
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="repetition, to share them among processes")
    parser.add_argument("--trials", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    began, images = process_time(), read_mnist(Path(arguments.root))
    indices = range(arguments.first, arguments.first + arguments.repetitions)
    rows = [repetition(images, index, arguments.trials) for index in indices]
    print(f"{len(rows)} repetitions, {process_time() - began:.0f} s of CPU")
    summary(np.array(rows))


def repetition(images: tuple[Tensor, ...], index: int, count: int) -> list[float]:
    """Search and grid on the images of one repetition; return what they reached."""
    data = draw_data(images, index)
    ends, middles = (best_of_grid(axes, index, data) for axes in GRIDS.values())
    with tempfile.TemporaryDirectory() as home:
        study, plan, whole = search(Path(home), data, index, count)
        known, objective = trials.read(Ledger(plan))
        best = objective.best_first(known)[0]
        over = np.array([trial.epochs for trial in known])
        is_kept = whole[:, -1].max() <= (best.value or 0.0)
        finalists = confirm.make(study, plan, 5, 3)
    values = [{key: job.swept[key] for key in AXES} for job in finalists.jobs]
    confirmed, _ = train(values, [int(job.swept["seed"]) for job in finalists.jobs], data)
    means = {json.dumps(each): confirmed[[other == each for other in values], -1].mean() for each in values}
    winner, reported = max(means.items(), key=lambda each: each[1])
    (truth, test_of_winner), (flattered, _) = truth_of(json.loads(winner), data), truth_of(best.values, data)
    sd = truth.std(ddof=1)
    chosen = float(test_of_winner.mean())
    searched = float(train([best.values], [index], data)[1][0])
    row = [ends, middles, searched, chosen, over.sum() / (EPOCHS * count), float(is_kept)]
    row += [(reported - truth.mean()) / sd, ((best.value or 0.0) - flattered.mean()) / flattered.std(ddof=1)]
    print(
        f"{index:>3}  test: grids of 64 {ends:.2%} and {middles:.2%}, search {searched:.2%}, confirmed {chosen:.2%}; "
        f"epochs {row[4]:.0%}; winner {'kept' if is_kept else 'lost'}; "
        f"overstated by {row[6]:+.2f} sd, unconfirmed {row[7]:+.2f}",
        flush=True,
    )
    return row


def best_of_grid(axes: Mapping[str, tuple[str, ...]], seed: int, data: Data) -> float:
    """Return the test accuracy of the best on val of all combinations."""
    combinations = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    val, test = train(combinations, [seed] * len(combinations), data)
    return float(test[val[:, -1].argmax()])


def search(home: Path, data: Data, seed: int, count: int) -> tuple[Study, Plan, np.ndarray]:
    """Run a search in a folder; return it, its plan, and the whole curve of every trial, as if none was pruned."""
    study = Study(Space(("model=fcn",), AXES), OWN)
    facts = {"sampler": "auto", "trials": count, "until": None, "confirm": None}
    plan = Plan(home, ("model=fcn", f"seed={seed}"), tuple(AXES), (), facts)
    plan = Plan(home, plan.words, plan.keys, (study.first_job(plan),), facts)
    save(plan)
    curves = []
    while True:
        job = plan.jobs[-1]
        val, _ = train([{key: job.swept[key] for key in AXES}], [int(job.swept["seed"])], data)
        curves.append(val[0])
        write_run(job.folder, val[0])
        grown = study.grow(Ledger(plan))
        if grown is None:
            return study, plan, np.array(curves)
        plan = grown


def write_run(folder: Path, curve: np.ndarray) -> None:
    """Write what a run leaves behind, as far as it comes until it is pruned."""
    folder.mkdir()
    rule = MedianRule(folder, MONITOR, True)
    ends = (epoch for epoch in range(1, EPOCHS) if rule(epoch, float(curve[:epoch].max())))
    epochs = next(ends, EPOCHS)
    rows = [f"{epoch},{epoch},{value!r}" for epoch, value in enumerate(map(float, curve[:epochs]), start=1)]
    (folder / "metrics.csv").write_text("\n".join([f"epoch,step,{MONITOR}", *rows]) + "\n")
    final = {MONITOR: float(curve[-1])} if epochs == EPOCHS else None
    result = {"status": "finished" if final else "pruned", "monitor": MONITOR, "higher_is_better": True}
    result |= {"as_percent": True, "best": float(curve[:epochs].max()), "final": final, "epochs": epochs}
    (folder / "result.json").write_text(json.dumps(result))


def truth_of(values: Values, data: Data, runs: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Return the val and test accuracies of a setting over seeds that nothing was chosen by, (runs,) each."""
    val, test = train([values] * runs, list(range(10_000, 10_000 + runs)), data)
    return val[:, -1], test


# --- training, many networks at once ---


def train(settings: list[Values], seeds: list[int], data: Data) -> tuple[np.ndarray, np.ndarray]:
    """Train a network for each setting; return val accuracy by epoch (S, EPOCHS), and final test accuracy (S,).

    AdamW with a cosine schedule. The rates, decays and the like are the settings'.
    """
    images, labels = data.train
    lr, decay, drop, smoothing = (
        torch.tensor([float(values[key]) for values in settings])[:, None, None] for key in AXES
    )
    sources = [torch.Generator().manual_seed(fold_in(seed, "benchmark") % 2**63) for seed in seeds]
    shapes = [(images.shape[1], HIDDEN), (1, HIDDEN), (HIDDEN, CLASSES), (1, CLASSES)]
    weights = [torch.stack([_start(shape, source) for source in sources]).requires_grad_() for shape in shapes]
    means, squares = ([torch.zeros_like(weight) for weight in weights] for _ in "ab")
    steps, step, curve = EPOCHS * len(images) // BATCH, 0, []
    for _ in range(EPOCHS):
        orders = torch.stack([torch.randperm(len(images), generator=source) for source in sources])
        for begin in range(0, len(images), BATCH):
            chosen = orders[:, begin : begin + BATCH]
            mask = torch.stack([torch.rand(BATCH, HIDDEN, generator=source) for source in sources]) >= drop
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
    first, first_bias, last, last_bias = weights
    return ((images @ first + first_bias).relu() * mask) @ last + last_bias


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
    return (forward(weights, images).argmax(-1) == labels).float().mean(-1).double().numpy()


# --- data and results ---


def read_mnist(root: Path) -> tuple[Tensor, ...]:
    """Read the images at 14 x 14, normalised, (N, 196), and the labels, of both splits."""
    from torchvision.datasets import MNIST

    found: list[Tensor] = []
    for is_train in (True, False):
        split = MNIST(str(root), train=is_train)
        images = avg_pool2d(split.data[:, None].float() / 255, 2).flatten(1)
        found += [(images - 0.13) / 0.27, split.targets]
    return tuple(found)


def draw_data(images: tuple[Tensor, ...], index: int) -> Data:
    order = torch.randperm(len(images[0]), generator=torch.Generator().manual_seed(index))
    train, val = order[:1000], order[1000:1500]
    return Data((images[0][train], images[1][train]), (images[0][val], images[1][val]), (images[2], images[3]))


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

"""What it costs that every draw is a function of (seed, purpose, epoch, step), as a part of the steps that use it.

Clocked are the calls that a generator that just runs on would not need: a key and a seed for what the model draws, a
generator for what augmentations draw, in every step, and two generators for the order, crops and flips of an epoch.
"""

import argparse
from collections.abc import Callable

import torch
from ours import build_trainer, repeatable
from timing import Way, circumstances, goal, measure, median, table

from deeptrain.runtime.random import fold_in, generator
from deeptrain.training.trainer import Trainer

STEPS = 100  # an epoch
MACHINE = ["device=cpu", "threads=1", "validate.clean_images=0"]
WORK = {  # the cheapest steps there are, then the main job's
    "model=fcn data=digits": ["data=digits", "model=fcn"],
    "model=fcn aug=mixup, MNIST's size": [
        "data=synthetic",
        "data.shape=[1,28,28]",
        "model=fcn",
        "aug=mixup",
        "batch_size=128",
    ],
    "model=resnet aug=mixup data=digits": ["data=digits", "model=resnet", "aug=mixup"],
    "model=resnet aug=[randaugment,mixup], CIFAR-10's size": [
        "data=synthetic",
        "data.shape=[3,32,32]",
        "model=resnet",
        "aug=[randaugment,mixup]",
        "batch_size=128",
    ],
}


def keyed(trainer: Trainer) -> Way:
    """Make the calls of so many steps, as the trainer and its loader make them, and nothing else."""

    def prepare(steps: int) -> Callable[[], object]:
        def work() -> None:
            for step in range(steps):
                if step % STEPS == 0:
                    generator(0, "order", step)
                    generator(0, "recipe", step)
                trainer.runtime.seed(fold_in(0, "model", 0, step))
                if trainer.pipeline.augmentations:
                    generator(0, "augment", 0, step)

        return work

    return Way(prepare, STEPS, 20 * STEPS)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # pyright: ignore
    parser.add_argument("--quick", action="store_true", help="a few steps: does it run at all?")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(words)
    print(circumstances("torch", "numpy", quick=options.quick))
    torch.set_num_threads(1)
    short, long, rounds = (1, 3, 1) if options.quick else (10, 60, options.rounds)
    rows, parts = [], []
    for name, work in WORK.items():
        trainer = build_trainer([*MACHINE, *work])
        ways = {"steps": Way(repeatable(trainer), short, long), "keys": keyed(trainer)}
        timings = measure(ways, rounds, warmup=1)
        step, keys = (1e6 * median(timings[way].steady)[1] for way in ways)
        parts.append(keys / step)
        rows.append([name, f"{step:,.0f}", f"{keys:.1f}", f"{keys / step:.2%}"])
    table(["one thread", "CPU, us a step", "of it keys, us", "part"], rows)
    goal("", "keys of random draws: percent of an epoch, the dearest of these", 100 * max(parts), 2, at_most=True)


if __name__ == "__main__":
    main()

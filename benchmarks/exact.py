"""The goals that no noise touches: operations against torchvision's, and reads of the configuration within a step."""

import argparse
import contextlib
from collections.abc import Iterator
from unittest import mock

import numpy as np
import torch
from omegaconf.basecontainer import BaseContainer
from ours import build_trainer, repeatable
from timing import circumstances, goal
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import _apply_op

from deeptrain.aug.operations import OPERATION_NAMES, Operations, magnitude_table

SHAPE, BINS = (3, 32, 32), 31
WORDS = ["data=digits", "model=fcn", "aug=[cutout,mixup]", "average=ema", "device=cpu", "threads=1"]


@contextlib.contextmanager
def counted(owner: type, name: str) -> Iterator[list[int]]:
    """Count the calls of a method."""
    calls, method = [0], getattr(owner, name)

    def counting(*arguments: object, **named: object) -> object:
        calls[0] += 1
        return method(*arguments, **named)

    with mock.patch.object(owner, name, counting):
        yield calls


def reads_in_a_step(steps: int) -> int:
    """Return how often the configuration is read in so many steps more."""
    prepare = repeatable(build_trainer(WORDS))
    counts = []
    for length in (2, 2 + steps):
        work = prepare(length)
        with counted(BaseContainer, "_get_child") as one, counted(BaseContainer, "_resolve_with_default") as other:
            work()
        counts.append(one[0] + other[0])
    return counts[1] - counts[0]


def exact_operations() -> int:
    """Return how many operations give torchvision's bits on single images, at every magnitude and sign."""
    translate = 150 / 331 * SHAPE[1]
    table = magnitude_table(BINS, shear=0.3, translate=(translate, translate), rotate=30, blend=0.9, posterize=4)
    operations = Operations(SHAPE, table)
    images = torch.randint(256, (len(operations.choices), *SHAPE), generator=torch.Generator().manual_seed(0))
    images = images.to(torch.uint8).contiguous(memory_format=torch.channels_last)
    found = operations(images, np.arange(len(images)))
    wrong = {
        name
        for image, own, (name, magnitude) in zip(images, found, operations.choices, strict=True)
        if not torch.equal(own, _apply_op(image, name, magnitude, InterpolationMode.NEAREST, None))
    }
    return len(OPERATION_NAMES) - len(wrong)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the same: it is exact")
    parser.add_argument("--rounds", type=int, help="one is enough: it is exact")
    parser.parse_args(words)
    print(circumstances("torch", "torchvision", quick=False))
    goal("C3b", "operations of RandAugment that give torchvision's bits, of 14", exact_operations(), 13, 14)
    goal("C12", "reads of the configuration in 20 steps", reads_in_a_step(20), 0, 0, at_most=True)


if __name__ == "__main__":
    main()

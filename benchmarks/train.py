"""Images a second of whole training, our trainer beside hand-written loops: resnet18 at 32 px, and a small MLP."""

import argparse
import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any

import numpy as np
import torch
from loader import torchvision_v1
from ours import build_trainer, repeatable
from timing import Timing, Way, circumstances, goal, measure, median, spread, table, times_faster
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, RandomSampler

from deeptrain.runtime import pick_precision
from deeptrain.trainer import Trainer

WORKERS = 2
SGD: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
WORDS = [
    "data=synthetic",
    "validate.clean_images=0",  # the validation at the end does not count, so it need not be long
    "optimizer=sgd",
    *(f"optimizer.{name}={str(value).lower()}" for name, value in SGD.items()),
    "schedule=cosine",
    "precision=fp32",
]
RESNET = ["data.shape=[3,32,32]", "data.crop_padding=4", "data.flip=true", "model=resnet", "model.depth=18"]
MLP = ["data.shape=[1,28,28]", "model=fcn", "model.hidden=[64,128,64]"]
OURS, BF16, COMPILED = "deeptrain", "deeptrain, bf16", "deeptrain, bf16, compiled"
BY_HAND = "by hand: torchvision, 2 workers"
READY, READY_COMPILED = "by hand: bf16, one batch that lies ready", "by hand: the same, compiled"
RESIDENT, RESIDENT_FUSED = "by hand: resident tensors", "by hand: resident tensors, fused SGD"
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Course:
    """One network over one size of images, and for how many steps the ways of training it are clocked."""

    words: list[str]
    device: torch.device
    images: int  # to train on, whole batches
    batch: int
    short: int
    long: int

    def trainer(self, *words: str) -> Trainer:
        """Build our trainer, with three images of each class more, for the validation at the end."""
        size = self.images + 30
        sizes = [f"data.size={size}", f"data.val_fraction={30 / size}", f"batch_size={self.batch}"]
        trainer = build_trainer([*WORDS, *self.words, *sizes, f"device={self.device}", *words])
        assert len(trainer.train_loader) * self.batch == self.images
        return trainer

    def ours(self, *words: str) -> Way:
        return Way(repeatable(self.trainer(*words)), self.short, self.long)

    def by_hand(self, network: nn.Module, batches: Callable[[int], Iterable[Batch]], **options: Any) -> Way:
        """Clock a loop written by hand over what `batches(steps)` yields."""
        network = network.to(self.device)

        def prepare(steps: int) -> Callable[[], object]:
            return lambda: train_by_hand(network, batches(steps), steps, self.device, **options)

        return Way(prepare, self.short, self.long)


def train_by_hand(
    network: nn.Module,
    batches: Iterable[Batch],
    steps: int,
    device: torch.device,
    *,
    fused: bool = False,
    bf16: bool = False,
) -> None:
    """Train the way the tutorials write it."""
    optimizer = torch.optim.SGD(network.parameters(), **SGD, **({"fused": True} if fused else {}))
    network.train()
    for images, labels in islice(batches, steps):
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def resnet_ways(course: Course) -> dict[str, Way]:
    """Make the ways of training resnet18; on a GPU compiled too, beside a tuned loop that has no data to bring."""
    rng, device = np.random.default_rng(0), course.device
    pictures = rng.integers(0, 256, (course.images, 32, 32, 3), np.uint8)
    dataset = torchvision_v1(pictures, rng.integers(0, 10, course.images))

    def served(steps: int) -> DataLoader:
        sampler = RandomSampler(dataset, replacement=True, num_samples=steps * course.batch)  # pyright: ignore
        pinned = device.type == "cuda"
        return DataLoader(dataset, course.batch, sampler=sampler, num_workers=WORKERS, pin_memory=pinned)

    network = copy.deepcopy(course.trainer().model)
    plain = copy.deepcopy(network).to(memory_format=torch.contiguous_format)  # pyright: ignore  (torch's default)
    ways = {OURS: course.ours(), BY_HAND: course.by_hand(plain, served)}
    if pick_precision("auto", device) == "bf16":
        ways[BF16] = course.ours("precision=bf16")
    if device.type != "cuda":
        return ways
    images = torch.randn(course.batch, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    ready = images, torch.randint(10, (course.batch,), device=device)
    tuned = {"fused": True, "bf16": True}
    return ways | {
        COMPILED: course.ours("precision=bf16", "compile=true"),
        READY: course.by_hand(copy.deepcopy(network), lambda steps: repeat(ready), **tuned),
        READY_COMPILED: course.by_hand(torch.compile(copy.deepcopy(network)), lambda steps: repeat(ready), **tuned),  # pyright: ignore
    }


def mlp_ways(course: Course) -> dict[str, Way]:
    """Make the ways of training the MLP: a hand-written loop that knows its data fits keeps it as float32."""
    images = torch.randn(course.images, 1, 28, 28, device=course.device)
    labels = torch.randint(10, (course.images,), device=course.device)

    def shuffled(steps: int) -> Iterator[Batch]:
        while True:
            for part in torch.randperm(course.images, device=course.device).split(course.batch):
                yield images[part], labels[part]

    network = course.trainer().model
    ways = {
        OURS: course.ours(),
        RESIDENT: course.by_hand(copy.deepcopy(network), shuffled),
        RESIDENT_FUSED: course.by_hand(copy.deepcopy(network), shuffled, fused=True),
    }
    if course.device.type == "cuda":
        ways |= {BF16: course.ours("precision=bf16"), COMPILED: course.ours("precision=bf16", "compile=true")}
    return ways


def check_that_nothing_waits(course: Course, *words: str, steps: int = 50) -> None:
    """Train between two log points while torch raises wherever the host would wait for the GPU."""
    trainer = course.trainer(*words)
    trainer.model.train()
    for images, labels in islice(trainer.train_loader.epoch(0), 10):  # the first steps set things up
        trainer.train_step(images, labels)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for images, labels in islice(trainer.train_loader.epoch(1), steps):
            trainer.train_step(images, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    print(f"{' '.join(course.words[-2:] + list(words))}: no wait for the GPU in {steps} steps")


def report(course: Course, timings: dict[str, Timing], reference: str, least: float) -> None:
    rows = []
    for name, timing in timings.items():
        (wall, cpu), noise = median(timing.steady), spread(timing.steady)
        ratio = times_faster(timing.steady, timings[reference].steady)
        figures = [f"{course.batch / seconds:,.0f}" for seconds in (wall, cpu, median(timing.whole)[0])]
        rows.append([name, *figures, *(f"{value:.2f}x" for value in ratio), f"± {noise[0] / wall:.0%}"])
    print(" ".join(course.words), f"batch_size={course.batch}, {torch.get_num_threads()} threads")
    head = ["images/s", "wall", "per CPU-second", "wall, with start", "ratio, wall", "ratio, CPU", "wall spread"]
    table(head, rows)
    ratio = times_faster(timings[OURS].steady, timings[reference].steady)
    for clock, value in zip(("wall clock", "CPU"), ratio, strict=True):
        goal(f"our images/s over those {reference}, {clock}", value, least)
    print()


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps of a smaller network: does it run at all?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of each loop on the CPU; 1 where other work shares the cores")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(words)
    torch.set_num_threads(options.threads or torch.get_num_threads())
    device, rounds = torch.device(options.device), options.rounds
    on_gpu = device.type == "cuda"
    resnet = Course(RESNET, device, 12_800, 128, *((100, 600) if on_gpu else (2, 6)))
    mlp = Course(MLP, device, 64_000, 128, *((200, 2000) if on_gpu else (100, 1100)))
    if options.quick:
        rounds = 1
        resnet = Course([*RESNET[:-1], "model.depth=20"], device, 640, 16, 1, 3)
        mlp = Course(MLP, device, 640, 16, 5, 15)
    print(circumstances("torch", "torchvision", quick=options.quick))
    if on_gpu:
        print(torch.cuda.get_device_name(device))
        check_that_nothing_waits(resnet)
        check_that_nothing_waits(resnet, "aug=[cutout,mixup,cutmix]")
    else:
        print("no CUDA device: whether the host waits for it between log points is not checked")
    warmup = 0 if options.quick else 1
    report(resnet, measure(resnet_ways(resnet), rounds, warmup), BY_HAND, 1.0)
    report(mlp, measure(mlp_ways(mlp), rounds, warmup), RESIDENT, 60 / 72)


if __name__ == "__main__":
    main()

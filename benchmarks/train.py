"""Images a second of whole training, our trainer beside other loops: resnet18 at 32 px, and a small MLP.

On a CPU each loop takes the threads that it has by default, ours those of threads=auto. The hand-written loop over
tensors has both torch's and one thread, for the better of the two is what it could be.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import islice, repeat
from typing import Any

import numpy as np
import torch
from loader import OneByOne, torchvision_v1
from ours import build_trainer, repeatable
from PIL import Image
from step import lightning_fit, quiet_lightning
from timing import Apart, Timing, Way, circumstances, goal, measure, median, spread, table, times_faster
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, RandomSampler

from deeptrain.config.options import options as available
from deeptrain.model.fcn import FCN
from deeptrain.model.resnet import ResNet
from deeptrain.runtime.device import pick_precision
from deeptrain.runtime.upload import PINNED_BYTES
from deeptrain.training.trainer import Trainer

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
RESNET = ["data.shape=[3,32,32]", "data.crop_padding=4", "data.flip=true", "model=resnet"]
MLP = ["data.shape=[1,28,28]", "model=fcn", "model.hidden=[64,128,64]"]
OURS, BF16, COMPILED = "deeptrain", "deeptrain, bf16", "deeptrain, bf16, compiled"
BY_HAND = "by hand: torchvision, 2 workers"
READY, READY_COMPILED = "by hand: bf16, one batch that lies ready", "by hand: the same, compiled"
RESIDENT, RESIDENT_FUSED = "by hand: resident tensors", "by hand: resident tensors, fused SGD"
RESIDENT_ONE = "by hand: resident tensors, one thread"
LIGHTNING = "Lightning: torchvision, 2 workers"
HEAD = ["images/s", "wall", "per CPU-second", "wall, with start", "ratio, wall", "ratio, CPU", "wall spread"]
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Course:
    """One network over one size of images, and for how many steps the ways of training it are clocked."""

    words: list[str]
    network: Callable[[], nn.Module]  # the same without our builder, for the loops by hand
    device: torch.device
    threads: int | None  # of every loop; None: what each has by default
    images: int  # to train on, whole batches
    batch: int
    short: int
    long: int
    served_long: int  # for the loops that are served by workers
    shape: tuple[int, int, int]  # height, width, channels

    def trainer(self, *words: str) -> Trainer:
        """Build our trainer, with three images of each class more, for the validation at the end."""
        size = self.images + 30
        sizes = [f"data.size={size}", f"data.val_fraction={30 / size}", f"batch_size={self.batch}"]
        machine = [f"device={self.device}", f"threads={self.threads or 'auto'}"]
        trainer = build_trainer([*WORDS, *self.words, *sizes, *machine, *words])
        assert len(trainer.train_loader) * self.batch == self.images
        return trainer

    def ours(self, *words: str) -> Way:
        return Way(repeatable(self.trainer(*words)), self.short, self.long)

    def by_hand(
        self, network: nn.Module, batches: Callable[[int], Iterable[Batch]], threads: int | None = None, **options: bool
    ) -> Way:
        """Clock a loop written by hand over what `batches(steps)` yields."""
        torch.set_num_threads(self.threads or threads or torch.get_num_threads())
        network = network.to(self.device)

        def prepare(steps: int) -> Callable[[], object]:
            return lambda: train_by_hand(network, batches(steps), steps, self.device, **options)

        return Way(prepare, self.short, self.long)

    def served(self) -> Way:
        """Make the loop of the tutorials: pictures one by one through torchvision's transforms, in worker processes."""
        return dataclasses.replace(self, long=self.served_long).by_hand(self.network(), self._served_batches())

    def lightning(self) -> Way:
        """Make the loop of Lightning, with logger, bar and checkpoints off, over the same pictures."""
        quiet_lightning()
        torch.set_num_threads(self.threads or torch.get_num_threads())
        network, batches = self.network(), self._served_batches()

        def prepare(steps: int) -> Callable[[], object]:
            return lambda: lightning_fit(network, batches(steps), steps, None, **SGD)

        return Way(prepare, self.short, self.served_long)

    def _served_batches(self) -> Callable[[int], DataLoader]:
        rng = np.random.default_rng(0)
        height, width, channels = self.shape
        pictures = rng.integers(0, 256, (self.images, height, width, channels), np.uint8)
        labels = rng.integers(0, 10, self.images)
        dataset = torchvision_v1(pictures, labels) if channels == 3 else _as_mnist(pictures[..., 0], labels)

        def batches(steps: int) -> DataLoader:
            sampler = RandomSampler(dataset, replacement=True, num_samples=steps * self.batch)  # pyright: ignore
            pinned = self.device.type == "cuda"
            return DataLoader(dataset, self.batch, sampler=sampler, num_workers=WORKERS, pin_memory=pinned)

        return batches

    def ready(self, *, compiled: bool = False) -> Way:
        """Make a tuned loop for a GPU that has no data to bring: what a framework can reach at most."""
        images = torch.randn(self.batch, 3, 32, 32, device=self.device).to(memory_format=torch.channels_last)
        batch = images, torch.randint(10, (self.batch,), device=self.device)
        network: Any = self.network().to(self.device, memory_format=torch.channels_last)  # pyright: ignore
        network = torch.compile(network) if compiled else network
        return self.by_hand(network, lambda steps: repeat(batch), fused=True, bf16=True)

    def resident(self, *, fused: bool = False, threads: int | None = None) -> Way:
        """Make the loop of one who knows that the data fits: all of it float32 on the device, shuffled by index."""
        images = torch.randn(self.images, 1, 28, 28, device=self.device)
        labels = torch.randint(10, (self.images,), device=self.device)

        def batches(steps: int) -> Iterator[Batch]:
            while True:
                for part in torch.randperm(self.images, device=self.device).split(self.batch):
                    yield images[part], labels[part]

        return self.by_hand(self.network(), batches, threads, fused=fused)


def _as_mnist(pictures: np.ndarray, labels: np.ndarray) -> OneByOne:
    from torchvision import transforms

    steps = [Image.fromarray, transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    return OneByOne(pictures, labels, transforms.Compose(steps))


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


def resnet_ways(course: Course) -> dict[str, Callable[[], Way]]:
    ways = {OURS: course.ours, BY_HAND: course.served}
    if pick_precision("auto", course.device) == "bf16":
        ways[BF16] = partial(course.ours, "precision=bf16")
    if course.device.type == "cuda":
        ways |= {COMPILED: partial(course.ours, "precision=bf16", "compile=true")}
        ways |= {READY: course.ready, READY_COMPILED: partial(course.ready, compiled=True)}
    return ways


def served_ways(course: Course) -> dict[str, Callable[[], Way]]:
    ways = {OURS: course.ours, BY_HAND: course.served}
    return ways | ({LIGHTNING: course.lightning} if find_spec("lightning") else {})


def resident_ways(course: Course) -> dict[str, Callable[[], Way]]:
    """Make the ways that no worker serves. Beside such, ways of two threads take half as long again."""
    ways = {OURS: course.ours, RESIDENT: course.resident, RESIDENT_FUSED: partial(course.resident, fused=True)}
    if course.device.type == "cuda":
        ways |= {BF16: partial(course.ours, "precision=bf16")}
        return ways | {COMPILED: partial(course.ours, "precision=bf16", "compile=true")}
    return ways if course.threads else ways | {RESIDENT_ONE: partial(course.resident, threads=1)}


def check_that_nothing_waits(course: Course, *words: str, steps: int = 50) -> None:
    """Train between two log points while torch raises wherever the host would wait for the GPU.

    Torch does not see that a large copy from pageable memory waits, so such an upload raises here.
    """
    trainer = course.trainer(*words)
    trainer.model.train()
    for images, labels in islice(trainer.train_loader.epoch(0), 10):  # the first steps set things up
        trainer.train_step(images, labels)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with PageableUploads():
            for images, labels in islice(trainer.train_loader.epoch(1), steps):
                trainer.train_step(images, labels)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    print(" ".join([*course.words, *words]), f": no wait for the GPU in {steps} steps")


class PageableUploads(TorchDispatchMode):
    """Raise RuntimeError at a large upload from memory that is not pinned."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        source, target = (args[1], args[0]) if func.overloadpacket is torch.ops.aten.copy_ else (args[0], result)
        is_copy = func.overloadpacket in (torch.ops.aten.copy_, torch.ops.aten._to_copy)
        is_upload = is_copy and source.device.type == "cpu" and target.device.type == "cuda"
        if is_upload and source.nbytes > PINNED_BYTES and not source.is_pinned():
            raise RuntimeError(f"an upload of {source.nbytes:,} bytes from pageable memory waits for the GPU")
        return result


def report(course: Course, timings: dict[str, Timing], row: str, peers: Sequence[tuple[str, float, float]]) -> None:
    """peers: the beginning of their names, and what our images/s over those of the fastest must be, and should be."""
    rows, slowest = [], peers[0][0]
    for name, timing in timings.items():
        (wall, cpu), noise = median(timing.steady), spread(timing.steady)
        ratio = times_faster(timing.steady, timings[slowest].steady)
        figures = [f"{course.batch / seconds:,.0f}" for seconds in (wall, cpu, median(timing.whole)[0])]
        rows.append([name, *figures, *(f"{value:.2f}x" for value in ratio), f"± {noise[0] / wall:.0%}"])
    print(" ".join(course.words), f"batch_size={course.batch}, {course.threads or 'default'} threads")
    table(HEAD, rows)
    for begin, must, stretch in peers:
        same = [name for name in timings if name.startswith(begin)]  # [] where it is not installed
        for column, clock in enumerate(("wall clock", "CPU") if same else ()):
            best = min(same, key=lambda name: median(timings[name].steady)[column])
            value = times_faster(timings[OURS].steady, timings[best].steady)[column]
            goal(
                row, f"{' '.join(course.words[-2:])}: our images/s over those of {best}, {clock}", value, must, stretch
            )
    print()


def courses(device: torch.device, threads: int | None, quick: bool) -> tuple[Course, Course]:
    on_gpu = device.type == "cuda"
    batch, steps, many = (16, (1, 3, 3), (5, 15, 15)) if quick else (128, (1, 5, 5), (100, 1100, 400))
    if on_gpu and not quick:
        steps, many = (100, 600, 600), (200, 2000, 2000)
    depth, sizes = (20, (640, 640)) if quick else (18, (12_800, 64_000))
    resnet, mlp = partial(ResNet, (3, 32, 32), 10, depth=depth), partial(FCN, (1, 28, 28), 10, hidden=[64, 128, 64])
    return (
        Course([*RESNET, f"model.depth={depth}"], resnet, device, threads, sizes[0], batch, *steps, (32, 32, 3)),
        Course(MLP, mlp, device, threads, sizes[1], batch, *many, (28, 28, 1)),
    )


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps of a smaller network: does it run at all?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of each loop on the CPU; 1 where other work shares the cores")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(words)
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    resnet, mlp = courses(device, options.threads, options.quick)
    print(circumstances("torch", "torchvision", quick=options.quick))
    if on_gpu:
        print(torch.cuda.get_device_name(device))
        for name in available("aug"):
            check_that_nothing_waits(resnet, f"aug={name}")
    else:
        print("no CUDA device: whether the host waits for it between log points is not checked")
    rounds, warmup = (1, 0) if options.quick else (options.rounds, 1)
    here = options.quick or on_gpu  # our way of freeing memory on the CPU must not help the others
    for course, makers, row, peers in (
        (resnet, resnet_ways, "C8", [(BY_HAND, 1.2, 1.5)]),
        (mlp, served_ways, "C7", [(BY_HAND, 4.5, 5.5), (LIGHTNING, 5.5, 6.5)]),
        (mlp, resident_ways, "C7", [(RESIDENT, 0.85, 0.93)]),
    ):
        ways = {name: make() if here else Apart(make) for name, make in makers(course).items()}
        report(course, measure(ways, rounds, warmup), row, peers)


if __name__ == "__main__":
    main()

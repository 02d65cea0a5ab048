"""What a step costs in our trainer, over a bare PyTorch loop and beside Lightning, on a tiny MLP: overhead shows."""

import argparse
import contextlib
import copy
import dataclasses
import io
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from ours import build_trainer, repeatable
from timing import Way, circumstances, goal, measure, median, spread, table, times_faster
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from deeptrain.training.trainer import Trainer

BATCH, READY = 128, 64  # images a batch; batches that lie ready
LR, MOMENTUM = 0.01, 0.9
WORDS = [
    "device=cpu",
    "data=synthetic",
    "data.shape=[1,4,8]",
    "data.size=14400",  # 100 batches to train on, 1,600 images to validate on at the end
    "data.val_fraction=0.1111",
    f"batch_size={BATCH}",
    "model=fcn",
    "model.hidden=[32]",
    "optimizer=sgd",
    f"optimizer.lr={LR}",
    f"optimizer.momentum={MOMENTUM}",
    "optimizer.nesterov=false",
    "optimizer.weight_decay=0",
    "schedule=cosine",
    "schedule.warmup=0.05",
    "log.every_steps=50",
]
BARE, FUSED = "bare loop", "bare loop, fused=True"
SHUFFLED, OURS, OURS_LOADER = "bare loop, shuffling its tensors", "deeptrain", "deeptrain, its loader"
TRACKED = "bare loop, reading loss and accuracy"
OFF, DEFAULT = "Lightning, everything off", "Lightning, default, two metrics"
FABRIC, ACCELERATE, IGNITE = "Lightning Fabric", "accelerate", "ignite"
OVERHEADS = {OFF: (20, 40), DEFAULT: (75, 150), ACCELERATE: (8, 19), FABRIC: (2.5, 5), IGNITE: (2.5, 5)}
Batch = tuple[Tensor, Tensor]


class Ready:
    """Stands where our loader does, with batches that lie ready: normalised float32 images and their labels."""

    def __init__(self, batches: list[Batch]):
        self.batches = batches
        self.sizes = [BATCH] * 10**6

    def __len__(self) -> int:
        return len(self.sizes)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        return cycle(self.batches)


class Epoch:
    """So many steps over batches that lie ready, as one epoch: what Lightning takes for a data loader."""

    def __init__(self, batches: list[Batch], steps: int):
        self.batches, self.steps = batches, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        return islice(cycle(self.batches), self.steps)


class AsTheyAre:
    """Stands where our pipeline does, before batches that are normalised already."""

    augmentations = ()

    def evaluate(self, images: Tensor) -> Tensor:
        return images


def on_ready_batches(trainer: Trainer, batches: list[Batch]) -> Trainer:
    return dataclasses.replace(trainer, train_loader=Ready(batches), pipeline=AsTheyAre())  # pyright: ignore


def bare(network: nn.Module, batches: Iterable[Batch], steps: int, *, fused: bool = False, track: bool = False) -> None:
    """Train as the shortest PyTorch tutorial does; `track` also reads the loss and the accuracy at every step."""
    optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=MOMENTUM, **({"fused": True} if fused else {}))
    network.train()
    losses = hits = 0.0
    for images, labels in islice(batches, steps):
        logits = network(images)
        loss = cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if track:
            losses += loss.item()
            hits += (logits.argmax(1) == labels).float().mean().item()


def shuffled(images: Tensor, labels: Tensor) -> Iterator[Batch]:
    """Yield batches of resident float32 tensors in a new order every epoch."""
    while True:
        for part in torch.randperm(len(images)).split(BATCH):
            yield images[part], labels[part]


def lightning_fit(network: nn.Module, loader: Iterable[Batch], steps: int, folder: Path | None, **sgd: Any) -> None:
    """Fit in Lightning: without a folder everything is off, with one its defaults and two metrics logged every step."""
    import lightning  # pyright: ignore

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.network = network

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), **sgd)

        def training_step(self, batch: Batch, index: int) -> Tensor:
            images, labels = batch
            logits = self.network(images)
            loss = cross_entropy(logits, labels)
            if folder is not None:
                self.log("loss", loss, prog_bar=True)
                self.log("accuracy", (logits.argmax(1) == labels).float().mean(), prog_bar=True)
            return loss

    names = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    off: dict[str, Any] = {} if folder else dict.fromkeys(names, False)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        trainer = lightning.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, max_steps=steps, default_root_dir=folder, **off
        )
        trainer.fit(Module(), loader)


def fabric_fit(network: nn.Module, batches: list[Batch], steps: int) -> None:
    from lightning.fabric import Fabric  # pyright: ignore

    fabric = Fabric(accelerator="cpu", devices=1)
    prepared, optimizer = fabric.setup(network, torch.optim.SGD(network.parameters(), lr=LR, momentum=MOMENTUM))
    prepared.train()
    for images, labels in islice(cycle(batches), steps):
        loss = cross_entropy(prepared(images), labels)
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()


def accelerate_fit(network: nn.Module, batches: list[Batch], steps: int) -> None:
    from accelerate import Accelerator  # pyright: ignore

    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=MOMENTUM)
    prepared, optimizer = accelerator.prepare(network, optimizer)
    prepared.train()
    for images, labels in islice(cycle(batches), steps):
        loss = cross_entropy(prepared(images), labels)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()


def ignite_fit(network: nn.Module, batches: list[Batch], steps: int) -> None:
    from ignite.engine import create_supervised_trainer  # pyright: ignore

    optimizer = torch.optim.SGD(network.parameters(), lr=LR, momentum=MOMENTUM)
    create_supervised_trainer(network, optimizer, cross_entropy).run(Epoch(batches, steps), max_epochs=1)


def ways(folder: Path, short: int, long: int) -> dict[str, Way]:
    """Make every loop, all from the same weights; their batches and optimizer settings are the same."""
    trainer = build_trainer(WORDS, folder / "ours")
    network = copy.deepcopy(trainer.model)
    batches = ready_batches(trainer)
    images, labels = (torch.cat(tensors) for tensors in zip(*batches, strict=True))

    def plain(fit: Any, *arguments: Any, **options: Any) -> Way:
        def prepare(steps: int) -> Any:
            fresh = copy.deepcopy(network)
            return lambda: fit(fresh, *arguments, steps, **options)

        return Way(prepare, short, long)

    made = {
        BARE: plain(bare, cycle(batches)),
        FUSED: plain(bare, cycle(batches), fused=True),
        TRACKED: plain(bare, cycle(batches), track=True),
        SHUFFLED: plain(bare, shuffled(images, labels)),
        OURS: Way(repeatable(on_ready_batches(trainer, batches)), short, long),
        OURS_LOADER: Way(repeatable(trainer), short, long),
    }
    made |= lightning_ways(folder, plain, batches) if find_spec("lightning") else {}
    made |= {ACCELERATE: plain(accelerate_fit, batches)} if find_spec("accelerate") else {}
    return made | ({IGNITE: plain(ignite_fit, batches)} if find_spec("ignite") else {})


def quiet_lightning() -> None:
    import logging

    import lightning  # noqa: F401  # pyright: ignore  (it sets the level of its loggers)

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")


def lightning_ways(folder: Path, plain: Any, batches: list[Batch]) -> dict[str, Way]:
    quiet_lightning()

    def fit(network: nn.Module, home: Path | None, steps: int) -> None:
        lightning_fit(network, Epoch(batches, steps), steps, home, lr=LR, momentum=MOMENTUM)

    return {
        OFF: plain(fit, None),
        DEFAULT: plain(fit, folder / "theirs"),
        FABRIC: plain(fabric_fit, batches),
    }


def ready_batches(trainer: Trainer) -> list[Batch]:
    """Take the first batches of our loader, normalised: what all loops but two train on."""
    return [
        (trainer.pipeline.evaluate(images).contiguous(), labels)
        for images, labels in islice(trainer.train_loader.epoch(0), READY)
    ]


def check_same_work(steps: int = 30) -> None:
    """See that at a constant rate our trainer and the bare loop arrive at the same weights."""
    trainer = build_trainer([*WORDS, "schedule=constant", "schedule.warmup=0"])
    network, batches = copy.deepcopy(trainer.model), ready_batches(trainer)
    repeatable(on_ready_batches(trainer, batches))(steps)()
    bare(network, cycle(batches), steps)
    for own, other in zip(trainer.model.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(own, other)


def report(timings: dict[str, Any]) -> None:
    rows = []
    for name, timing in timings.items():
        wall, cpu = 1e6 * median(timing.steady)
        above = 1e6 * median(timing.steady - timings[SHUFFLED if name == OURS_LOADER else BARE].steady)
        noise = 1e6 * spread(timing.steady)[1]
        rows.append([name, f"{wall:,.0f}", f"{cpu:,.0f}", f"{above[0]:+,.0f}", f"{above[1]:+,.0f}", f"± {noise:,.0f}"])
    table(["us a step", "wall", "CPU", "above bare, wall", "above bare, CPU", "CPU spread"], rows)
    above = {name: 1e6 * median(timing.steady - timings[BARE].steady)[1] for name, timing in timings.items()}
    text = "a step: us of CPU time over the bare loop"
    goal("C5", text, above[OURS], 20, 10, at_most=True)
    for name, (must, stretch) in OVERHEADS.items():
        if name in timings:
            figures = {"ours": f"{above[OURS]:.0f} us", "peer": f"{above[name]:.0f} us"}
            ratio = above[name] / max(above[OURS], 1.0)  # below a microsecond is noise
            goal("C5b", f"{text}: {name}, times ours", ratio, must, stretch, **figures)
    ratio = times_faster(timings[OURS].steady, timings[TRACKED].steady)[1]
    goal("C5c", f"a step: CPU, times as fast as the {TRACKED}", ratio, 1.15, 1.3)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps: does it run at all?")
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args(words)
    short, long, rounds = (5, 15, 1) if options.quick else (100, 500, options.rounds)
    os.environ["TERM"] = "xterm"  # so that the live lines are drawn
    torch.set_num_threads(1)
    print(circumstances("torch", "lightning", quick=options.quick))
    if missing := [name for name in ("lightning", "accelerate", "ignite") if find_spec(name) is None]:
        print(f"Not installed, and left out: {', '.join(missing)} (uv run --group peers ...)")
    check_same_work()
    warmup = 0 if options.quick else 1
    with tempfile.TemporaryDirectory() as folder:
        report(measure(ways(Path(folder), short, long), rounds, warmup))


if __name__ == "__main__":
    main()

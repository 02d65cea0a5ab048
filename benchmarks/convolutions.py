"""Steps of convolutional networks on the CPU: our defaults beside torch's, other precisions, blocks dropped."""

import argparse
import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from ours import build_trainer, repeatable
from timing import Apart, Way, circumstances, goal, measure, median, spread, table, times_faster
from torch.nn.functional import cross_entropy

SIZE, BATCH = 1280, 64
DATA = ["data=synthetic", "data.shape=[3,32,32]", f"data.size={SIZE + 30}", f"data.val_fraction={30 / (SIZE + 30)}"]
DATA += ["validate.clean_images=0", "device=cpu", "optimizer=sgd", "data.crop_padding=0"]
MODELS = {  # of the shelf, small enough for a step of a second
    "resnet, 20 layers": ["model=resnet", "model.depth=20", "model.widths=[16,32,64]"],
    "resnet, 18 layers": ["model=resnet"],
    "vgg, 11 layers": ["model=vgg", "model.depth=11"],
    "alexnet": ["model=alexnet"],
}
DEEP = ["model=resnet", "model.depth=110", "model.widths=[16,32,64]"]
DEFAULT, BY_HAND = "deeptrain", "eager NCHW, default SGD"
SETTINGS = {DEFAULT: [], "deeptrain, bf16": ["precision=bf16"], "deeptrain, precision=auto": ["precision=auto"]}
PLAIN, DROPPED = "resnet, 110 layers", "the same, stochastic depth to 0.5"


def ours(words: list[str], threads: int, short: int, long: int, batch: int) -> Way:
    trainer = build_trainer([*DATA, *words, f"batch_size={batch}", f"threads={threads}"])
    return Way(repeatable(trainer), short, long)


def by_hand(words: list[str], threads: int, short: int, long: int, batch: int) -> Way:
    """Clock the loop of the tutorials over batches that lie ready: planes in order, torch's default SGD."""
    trainer = build_trainer([*DATA, *words, f"batch_size={batch}", f"threads={threads}"])
    images, labels = next(iter(trainer.train_loader.epoch(0)))
    images = trainer.pipeline.evaluate(images).contiguous()
    model = copy.deepcopy(trainer.model).to(memory_format=torch.contiguous_format)  # pyright: ignore

    def prepare(steps: int) -> Callable[[], object]:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
        return partial(train, model.train(), optimizer, images, labels, steps)

    return Way(prepare, short, long)


def train(model: Any, optimizer: Any, images: torch.Tensor, labels: torch.Tensor, steps: int) -> None:
    for _ in range(steps):
        loss = cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def report(title: str, timings: dict[str, Any], reference: str) -> None:
    rows = []
    for name, timing in timings.items():
        wall, cpu = median(timing.steady)
        ratio, noise = times_faster(timing.steady, timings[reference].steady)[1], spread(timing.steady)[1] / cpu
        rows.append([name, f"{1e3 * cpu:.0f}", f"{1e3 * wall:.0f}", f"{ratio:.2f}x", f"± {noise:.0%}"])
    table([title, "CPU, ms a step", "wall, ms", f"CPU, over {reference}", "CPU spread"], rows)


def figures(timings: dict[str, Any], own: str, other: str) -> dict[str, str]:
    return {key: f"{1e3 * median(timings[name].steady)[1]:.0f} ms" for key, name in (("ours", own), ("peer", other))}


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a step or two: does it run at all?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS), metavar="MODEL")
    options = parser.parse_args(words)
    lengths = (1, 2, 8) if options.quick else (1, 4, BATCH)
    rounds, warmup = (1, 0) if options.quick else (options.rounds, 1)
    arguments = (options.threads, *lengths)
    print(circumstances("torch", quick=options.quick), f"{options.threads} threads")
    for name in options.models[:1] if options.quick else options.models:
        ways = {setting: Apart(ours, [*MODELS[name], *more], *arguments) for setting, more in SETTINGS.items()}
        timings = measure(ways | {BY_HAND: Apart(by_hand, MODELS[name], *arguments)}, rounds, warmup)
        report(name, timings, BY_HAND)
        ratio = times_faster(timings[DEFAULT].steady, timings[BY_HAND].steady)[1]
        text = f"{name}: CPU a step, times as fast as {BY_HAND}"
        goal("C8", text, ratio, 1.2, 1.5, **figures(timings, DEFAULT, BY_HAND))
        best = min(timings, key=lambda way: median(timings[way].steady)[1])
        behind = times_faster(timings[best].steady, timings[DEFAULT].steady)[1]
        print(f"{name}: the default takes {behind:.2f} times the CPU of the best, {best}")
    dropped = [*DEEP, "model.stochastic_depth=0.5"]
    arguments = (*arguments[:-1], lengths[2] // 2)  # so deep a network takes smaller batches
    ways = {PLAIN: Apart(ours, DEEP, *arguments), DROPPED: Apart(ours, dropped, *arguments)}
    timings = measure(ways, rounds, warmup)
    report("stochastic depth", timings, PLAIN)
    saved = 100 * (1 - 1 / times_faster(timings[DROPPED].steady, timings[PLAIN].steady)[1])
    goal("C11", "stochastic depth: percent of a step saved", saved, 18, 25, **figures(timings, DROPPED, PLAIN))


if __name__ == "__main__":
    main()

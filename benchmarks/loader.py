"""What an image costs on its way to the network: crop, flip and normalise 32 px pictures, ours beside torchvision."""

import argparse
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from itertools import chain, count, islice

import numpy as np
import torch
from PIL import Image
from timing import Timing, Way, circumstances, goal, measure, median, spread, table, times_faster
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from deeptrain.aug.pipeline import Pipeline
from deeptrain.data.dataset import Samples
from deeptrain.data.loader import ResidentLoader
from deeptrain.runtime.device import keep_malloc_arena

BATCH, PADDING, WORKERS = 512, 4, 2
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
TIMM = "timm, 2 workers"
OURS, REFERENCE, NEWER = "deeptrain", "torchvision v1 on PIL, 2 workers", "torchvision v2 on tensors, 2 workers"
Batch = tuple[Tensor, Tensor]


class OneByOne(Dataset):
    """A set the way torchvision's readers serve it: one picture at a time, through a transform."""

    def __init__(self, pictures: np.ndarray | Tensor, labels: np.ndarray, transform: Callable):
        self.pictures, self.labels, self.transform = pictures, labels, transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.pictures[index]), int(self.labels[index])


def ours(pictures: np.ndarray, labels: np.ndarray) -> Iterator[Batch]:
    """Yield batches for ever: the resident loader's crops and flips, then the pipeline's normalisation."""
    loader = ResidentLoader(Samples(pictures, None, labels), BATCH, torch.device("cpu"), 0, True, PADDING, True)
    pipeline = Pipeline([], [255 * value for value in MEAN], [255 * value for value in STD])
    batches = chain.from_iterable(loader.epoch(epoch) for epoch in count())
    return (pipeline.train(images, classes, None) for images, classes in batches)  # pyright: ignore


def torchvision_v1(pictures: np.ndarray, labels: np.ndarray) -> Dataset:
    from torchvision import transforms

    steps = [Image.fromarray, transforms.RandomCrop(32, padding=PADDING), transforms.RandomHorizontalFlip()]
    return OneByOne(
        pictures, labels, transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    )


def torchvision_v2(pictures: np.ndarray, labels: np.ndarray) -> Dataset:
    from torchvision.transforms import v2

    steps = [v2.RandomCrop(32, padding=PADDING), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)]
    tensors = torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()
    return OneByOne(tensors, labels, v2.Compose([*steps, v2.Normalize(MEAN, STD)]))


def timm_loader(pictures: np.ndarray, labels: np.ndarray, images: int) -> Iterable[Batch]:
    """Serve so many images the way timm's loader does: bytes from workers, normalised a batch at a time."""
    from timm.data.loader import PrefetchLoader, fast_collate  # pyright: ignore
    from timm.data.transforms import ToNumpy  # pyright: ignore
    from torchvision import transforms

    steps = [Image.fromarray, transforms.RandomCrop(32, padding=PADDING), transforms.RandomHorizontalFlip(), ToNumpy()]
    dataset = OneByOne(pictures, labels, transforms.Compose(steps))
    sampler = RandomSampler(dataset, replacement=True, num_samples=images)  # pyright: ignore
    loader = DataLoader(dataset, BATCH, sampler=sampler, num_workers=WORKERS, collate_fn=fast_collate)
    return PrefetchLoader(loader, MEAN, STD, device=torch.device("cpu"))


def with_workers(dataset: Dataset, images: int) -> DataLoader:
    """Serve exactly so many images, drawn with replacement, so that the workers end with the run."""
    sampler = RandomSampler(dataset, replacement=True, num_samples=images)  # pyright: ignore
    return DataLoader(dataset, BATCH, sampler=sampler, num_workers=WORKERS)


def check_equal_work(first: dict[str, Iterator[Batch]]) -> None:
    """See that the first batches agree in shape, type, range and statistics; whose memory lies how is their own."""
    facts = {}
    for name, batches in first.items():
        images, labels = next(batches)
        assert images.shape == (BATCH, 3, 32, 32) and images.dtype == torch.float32, f"{name}: {images.shape}"
        assert labels.shape == (BATCH,) and labels.dtype == torch.int64, f"{name}: {labels.dtype}"
        pixels = images.transpose(0, 1).flatten(1)
        facts[name] = torch.stack([pixels.amin(1), pixels.amax(1)]), torch.stack([pixels.mean(1), pixels.std(1)])
    for extremes, statistics in facts.values():
        torch.testing.assert_close(extremes, facts[REFERENCE][0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(statistics, facts[REFERENCE][1], atol=0.03, rtol=0)  # another draw


def ways(size: int, per_sample: int) -> dict[str, Way]:
    """Make the ways over `size` random pictures; those that go image by image are clocked on fewer."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (size, 32, 32, 3), np.uint8)
    labels = rng.integers(0, 10, size)
    sets = {REFERENCE: torchvision_v1(pictures, labels), NEWER: torchvision_v2(pictures, labels)}
    endless = ours(pictures, labels)
    served = {name: iter(with_workers(dataset, BATCH)) for name, dataset in sets.items()}
    check_equal_work({OURS: endless} | served)
    del served

    def resident(images: int) -> Callable[[], object]:
        return lambda: drain(islice(endless, images // BATCH))

    def workers(dataset: Dataset) -> Callable[[int], Callable[[], object]]:
        return lambda images: lambda: drain(iter(with_workers(dataset, images)))

    def timm(images: int) -> Callable[[], object]:
        return lambda: drain(iter(timm_loader(pictures, labels, images)))

    others = {TIMM: Way(timm, per_sample // 4, per_sample)} if find_spec("timm") else {}
    slow = {name: Way(workers(dataset), per_sample // 4, per_sample) for name, dataset in sets.items()}
    return {OURS: Way(resident, size, 4 * size)} | slow | others


def drain(batches: Iterator[Batch]) -> None:
    for _ in batches:
        pass


def report(timings: dict[str, Timing]) -> None:
    rows = []
    for name, timing in timings.items():
        (wall, cpu), noise = median(timing.steady), spread(timing.steady)
        whole = median(timing.whole)
        ratio = times_faster(timing.steady, timings[REFERENCE].steady)
        figures = [f"{1 / seconds:,.0f}" for seconds in (cpu, wall, whole[0])]
        rows.append([name, *figures, f"{ratio[1]:.1f}x", f"{ratio[0]:.1f}x", f"± {noise[1] / cpu:.0%}"])
    head = ["images/s", "per CPU-second", "wall", "wall, with start", "ratio, CPU", "ratio, wall", "CPU spread"]
    table(head, rows)
    compare("C1", "images per CPU-second", timings, REFERENCE, 1, 40, 70)
    compare("C1b", "images a second", timings, REFERENCE, 0, 20, 45)
    if TIMM in timings:
        compare("C1b", "images a second", timings, TIMM, 0, 12, 25)


def compare(
    row: str, text: str, timings: dict[str, Timing], peer: str, clock: int, must: float, stretch: float
) -> None:
    """Note how many times as fast ours is as a peer; clock: 0 is the wall's, 1 the CPU's."""
    ratio = times_faster(timings[OURS].steady, timings[peer].steady)[clock]
    ours, other = (f"{1 / median(timings[name].steady)[clock]:,.0f}" for name in (OURS, peer))
    goal(row, f"crop, flip, normalise: {text}, times {peer}", ratio, must, stretch, ours=ours, peer=other)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few batches: does it run at all?")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(words)
    size, per_sample, rounds = (BATCH, 4 * BATCH, 1) if options.quick else (100 * BATCH, 40 * BATCH, options.rounds)
    torch.set_num_threads(1)
    keep_malloc_arena()  # as in training; the others' workers, forked from here, have it too
    print(circumstances("torch", "torchvision", "pillow", "numpy", quick=options.quick))
    report(measure(ways(size, per_sample), rounds, warmup=0 if options.quick else 1))


if __name__ == "__main__":
    main()

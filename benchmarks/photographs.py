"""Pictures in folders on their way to the network: large and small JPEG files, ours beside torchvision and timm."""

import argparse
import tempfile
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timing import Timing, Way, circumstances, goal, measure, median, spread, table, times_faster
from torch.utils.data import DataLoader, Subset

from deeptrain.aug.pipeline import Pipeline
from deeptrain.data.image_folder import ImageFolder
from deeptrain.data.loader import make_loader
from deeptrain.runtime.device import keep_malloc_arena

BATCH, CLASSES = 64, 10
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL, LONGER = 32, 50  # pixels; small pictures are resident, and clocked on so many times as many
OURS, KEPT, RESIDENT = "deeptrain, cache=none", "deeptrain, cache=resized", "deeptrain"
TORCHVISION, TIMM = "torchvision", "timm"
GOALS = {OURS: (1, 1.5), KEPT: (1.5, 3), RESIDENT: (1.5, 30)}  # must, stretch: over the best of the others
CPU = torch.device("cpu")
Loader = Iterable[Any]


def make_pictures(folder: Path, count: int, width: int, height: int) -> Path:
    """Write so many JPEG files, in class folders: windows of one picture of noise at several scales."""
    rng = np.random.default_rng(0)
    tall, wide = height * 2, width * 2
    canvas = np.zeros((tall, wide, 3), np.float32)
    for scale, strength in ((64, 50), (16, 25), (4, 10), (1, 4)):
        noise = rng.normal(0, strength, (tall // scale + 1, wide // scale + 1, 3)).astype(np.float32)
        layers = [Image.fromarray(noise[..., channel]).resize((wide, tall), 3) for channel in range(3)]
        canvas += np.stack([np.asarray(layer) for layer in layers], -1)
    canvas = (canvas + 128).clip(0, 255).astype(np.uint8)
    for number in range(count):
        top, left = rng.integers(0, (height, width))
        path = folder / f"class{number % CLASSES}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(canvas[top : top + height, left : left + width]).save(path, quality=90)
    return folder


def ours(root: Path, cache: str, workers: int, cache_dir: Path) -> Callable[[int], Loader]:
    """Return what makes our loader of the first so many pictures. The first start has filled its cache before."""
    source = ImageFolder(root=str(root), cache=cache, val_fraction=0.01)  # pyright: ignore
    samples = source.load(cache_dir).train
    pipeline = Pipeline([], [255 * value for value in MEAN], [255 * value for value in STD])

    def make(count: int) -> Loader:
        part = samples.select(np.arange(min(count, len(samples))))
        loader = make_loader(source, part, batch_size=BATCH, device=CPU, workers=workers, train=True)
        for epoch in range(max(1, count // len(samples))):
            yield from (pipeline.train(*batch, None) for batch in loader.epoch(epoch))  # pyright: ignore
        loader.close()

    return make


def torchvision(root: Path, size: int, workers: int) -> Callable[[int], Loader]:
    from torchvision import datasets, transforms

    crop = transforms.RandomResizedCrop(size) if size > SMALL else transforms.RandomCrop(size, padding=4)
    steps = [crop, transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    dataset = datasets.ImageFolder(str(root), transforms.Compose(steps))
    return lambda count: DataLoader(Subset(dataset, range(count)), BATCH, shuffle=True, num_workers=workers)


def timm(root: Path, size: int, workers: int) -> Callable[[int], Loader]:
    from timm.data import create_loader  # pyright: ignore
    from timm.data.dataset import ImageDataset  # pyright: ignore

    class FirstOf(ImageDataset):
        count = 0

        def __len__(self) -> int:
            return self.count

    dataset = FirstOf(str(root))
    settings = {"color_jitter": None, "interpolation": "bilinear", "mean": MEAN, "std": STD, "device": CPU}
    settings |= {"train_crop_mode": "rrc" if size > SMALL else "rkrc", "persistent_workers": False}

    def make(count: int) -> Loader:
        dataset.count = count
        shape = (3, size, size)
        return create_loader(dataset, shape, BATCH, is_training=True, num_workers=workers, **settings)

    return make


def ways(root: Path, size: int, workers: int, cache_dir: Path, short: int, long: int) -> dict[str, Way]:
    fast = (OURS, KEPT) if size > SMALL else (RESIDENT,)
    makers = {name: ours(root, name.partition("=")[2] or "auto", workers, cache_dir) for name in fast}
    makers[TORCHVISION] = torchvision(root, size, workers)
    if find_spec("timm"):
        makers[TIMM] = timm(root, size, workers)
    for name, make in makers.items():
        check(name, make(BATCH), size)

    def way(make: Callable[[int], Loader], times: int) -> Way:
        return Way(lambda images: lambda: drain(make(images)), times * short, times * long)

    return {name: way(make, LONGER if name == RESIDENT else 1) for name, make in makers.items()}


def check(name: str, batches: Loader, size: int) -> None:
    """See that a way serves the same amount of pixels, of the same scale."""
    (images, labels), *_ = batches
    assert images.shape == (BATCH, 3, size, size) and images.dtype == torch.float32, f"{name}: {images.shape}"
    assert labels.shape == (BATCH,) and abs(float(images.mean())) < 1 and 0.2 < float(images.std()) < 2, name


def drain(batches: Loader) -> None:
    for _ in batches:
        pass


def report(title: str, timings: dict[str, Timing]) -> None:
    """Print images a second, and how many times the best of the others ours are."""
    rows = []
    for name, timing in timings.items():
        (wall, cpu), noise = median(timing.steady), spread(timing.steady)
        rows.append([name, f"{1 / cpu:,.0f}", f"{1 / wall:,.0f}", f"± {noise[1] / cpu:.0%}"])
    table([title, "images per CPU-second", "images/s", "CPU spread"], rows)
    peers = [name for name in timings if name in (TORCHVISION, TIMM)]
    for clock, what in ((1, "images per CPU-second"), (0, "images/s")):
        best = min(peers, key=lambda name: median(timings[name].steady)[clock])
        for name, (must, stretch) in ((name, GOALS[name]) for name in timings if name in GOALS):
            ratio = times_faster(timings[name].steady, timings[best].steady)[clock]
            own, other = (f"{1 / median(timings[each].steady)[clock]:,.0f}" for each in (name, best))
            setting = name.removeprefix(RESIDENT)
            text = f"{title}{setting}: {what}, times {best}"
            goal("C13", text, ratio, must, stretch, ours=own, peer=other)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few batches: does it run at all?")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args(words)
    rounds, warmup = (1, 0) if options.quick else (options.rounds, 1)
    torch.set_num_threads(1)
    keep_malloc_arena()  # as in training; the others' workers, forked from here, have it too
    print(circumstances("torch", "torchvision", "timm", "pillow", quick=options.quick))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets = {  # pictures, width, height, size of a window, images of the two lengths: whole batches of two workers
            "photographs of 500x375": (2000, 500, 375, 224, 2 * BATCH, 8 * BATCH),
            "photographs of 2000x1500": (300, 2000, 1500, 224, 2 * BATCH, 4 * BATCH),
            "pictures of 32x32": (5000, 32, 32, 32, 16 * BATCH, 48 * BATCH),
        }
        for title, (count, width, height, size, short, long) in sets.items():
            if options.quick:
                count, short, long = 3 * BATCH, BATCH, 2 * BATCH
            root = make_pictures(folder / title.rpartition(" ")[2], count, width, height)
            for workers in options.workers:
                timings = measure(ways(root, size, workers, folder / "cache", short, long), rounds, warmup)
                report(f"{title}, {workers} workers", timings)


if __name__ == "__main__":
    main()

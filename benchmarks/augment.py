"""What augmenting 512 pictures of 32 px costs, ours beside torchvision, timm and kornia; then a whole recipe."""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import chain, count, islice
from typing import Any

import numpy as np
import torch
from loader import BATCH, MEAN, PADDING, STD, WORKERS, OneByOne, drain
from PIL import Image
from timing import Apart, Timing, Way, circumstances, goal, measure, median, spread, table, times_faster
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, default_collate

from deeptrain.aug.cutmix import CutMix
from deeptrain.aug.cutout import Cutout
from deeptrain.aug.mixup import Mixup
from deeptrain.aug.pipeline import Augmentation, Pipeline, RandomApply
from deeptrain.aug.randaugment import RandAugment
from deeptrain.aug.random_erasing import RandomErasing
from deeptrain.data.dataset import Samples
from deeptrain.data.loader import ResidentLoader
from deeptrain.runtime.device import keep_malloc_arena
from deeptrain.runtime.random import generator

SHAPE, CLASSES = (3, 32, 32), 10
ALPHA, ERASED = 0.2, 0.25  # of the recipe: Mixup's Beta, and the part of the images that lose a rectangle
OURS, ON_BYTES = "deeptrain", "deeptrain, on bytes"
ON_PIL, ON_TENSORS = "torchvision v2 on PIL", "torchvision v2 on tensors"
TIMM_ON_PIL, TIMM_ALWAYS = "timm on PIL, each operation by a coin", "timm on PIL, every operation"
TORCHVISION, TIMM, KORNIA, KORNIA_ONE = "torchvision v2", "timm, in place", "kornia", "kornia, one draw a batch"
TORCHVISION_WORKERS, TIMM_WORKERS = f"torchvision v2 on PIL, {WORKERS} workers", f"timm, {WORKERS} workers"
BEST = "the best of the others"
GOALS = {
    "RandAugment": {ON_PIL: (8, 20), ON_TENSORS: (12, 25), TIMM_ON_PIL: (4.5, 10), KORNIA_ONE: (3, 6)},
    "Mixup": {BEST: (2.5, 4)},
    "CutMix, a box an image": {BEST: (8, 12)},
    "CutMix, one box": {BEST: (1, 1.5)},
    "Cutout": {BEST: (1.7, 5)},
    "Random erasing": {BEST: (1.7, 5)},
    "Full recipe": {TORCHVISION_WORKERS: (18, 35), TIMM_WORKERS: (8, 15)},
}
ROWS = {"RandAugment": "C3", "CutMix, one box": "C4b", "Full recipe": "C2"}  # C4: all others
Ways = dict[str, Callable[[], Way]]  # each makes pictures of its own


class Pictures:
    """Random pictures as everybody likes to have them."""

    def __init__(self, size: int = BATCH):
        rng = np.random.default_rng(0)
        self.array = rng.integers(0, 256, (size, *SHAPE[1:], SHAPE[0]), np.uint8)
        self.labels = torch.from_numpy(rng.integers(0, CLASSES, size))
        self.bytes = torch.from_numpy(self.array).permute(0, 3, 1, 2)  # channels_last, as from our loader
        self.planes = self.bytes.contiguous()

    def normalised(self, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
        """Return new float32 images, which others' augmentations of tensors take, without any memory to spare."""
        stored = self.planes if layout == torch.contiguous_format else self.bytes
        return stored.float().sub_(127).div_(64)


def ours(augment: Augmentation, images: Tensor, labels: Tensor) -> Way:
    rng = generator(0, "augment")
    return batchwise(lambda: augment(images, labels, rng))


def batchwise(work: Callable[[], object], short: int = 5, long: int = 45) -> Way:
    """Clock work on a batch, which is the unit."""

    def repeat(batches: int) -> None:
        for _ in range(batches):
            work()

    return Way(lambda batches: partial(repeat, batches), short, long)


def one_by_one(augment: Callable[[Any], object], pictures: Iterable[Any]) -> Way:
    """Clock an augmentation of single pictures on a batch of them: so slow that a few batches tell."""
    pictures = list(pictures)
    return batchwise(lambda: [augment(picture) for picture in pictures], 1, 3)


def randaugment(pictures: Pictures) -> Ways:
    """Give every image two operations at magnitude 9; kornia gives the whole batch the same."""
    from torchvision.transforms import v2

    augment, reference = RandAugment(SHAPE), v2.RandAugment(num_ops=2, magnitude=9)
    check_same_look(augment, reference, pictures)

    def on_pil(augment: Callable) -> Way:
        return one_by_one(augment, [Image.fromarray(picture) for picture in pictures.array])

    ways: Ways = {
        OURS: lambda: ours(augment, pictures.bytes, pictures.labels),
        ON_PIL: lambda: on_pil(reference),
        ON_TENSORS: lambda: one_by_one(reference, pictures.planes),
    }
    if find_spec("timm"):
        from timm.data.auto_augment import rand_augment_transform  # pyright: ignore

        ways[TIMM_ON_PIL] = lambda: on_pil(rand_augment_transform("rand-m9-n2", {}))
        ways[TIMM_ALWAYS] = lambda: on_pil(rand_augment_transform("rand-m9-n2-p1", {}))
    if find_spec("kornia"):
        from kornia.augmentation.auto import RandAugment as KorniaRandAugment  # pyright: ignore

        kornia = KorniaRandAugment(n=2, m=9)
        ways[KORNIA_ONE] = lambda: batchwise(partial(kornia, pictures.planes.float().div_(255)), 10, 60)
    return ways


def mixup(pictures: Pictures) -> Ways:
    from torchvision.transforms import v2

    reference = v2.MixUp(num_classes=CLASSES)
    ways: Ways = {
        OURS: lambda: ours(Mixup(CLASSES, alpha=1.0), pictures.normalised(torch.channels_last), pictures.labels),
        TORCHVISION: lambda: batchwise(partial(reference, pictures.normalised(), pictures.labels)),
    }
    if find_spec("timm"):
        ways[TIMM] = lambda: timm_mixup(pictures, mixup_alpha=1)
    if find_spec("kornia"):
        from kornia.augmentation import RandomMixUpV2  # pyright: ignore

        kornia = RandomMixUpV2(data_keys=["input", "class"])
        ways[KORNIA] = lambda: batchwise(partial(kornia, pictures.normalised(), pictures.labels))
    return ways


def cutmix_each(pictures: Pictures) -> Ways:
    augment = CutMix(CLASSES, per_image=True)
    ways: Ways = {
        OURS: lambda: ours(augment, pictures.normalised(torch.channels_last), pictures.labels),
        ON_BYTES: lambda: ours(augment, pictures.bytes, pictures.labels),
    }
    if find_spec("timm"):
        ways[TIMM] = lambda: timm_mixup(pictures, mixup_alpha=0, cutmix_alpha=1, mode="elem")
    if find_spec("kornia"):
        from kornia.augmentation import RandomCutMixV2  # pyright: ignore

        kornia = RandomCutMixV2(data_keys=["input", "class"], use_correct_lambda=True)
        ways[KORNIA] = lambda: batchwise(partial(kornia, pictures.normalised(), pictures.labels))
    return ways


def cutmix_one(pictures: Pictures) -> Ways:
    from torchvision.transforms import v2

    reference = v2.CutMix(num_classes=CLASSES)
    ways: Ways = {
        OURS: lambda: ours(CutMix(CLASSES), pictures.normalised(torch.channels_last), pictures.labels),
        ON_BYTES: lambda: ours(CutMix(CLASSES), pictures.bytes, pictures.labels),
        TORCHVISION: lambda: batchwise(partial(reference, pictures.normalised(), pictures.labels)),
    }
    if find_spec("timm"):
        ways[TIMM] = lambda: timm_mixup(pictures, mixup_alpha=0, cutmix_alpha=1)
    return ways


def timm_mixup(pictures: Pictures, **settings: Any) -> Way:
    from timm.data import Mixup as TimmMixup  # pyright: ignore

    theirs = TimmMixup(label_smoothing=0, num_classes=CLASSES, **settings)
    return batchwise(partial(theirs, pictures.normalised(), pictures.labels))


def cutout(pictures: Pictures) -> Ways:
    """Blacken a square of 16 pixels in every image; ours may hang over its border, theirs lie inside."""
    return erasing(Cutout(SHAPE, [0, 0, 0]), pictures, area=(0.25, 0.25), aspect=(1.0, 1.0))


def random_erasing(pictures: Pictures) -> Ways:
    area, aspect = (0.02, 0.33), (0.3, 3.3)
    augment = RandomErasing([0, 0, 0], area=list(area), aspect=list(aspect), fill="zero")
    return erasing(augment, pictures, area, aspect)


def erasing(augment: Augmentation, pictures: Pictures, area: tuple[float, float], aspect: tuple[float, float]) -> Ways:
    from torchvision.transforms import v2

    ways: Ways = {
        OURS: lambda: ours(augment, pictures.normalised(torch.channels_last), pictures.labels),
        ON_BYTES: lambda: ours(augment, pictures.bytes, pictures.labels),
        TORCHVISION: lambda: one_by_one(v2.RandomErasing(1.0, scale=area, ratio=aspect), pictures.normalised()),
    }
    if find_spec("timm"):
        from timm.data.random_erasing import RandomErasing as TimmErasing  # pyright: ignore

        timm = TimmErasing(1.0, *area, *aspect, device="cpu")
        ways[TIMM] = lambda: batchwise(partial(timm, pictures.normalised()))
    if find_spec("kornia"):
        from kornia.augmentation import RandomErasing as KorniaErasing  # pyright: ignore

        kornia = KorniaErasing(scale=area, ratio=aspect, p=1.0)
        ways[KORNIA] = lambda: batchwise(partial(kornia, pictures.normalised()))
    return ways


def recipe(pictures: Pictures, device: torch.device, batch: int = BATCH) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches for ever: crop, flip, RandAugment, erase, mixup, normalise."""
    samples = Samples(pictures.array, None, pictures.labels.numpy())
    loader = ResidentLoader(samples, batch, device, 0, True, PADDING, True)
    mean, std = ([255 * value for value in values] for values in (MEAN, STD))
    erase = RandomApply(RandomErasing(mean, fill="mean"), probability=ERASED)
    pipeline = Pipeline([RandAugment(SHAPE), erase, Mixup(CLASSES, alpha=ALPHA)], mean, std)
    batches = chain.from_iterable(loader.epoch(epoch) for epoch in count())
    return (
        pipeline.train(images, labels, generator(0, "augment", step)) for step, (images, labels) in enumerate(batches)
    )


def torchvision_recipe(pictures: Pictures, images: int) -> Iterable:
    """Serve so many images, augmented in worker processes, which mix them when they put a batch together."""
    from torchvision.transforms import v2

    steps = [Image.fromarray, v2.RandomCrop(32, padding=PADDING), v2.RandomHorizontalFlip(), v2.RandAugment(2, 9)]
    steps += [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    mix = v2.MixUp(alpha=ALPHA, num_classes=CLASSES)
    transform = v2.Compose([*steps, v2.RandomErasing(ERASED)])
    return with_workers(pictures, transform, images, lambda samples: mix(*default_collate(samples)))


def timm_recipe(pictures: Pictures, images: int) -> Iterable:
    """Serve so many images the way timm's loader does: mixed bytes from workers, then normalised and erased."""
    from timm.data import FastCollateMixup  # pyright: ignore
    from timm.data.auto_augment import rand_augment_transform  # pyright: ignore
    from timm.data.loader import PrefetchLoader  # pyright: ignore
    from timm.data.transforms import ToNumpy  # pyright: ignore
    from torchvision import transforms

    steps = [Image.fromarray, transforms.RandomCrop(32, padding=PADDING), transforms.RandomHorizontalFlip()]
    transform = transforms.Compose([*steps, rand_augment_transform("rand-m9-n2", {}), ToNumpy()])
    mix = FastCollateMixup(mixup_alpha=ALPHA, label_smoothing=0, num_classes=CLASSES)
    loader = with_workers(pictures, transform, images, mix)
    return PrefetchLoader(loader, MEAN, STD, device=torch.device("cpu"), re_prob=ERASED)


def with_workers(pictures: Pictures, transform: Callable, images: int, collate: Callable) -> DataLoader:
    dataset = OneByOne(pictures.array, pictures.labels.numpy(), transform)
    sampler = RandomSampler(dataset, replacement=True, num_samples=images)  # pyright: ignore
    return DataLoader(dataset, BATCH, sampler=sampler, num_workers=WORKERS, collate_fn=collate)


def recipes(pictures: Pictures) -> Ways:
    endless = recipe(pictures, torch.device("cpu"))
    others = {TORCHVISION_WORKERS: torchvision_recipe} | ({TIMM_WORKERS: timm_recipe} if find_spec("timm") else {})
    check_same_batches(endless, [serve(pictures, BATCH) for serve in others.values()])

    def served(serve: Callable[[Pictures, int], Iterable]) -> Way:
        return Way(lambda batches: lambda: drain(iter(serve(pictures, batches * BATCH))), 2, 10)

    ways: Ways = {OURS: lambda: Way(lambda batches: lambda: drain(islice(endless, batches)), 5, 45)}
    return ways | {name: partial(served, serve) for name, serve in others.items()}


def check_same_look(augment: RandAugment, reference: Callable, pictures: Pictures) -> None:
    """See that the pictures agree in brightness and contrast; that single operations do is a matter of the tests."""
    own, _ = augment(pictures.bytes, pictures.labels, generator(0, "look"))
    others = torch.stack([reference(picture) for picture in pictures.planes])
    assert own.shape == others.shape and own.dtype == others.dtype == torch.uint8
    for statistic in (torch.mean, torch.std):
        first, second = (statistic(images.float()).item() for images in (own, others))
        assert abs(first - second) < 8, f"{statistic.__name__}: {first:.1f}, {second:.1f}"


def check_same_batches(endless: Iterator, others: list[Iterable]) -> None:
    """See that the recipes' batches agree in shape and type, about in spread, and that their targets are soft."""
    own, _ = next(endless)
    for images, targets in chain([next(endless)], *others):
        assert images.shape == own.shape and images.dtype == torch.float32
        assert targets.shape == (BATCH, CLASSES) and torch.allclose(targets.sum(1), torch.ones(BATCH))
        torch.testing.assert_close(images.std(), own.std(), rtol=0.5, atol=0)  # another draw, of λ too


def alone(ways: Callable[[Pictures], Ways], name: str) -> Way:
    """Make one way for a process of its own, where nothing of the others' lies between the batches in memory."""
    update_bn_statistics()
    return ways(Pictures())[name]()


def update_bn_statistics() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)  # of what others draw
    keep_malloc_arena()  # as in training; here for all ways alike


def report(title: str, timings: dict[str, Timing]) -> None:
    rows, own = [], timings[OURS].steady
    for name, timing in timings.items():
        wall, cpu = 1e3 * median(timing.steady)
        ratio, noise = times_faster(own, timing.steady)[1], 1e3 * spread(timing.steady)[1]
        rows.append([name, f"{cpu:.2f}", f"{wall:.2f}", f"{ratio:.1f}x", f"± {noise / cpu:.0%}"])
    table([title, "CPU, ms a batch", "wall, ms", "CPU over ours", "CPU spread"], rows)
    others = {name: timing.steady for name, timing in timings.items() if name not in (OURS, ON_BYTES)}
    for name, bars in GOALS[title].items():
        against = min(others, key=lambda other: median(others[other])[1]) if name == BEST and others else name
        if against in others:
            figures = (f"{1e3 * median(timing)[1]:.2f} ms" for timing in (own, others[against]))
            found = dict(zip(("ours", "peer"), figures, strict=True))
            row = "C2b" if against == TIMM_WORKERS else ROWS.get(title, "C4")
            goal(row, f"{title}: CPU, times {against}", times_faster(own, others[against])[1], *bars, **found)


def on_gpu(pictures: Pictures, steps: int) -> None:
    """Clock the recipe on a GPU, where whatever would wait for it raises an error."""
    device = torch.device("cuda")
    for batch in (BATCH, 4 * BATCH):
        endless = recipe(pictures, device, batch)
        drain(islice(endless, 10))
        torch.cuda.synchronize()
        start = time.perf_counter()
        torch.cuda.set_sync_debug_mode("error")
        drain(islice(endless, steps))
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        speed = steps * batch / (time.perf_counter() - start)
        goal("G5", f"million images a second on the GPU, full recipe, batches of {batch}", speed / 1e6, 0.8, 3)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few batches: does it run at all?")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", choices=list(GOALS), default=list(GOALS), metavar="TITLE")
    options = parser.parse_args(words)
    rounds, warmup = (1, 0) if options.quick else (options.rounds, 1)
    update_bn_statistics()
    print(circumstances("torch", "torchvision", "timm", "kornia", "pillow", "numpy", quick=options.quick))
    if missing := [name for name in ("timm", "kornia") if find_spec(name) is None]:
        print(f"Not installed, and left out: {', '.join(missing)} (uv run --group peers ...)")
    compared = (randaugment, mixup, cutmix_each, cutmix_one, cutout, random_erasing, recipes)
    few, many = (64, BATCH) if options.quick else (BATCH, 20 * BATCH)
    for title, ways in zip(GOALS, compared, strict=True):
        if title not in options.only:
            continue
        made = ways(Pictures(many if ways is recipes else few))
        if options.quick:
            timed = {name: replace(make(), short=1, long=2) for name, make in made.items()}
        elif ways is recipes:  # whose workers are processes anyway
            timed = {name: make() for name, make in made.items()}
        else:
            timed = {name: Apart(alone, ways, name) for name in made}
        report(title, measure(timed, rounds, warmup))
    if torch.cuda.is_available() and "Full recipe" in options.only:
        on_gpu(Pictures(many), 20 if options.quick else 500)


if __name__ == "__main__":
    main()

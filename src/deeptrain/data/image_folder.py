"""Your own pictures: <class>/<picture>, or train/, val/ and test/ with class folders inside."""

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

import numpy as np

from deeptrain.data.cache import get_or_build
from deeptrain.data.dataset import (
    Dataset,
    Loading,
    Measure,
    Samples,
    Share,
    SourceSplits,
    Whitening,
    evenly_spaced,
    make_dataset,
)
from deeptrain.data.decode import Decoder, decode_all, look
from deeptrain.data.decoded_images import DecodedImages, from_arrays, from_cache
from deeptrain.data.folder_layout import Layout, Split, read_layout
from deeptrain.data.path_messages import printable
from deeptrain.schema import NonNegativeInt, PositiveFloat, Range, UnitFloat, validate_call

SMALL = 128  # pixels: up to here pictures are decoded once, as they are; beyond, the ResNet recipe
LOOKED_AT = 256  # pictures that decide on size and channels
MEASURED = 1024  # pictures that give mean and std where decoding them all would take minutes
RESNET_CROP = 224  # pixels, as the short sides below (ResNet, He et al. 2015)
RESNET_EVAL_SIDE = 256
RESNET_TRAIN_SIDES = (256, 480)


@validate_call
@dataclass
class ImageFolder:
    """Pictures in class folders. Classes are matched by name over all splits, and test never plays validation.

    image_size null keeps small pictures at their own size and takes 224 for large ones; those are cut from a short side
    drawn anew each time, so crop_padding is for small ones only.
    """

    root: str = "data"
    download: bool = False
    image_size: Annotated[int, Range(minimum=8)] | None = None
    channels: Literal[1, 3] | None = None
    val_fraction: Share = 0.1
    split_seed: NonNegativeInt = 0
    loader: Loading = "auto"
    crop_padding: NonNegativeInt = 4
    flip: bool = True
    mean: list[UnitFloat] | None = None
    std: list[PositiveFloat] | None = None
    subtract_image_mean: bool = False
    whiten: Whitening | None = None
    whiten_eps: PositiveFloat = 0.01

    name = "image_folder"

    def __post_init__(self):
        if self.download:
            raise ValueError("download=true: your own pictures cannot be fetched; put them into data.root")
        try:
            self.layout: Layout = read_layout(Path(self.root).expanduser())
        except OSError as error:
            at = printable(error.filename or self.root)
            raise ValueError(f"root={self.root}: {at} cannot be read ({error.strerror}); make it readable") from error
        except ValueError as error:
            raise ValueError(f"root={self.root}: {error}") from error

    @property
    def available(self) -> int:
        """How many images there are to train on and to hold out, as listed: none has been opened."""
        return len(self.layout.splits["train"].names)

    def load(self, cache_dir: Path | str | None = None) -> Dataset:
        """Return train and val; small pictures are decoded once, into the cache, large ones in every epoch."""
        train, val, test = (self.layout.splits.get(part) for part in ("train", "val", "test"))
        assert train is not None
        decoder, notes = self._decoder(cache_dir)
        samples, measure, fingerprint = self._open(train, decoder, cache_dir)
        parts = SourceSplits(
            train=samples,
            val=self._open(val, decoder, cache_dir)[0] if val else None,
            measure=measure,
            fingerprint=fingerprint,
            train_folder=train.shown,
            val_folder=val.shown if val else "",
            test=f"test {len(test.names):,} ({test.shown}) kept shut" if test else "no test split",
            notes=self.layout.notes + notes,
        )
        return make_dataset(self, self.layout.classes, parts)

    def test(self, cache_dir: Path | str | None = None) -> Samples:
        """Open test/, as large and as colourful as train."""
        split = self.layout.splits.get("test")
        if split is None:
            raise ValueError(f"root={self.root}: has no test/ folder, so there is no test split to open")
        decoder, _ = self._decoder(cache_dir)
        return self._open(split, decoder, cache_dir)[0]

    def _decoder(self, cache_dir: Path | str | None) -> tuple[Decoder, list[str]]:
        """Decide on size and channels from a look at some training pictures, kept in the cache."""
        train = self.layout.splits["train"]
        files = [train.files[index] for index in evenly_spaced(len(train.names), LOOKED_AT)]

        def build(folder: Path) -> None:
            sizes, grey = look(files)
            (folder / "look.json").write_text(json.dumps({"sizes": sizes, "grey": grey}), "utf-8")

        folder = get_or_build(cache_dir, "look", {"files": train.digests[1]}, build)
        seen = json.loads((folder / "look.json").read_text("utf-8"))
        return choose_decoder(seen["sizes"], seen["grey"], self.image_size, self.channels, self.loader)

    def _open(self, split: Split, decoder: Decoder, cache_dir: Path | str | None) -> tuple[Samples, Measure, str]:
        """Return a split's samples, how to measure them, and their fingerprint."""
        if decoder.short_side_range or self.loader == "stream":
            samples = Samples(None, split.files, split.labels, decoder)
            return samples, lambda kept: self._measure_some(samples.select(kept), cache_dir), split.digests[0]
        store = self._store(split, decoder, cache_dir)
        return Samples(store.images, split.files, store.labels), store.measure, store.fingerprint

    def _store(self, split: Split, decoder: Decoder, cache_dir: Path | str | None) -> DecodedImages:
        def decode() -> tuple[Iterable[np.ndarray], np.ndarray]:
            text = "decoding %s pictures of %s, once"
            logging.getLogger(__name__).info(text, f"{len(split.names):,}", split.folder)
            return decode_all(decoder, split.files), split.labels

        key = {"files": split.digests[1], "classes": self.layout.classes, "decoder": decoder.cache_key}
        return from_cache(cache_dir, f"image_folder-{split.folder.name}", key, decode)

    def _measure_some(self, train: Samples, cache_dir: Path | str | None) -> tuple[np.ndarray, np.ndarray]:
        """Estimate mean and std from some pictures, kept in the cache."""
        some = train.evenly_spaced(MEASURED)
        assert some.files is not None and some.decoder is not None
        files, decoder = some.files, some.decoder

        def build(folder: Path) -> None:
            store = from_arrays(np.concatenate(list(decode_all(decoder, files))), some.labels)
            np.save(folder / "statistics.npy", np.stack(store.measure(np.arange(len(files)))))

        key = {
            "files": self.layout.splits["train"].digests[1],
            "split": [self.val_fraction, self.split_seed],
            "decoder": decoder.cache_key,
        }
        folder = get_or_build(cache_dir, "statistics", key, build)
        mean, std = np.load(folder / "statistics.npy", allow_pickle=False)
        return mean, std


def choose_decoder(
    sizes: list[tuple[int, int]], grey: bool, image_size: int | None, channels: int | None, loader: Loading
) -> tuple[Decoder, list[str]]:
    """Choose size and channels from the (width, height) of some pictures, and say why.

    All of one small size: that size. Small on the whole: their median, rounded down to a multiple of 8. Large: the
    ResNet recipe at 224, or in proportion at the image_size asked for.
    """
    notes = []
    seen = f"the {len(sizes)} pictures looked at"
    if channels is None:
        channels = 1 if grey else 3
        notes += [f"1 channel: {seen} are all grey; data.channels=3 for three"] if grey else []
    short = int(median(min(size) for size in sizes))
    alike = len({tuple(size) for size in sizes}) == 1
    if image_size is None and short <= SMALL:
        width, height = sizes[0] if alike else (max(short // 8 * 8, min(short, 8)),) * 2
        if not alike:
            notes.append(f"image size {width}: {seen} differ in size, the median short side is {short}")
        return Decoder(height, width, channels), notes
    size = image_size or RESNET_CROP
    if image_size is None:
        notes.append(f"image size {size}: the median short side of {seen} is {short}; data.image_size sets another")
    if size <= SMALL:
        return Decoder(size, size, channels), notes
    evaluate, *draw = (round(size * side / RESNET_CROP) for side in (RESNET_EVAL_SIDE, *RESNET_TRAIN_SIDES))
    if loader == "resident":
        notes.append(f"loader=resident: pictures are resized once, short side to {evaluate}, not anew each time")
        return Decoder(size, size, channels, evaluate), notes
    notes.append(f"large pictures: short side drawn from {draw[0]} to {draw[1]}, crop {size}; evaluated at {evaluate}")
    return Decoder(size, size, channels, evaluate, (draw[0], draw[1])), notes

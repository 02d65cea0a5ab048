"""Data sources made of image files: small ones are decoded once into the cache, large ones anew in every epoch."""

import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Annotated, Literal

import numpy as np

from deeptrain.data.cache import get_or_build
from deeptrain.data.dataset import (
    ChannelStatistics,
    Dataset,
    DataSource,
    Loading,
    Samples,
    SourceSplits,
    evenly_spaced,
    make_dataset,
)
from deeptrain.data.decode import Decoder, decode_all, inspect_images
from deeptrain.data.decoded_images import DecodedImages, from_arrays, from_cache
from deeptrain.data.path_messages import printable
from deeptrain.schema import NonNegativeInt, Range

MAX_SMALL_SIDE = 128  # pixels: up to here images are decoded once, at their own size; beyond, the ResNet recipe
INSPECTED_IMAGES = 256  # they decide on size and channels
MEASURED_IMAGES = 1024  # they give mean and std if decoding all images would take minutes
RESNET_CROP = 224  # pixels, like the short sides below (ResNet, He et al. 2015)
RESNET_EVAL_SIDE = 256
RESNET_TRAIN_SIDES = (256, 480)


@dataclass
class FileSplit:
    """The image files of one split: names relative to its folder, and their classes."""

    folder: Path
    label: str  # for messages: "train/", or "" if the class folders have no folder above
    names: list[str]
    labels: np.ndarray  # int64 (N,)
    notes: list[str] = field(default_factory=list)  # files that were ignored
    class_in_name: bool = True  # a name's first folder is its class

    @cached_property
    def files(self) -> list[Path]:
        return [self.folder / name for name in self.names]

    @cached_property
    def digests(self) -> tuple[str, str]:
        """Hash names, sizes and labels: one hash that is the same on any machine, one that includes the file times."""
        portable, timed = sha256(), sha256()
        for name in self.names:
            try:
                status = os.stat(os.path.join(self.folder, name))  # noqa: PTH116, PTH118 - there may be a million
            except OSError as error:
                raise ValueError(f"{printable(self.folder / name)}: cannot be read ({error.strerror})") from error
            entry = f"{name}\0{status.st_size}\n".encode(errors="surrogateescape")
            portable.update(entry)
            timed.update(entry + b"%d" % status.st_mtime_ns)
        for digest in () if self.class_in_name else (portable, timed):
            digest.update(self.labels.tobytes())
        return portable.hexdigest()[:16], timed.hexdigest()[:16]


@dataclass
class FileLayout:
    """The image files of a source: its splits by name, the class names of all splits, and what was ignored."""

    classes: list[str]
    splits: dict[str, FileSplit] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class ImageFiles(DataSource):
    """Base of sources that consist of image files. Subclasses set self.layout in __post_init__.

    image_size=None keeps small images at their own size and takes 224 for large ones. Large images are cropped from a
    short side that is sampled anew in every epoch, so crop_padding is for small images only.
    """

    image_size: Annotated[int, Range(minimum=8)] | None = None
    channels: Literal[1, 3] | None = None
    crop_padding: NonNegativeInt = 4
    flip: bool = True

    def __post_init__(self):
        if self.download:
            raise ValueError("download=true: your own images cannot be downloaded; put them into data.root")
        self.layout: FileLayout = self.read_layout()

    def read_layout(self) -> FileLayout:
        """List the files and their classes. Raises ValueError "setting=value: what is wrong"."""
        raise NotImplementedError

    @property
    def available(self) -> int:
        """Return the number of images for training and validation. No file is opened."""
        return len(self.layout.splits["train"].names)

    def load(self, cache_dir: Path | str | None = None) -> Dataset:
        """Return train and val. ValueError with the file's name if an image cannot be read."""
        train, val, test = (self.layout.splits.get(part) for part in ("train", "val", "test"))
        assert train is not None
        decoder, notes = self._choose_decoder(cache_dir)
        samples, statistics, fingerprint = self._open(train, decoder, cache_dir)
        splits = SourceSplits(
            train=samples,
            val=self._open(val, decoder, cache_dir)[0] if val else None,
            statistics=statistics,
            fingerprint=fingerprint,
            train_folder=train.label,
            val_folder=val.label if val else "",
            test=f"test {len(test.names):,} ({test.label}) kept shut" if test else "no test split",
            notes=self.layout.notes + notes,
        )
        return make_dataset(self, self.layout.classes, splits)

    def test(self, cache_dir: Path | str | None = None) -> Samples:
        """Return the test split, with the image size and channels of train; ValueError if there is none."""
        split = self.layout.splits.get("test")
        if split is None:
            return super().test(cache_dir)
        decoder, _ = self._choose_decoder(cache_dir)
        return self._open(split, decoder, cache_dir)[0]

    def _choose_decoder(self, cache_dir: Path | str | None) -> tuple[Decoder, list[str]]:
        """Choose size and channels from some images of train, or of test if it is alone. Their sizes are cached."""
        train = self.layout.splits.get("train") or self.layout.splits["test"]
        files = [train.files[index] for index in evenly_spaced(len(train.names), INSPECTED_IMAGES)]

        def build(folder: Path) -> None:
            sizes, gray = inspect_images(files)
            (folder / "look.json").write_text(json.dumps({"sizes": sizes, "grey": gray}), "utf-8")

        folder = get_or_build(cache_dir, "look", {"files": train.digests[1]}, build)
        content = json.loads((folder / "look.json").read_text("utf-8"))
        return choose_decoder(content["sizes"], content["grey"], self.image_size, self.channels, self.loader)

    def _open(
        self, split: FileSplit, decoder: Decoder, cache_dir: Path | str | None
    ) -> tuple[Samples, ChannelStatistics, str]:
        """Return a split's samples, the function for their statistics, and their fingerprint."""
        if decoder.short_side_range or self.loader == "stream":
            samples = Samples(None, split.files, split.labels, decoder)
            return samples, lambda indices: self._estimate(samples.select(indices), cache_dir), split.digests[0]
        decoded = self._decoded(split, decoder, cache_dir)
        return Samples(decoded.images, split.files, decoded.labels), decoded.statistics, decoded.fingerprint

    def _decoded(self, split: FileSplit, decoder: Decoder, cache_dir: Path | str | None) -> DecodedImages:
        def decode() -> tuple[Iterable[np.ndarray], np.ndarray]:
            text = "decoding %s pictures of %s, once"
            logging.getLogger(__name__).info(text, f"{len(split.names):,}", split.folder)
            return decode_all(decoder, split.files), split.labels

        key = {"files": split.digests[1], "classes": self.layout.classes, "decoder": decoder.cache_key}
        return from_cache(cache_dir, f"{self.name}-{split.folder.name}", key, decode)

    def _estimate(self, train: Samples, cache_dir: Path | str | None) -> tuple[np.ndarray, np.ndarray]:
        """Estimate mean and std from some images, and keep them in the cache."""
        subset = train.evenly_spaced(MEASURED_IMAGES)
        assert subset.files is not None and subset.decoder is not None
        files, decoder = subset.files, subset.decoder

        def build(folder: Path) -> None:
            decoded = from_arrays(np.concatenate(list(decode_all(decoder, files))), subset.labels)
            np.save(folder / "statistics.npy", np.stack(decoded.statistics(np.arange(len(files)))))

        key = {
            "files": self.layout.splits["train"].digests[1],
            "split": [self.val_fraction, self.split_seed],
            "decoder": decoder.cache_key,
        }
        folder = get_or_build(cache_dir, "statistics", key, build)
        mean, std = np.load(folder / "statistics.npy", allow_pickle=False)
        return mean, std


def choose_decoder(
    sizes: list[tuple[int, int]], gray: bool, image_size: int | None, channels: int | None, loader: Loading
) -> tuple[Decoder, list[str]]:
    """Choose size and channels from the (width, height) of some images; return the reasons too, one line each.

    All of one small size: that size. Mostly small: the median short side, rounded down to a multiple of 8. Large: the
    ResNet recipe at 224, or in proportion at image_size.
    """
    notes = []
    inspected = f"the {len(sizes)} pictures looked at"
    if channels is None:
        channels = 1 if gray else 3
        notes += [f"1 channel: {inspected} are all grey; data.channels=3 for three"] if gray else []
    short = int(median(min(size) for size in sizes))
    alike = len({tuple(size) for size in sizes}) == 1
    if image_size is None and short <= MAX_SMALL_SIDE:
        width, height = sizes[0] if alike else (max(short // 8 * 8, min(short, 8)),) * 2
        if not alike:
            notes.append(f"image size {width}: {inspected} differ in size, the median short side is {short}")
        return Decoder(height, width, channels), notes
    size = image_size or RESNET_CROP
    if image_size is None:
        notes.append(
            f"image size {size}: the median short side of {inspected} is {short}; data.image_size sets another"
        )
    if size <= MAX_SMALL_SIDE:
        return Decoder(size, size, channels), notes
    eval_side, low, high = (round(size * side / RESNET_CROP) for side in (RESNET_EVAL_SIDE, *RESNET_TRAIN_SIDES))
    if loader == "resident":
        notes.append(f"loader=resident: pictures are resized once, short side to {eval_side}, not anew each time")
        return Decoder(size, size, channels, eval_side), notes
    notes.append(f"large pictures: short side drawn from {low} to {high}, crop {size}; evaluated at {eval_side}")
    return Decoder(size, size, channels, eval_side, (low, high)), notes

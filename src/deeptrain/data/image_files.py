"""Data sources made of image files: small ones are decoded once into the cache, large ones anew in every epoch."""

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

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
    partition,
)
from deeptrain.data.decode import Decoder, Resize, UnreadableImageError, decode_all, find_unreadable
from deeptrain.data.decoded_images import DecodedImages, from_arrays, from_cache
from deeptrain.data.fingerprint import Content, Inode, cached_content, stat_digests
from deeptrain.data.path_messages import name_heif_reader
from deeptrain.data.picture_store import Caching, PictureStore, describe_store, open_store
from deeptrain.data.pixels import WHITE, Color, Kind, Ranges
from deeptrain.data.survey import Survey, ValueRange, measure_ranges, survey
from deeptrain.runtime.paths import as_typed, quote
from deeptrain.runtime.resources import command
from deeptrain.schema import NonNegativeInt, Range

MAX_SMALL_SIDE = 128  # pixels: up to here images are decoded once, at their own size; beyond, the ResNet recipe
INSPECTED_IMAGES = 256  # they decide on size and channels
RANGED_IMAGES = 4096  # they decide on the range of deep values
MEASURED_IMAGES = 1024  # they give mean and std if decoding all images would take minutes
RESNET_CROP = 224  # pixels, like the short sides below (ResNet, He et al. 2015)
RESNET_EVAL_SIDE = 256
RESNET_TRAIN_SIDES = (256, 480)
MAX_CUT = 0.34  # of a picture's area, cropped to other proportions: a 3:2 photo loses a third, and nobody minds
SEARCH_SECONDS = 20  # for broken pictures, once one was found
MAX_LINES = 10  # about them
FEW = 0.5  # of the training pictures: if a run uses no more of them, only those are decoded
NARROW = 8  # the range is so many times the inner one: a few pixels decide on it

Byte = Annotated[int, Range(minimum=0, maximum=255)]


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

    def select(self, indices: np.ndarray) -> "FileSplit":
        """Return the files at these indices as a split of their own."""
        return replace(self, names=[self.names[index] for index in indices.tolist()], labels=self.labels[indices])

    @cached_property
    def digests(self) -> tuple[str, str, str, list[Inode]]:
        """Hash names, sizes and labels, as stat_digests does, which gives the inodes too."""
        return stat_digests(self.folder, self.names, b"" if self.class_in_name else self.labels.tobytes())

    def fingerprint(self, cache_dir: Path | str | None) -> str:
        """Return what is the same for the same files on any machine: hashes of names, sizes, labels and contents."""
        return f"{self.digests[0]}-{self.content(cache_dir).digest}"

    def content(self, cache_dir: Path | str | None) -> Content:
        """Hash the content of the files, as cached_content does."""
        return cached_content(self.folder, self.names, self.digests[2], cache_dir)

    def cache_key(self, cache_dir: Path | str | None) -> str:
        """Return what changes when a file does, also one that keeps its size or its time."""
        return f"{self.digests[1]}-{self.fingerprint(cache_dir)}"


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
    short side that is sampled anew in every epoch. So crop_padding is for small images only.
    """

    image_size: Annotated[int, Range(minimum=8)] | None = None
    channels: Literal[1, 3] | None = None
    crop_padding: NonNegativeInt = 4
    flip: bool = True
    cache: Caching = "auto"  # of whole pictures, from which random windows are cut
    range: Literal["auto"] | list[float] = "auto"  # the values that become 0 and 255, if they have more than 8 bits
    background: Literal["white"] | list[Byte] = "white"  # behind transparent pixels, around padded pictures
    resize: Resize = "crop"
    decoder: Decoder | None = None  # of the run that is evaluated, which then decides on all of these
    input_recipe: Any = None  # of published weights: size, short_side and interpolation of the images they know

    def __post_init__(self):
        if self.download:
            raise ValueError("download=true: your own images cannot be downloaded; put them into data.root")
        if isinstance(self.range, list) and (len(self.range) != 2 or self.range[0] >= self.range[1]):
            raise ValueError(f"range={self.range}: must be auto, or the lowest and the highest value, as [0,4095]")
        if isinstance(self.background, list) and len(self.background) != 3:
            raise ValueError(f"background={self.background}: must be white, or red, green and blue, as [255,255,255]")
        self.layout: FileLayout = self.read_layout()

    def read_layout(self) -> FileLayout:
        """List the files and their classes. Raises ValueError "setting=value: what is wrong"."""
        raise NotImplementedError

    @property
    def available(self) -> int:
        """Return the number of images for training and validation. No file is opened."""
        return len(self.layout.splits["train"].names)

    def load(self, cache_dir: Path | str | None = None) -> Dataset:
        """Return train and val. ValueError with a line for each image that cannot be read."""
        with self._all_unreadable("train", "val"):
            return self._load(cache_dir)

    def _load(self, cache_dir: Path | str | None) -> Dataset:
        train, val, test = (self.layout.splits.get(part) for part in ("train", "val", "test"))
        assert train is not None
        decoder, notes = self._choose_decoder(cache_dir)
        parts = partition(self, train.labels, has_val=val is not None)
        if len(parts.used) <= FEW * len(train.names):
            train, parts = train.select(parts.used), parts.renumbered()
        if val and self.val_images:
            val = None if self.val_images == "train" else val.select(evenly_spaced(len(val.names), self.val_images))
        samples, statistics, fingerprint = self._open(train, decoder, cache_dir, keep=True)
        kept = describe_store(samples.store, decoder, self.cache) if self.decoder is None else []
        splits = SourceSplits(
            train=samples,
            val=self._open(val, decoder, cache_dir, keep=True)[0] if val else None,
            val_total=len(self.layout.splits["val"].names) if val else 0,
            statistics=statistics,
            fingerprint=fingerprint,
            train_folder=train.label,
            val_folder=val.label if val else "",
            test=f"test {len(test.names):,} ({test.label}) kept shut" if test else "no test split",
            notes=[*map(name_heif_reader, self.layout.notes), *notes, *kept],
            warnings=[] if self.decoder else describe_cut(self._survey(cache_dir).sizes, decoder),
            decoder=decoder,
        )
        dataset = make_dataset(self, self.layout.classes, splits, parts)
        if len(ends := {(low, high) for _, low, high in decoder.ranges}) == 1:
            dataset.split["range"] = list(ends.pop())  # so that an evaluation reads other files by it too
        return dataset

    def has_test(self) -> bool:
        return "test" in self.layout.splits

    def test(self, cache_dir: Path | str | None = None) -> Samples:
        """Return the test split, with the image size and channels of train; ValueError if there is none."""
        if not self.has_test():
            return super().test(cache_dir)
        split = self.layout.splits["test"]
        with self._all_unreadable("test"):
            decoder, _ = self._choose_decoder(cache_dir)
            return self._open(split, decoder, cache_dir)[0]

    @contextmanager
    def _all_unreadable(self, *parts: str) -> Iterator[None]:
        """Where an image cannot be read, look for all others, and raise a ValueError with a line for each."""
        try:
            yield
        except UnreadableImageError as error:
            files = [file for part, split in self.layout.splits.items() if part in parts for file in split.files]
            lines, looked_at = find_unreadable(files, SEARCH_SECONDS)
            lines = lines or [str(error)]
            if (more := len(lines) - MAX_LINES) > 0:
                lines = [*lines[:MAX_LINES], f"and {more:,} more pictures cannot be read"]
            where = quote(as_typed(str(getattr(self, "file", self.root))))
            seen = "" if looked_at == len(files) else f"{looked_at:,} of {len(files):,} pictures were looked at; "
            raise ValueError("\n".join(lines) + f"; {seen}{command('check-data')} {where} checks all") from error

    def _choose_decoder(self, cache_dir: Path | str | None) -> tuple[Decoder, list[str]]:
        """Choose size, channels and range from some training images. What was seen of them is kept in the cache."""
        if self.decoder is not None:
            return self.decoder, []
        seen = self._survey(cache_dir)
        color = self._color()
        gray = seen.gray and not (seen.transparent and len(set(color)) > 1)
        size = self.image_size, self.input_recipe
        decoder, notes = choose_decoder(seen.sizes, gray, *size, self.channels, self.loader, self.resize)
        if not self.augment:
            notes = [note for note in notes if not note.startswith("large pictures: ")]
        if seen.transparent or color != WHITE:
            decoder = replace(decoder, background=color)
        if seen.transparent and color == WHITE:
            notes.append("background white: some pictures are transparent; data.background=[r,g,b] sets another")
        if seen.cut_to_8_bit:
            notes.append("16 bits a colour are read as 8, which is all that Pillow keeps; grey ones keep their 16 bits")
        ranges, range_notes = self._choose_ranges(seen.deep, cache_dir)
        return replace(decoder, ranges=ranges), notes + range_notes

    def _choose_ranges(self, deep: bool, cache_dir: Path | str | None) -> tuple[Ranges, list[str]]:
        """Return the setting, or the range of train. Only if there are integers and floats, each kind has its own."""
        if isinstance(self.range, list):
            without_effect = ["data.range has no effect: the pictures looked at have 8 bits"]
            return one_range(*self.range), [] if deep else without_effect
        found = self._ranges(cache_dir) if deep else {}
        notes = [describe_range(kind, values) for kind, values in found.items()]
        if len(found) == 1:
            return one_range(*next(iter(found.values())).ends), notes
        return tuple((kind, *values.ends) for kind, values in found.items()), notes

    def _color(self) -> Color:
        if not isinstance(self.background, list):
            return WHITE
        red, green, blue = self.background
        return red, green, blue

    def _survey(self, cache_dir: Path | str | None) -> Survey:
        inspected = self._some_files(INSPECTED_IMAGES)
        files = inspected.files

        def build(folder: Path) -> None:
            (folder / "survey.json").write_text(json.dumps(asdict(survey(files))), "utf-8")

        folder = get_or_build(cache_dir, "survey", {"files": inspected.cache_key(cache_dir)}, build)
        return Survey(**json.loads((folder / "survey.json").read_text("utf-8")))

    def _ranges(self, cache_dir: Path | str | None) -> dict[Kind, ValueRange]:
        """Return the range of the deep values in train. The files of val and test have no say in it."""
        inspected = self._some_files(RANGED_IMAGES)
        files = inspected.files

        def build(folder: Path) -> None:
            logging.getLogger(__name__).info("looking for the range of the values in %s pictures", f"{len(files):,}")
            content = {kind: asdict(values) for kind, values in sorted(measure_ranges(files).items())}
            (folder / "range.json").write_text(json.dumps(content), "utf-8")

        folder = get_or_build(cache_dir, "range", {"files": inspected.cache_key(cache_dir)}, build)
        content = json.loads((folder / "range.json").read_text("utf-8"))
        return {kind: ValueRange(**values) for kind, values in content.items()}

    def _some_files(self, count: int) -> FileSplit:
        return self._inspected.select(evenly_spaced(len(self._inspected.names), count))

    @property
    def _inspected(self) -> FileSplit:
        """Return train, or test if an evaluation has it alone."""
        return self.layout.splits.get("train") or self.layout.splits["test"]

    def _open(
        self, split: FileSplit, decoder: Decoder, cache_dir: Path | str | None, keep: bool = False
    ) -> tuple[Samples, ChannelStatistics, str]:
        """Return a split's samples, the function for their statistics, and their fingerprint.

        keep: its pictures are read again and again, so `cache` may keep them.
        """
        fingerprint = split.fingerprint(cache_dir)
        if decoder.short_side_range or self.loader == "stream":
            store = self._store(split, decoder, cache_dir) if keep else None
            samples = Samples(None, split.files, split.labels, decoder, split.content(cache_dir).keys, store)
            return samples, lambda indices: self._estimate(samples.select(indices), cache_dir), fingerprint
        decoded = self._decoded(split, decoder, cache_dir)
        samples = Samples(decoded.images, split.files, decoded.labels, keys=decoded.sums)
        return samples, decoded.statistics, f"{decoded.fingerprint}-{fingerprint}"

    def _store(self, split: FileSplit, decoder: Decoder, cache_dir: Path | str | None) -> PictureStore | None:
        """Return the pictures that `cache` keeps. An evaluation reads its files, once."""
        if self.cache == "none" or decoder.short_side_range is None or self.decoder is not None:
            return None
        key = {"files": split.cache_key(cache_dir)}
        return open_store(split.files, decoder, self.cache, self._survey(cache_dir).sizes, key, cache_dir)

    def _decoded(self, split: FileSplit, decoder: Decoder, cache_dir: Path | str | None) -> DecodedImages:
        def decode() -> tuple[Iterable[np.ndarray], np.ndarray]:
            text = "decoding %s pictures of %s, once"
            logging.getLogger(__name__).info(text, f"{len(split.names):,}", split.folder)
            return decode_all(decoder, split.files), split.labels

        key = {"files": split.cache_key(cache_dir), "classes": self.layout.classes, "decoder": decoder.cache_key}
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
            "files": self.layout.splits["train"].cache_key(cache_dir),
            "split": [
                self.val_fraction,
                self.split_seed,
                *([self.train_images] if self.train_images else []),
                *([f"fold {self.fold} of {self.folds}"] if self.folds else []),
            ],
            "decoder": decoder.cache_key,
        }
        folder = get_or_build(cache_dir, "statistics", key, build)
        mean, std = np.load(folder / "statistics.npy", allow_pickle=False)
        return mean, std


def choose_decoder(
    sizes: list[tuple[int, int]],
    gray: bool,
    image_size: int | None,
    recipe: Any,
    channels: int | None,
    loader: Loading,
    resize: Resize = "crop",
) -> tuple[Decoder, list[str]]:
    """Choose size and channels from the (width, height) of some images; return the reasons too, one line each.

    All of one small size: that size. Mostly small: the median short side, rounded down to a multiple of 8. Large: the
    ResNet recipe at 224, or in proportion at image_size. Small pictures that are kept whole get the median height and
    width. With published weights their recipe decides, unless image_size does.
    """
    inspected = f"the {len(sizes)} pictures looked at"
    notes = [f"1 channel: {inspected} are all grey; data.channels=3 for three"] if channels is None and gray else []
    channels = channels or (1 if gray else 3)
    short = int(median(min(size) for size in sizes))
    if image_size is None and recipe is None and short <= MAX_SMALL_SIDE:
        height, width, reasons = _small_window(sizes, resize, inspected)
        return Decoder(height, width, channels, resize=resize), notes + reasons
    size = image_size or (recipe.size if recipe else RESNET_CROP)
    kept: dict[str, Any] = {"resize": resize} | ({"interpolation": recipe.interpolation} if recipe else {})
    if recipe is not None:
        why = f"the weights know pictures of {recipe.size}, resized by {recipe.interpolation}"
    else:
        why = "" if image_size else f"the median short side of {inspected} is {short}"
    notes += [f"image size {size}: {why}; data.image_size sets another"] if why else []
    if size <= MAX_SMALL_SIDE:
        return Decoder(size, size, channels, **kept), notes
    eval_side, low, high = (round(size * side / RESNET_CROP) for side in (RESNET_EVAL_SIDE, *RESNET_TRAIN_SIDES))
    if recipe is not None:
        eval_side = round(size * recipe.short_side / recipe.size)
    if loader == "resident":
        notes.append(f"loader=resident: pictures are resized once, short side to {eval_side}, not anew each time")
        return Decoder(size, size, channels, eval_side, **kept), notes
    notes.append(f"large pictures: short side drawn from {low} to {high}, crop {size}; evaluated at {eval_side}")
    return Decoder(size, size, channels, eval_side, (low, high), **kept), notes


def _small_window(sizes: list[tuple[int, int]], resize: Resize, inspected: str) -> tuple[int, int, list[str]]:
    """Return height and width for small pictures, and why, if they differ in size."""
    if len({tuple(size) for size in sizes}) == 1:
        width, height = sizes[0]
        return height, width, []
    if resize == "crop":
        short = int(median(min(size) for size in sizes))
        side = _multiple_of_8(short)
        return side, side, [f"image size {side}: {inspected} differ in size, the median short side is {short}"]
    width, height = (_multiple_of_8(median(sides)) for sides in zip(*sizes, strict=True))
    return height, width, [f"image size {height}x{width}: {inspected} differ in size, these are near the medians"]


def one_range(low: float, high: float) -> Ranges:
    """Return the same range for integers and for floats."""
    return (("I", float(low), float(high)), ("F", float(low), float(high)))


def describe_cut(sizes: list[tuple[int, int]], decoder: Decoder) -> list[str]:
    """Return a line if cropping to the proportions of the window takes much away from a tenth of the pictures."""
    ratios = [width * decoder.height / (height * decoder.width) for width, height in sizes]
    count = sum(1 - min(ratio, 1 / ratio) > MAX_CUT for ratio in ratios)
    if decoder.resize != "crop" or count < len(sizes) / 10:
        return []
    where = f"{count:,} of the {len(sizes):,} pictures looked at lose more than a third"
    return [f"cropped to {decoder.height}x{decoder.width}, {where}; data.resize=pad or squash keeps them whole"]


def describe_range(kind: Kind, values: ValueRange) -> str:
    """Return a line on the range of the deep pictures; one that keeps more detail, if a few pixels stand apart."""
    what = "floats" if kind == "F" else "more than 8 bits"
    line = f"range {values.low:g} to {values.high:g}: the values in {values.pictures:,} pictures of train with {what}"
    inner = values.inner_high - values.inner_low
    if 0 < inner * NARROW < values.high - values.low:
        return f"{line}; nearly all are in data.range=[{values.inner_low:g},{values.inner_high:g}], which keeps more"
    return f"{line}; data.range=[lo,hi] sets another"


def _multiple_of_8(side: float) -> int:
    return max(int(side) // 8 * 8, min(int(side), 8))

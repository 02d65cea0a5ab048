"""What training sees of a set of images: samples, their split into train and val, and the settings of every source."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from deeptrain.data.decode import Decoder
from deeptrain.data.picture_store import PictureStore
from deeptrain.data.split import balanced, deal, stratified
from deeptrain.runtime.paths import read_path
from deeptrain.schema import NonNegativeInt, PositiveFloat, PositiveInt, Range, Seed, UnitFloat

Loading = Literal["auto", "resident", "stream"]
SplitFraction = Annotated[float, Range(above=0, below=1)]
Whitening = Literal["pca", "zca"]
HELD_OUT = "split=val for the images that the run has held out"
ChannelStatistics = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # indices -> mean, std: float64 (C,)


class LazyRows:
    """Rows of a stored array in a given order, read from disk only when they are needed."""

    def __init__(self, store: np.ndarray, rows: np.ndarray):
        self.store, self.rows = store, rows
        self.shape, self.dtype, self.ndim = (len(rows), *store.shape[1:]), store.dtype, store.ndim

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.store[self.rows[index]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.store[self.rows].astype(dtype or self.dtype, copy=False)


@dataclass
class Samples:
    """Labelled images: decoded as uint8 (N, H, W, C), or as files with the decoder that reads them.

    Decoded images may be mapped from disk. They keep the names of their files, if they have some.
    """

    images: np.ndarray | LazyRows | None
    files: list[Path] | None
    labels: np.ndarray  # int64 (N,)
    decoder: Decoder | None = None  # only if images is None
    keys: np.ndarray | None = None  # int64 (N, ...): images of other keys are other images
    store: PictureStore | None = None  # the files' pictures, if the cache has them

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Return the shape (C, H, W) of one image, as the model receives it."""
        if self.images is not None:
            height, width, channels = self.images.shape[1:]
            return channels, height, width
        assert self.decoder is not None
        return self.decoder.channels, self.decoder.height, self.decoder.width

    def select(self, indices: np.ndarray) -> "Samples":
        """Return the samples at these indices. Images on disk stay there."""
        images = self.images
        if isinstance(images, LazyRows):
            images = LazyRows(images.store, images.rows[indices])
        elif images is not None:
            images = LazyRows(images, indices)
        files = self.files and [self.files[index] for index in indices.tolist()]
        keys = None if self.keys is None else self.keys[indices]
        store = self.store and self.store.select(indices)
        return Samples(images, files, self.labels[indices], self.decoder, keys, store)

    def evenly_spaced(self, count: int) -> "Samples":
        """Return up to count samples, evenly spaced: a set sorted by class gives some of every class."""
        return self.select(evenly_spaced(len(self), count))


@dataclass
class Dataset:
    """What training may see. The test split is not in it."""

    name: str
    classes: list[str]
    image_shape: tuple[int, int, int]  # (C, H, W), as the model receives it
    train: Samples
    val: Samples
    mean: np.ndarray  # float64 (C,), on the scale 0 to 255
    std: np.ndarray
    summary: str  # one line: the number of images in each split
    fingerprint: str  # of the training images: the same images give the same fingerprint on any machine
    split: dict[str, Any]  # for split.json; indices count in the source's own order
    notes: list[str] = field(default_factory=list)  # automatic choices, one line each with the reason
    warnings: list[str] = field(default_factory=list)  # what of the images is lost, a sentence each
    decoder: Decoder | None = None  # how any picture becomes an input, as train's did; None: cropped to image_shape

    def __post_init__(self):
        if self.decoder is None:
            channels, height, width = self.image_shape
            self.decoder = Decoder(height, width, channels)


@dataclass(kw_only=True)
class DataSource:
    """The settings that every data source has. A source of your own is a dataclass with this base and load().

    The constructor checks the settings and that the files exist. It neither decodes images nor imports torch.
    """

    name: ClassVar[str]
    characters: ClassVar[bool] = False  # the classes are written characters, which no mirror shows rightly
    val_is_train: ClassVar[bool] = False  # on purpose: there are no other images

    root: str | None = None  # folder of the files
    download: bool = False
    val_fraction: SplitFraction = 0.1  # of the training images, if there is no validation split
    split_seed: Seed = 0
    folds: Annotated[int, Range(minimum=2)] | None = None  # of k-fold cross-validation; then val is one of them
    fold: NonNegativeInt | None = None  # which one
    train_images: PositiveInt | None = None  # of those that are left for training, as many of each class as possible
    val_images: PositiveInt | Literal["train"] | None = None  # "train": val is what is trained on, as overfit=N asks
    loader: Loading = "auto"
    augment: bool = True  # False: training images as they are, without crop and flip
    crop_padding: NonNegativeInt = 0  # zeros around an image, before a random window of its size is cropped
    flip: bool = False
    mean: list[UnitFloat] | None = None
    std: list[PositiveFloat] | None = None
    subtract_image_mean: bool = False
    whiten: Whitening | None = None
    whiten_eps: PositiveFloat = 0.01

    def read_path(self, name: str) -> Path:
        """Return the path that a setting names; ValueError if no disk can have it."""
        try:
            return read_path(getattr(self, name))
        except ValueError as error:
            raise ValueError(f"{name}={getattr(self, name)}: {error}") from None

    def load(self, cache_dir: Path | str | None = None) -> Dataset:
        """Return train and val. The first start decodes the images into the cache."""
        raise NotImplementedError

    def has_test(self) -> bool:
        """Tell whether there is a test split. No image is read."""
        return type(self).test is not DataSource.test

    def test(self, cache_dir: Path | str | None = None) -> Samples:
        """Open the test split; ValueError if there is none. Only an evaluation calls this."""
        raise ValueError(f"data={self.name}: has no test split; add {HELD_OUT}")


@dataclass
class SourceSplits:
    """What a source has found: its training samples, perhaps validation samples, and a note about the test split."""

    train: Samples
    statistics: ChannelStatistics  # of some of train
    fingerprint: str
    test: str  # for the summary: "test 10,000 kept shut"
    val: Samples | None = None
    val_total: int = 0  # images of its val split, if `val` has only some
    train_folder: str = ""
    val_folder: str = ""
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    decoder: Decoder | None = None  # as in Dataset


@dataclass
class Partition:
    """Indices into a source's training images: those that are trained on, validated on, and all that are held out."""

    train: np.ndarray
    val: np.ndarray
    held_out: np.ndarray
    available: int  # images that could be trained on

    @property
    def used(self) -> np.ndarray:
        return np.union1d(self.train, self.val)

    def renumbered(self) -> "Partition":
        """Return the same partition for a source that has only the images that are used."""
        train, val = (np.searchsorted(self.used, indices) for indices in (self.train, self.val))
        return replace(self, train=train, val=val)


def partition(source: DataSource, labels: np.ndarray, *, has_val: bool) -> Partition:
    """Hold out validation images unless the source has some, then choose train_images and val_images of both."""
    train, held_out = np.arange(len(labels)), np.arange(0)
    if source.folds is not None:
        held_out = _held_out_fold(source, labels, has_val=has_val)
    elif not has_val:
        held_out = stratified(labels, source.val_fraction, source.split_seed)
        if not len(held_out):
            raise ValueError(f"val_fraction={source.val_fraction}: no class has two images to hold one out; add some")
    train = np.delete(train, held_out)
    available = len(train)
    if source.train_images is not None:
        if source.train_images > available:
            raise ValueError(
                f"train_images={source.train_images}: must be at most {available}, the number of training images"
            )
        train = train[balanced(labels[train], source.train_images, source.split_seed)]
    if source.val_images == "train":
        return Partition(train, train, held_out, available)
    val = held_out[evenly_spaced(len(held_out), source.val_images or len(held_out))]
    return Partition(train, val, held_out, available)


def _held_out_fold(source: DataSource, labels: np.ndarray, *, has_val: bool) -> np.ndarray:
    """Return sorted indices of the images of the source's fold; ValueError if there are no such folds."""
    folds, fold = source.folds, source.fold
    assert folds is not None
    if has_val:
        raise ValueError(
            f"folds={folds}: these data have validation images of their own, and folds are made of the training images "
            "alone; put them among the training images, or repeat over seeds: seed=0,1,2,3,4 with -m"
        )
    if source.val_images == "train":
        raise ValueError(f"folds={folds}: does not go with val_images=train, where nothing is held out; leave out one")
    if fold is None or fold >= folds:
        raise ValueError(f"fold={fold}: must be from 0 to {folds - 1}, one of folds={folds}")
    smallest = int(np.unique(labels, return_counts=True)[1].min())
    if smallest < folds:
        remedy = f"write folds={smallest}, or add images" if smallest > 1 else "add images, or leave that class out"
        has = "one image" if smallest == 1 else f"{smallest} images"
        raise ValueError(f"folds={folds}: the smallest class has {has}, so not every fold would have one; {remedy}")
    return np.flatnonzero(deal(labels, folds, source.split_seed) == fold)


def make_dataset(
    source: DataSource, classes: list[str], splits: SourceSplits, parts: Partition | None = None
) -> Dataset:
    """Choose the images of training and validation, and compute mean and std of the training images.

    parts: which ones, if the source has chosen them already, to read no others. ValueError if val has another size, or
    two classes have one name.
    """
    if (twin := repeated(classes)) is not None:
        raise ValueError(f"classes: {twin!r} is the name of two; give each class a name of its own")
    if splits.val is not None:
        check_shape("val", splits.val.shape, splits.train.shape)
    parts = parts or partition(source, splits.train.labels, has_val=splits.val is not None)
    train, val = splits.train.select(parts.train), splits.train.select(parts.val)
    if splits.val is not None and source.val_images != "train":
        val = splits.val.evenly_spaced(source.val_images or len(splits.val))
    mean, std = _normalization(source, splits, parts.train)
    return Dataset(
        name=source.name,
        classes=classes,
        image_shape=train.shape,
        train=train,
        val=val,
        mean=mean,
        std=std,
        summary=_summary(source, classes, train, val, splits, parts),
        fingerprint=splits.fingerprint,
        split={
            "source": _val_source(source, splits),
            "seed": None if splits.val else source.split_seed,
            "val_fraction": None if splits.val or source.folds else source.val_fraction,
            **({"folds": source.folds, "fold": source.fold} if source.folds else {}),
            "val": [] if source.val_images == "train" else parts.held_out.tolist(),
        },
        notes=[*splits.notes, *(_absent(train.labels, len(classes)) if source.train_images else [])],
        warnings=splits.warnings,
        decoder=splits.decoder,
    )


def check_shape(split: str, shape: tuple[int, ...], train: tuple[int, ...]) -> None:
    """Raise ValueError if the images of a split are (C, H, W) others than those of train."""
    if shape != train:
        sizes = f"{'x'.join(map(str, shape))}, those of train {'x'.join(map(str, train))}"
        raise ValueError(f"images of {split} are {sizes}; save all splits in one size")


def repeated(names: list[str]) -> str | None:
    """Return a name that is there twice; None if there is none."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def unused_settings(source: DataSource, reason: str) -> list[str]:
    """Return a line for each of root and download that is set without effect. Their values may be secret."""
    values = {"root": source.root, "download": source.download}
    hints = {"root": "; data=image_folder reads your own pictures", "download": ""}
    return [f"data.{name} has no effect: {reason}{hints[name]}" for name, value in values.items() if value]


def evenly_spaced(total: int, count: int) -> np.ndarray:
    """Return up to count indices, evenly spaced in range(total)."""
    count = min(total, count)
    return np.arange(count) * total // max(count, 1)


def _normalization(
    source: DataSource, splits: SourceSplits, train_indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and std of each channel: the settings (in [0, 1]) times 255, or those of the training images."""
    channels = splits.train.shape[0]
    for name, values in (("mean", source.mean), ("std", source.std)):
        if values is not None and len(values) != channels:
            raise ValueError(f"{name}={values}: must have one value for each of {channels} channels, in [0, 1]")
    mean, std = (None, None) if source.mean and source.std else splits.statistics(train_indices)
    mean = np.array(source.mean) * 255 if source.mean else mean
    std = np.array(source.std) * 255 if source.std else std
    assert mean is not None and std is not None
    return mean, np.where(std > 0, std, 1.0)  # a constant channel must not divide by zero


def _val_source(source: DataSource, splits: SourceSplits) -> str:
    if source.val_images == "train":
        return "the training images themselves"
    return splits.val_folder or f"held out of {splits.train_folder or 'train'}, in its own order"


def _summary(
    source: DataSource, classes: list[str], train: Samples, val: Samples, splits: SourceSplits, parts: Partition
) -> str:
    shape, folder = "x".join(map(str, train.shape)), f" ({splits.train_folder})" if splits.train_folder else ""
    total, held = splits.val_total or len(splits.val or parts.held_out), len(parts.held_out)
    whole = splits.val_folder if splits.val else None
    if source.folds is not None:
        whole = f"fold {source.fold} of {source.folds} of {splits.train_folder or 'train'}, from 0, stratified"
    whole = whole or _held_out(source.val_fraction, parts.available, held, splits.train_folder or "train")
    if source.val_images == "train":
        val_text = "val the same images"
    elif len(val) < total:
        val_text = f"val {len(val):,} of {total:,} ({whole})"
    else:
        val_text = f"val {len(val):,} ({whole})"
    of = f" of {parts.available:,}" if len(train) < parts.available else ""
    return (
        f"{source.name}: {len(classes)} classes, {shape}, train {len(train):,}{of}{folder}, {val_text}, {splits.test}"
    )


def _absent(labels: np.ndarray, classes: int) -> list[str]:
    """Return a line if few training images leave classes without any."""
    absent = classes - len(np.unique(labels))
    return [f"train_images={len(labels)}: {absent} of {classes} classes have no training image"] if absent else []


def _held_out(fraction: float, train: int, val: int, folder: str) -> str:
    """Say which share of train was held out: small classes make it differ from the fraction that was asked for."""
    asked = f"{fraction * 100:g} %"
    if abs(val - fraction * (train + val)) <= 1:
        return f"{asked} of {folder}, stratified"
    return f"{val / (train + val) * 100:.3g} % of {folder}, stratified, not {asked}: a class gives one and keeps one"

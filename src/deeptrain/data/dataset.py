"""What training sees of a set of images: samples, their split into train and val, and the settings of every source."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from deeptrain.data.decode import Decoder
from deeptrain.data.split import stratified
from deeptrain.schema import NonNegativeInt, PositiveFloat, Range, Seed, UnitFloat

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
        return Samples(images, files, self.labels[indices], self.decoder)

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


@dataclass(kw_only=True)
class DataSource:
    """The settings that every data source has. A source of your own is a dataclass with this base and load().

    The constructor checks the settings and that the files exist. It neither decodes images nor imports torch.
    """

    name: ClassVar[str]
    characters: ClassVar[bool] = False  # the classes are written characters, which no mirror shows rightly

    root: str | None = None  # folder of the files
    download: bool = False
    val_fraction: SplitFraction = 0.1  # of the training images, if there is no validation split
    split_seed: Seed = 0
    loader: Loading = "auto"
    crop_padding: NonNegativeInt = 0  # zeros around an image, before a random window of its size is cropped
    flip: bool = False
    mean: list[UnitFloat] | None = None
    std: list[PositiveFloat] | None = None
    subtract_image_mean: bool = False
    whiten: Whitening | None = None
    whiten_eps: PositiveFloat = 0.01

    def load(self, cache_dir: Path | str | None = None) -> Dataset:
        """Return train and val. The first start decodes the images into the cache."""
        raise NotImplementedError

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
    train_folder: str = ""
    val_folder: str = ""
    notes: list[str] = field(default_factory=list)


def make_dataset(source: DataSource, classes: list[str], splits: SourceSplits) -> Dataset:
    """Hold out validation images if the source has none, and compute mean and std of the training images."""
    train_indices, val_indices = np.arange(len(splits.train)), np.arange(0)
    if splits.val is None:
        val_indices = stratified(splits.train.labels, source.val_fraction, source.split_seed)
        if not len(val_indices):
            raise ValueError(f"val_fraction={source.val_fraction}: no class has two images to hold one out; add some")
        train_indices = np.delete(train_indices, val_indices)
    train, val = splits.train.select(train_indices), splits.val or splits.train.select(val_indices)
    mean, std = _normalization(source, splits, train_indices)
    return Dataset(
        name=source.name,
        classes=classes,
        image_shape=train.shape,
        train=train,
        val=val,
        mean=mean,
        std=std,
        summary=_summary(source, classes, train, val, splits),
        fingerprint=splits.fingerprint,
        split={
            "source": splits.val_folder or f"held out of {splits.train_folder or 'train'}, in its own order",
            "seed": None if splits.val else source.split_seed,
            "val_fraction": None if splits.val else source.val_fraction,
            "val": val_indices.tolist(),
        },
        notes=splits.notes,
    )


def unused_settings(source: DataSource, reason: str) -> list[str]:
    """Return a line for each of root and download that is set without effect. Their values may be secret."""
    values = {"root": source.root, "download": source.download}
    return [f"{name} has no effect: {reason}" for name, value in values.items() if value]


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


def _summary(source: DataSource, classes: list[str], train: Samples, val: Samples, splits: SourceSplits) -> str:
    shape = "x".join(map(str, train.shape))
    held_out = _held_out(source.val_fraction, len(train), len(val), splits.train_folder or "train")
    folder = f" ({splits.train_folder})" if splits.train_folder else ""
    return (
        f"{source.name}: {len(classes)} classes, {shape}, train {len(train):,}{folder}, "
        f"val {len(val):,} ({splits.val_folder if splits.val else held_out}), {splits.test}"
    )


def _held_out(fraction: float, train: int, val: int, folder: str) -> str:
    """Say which share of train was held out: small classes make it differ from the fraction that was asked for."""
    asked = f"{fraction * 100:g} %"
    if abs(val - fraction * (train + val)) <= 1:
        return f"{asked} of {folder}, stratified"
    return f"{val / (train + val) * 100:.3g} % of {folder}, stratified, not {asked}: a class gives one and keeps one"

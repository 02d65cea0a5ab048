"""What training sees of a set of images: its samples, how they are split, and the one line that says so."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import numpy as np

from deeptrain.data.decode import Decoder
from deeptrain.data.split import stratified
from deeptrain.schema import Range

Loading = Literal["auto", "resident", "stream"]
Share = Annotated[float, Range(above=0, below=1)]  # neither none nor all
Whitening = Literal["pca", "zca"]
Measure = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # indices -> mean and std of each channel


class LazyRows:
    """Some images of a stored set, in a given order, read from disk only when they are asked for."""

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
    """Labelled images: uint8 (N, H, W, C), perhaps mapped from disk, or files and the decoder that reads them.

    Pictures that lie in memory keep the names of their files where they came from some.
    """

    images: np.ndarray | LazyRows | None
    files: list[Path] | None
    labels: np.ndarray  # int64 (N,)
    decoder: Decoder | None = None  # only where images is None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image as the network receives it, (C, H, W)."""
        if self.images is not None:
            height, width, channels = self.images.shape[1:]
            return channels, height, width
        assert self.decoder is not None
        return self.decoder.channels, self.decoder.height, self.decoder.width

    def select(self, indices: np.ndarray) -> "Samples":
        """Pick samples by index; images that lie on disk stay there."""
        images = self.images
        if isinstance(images, LazyRows):
            images = LazyRows(images.store, images.rows[indices])
        elif images is not None:
            images = LazyRows(images, indices)
        files = self.files and [self.files[index] for index in indices.tolist()]
        return Samples(images, files, self.labels[indices], self.decoder)

    def evenly_spaced(self, count: int) -> "Samples":
        """Pick up to count samples evenly over the whole, so that a set ordered by class gives of each its share."""
        return self.select(evenly_spaced(len(self), count))


@dataclass
class Dataset:
    """What training may see; the test split is not in it."""

    name: str
    classes: list[str]
    image_shape: tuple[int, int, int]  # (C, H, W) as the network receives it
    train: Samples
    val: Samples
    mean: np.ndarray  # float64 (C,), on the scale 0 to 255
    std: np.ndarray
    summary: str  # one line: how many images play which part
    fingerprint: str  # of what was read: the same images give the same one anywhere
    split: dict[str, Any]  # for split.json; indices count in the source's own order
    notes: list[str] = field(default_factory=list)  # what was decided for the user, a line each with its reason


class Source(Protocol):
    """What every source has. Its constructor neither decodes nor imports torch, and checks that its folders exist."""

    @property
    def name(self) -> str: ...

    val_fraction: float
    split_seed: int
    loader: Loading
    crop_padding: int  # zeros (black) around an image before a window of its size is cut out at random
    flip: bool
    mean: list[float] | None
    std: list[float] | None
    subtract_image_mean: bool
    whiten: Whitening | None
    whiten_eps: float

    def load(self, cache_dir: Path | str | None = None) -> Dataset:
        """Return what training may see, decoded into the cache if it is not there yet."""
        ...

    def test(self, cache_dir: Path | str | None = None) -> Samples:
        """Open the test split; ValueError if there is none. Only an evaluation calls this."""
        ...


@dataclass
class SourceSplits:
    """What a source found: its own training samples, perhaps validation samples, and a word on the test split."""

    train: Samples
    measure: Measure  # mean and std of some of train
    fingerprint: str
    test: str  # for the summary: "test 10,000 kept shut"
    val: Samples | None = None
    train_folder: str = ""
    val_folder: str = ""
    notes: list[str] = field(default_factory=list)


def make_dataset(source: Source, classes: list[str], parts: SourceSplits) -> Dataset:
    """Hold validation images out of train where the source has none of its own, and measure what is left."""
    kept, held = np.arange(len(parts.train)), np.arange(0)
    if parts.val is None:
        held = stratified(parts.train.labels, source.val_fraction, source.split_seed)
        if not len(held):
            raise ValueError(f"val_fraction={source.val_fraction}: no class has two images to hold one out; add some")
        kept = np.delete(kept, held)
    train, val = parts.train.select(kept), parts.val or parts.train.select(held)
    mean, std = _normalisation(source, parts, kept)
    return Dataset(
        name=source.name,
        classes=classes,
        image_shape=train.shape,
        train=train,
        val=val,
        mean=mean,
        std=std,
        summary=_summary(source, classes, train, val, parts),
        fingerprint=parts.fingerprint,
        split={
            "source": parts.val_folder or f"held out of {parts.train_folder or 'train'}, in its own order",
            "seed": None if parts.val else source.split_seed,
            "val_fraction": None if parts.val else source.val_fraction,
            "val": held.tolist(),
        },
        notes=parts.notes,
    )


def no_effect(root: str | None, download: bool, reason: str) -> list[str]:
    """Say so if settings were made that this source has no use for; not their values, which may be secret."""
    given = {"root": root, "download": download}
    return [f"{name} has no effect: {reason}" for name, value in given.items() if value]


def evenly_spaced(total: int, count: int) -> np.ndarray:
    """Return up to count indices, evenly spread over range(total)."""
    count = min(total, count)
    return np.arange(count) * total // max(count, 1)


def _normalisation(source: Source, parts: SourceSplits, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and std of each channel, as given (in units of full brightness) or measured on train."""
    channels = parts.train.shape[0]
    for name, given in (("mean", source.mean), ("std", source.std)):
        if given is not None and len(given) != channels:
            raise ValueError(f"{name}={given}: must have one value for each of {channels} channels, in [0, 1]")
    measured = (None, None) if source.mean and source.std else parts.measure(kept)
    mean = np.array(source.mean) * 255 if source.mean else measured[0]
    std = np.array(source.std) * 255 if source.std else measured[1]
    assert mean is not None and std is not None
    return mean, np.where(std > 0, std, 1.0)  # a constant channel must not divide by zero


def _summary(source: Source, classes: list[str], train: Samples, val: Samples, parts: SourceSplits) -> str:
    shape = "x".join(map(str, train.shape))
    of_train = f"{source.val_fraction * 100:g} % of {parts.train_folder or 'train'}, stratified"
    where = f" ({parts.train_folder})" if parts.train_folder else ""
    return (
        f"{source.name}: {len(classes)} classes, {shape}, train {len(train):,}{where}, "
        f"val {len(val):,} ({parts.val_folder if parts.val else of_train}), {parts.test}"
    )

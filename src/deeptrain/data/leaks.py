"""Images that are trained on and measured too: in val by what they show, in test by their files, which stay shut."""

import filecmp
import os
from pathlib import Path

import numpy as np

from deeptrain.data.dataset import Dataset, DataSource, LazyRows, Samples, evenly_spaced
from deeptrain.data.decoded_images import chunks, sum_pixels
from deeptrain.data.fingerprint import Inode
from deeptrain.data.image_files import FileSplit, ImageFiles
from deeptrain.data.path_messages import printable
from deeptrain.runtime.paths import as_typed, quote
from deeptrain.runtime.resources import command

MIN_SHARE = 0.01  # of a split: fewer move its accuracy by less than a point, and many sets hold a few doubles
LOOKED_AT = 256  # files of test, before all are
COMPARED = 64  # pairs of files with the same checksum: do their bytes agree too?

Split = Samples | FileSplit
Pair = tuple[int, int]  # index in train, index in the other split


def describe_leaks(source: DataSource, dataset: Dataset) -> list[str]:
    """Return a warning for each of val and test if at least MIN_SHARE of its images are trained on."""
    found: list[tuple[str, Split, Split, list[Pair]]] = []
    if not source.val_is_train and source.val_images != "train":
        found.append(("val", dataset.train, dataset.val, shared_images(dataset.train, dataset.val)))
    splits = source.layout.splits if isinstance(source, ImageFiles) else {}
    if {"train", "test"} <= splits.keys() and source.train_images is None:
        found.append(("test", splits["train"], splits["test"], shared_files(splits["train"], splits["test"])))
    return [
        _describe(part, train, other, pairs) + _remedy(source)
        for part, train, other, pairs in found
        if pairs and len(pairs) >= MIN_SHARE * len(other.labels)
    ]


def shared_images(train: Samples, val: Samples) -> list[Pair]:
    """Return the images of val that are in train too, each with one of train.

    Only those of the same keys are compared: all of their pixels, or the bytes of some of the files.
    """
    train_keys, val_keys = _keys(train), _keys(val)
    if not len(train_keys) or not len(in_val := _indices_of(val_keys, np.sort(train_keys))):
        return []
    in_train = _indices_of(train_keys, np.sort(val_keys[in_val]))
    if train.images is not None and val.images is not None:
        train_keys, val_keys = _hash_pixels(train.images, in_train), _hash_pixels(val.images, in_val)
    else:
        train_keys, val_keys = train_keys[in_train].tolist(), val_keys[in_val].tolist()
    known = dict(zip(train_keys, in_train.tolist(), strict=True))
    pairs = [(known[key], index) for key, index in zip(val_keys, in_val.tolist(), strict=True) if key in known]
    return _identical(pairs, train.files, val.files) if train.images is None and train.files and val.files else pairs


def contradictions(samples: Samples) -> list[Pair]:
    """Return pairs of images of one split that are the same and have different labels; images that share a file too."""
    keys = _keys(samples)
    order = np.argsort(keys, kind="stable")
    twins = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    pairs = [(int(order[index]), int(order[index + 1])) for index in twins]
    pairs = [pair for pair in pairs if samples.labels[pair[0]] != samples.labels[pair[1]]]
    if samples.images is not None:
        first, second = (np.array([pair[side] for pair in pairs], dtype=int) for side in (0, 1))
        hashes = zip(_hash_pixels(samples.images, first), _hash_pixels(samples.images, second), strict=True)
        return [pair for pair, (one, other) in zip(pairs, hashes, strict=True) if one == other]
    return _identical(pairs, samples.files, samples.files) if samples.files else []


def shared_files(train: FileSplit, test: FileSplit) -> list[Pair]:
    """Return the files of test that are files of train too, by links. None is opened; some are looked at first."""
    some = {_inode(test, index) for index in evenly_spaced(len(test.names), LOOKED_AT)}
    if some.isdisjoint(train.digests[-1]):
        return []
    known = {inode: index for index, inode in enumerate(train.digests[-1])}
    inodes = ((_inode(test, index), index) for index in range(len(test.names)))
    return [(known[inode], index) for inode, index in inodes if inode in known]


def _keys(samples: Samples) -> np.ndarray:
    """Return an int64 of each image; other images may share it. Of a source that gives none, pixels are read."""
    keys = samples.keys
    if keys is None and samples.images is not None:
        keys = np.concatenate([sum_pixels(np.asarray(chunk)) for chunk in chunks(samples.images)])
    if keys is None or not len(keys):
        return np.empty(0, np.int64)
    keys = keys.reshape(len(keys), -1)
    weights = np.random.default_rng(0).integers(2**63, size=keys.shape[1]) | 1
    return keys @ weights  # modulo 2^64


def _indices_of(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the indices of the keys that are among sorted ones; np.isin takes five times as long."""
    nearest = np.searchsorted(known, keys).clip(max=len(known) - 1)
    return np.flatnonzero(known[nearest] == keys)


def _hash_pixels(images: np.ndarray | LazyRows, indices: np.ndarray) -> list[int]:
    """Hash the images at these indices, 64 bits each."""
    return [hash(image.tobytes()) for part in chunks(indices) for image in np.asarray(images[part])]


def _identical(pairs: list[Pair], train: list[Path], val: list[Path]) -> list[Pair]:
    """Return the pairs of files with the same bytes: all pairs, if evenly spaced ones are identical."""

    def is_identical(pair: Pair) -> bool:
        try:
            return filecmp.cmp(train[pair[0]], val[pair[1]], shallow=False)
        except OSError:
            return False

    some = [pairs[index] for index in evenly_spaced(len(pairs), COMPARED)]
    return pairs if all(map(is_identical, some)) else list(filter(is_identical, pairs))


def _inode(split: FileSplit, index: int) -> Inode | None:
    try:
        status = os.stat(os.path.join(split.folder, split.names[index]))  # noqa: PTH116, PTH118 - there may be a million
    except OSError:
        return None  # whoever opens it says so
    return status.st_dev, status.st_ino


def _describe(part: str, train: Split, other: Split, pairs: list[Pair]) -> str:
    """Say how many images of a split are trained on, and name two that are the same."""
    train_indices, indices = np.array(pairs).T
    count = np.count_nonzero(train.labels[train_indices] != other.labels[indices])
    contradictions = f", {count:,} of them under another class" if count else ""
    share = f"{len(pairs):,} of {len(other.labels):,} images of {part} are in train too{contradictions}"
    example = _names(train, other, *pairs[0])
    return f"{share} ({example}), so {part} does not measure new images: keep each image once"


def _names(train: Split, other: Split, train_index: int, index: int) -> str:
    if not train.files or not other.files:
        return f"image {_row(other, index)} is image {_row(train, train_index)} of train, counted from 0"
    paths = [os.path.abspath(path) for path in (other.files[index], train.files[train_index])]  # noqa: PTH100
    above = os.path.commonpath([Path(path).parents[1] for path in paths])
    return " is ".join(printable(os.path.relpath(path, above)) for path in paths)


def _row(split: Split, index: int) -> int:
    """Return the number of an image in its source's own order."""
    images = split.images if isinstance(split, Samples) else None
    return int(images.rows[index]) if isinstance(images, LazyRows) else index


def _remedy(source: DataSource) -> str:
    """Name the command that lists the leaks of a folder, or of a list of files."""
    if not isinstance(source, ImageFiles):
        return ""
    where = quote(as_typed(str(getattr(source, "file", source.root))))
    return f"; {command('check-data')} {where} --all lists all"

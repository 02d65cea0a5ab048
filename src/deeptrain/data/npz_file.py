"""Your own images as numpy arrays in one .npz file, also the files of MedMNIST."""

import math
import zipfile
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from deeptrain.data.array_source import ArraySource, Split
from deeptrain.data.dataset import repeated, unused_settings
from deeptrain.data.fingerprint import read_content
from deeptrain.data.path_messages import describe_missing
from deeptrain.schema import validate_call

MAX_LABEL = 2**63 - 1
PREFIXES: dict[Split, tuple[str, ...]] = {"train": ("train_", ""), "val": ("val_",), "test": ("test_",)}


@validate_call
@dataclass
class NPZFile(ArraySource):
    """Arrays `images`, uint8 (N, H, W[, C]) or (N, C, H, W), and `labels`, (N,) or (N, 1).

    The names may have the prefixes train_, val_ and test_. Labels are integers from 0, or any integers: the classes are
    then the sorted labels of train. Pickled objects are never loaded.
    """

    file: str = "data.npz"
    names: list[str] | None = None  # of the classes

    name = "npz"
    smaller = "save the pictures as files: data=image_folder reads them one by one"

    def __post_init__(self):
        self.path = self.read_path("file")
        if not self.path.is_file():
            raise ValueError(f"file={self.file}: {describe_missing(self.path)}")
        if "train" not in self.arrays:
            found = ", ".join(self._array_names()) or "nothing"
            raise ValueError(
                f"file={self.file}: holds {found}; expected images and labels, or train_images, train_labels"
            )
        if len(self.values) < 2:
            raise ValueError(f"file={self.file}: all labels are {self.values[0]}; training needs two classes")
        if self.names is not None and len(self.names) != len(self.values):
            raise ValueError(f"names={self.names}: must be one for each of {len(self.values)} classes")
        if self.names is not None and (twin := repeated(self.names)) is not None:
            raise ValueError(f"names={self.names}: {twin!r} is there twice; give each class a name of its own")

    @cached_property
    def arrays(self) -> dict[Split, tuple[str, str]]:
        """Return the names of the two arrays of each split."""
        available = self._array_names()
        pairs: dict[Split, tuple[str, str]] = {
            split: (f"{prefix}images", f"{prefix}labels")
            for split, prefixes in PREFIXES.items()
            for prefix in reversed(prefixes)
            if f"{prefix}images" in available
        }
        for images, labels in pairs.values():
            if labels not in available:
                raise ValueError(f"file={self.file}: has {images} but no {labels}")
        return pairs

    @cached_property
    def values(self) -> np.ndarray:
        """Return the different labels of train, sorted. The index of a label is its class."""
        labels = self._labels("train")
        if not len(labels):
            raise ValueError(f"file={self.file}: {self.arrays['train'][1]} is empty")
        values = np.unique(labels)
        if self.names and values[0] >= 0 and values[-1] < len(self.names):
            return np.arange(len(self.names))
        return values

    def class_names(self) -> list[str]:
        return self.names or [str(value) for value in self.values]

    def split_sizes(self) -> dict[Split, int | None]:
        return dict.fromkeys(self.arrays)

    def notes(self) -> list[str]:
        return unused_settings(self, "all images are in data.file")

    def cache_key(self, split: Split) -> dict[str, Any]:
        status = self.path.stat()
        path, content = str(self.path.resolve()), read_content(self.path.parent, [self.path.name])
        file = [path, status.st_size, status.st_mtime_ns, content]
        return {"file": file, "split": split, "classes": self.class_names()}

    def split_bytes(self, split: Split) -> int:
        """Return the bytes of the images by the header of their array, twice if they are to be transposed."""
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.arrays[split][0]}.npy") as file:
                is_first = np.lib.format.read_magic(file) == (1, 0)
                read_header = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
                shape, _, dtype = read_header(file)
        except Exception:  # reading the array says what is wrong with it
            return 0
        return math.prod(shape) * dtype.itemsize * (2 if _channels_first(shape) else 1)

    def read_split(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        name = self.arrays[split][0]
        images = self._load(name)
        if images.dtype != np.uint8:
            remedy = "save (images * 255).round().astype('uint8') if they are in [0, 1]"
            raise ValueError(f"file={self.file}: {name} must be uint8, it is {images.dtype}; {remedy}")
        if _channels_first(images.shape):
            images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        if images.ndim == 3:
            images = images[..., None]
        if images.ndim != 4 or images.shape[3] not in (1, 3):
            shapes = "(N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels"
            raise ValueError(f"file={self.file}: {name} must be {shapes}, it is {images.shape}")
        labels = self._labels(split)
        if len(labels) != len(images):
            raise ValueError(f"file={self.file}: {len(images):,} images but {len(labels):,} labels of {split}")
        classes = np.searchsorted(self.values, labels).clip(0, len(self.values) - 1)
        if len(unknown := labels[self.values[classes] != labels]):
            raise ValueError(f"file={self.file}: label {unknown[0]} of {split} is no class of train")
        return images, classes.astype(np.int64)

    def _labels(self, split: Split) -> np.ndarray:
        name = self.arrays[split][1]
        labels = self._load(name)
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        if labels.ndim != 1 or labels.dtype.kind not in "iub":
            kind = f"{labels.dtype} {labels.shape}"
            raise ValueError(f"file={self.file}: {name} must be integers (N,) or (N, 1), they are {kind}")
        if labels.dtype.kind == "u" and len(labels) and labels.max() > MAX_LABEL:
            raise ValueError(f"file={self.file}: {name} has {labels.max()}; labels must be below 2**63")
        return labels.astype(np.int64)

    def _array_names(self) -> list[str]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                return [name.removesuffix(".npy") for name in archive.namelist()]
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(f"file={self.file}: no readable .npz file ({error}); write it with numpy.savez") from error

    def _load(self, name: str) -> np.ndarray:
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                return arrays[name]
        except Exception as error:  # a damaged file can fail in many ways
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"file={self.file}: {name} cannot be read ({reason}); write it with numpy.savez"
            ) from error


def _channels_first(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[3] not in (1, 3) and shape[1] in (1, 3)

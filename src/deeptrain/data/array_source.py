"""Data sources that read a whole split at once as arrays. A source of your own needs read_split() and class_names()."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from deeptrain.data.dataset import Dataset, DataSource, Samples, SourceSplits, make_dataset
from deeptrain.data.decode import Decoder
from deeptrain.data.decoded_images import DecodedImages, chunks, from_arrays, from_cache
from deeptrain.runtime.memory import free_memory, too_large

Split = Literal["train", "val", "test"]


@dataclass(kw_only=True)
class ArraySource(DataSource):
    """Base of sources whose splits are arrays: images uint8 (N, H, W, C) with 1 or 3 channels, labels int64 (N,)."""

    smaller: ClassVar[str] = "choose fewer or smaller images"  # what to do if a split does not fit into memory

    def read_split(self, split: Split) -> tuple[np.ndarray | Iterable[np.ndarray], np.ndarray]:
        """Return images and labels of a split. Large splits may yield their images in chunks (B, H, W, C)."""
        raise NotImplementedError

    def class_names(self) -> list[str]:
        """Return the names of the classes, in the order of their labels."""
        raise NotImplementedError

    def split_sizes(self) -> dict[Split, int | None]:
        """Return the splits that exist, with their number of images where it is known without reading them."""
        return {"train": None}

    def cache_key(self, split: Split) -> dict[str, Any] | None:
        """Return what the images of a split depend on. None: they are read at every start, not cached."""
        return None

    def split_bytes(self, split: Split) -> int:
        """Return the bytes of memory that reading a split takes; 0 if they are not known before."""
        return 0

    def decoder_for(self, shape: tuple[int, ...]) -> Decoder:
        """Return how any picture becomes an input (H, W, C) of these images."""
        height, width, channels = shape
        return Decoder(height, width, channels)

    def notes(self) -> list[str]:
        """Return automatic choices and settings without effect, one line each."""
        return []

    def load(self, cache_dir: Path | str | None = None) -> Dataset:
        """Return train and val, without reading the test split."""
        sizes = self.split_sizes()
        train = self._decoded("train", cache_dir)
        val = self._decoded("val", cache_dir) if "val" in sizes else None
        test = "no test split" if "test" not in sizes else "test kept shut"
        splits = SourceSplits(
            train=Samples(train.images, None, train.labels, keys=train.sums),
            val=val and Samples(val.images, None, val.labels, keys=val.sums),
            statistics=train.statistics,
            fingerprint=train.fingerprint,
            test=test if sizes.get("test") is None else f"test {sizes['test']:,} kept shut",
            val_folder="own split" if val else "",
            notes=self.notes(),
            decoder=self.decoder_for(train.images.shape[1:]),
        )
        return make_dataset(self, self.class_names(), splits)

    def has_test(self) -> bool:
        return "test" in self.split_sizes()

    def test(self, cache_dir: Path | str | None = None) -> Samples:
        """Return the test split; ValueError if there is none."""
        if not self.has_test():
            return super().test(cache_dir)
        test = self._decoded("test", cache_dir)
        return Samples(test.images, None, test.labels)

    def _decoded(self, split: Split, cache_dir: Path | str | None) -> DecodedImages:
        def read() -> tuple[np.ndarray | Iterable[np.ndarray], np.ndarray]:
            if reason := too_large(self.split_bytes(split), free_memory(swap=True)):
                raise ValueError(f"data={self.name}: {split} {reason}; {self.smaller}")
            return self.read_split(split)

        def decode() -> tuple[Iterable[np.ndarray], np.ndarray]:
            images, labels = read()
            return (chunks(images) if isinstance(images, np.ndarray) else images), labels

        key = self.cache_key(split)
        if key is not None:
            decoded = from_cache(cache_dir, f"{self.name}-{split}", key, decode)
        else:
            images, labels = read()
            decoded = from_arrays(images if isinstance(images, np.ndarray) else np.concatenate([*images]), labels)
        self._check(split, decoded)
        return decoded

    def _check(self, split: Split, decoded: DecodedImages) -> None:
        """Raise ValueError if a split is not as the base class asks for."""
        images, labels = decoded.images, decoded.labels
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape[1:]:
            shape = f"{images.dtype} {images.shape}"
            raise ValueError(f"images of {split}: must be uint8 (N, H, W, C) with 1 or 3 channels, they are {shape}")
        if labels.shape != (len(images),):
            raise ValueError(f"labels of {split}: must have shape ({len(images)},), they have {labels.shape}")
        count = len(self.class_names())
        if not len(labels) or labels.min() < 0 or labels.max() >= count:
            raise ValueError(f"labels of {split}: must be from 0 to {count - 1}, the number of classes is {count}")

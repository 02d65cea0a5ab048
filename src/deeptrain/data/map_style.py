"""Map-style datasets as data sources: those of torchvision by name, or your own that yields (image, label) by index."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from deeptrain.data.array_source import ArraySource, Split
from deeptrain.data.dataset import evenly_spaced
from deeptrain.data.decode import Decoder
from deeptrain.data.fingerprint import read_content, stat_digests
from deeptrain.data.pixels import kind_of
from deeptrain.schema import Range, validate_call

READ_FILES = 4096  # of a dataset's folder, to tell whether it has changed
CHUNK = 256  # images that are decoded before they are written to the cache


@dataclass(kw_only=True)
class MapStyleSource(ArraySource):
    """Base for a dataset with __len__ and __getitem__ -> (PIL image or uint8 array, int). Subclasses open its splits.

    All images become RGB of one size, that of the first training image or image_size. They are read once, into the
    cache.
    """

    image_size: Annotated[int, Range(minimum=1)] | None = None

    def open_split(self, split: Split) -> Any:
        """Return the dataset of a split."""
        raise NotImplementedError

    def decoder_for(self, shape: tuple[int, ...]) -> Decoder:
        height, width, channels = shape
        return Decoder(height, width, channels, resize="fit")

    def read_split(self, split: Split) -> tuple[Iterator[np.ndarray], np.ndarray]:
        dataset = self.open_split(split)
        if not len(dataset):
            raise ValueError(f"data={self.name}: {split} has no images")
        labels = np.zeros(len(dataset), np.int64)
        return self._read_chunks(dataset, labels), labels

    def _read_chunks(self, dataset: Any, labels: np.ndarray) -> Iterator[np.ndarray]:
        """Yield chunks of images and write their labels; the labels are complete after the last chunk."""
        decoder = self.decoder_for((self.image_size, self.image_size, 3)) if self.image_size else None
        for start in range(0, len(dataset), CHUNK):
            images = []
            for index in range(start, min(start + CHUNK, len(dataset))):
                item = dataset[index]
                if not isinstance(item, tuple) or len(item) != 2 or not isinstance(item[1], int | np.integer):
                    raise ValueError(
                        f"data={self.name}: item {index} must be (image, int), it is {type(item).__name__}"
                    )
                try:
                    image = _open(item[0])
                except ValueError as error:
                    raise ValueError(f"data={self.name}: item {index}: {error}") from error
                decoder = decoder or self.decoder_for((image.height, image.width, 3))
                size = decoder.height, decoder.width
                if not self.image_size and (image.height, image.width) != size:
                    shapes = f"{image.height}x{image.width}, others {size[0]}x{size[1]}"
                    raise ValueError(f"image_size=null: image {index} is {shapes}; write data.image_size={min(size)}")
                images.append(decoder.decode_image(image))
                labels[index] = int(item[1])
            yield np.stack(images)


def _open(image: Any) -> Any:
    """Return a PIL image, upright, of a PIL image or a uint8 array (H, W) or (H, W, C)."""
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.asarray(image))
    if kind_of(image):
        raise ValueError(f"mode {image.mode} has more than 8 bits; scale it to 8 bits where the dataset reads it")
    return ImageOps.exif_transpose(image)


@validate_call
@dataclass
class TorchvisionDataset(MapStyleSource):
    """Any classification dataset of torchvision.datasets by its class name, as Flowers102 or EuroSAT.

    The splits are selected by the dataset's own argument, `train` or `split`. A dataset without such an argument has
    only a training split. `arguments` are passed on to its constructor.
    """

    dataset: str = "CIFAR10"
    root: str = "data"
    arguments: dict = field(default_factory=dict)
    train_split: str = "train"
    val_split: str | None = None
    test_split: str | None = "test"

    name = "torchvision"

    def __post_init__(self):
        if not self.dataset.isidentifier() or self.dataset[0] == "_":
            raise ValueError(f"dataset={self.dataset}: must be the name of a class in torchvision.datasets")

    def class_names(self) -> list[str]:
        if not hasattr(self, "classes"):
            dataset = self.open_split("train")
            names = getattr(dataset, "classes", None)
            names = names if names is not None else range(self._count_classes(dataset))
            self.classes = [name if isinstance(name, str) else str(name) for name in names]
        return self.classes

    def _count_classes(self, dataset: Any) -> int:
        labels = next(
            (getattr(dataset, name) for name in ("targets", "labels", "_labels") if hasattr(dataset, name)), None
        )
        labels = [dataset[index][1] for index in range(len(dataset))] if labels is None else labels
        return int(np.max(np.asarray(labels))) + 1

    def split_sizes(self) -> dict[Split, int | None]:
        parameters = signature(self._reader()).parameters
        if "train" in parameters:
            return {"train": None, "test": None}
        if "split" not in parameters:
            return {"train": None}
        names: dict[Split, str | None] = {"train": self.train_split, "val": self.val_split, "test": self.test_split}
        return {split: None for split, name in names.items() if name is not None}

    def open_split(self, split: Split) -> Any:
        reader = self._reader()
        parameters = signature(reader).parameters
        arguments = dict(self.arguments)
        if "train" in parameters:
            arguments["train"] = split == "train"
        elif "split" in parameters:
            arguments["split"] = {"train": self.train_split, "val": self.val_split, "test": self.test_split}[split]
        if "download" in parameters:
            arguments["download"] = self.download
        try:
            return reader(str(self.read_path("root")), **arguments)
        except Exception as error:  # a dataset may fail in many ways
            reason = " ".join((str(error) or type(error).__name__).split())
            remedy = "" if self.download else "; data.download=true downloads it, if the dataset can"
            raise ValueError(f"dataset={self.dataset}: cannot be opened ({reason}){remedy}") from error

    def cache_key(self, split: Split) -> dict[str, Any]:
        if self.download:
            self.open_split(split)  # the files are there before their sizes are read
        choice = [self.arguments, self.train_split, self.val_split, self.test_split, split, self.image_size]
        files = _digest(self.read_path("root"))
        return {"dataset": self.dataset, "choice": choice, "files": files, "upright": True}

    def _reader(self) -> Any:
        from torchvision import datasets  # takes 5 s

        reader = getattr(datasets, self.dataset, None)
        if not isinstance(reader, type):
            raise ValueError(
                f"dataset={self.dataset}: is no class of torchvision.datasets; its names are case-sensitive"
            )
        return reader


def _digest(root: Path) -> str:
    """Hash the names, sizes and times of all files below a folder, and what some of them hold."""
    files = sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else []
    names = [str(path.relative_to(root)) for path in files]
    read = [names[index] for index in evenly_spaced(len(names), READ_FILES)]
    return f"{stat_digests(root, names)[1]}-{read_content(root, read)}"

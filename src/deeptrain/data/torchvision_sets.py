"""The classic data sets, stored and downloaded as by torchvision: MNIST and its relatives, CIFAR, SVHN."""

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deeptrain.data.array_source import ArraySource, Split
from deeptrain.data.cache import cache_root, locked
from deeptrain.data.decoded_images import DecodedImages
from deeptrain.data.fingerprint import read_content
from deeptrain.data.path_messages import describe_missing
from deeptrain.runtime.paths import quote_setting
from deeptrain.schema import validate_call

DatasetName = Literal["mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100", "svhn"]


@dataclass(frozen=True)
class DatasetSpec:
    """A data set: torchvision's class, the files of each split, the class names, the size of the test split."""

    reader: str
    train: list[str]
    test: list[str]
    classes: Sequence[str]
    test_size: int = 10_000
    characters: bool = False

    def files(self, split: str) -> list[str]:
        return self.train if split == "train" else self.test


def _idx(folder: str, classes: str, characters: bool = True) -> DatasetSpec:
    kinds = ("images-idx3", "labels-idx1")
    train, test = ([f"{folder}/raw/{part}-{kind}-ubyte" for kind in kinds] for part in ("train", "t10k"))
    return DatasetSpec(folder, train, test, classes.split(","), characters=characters)


CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree
wolf woman worm"""
BATCHES = [f"cifar-10-batches-py/{name}" for name in ("batches.meta", *(f"data_batch_{i}" for i in range(1, 6)))]

SPECS = {
    "mnist": _idx("MNIST", "0,1,2,3,4,5,6,7,8,9"),
    "fashion_mnist": _idx(
        "FashionMNIST", "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot", False
    ),
    "kmnist": _idx("KMNIST", "o,ki,su,tsu,na,ha,ma,ya,re,wo"),
    "cifar10": DatasetSpec("CIFAR10", BATCHES, [BATCHES[0], "cifar-10-batches-py/test_batch"], CIFAR10.split()),
    "cifar100": DatasetSpec(
        "CIFAR100",
        ["cifar-100-python/meta", "cifar-100-python/train"],
        ["cifar-100-python/meta", "cifar-100-python/test"],
        CIFAR100.split(),
    ),
    "svhn": DatasetSpec("SVHN", ["train_32x32.mat"], ["test_32x32.mat"], list("0123456789"), 26_032, characters=True),
}


@validate_call
@dataclass
class TorchvisionSet(ArraySource):
    """A set in the folder `root`, in torchvision's layout. Files are fetched or written only if download is true."""

    name: DatasetName  # pyright: ignore[reportIncompatibleVariableOverride]  (a setting here, a constant elsewhere)
    root: str = "data"

    def __post_init__(self):
        self.spec = SPECS[self.name]
        self.characters = self.spec.characters  # pyright: ignore[reportAttributeAccessIssue]
        self.folder = self.read_path("root")
        if not self.download:
            self._require_files("train")

    def class_names(self) -> list[str]:
        return list(self.spec.classes)

    def split_sizes(self) -> dict[Split, int | None]:
        return {"train": None, "test": self.spec.test_size}

    def cache_key(self, split: Split) -> dict[str, Any]:
        files = [(name, self.folder / name) for name in self.spec.files(split)]
        stats = [(name, p.stat().st_size, p.stat().st_mtime_ns) for name, p in files]
        return {
            "set": self.name,
            "files": stats,
            "content": read_content(self.folder, [name for name, _ in files]),
        }

    def split_bytes(self, split: Split) -> int:
        return sum((self.folder / name).stat().st_size for name in self.spec.files(split))

    def read_split(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
        return _read(self.spec, self.folder, split)

    def _decoded(self, split: Split, cache_dir: Path | str | None) -> DecodedImages:
        if self.download:
            _download(self.spec, self.folder, cache_dir)
        self._require_files(split)
        return super()._decoded(split, cache_dir)

    def _require_files(self, split: str) -> None:
        """Raise ValueError with the remedy if a file of the split is missing."""
        files = [self.folder / name for name in self.spec.files(split)]
        if absent := next((file for file in files if not file.is_file()), None):
            state = f"no {self.spec.reader} here: {absent} {describe_missing(absent)}"
            remedy, above = "data.download=true fetches it", self.folder.parent
            if (above / self.spec.files(split)[0]).is_file():
                remedy = f"did you mean {quote_setting('data.root', above)}?"
            if (self.folder / "train").is_dir():
                remedy = "folders of pictures are read with data=image_folder"
            raise ValueError(f"root={self.root}: {state}; {remedy}")


def _read(spec: DatasetSpec, root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read one split: uint8 (N, H, W, C), int64 (N,). The files of the other split stay closed."""
    files = spec.files(split)
    if files[0].endswith("-ubyte"):
        images, labels = (read_idx(root / name) for name in files)
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            shapes = f"{root / files[0]} holds {images.shape}, {root / files[1]} {labels.shape}"
            raise ValueError(
                f"root={root}: {shapes}, which do not belong together; remove both, then data.download=true"
            )
        return images[..., None], labels.astype(np.int64)
    try:
        return _read_by_torchvision(spec, root, split)
    except (RuntimeError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        remedy = "remove it, then data.download=true"
        raise ValueError(f"root={root}: {spec.reader} cannot be read ({reason}); {remedy}") from error


def _read_by_torchvision(spec: DatasetSpec, root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    reader = _torchvision(spec.reader)
    if spec.reader == "SVHN":
        data = reader(root, split=split)
        return data.data.transpose(0, 2, 3, 1), np.asarray(data.labels, np.int64)
    # torchvision would also open the other split, to check that the download is complete
    other = "test_list" if split == "train" else "train_list"
    data = type(spec.reader, (reader,), {other: []})(root, train=split == "train")
    return data.data, np.asarray(data.targets, np.int64)


def _torchvision(name: str) -> Any:
    from torchvision import datasets  # takes 5 s

    return getattr(datasets, name)


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file: two zero bytes, type 8 (bytes), number of dimensions, sizes as big-endian int32, data."""
    try:
        data = np.fromfile(path, np.uint8)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > 4 and data[2] == 8 and len(data) >= 4 + 4 * data[3]:
        shape = data[4 : 4 + 4 * data[3]].view(">u4").astype(np.int64)
        values = data[4 + 4 * int(data[3]) :]
        if len(values) == shape.prod():
            return values.reshape(shape)
    raise ValueError(f"{path}: damaged, or not an IDX file; remove it, then data.download=true")


def _download(spec: DatasetSpec, root: Path, cache_dir: Path | str | None) -> None:
    """Download into a temporary folder, then move the files into place. Simultaneous starts wait for each other."""
    wanted = dict.fromkeys(spec.train + spec.test)
    with locked(cache_dir, f"download-{_short(root)}"):
        unfinished = f".download-{_short(cache_root(cache_dir))}-"
        for leftover in root.glob(f"{unfinished}*"):  # from a killed process: we hold the lock
            shutil.rmtree(leftover, ignore_errors=True)
        if all((root / name).is_file() for name in wanted):
            return
        new_folders = [folder for folder in (root, *root.parents) if not folder.exists()]
        try:
            root.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=unfinished, dir=root))
        except OSError as error:
            raise ValueError(f"root={root}: cannot be written to ({error.strerror})") from error
        try:
            for split in ("train", "test"):
                choice = {"split": split} if spec.reader == "SVHN" else {"train": split == "train"}
                _torchvision(spec.reader)(temporary, download=True, **choice)
            for name in wanted:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (temporary / name).replace(root / name)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"download=true: {spec.reader} could not be fetched into {root} ({reason})") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            with suppress(OSError):  # not empty: the files have arrived
                for folder in new_folders:
                    folder.rmdir()


def _short(path: Path) -> str:
    """Return a short name of a path: the same for all spellings of the path."""
    return sha256(str(path.resolve()).encode()).hexdigest()[:16]

"""What a folder of pictures means: which sub-folder plays which part, which classes there are, whose each file is."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np

from deeptrain.data.decode import EXTENSIONS
from deeptrain.data.folders import contents, missing

NAMES = {"train": ("train", "training"), "val": ("val", "validation", "valid"), "test": ("test", "testing")}
EXPECTED = "expected <class>/<picture>, or train/, val/ and test/ with class folders inside"


@dataclass
class Split:
    """The pictures of one split: file names below its folder, sorted, and their classes as indices of one table."""

    folder: Path
    shown: str  # "train/"; nothing where the class folders lie bare
    names: list[str]
    labels: np.ndarray  # int64 (N,)

    @cached_property
    def files(self) -> list[Path]:
        return [self.folder / name for name in self.names]

    @cached_property
    def digests(self) -> tuple[str, str]:
        """Hashes of all names and sizes: alone, the same on any machine, and with the times of last change."""
        plain, timed = sha256(), sha256()
        for name in self.names:
            try:
                status = os.stat(f"{self.folder}/{name}")  # noqa: PTH116 - there may be a million
            except OSError as error:
                raise ValueError(f"{self.folder / name}: cannot be read ({error.strerror})") from error
            facts = f"{name}\0{status.st_size}\n".encode(errors="surrogateescape")
            plain.update(facts)
            timed.update(facts + b"%d" % status.st_mtime_ns)
        return plain.hexdigest()[:16], timed.hexdigest()[:16]


@dataclass
class Layout:
    """A folder as understood: its splits by part, one table of classes for all of them, and what was left aside."""

    classes: list[str]
    splits: dict[str, Split] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_layout(root: Path) -> Layout:
    """List a folder of pictures; ValueError, with what lies there, if it cannot be told what they are meant for."""
    if not root.is_dir():
        raise ValueError(missing(root))
    folders = _visible_folders(root)
    splits = _split_folders(folders) or {"train": root}
    if "train" not in splits:
        raise ValueError(f"has {_listed(splits.values())} but no train/; {EXPECTED}")
    layout = Layout(_classes(splits["train"]))
    table = {name: index for index, name in enumerate(layout.classes)}
    layout.splits = {part: _read_split(root, folder, table) for part, folder in splits.items()}
    if splits["train"] != root:
        aside = [folder for folder in folders if folder not in splits.values()]
        layout.notes = [f"{folder} is no split with class folders, and is left alone" for folder in aside]
    return layout


def _split_folders(folders: list[Path]) -> dict[str, Path]:
    """Find the folders that are splits: by name, and by holding class folders in their turn."""
    splits: dict[str, Path] = {}
    flat = []
    for part, spellings in NAMES.items():
        named = [folder for folder in folders if folder.name.lower() in spellings]
        found = [folder for folder in named if _visible_folders(folder)]
        flat += [folder for folder in named if folder not in found]
        if len(found) > 1:
            raise ValueError(f"has {_listed(found)}, which mean the same; keep one of them")
        if found:
            splits[part] = found[0]
    # a class may be called train; but pictures for testing must not become a class called test
    alone = len(flat) == len(folders)
    stray = [folder for folder in flat if alone or folder.name.lower() not in NAMES["train"]]
    if stray and "train" not in splits:
        raise ValueError(f"{stray[0].name}/ has no class folders (it holds {contents(stray[0], 3)}); {EXPECTED}")
    return splits


def _classes(train: Path) -> list[str]:
    """Return the table of classes: the sorted names of the class folders in train."""
    classes = sorted(folder.name for folder in _visible_folders(train))
    if not classes:
        raise ValueError(f"no class folders ({train} holds {contents(train)}); {EXPECTED}")
    if len(classes) == 1:
        inside = [folder.name for folder in _visible_folders(train / classes[0])]
        hint = f"did you mean data.root={train / classes[0]}?" if inside else EXPECTED
        raise ValueError(f"only one class folder in {train}, {classes[0]}/, and one class cannot be learnt; {hint}")
    return classes


def _read_split(root: Path, folder: Path, table: dict[str, int]) -> Split:
    """List the pictures of a split, classes matched by name."""
    shown = "" if folder == root else f"{folder.name}/"
    names: list[str] = []
    labels: list[int] = []
    for class_folder in sorted(_visible_folders(folder), key=lambda path: path.name):
        if class_folder.name not in table:
            known = ", ".join(list(table)[:6]) + (", ..." if len(table) > 6 else "")
            raise ValueError(f"{shown}{class_folder.name} is no class of train ({known}); rename or remove it")
        found = sorted(_pictures(class_folder, class_folder.name, ()))
        if not found:
            kinds = " ".join(extension[1:] for extension in EXTENSIONS)
            where = f"{shown}{class_folder.name} has no pictures"
            raise ValueError(f"class folder {where} (it holds {contents(class_folder, 3)}; pictures end in {kinds})")
        names += found
        labels += [table[class_folder.name]] * len(found)
    return Split(folder, shown, names, np.array(labels, np.int64))


def _pictures(folder: Path | str, prefix: str, above: tuple[str, ...]) -> Iterator[str]:
    """Walk a class folder and yield its pictures' names; links are followed, but not back to where we came from."""
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as found:
        for item in found:
            if item.name.startswith("."):
                continue
            if item.name.lower().endswith(EXTENSIONS) and item.is_file():
                yield f"{prefix}/{item.name}"
            elif item.is_dir():
                yield from _pictures(item.path, f"{prefix}/{item.name}", (*above, real))


def _listed(folders: Iterable[Path]) -> str:
    return " and ".join(f"{folder.name}/" for folder in folders)


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name[0] != "." and path.is_dir())

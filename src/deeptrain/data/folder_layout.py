"""What a folder of pictures means: which sub-folder plays which part, which classes there are, whose each file is."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np

from deeptrain.data.decode import EXTENSIONS
from deeptrain.data.path_messages import describe_missing, list_contents, printable

NAMES = {"train": ("train", "training"), "val": ("val", "validation", "valid"), "test": ("test", "testing")}
CLUTTER = ("thumbs.db", "desktop.ini")  # that Windows leaves; what begins with a dot is hidden anyway
EXPECTED = "expected <class>/<picture>, or train/, val/ and test/ with class folders inside"


@dataclass
class Split:
    """The pictures of one split: file names below its folder, sorted, and their classes as indices of one table."""

    folder: Path
    shown: str  # "train/"; nothing where the class folders lie bare
    names: list[str]
    labels: np.ndarray  # int64 (N,)
    notes: list[str] = field(default_factory=list)  # what was left aside

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
                raise ValueError(f"{printable(self.folder / name)}: cannot be read ({error.strerror})") from error
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


def read_layout(root: Path, faults: list[str] | None = None) -> Layout:
    """List a folder of pictures; ValueError, with what lies there, if it cannot be told what they are meant for.

    A list of faults is given what is wrong with single class folders, each left aside instead of refused.
    """
    if not root.is_dir():
        raise ValueError(describe_missing(root))
    folders = _visible_folders(root)
    splits = _split_folders(folders) or {"train": root}
    if "train" not in splits:
        raise ValueError(f"has {_listed(splits.values())} but no train/; {EXPECTED}")
    layout = Layout(_classes(splits["train"]))
    table = {name: index for index, name in enumerate(layout.classes)}
    layout.splits = {part: _read_split(root, folder, table, faults) for part, folder in splits.items()}
    if splits["train"] != root:
        aside = [folder for folder in folders if folder not in splits.values()]
        layout.notes = [f"{printable(folder)} is no split with class folders, and is left alone" for folder in aside]
    layout.notes += [note for split in layout.splits.values() for note in split.notes]
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
        raise ValueError(f"{stray[0].name}/ has no class folders (it holds {list_contents(stray[0], 3)}); {EXPECTED}")
    return splits


def _classes(train: Path) -> list[str]:
    """Return the table of classes: the sorted names of the class folders in train."""
    classes = sorted(_class_folders(train))
    if not classes:
        raise ValueError(f"no class folders ({train} holds {list_contents(train)}); {EXPECTED}")
    if len(classes) == 1:
        inside = [folder.name for folder in _visible_folders(train / classes[0])]
        hint = f"did you mean data.root={train / classes[0]}?" if inside else EXPECTED
        raise ValueError(f"only one class folder in {train}, {classes[0]}/, and one class cannot be learnt; {hint}")
    return classes


def _read_split(root: Path, folder: Path, table: dict[str, int], faults: list[str] | None) -> Split:
    """List the pictures of a split, classes matched by name."""
    label = "" if folder == root else f"{folder.name}/"
    names: list[str] = []
    labels: list[int] = []
    others: Counter[str] = Counter()
    for name, class_folder in sorted(_class_folders(folder).items()):
        if name not in table:
            known = ", ".join(list(table)[:6]) + (", ..." if len(table) > 6 else "")
            _refuse(f"{label}{name} is no class of train ({known}); rename or remove it", faults)
            continue
        above = set(map(str, class_folder.resolve().parents))  # a link up there would bring in the other classes
        found = sorted(_pictures(class_folder, class_folder.name, above, others))
        if not found:
            kinds = " ".join(extension[1:] for extension in EXTENSIONS)
            holds = f"it holds {list_contents(class_folder, 3)}; pictures end in {kinds}"
            _refuse(f"class folder {label}{name} has no pictures ({holds}); put some there or remove it", faults)
        names += found
        labels += [table[name]] * len(found)
    return Split(folder, label, names, np.array(labels, np.int64), _left_aside(folder, label, others))


def _refuse(fault: str, faults: list[str] | None) -> None:
    if faults is None:
        raise ValueError(fault)
    faults.append(fault)


def _class_folders(folder: Path) -> dict[str, Path]:
    """Map class names to the folders of a split; ValueError if one could be taken for another.

    Names are normalised, because macOS spells é in two letters: the same class may be written differently in val.
    """
    found: dict[str, Path] = {}
    spelt: dict[str, Path] = {}
    for path in _visible_folders(folder):
        name = unicodedata.normalize("NFC", path.name)
        if not name.isprintable():
            raise ValueError(f"class folder {printable(path)}: its name has characters that cannot be shown; rename it")
        if twin := spelt.get(name.casefold()):
            raise ValueError(f"{twin} and {path.name} are spelt almost alike; make them one class, or rename one")
        found[name] = spelt[name.casefold()] = path
    return found


def _pictures(folder: Path | str, prefix: str, seen: set[str], others: Counter[str]) -> Iterator[str]:
    """Walk a class folder and yield its pictures' names, counting other files by their ending.

    Links are followed, but no folder is walked twice.
    """
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    with os.scandir(folder) as items:
        for item in sorted(items, key=lambda item: item.name):
            if item.name.startswith(".") or item.name.lower() in CLUTTER:
                continue
            target = Path(item.path) if item.is_symlink() else item  # a link may lead nowhere, or in a circle
            if target.is_dir():
                yield from _pictures(item.path, f"{prefix}/{item.name}", seen, others)
            elif item.name.lower().endswith(EXTENSIONS) and target.is_file():
                yield f"{prefix}/{item.name}"
            else:
                others[Path(item.name).suffix.lower() or "without an ending"] += 1


def _left_aside(folder: Path, label: str, others: Counter[str]) -> list[str]:
    """Say what lies in a split and is not trained on."""
    notes = []
    loose = [path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS and path.name[0] != "."]
    if count := sum(path.is_file() for path in loose):
        notes.append(f"pictures in {label or folder} beside the class folders are left alone ({count:,})")
    if others:
        kinds = printable(", ".join(f"{count:,} {ending}" for ending, count in others.most_common(4)))
        notes.append(f"files in {label or folder} that are no pictures are left alone ({kinds})")
    return notes


def _listed(folders: Iterable[Path]) -> str:
    return " and ".join(f"{folder.name}/" for folder in folders)


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name[0] != "." and path.is_dir())

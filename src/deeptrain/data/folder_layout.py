"""How a folder of images is read: the splits, the classes, and the class of each file."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from deeptrain.data.decode import EXTENSIONS
from deeptrain.data.image_files import FileLayout, FileSplit
from deeptrain.data.path_messages import describe_missing, list_contents, printable

SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "validation", "valid"), "test": ("test", "testing")}
IGNORED_FILES = ("thumbs.db", "desktop.ini")  # written by Windows; names that begin with a dot are ignored too
EXPECTED_LAYOUT = "expected <class>/<picture>, or train/, val/ and test/ with class folders inside"


def read_layout(root: Path, errors: list[str] | None = None) -> FileLayout:
    """List the images below a folder. ValueError, with what the folder holds, if the layout is unknown.

    With a list of errors, a wrong class folder is skipped and its error is appended to the list instead of raised.
    """
    if not root.is_dir():
        raise ValueError(describe_missing(root))
    folders = _visible_folders(root)
    splits = _split_folders(folders) or {"train": root}
    if "train" not in splits:
        raise ValueError(f"has {_join_names(splits.values())} but no train/; {EXPECTED_LAYOUT}")
    layout = FileLayout(_classes(splits["train"]))
    table = {name: index for index, name in enumerate(layout.classes)}
    layout.splits = {part: _read_split(root, folder, table, errors) for part, folder in splits.items()}
    if splits["train"] != root:
        others = [folder for folder in folders if folder not in splits.values()]
        layout.notes = [f"{printable(folder)} is no split with class folders, and is left alone" for folder in others]
    layout.notes += [note for split in layout.splits.values() for note in split.notes]
    return layout


def _split_folders(folders: list[Path]) -> dict[str, Path]:
    """Find the folders that are splits: they have the name of a split, and class folders inside."""
    splits: dict[str, Path] = {}
    without_classes = []
    for part, spellings in SPLIT_NAMES.items():
        named = [folder for folder in folders if folder.name.lower() in spellings]
        found = [folder for folder in named if _visible_folders(folder)]
        without_classes += [folder for folder in named if folder not in found]
        if len(found) > 1:
            raise ValueError(f"has {_join_names(found)}, which mean the same; keep one of them")
        if found:
            splits[part] = found[0]
    # a class may have the name train, but test images must not become a class with the name test
    only_these = len(without_classes) == len(folders)
    misplaced = [folder for folder in without_classes if only_these or folder.name.lower() not in SPLIT_NAMES["train"]]
    if misplaced and "train" not in splits:
        raise ValueError(
            f"{misplaced[0].name}/ has no class folders (it holds {list_contents(misplaced[0], 3)}); {EXPECTED_LAYOUT}"
        )
    return splits


def _classes(train: Path) -> list[str]:
    """Return the names of the classes: the class folders in train, sorted."""
    classes = sorted(_class_folders(train))
    if not classes:
        raise ValueError(f"no class folders ({train} holds {list_contents(train)}); {EXPECTED_LAYOUT}")
    if len(classes) == 1:
        inside = [folder.name for folder in _visible_folders(train / classes[0])]
        hint = f"did you mean data.root={train / classes[0]}?" if inside else EXPECTED_LAYOUT
        raise ValueError(f"only one class folder in {train}, {classes[0]}/, and one class cannot be learnt; {hint}")
    return classes


def _read_split(root: Path, folder: Path, table: dict[str, int], errors: list[str] | None) -> FileSplit:
    """List the images of a split. Classes are matched by name."""
    label = "" if folder == root else f"{folder.name}/"
    names: list[str] = []
    labels: list[int] = []
    others: Counter[str] = Counter()
    for name, class_folder in sorted(_class_folders(folder).items()):
        if name not in table:
            known = ", ".join(list(table)[:6]) + (", ..." if len(table) > 6 else "")
            _report(f"{label}{name} is no class of train ({known}); rename or remove it", errors)
            continue
        parents = set(map(str, class_folder.resolve().parents))  # a link to one of them would add the other classes
        found = sorted(_pictures(class_folder, class_folder.name, parents, others))
        if not found:
            kinds = " ".join(extension[1:] for extension in EXTENSIONS)
            holds = f"it holds {list_contents(class_folder, 3)}; pictures end in {kinds}"
            _report(f"class folder {label}{name} has no pictures ({holds}); put some there or remove it", errors)
        names += found
        labels += [table[name]] * len(found)
    return FileSplit(folder, label, names, np.array(labels, np.int64), _ignored_notes(folder, label, others))


def _report(error: str, errors: list[str] | None) -> None:
    if errors is None:
        raise ValueError(error)
    errors.append(error)


def _class_folders(folder: Path) -> dict[str, Path]:
    """Map class names to the folders of a split. ValueError if two names could be confused.

    Names are normalized: macOS writes é as two characters, so the same class may be spelled differently in val.
    """
    found: dict[str, Path] = {}
    folded: dict[str, Path] = {}
    for path in _visible_folders(folder):
        name = unicodedata.normalize("NFC", path.name)
        if not name.isprintable():
            raise ValueError(f"class folder {printable(path)}: its name has characters that cannot be shown; rename it")
        if twin := folded.get(name.casefold()):
            raise ValueError(f"{twin} and {path.name} are spelt almost alike; make them one class, or rename one")
        found[name] = folded[name.casefold()] = path
    return found


def _pictures(folder: Path | str, prefix: str, visited: set[str], others: Counter[str]) -> Iterator[str]:
    """Yield the names of the images below a class folder, and count other files by their ending.

    Links are followed, but no folder is visited twice.
    """
    real = os.path.realpath(folder)
    if real in visited:
        return
    visited.add(real)
    with os.scandir(folder) as items:
        for item in sorted(items, key=lambda item: item.name):
            if item.name.startswith(".") or item.name.lower() in IGNORED_FILES:
                continue
            target = Path(item.path) if item.is_symlink() else item  # a link may be broken, or a loop
            if target.is_dir():
                yield from _pictures(item.path, f"{prefix}/{item.name}", visited, others)
            elif item.name.lower().endswith(EXTENSIONS) and target.is_file():
                yield f"{prefix}/{item.name}"
            else:
                others[Path(item.name).suffix.lower() or "without an ending"] += 1


def _ignored_notes(folder: Path, label: str, others: Counter[str]) -> list[str]:
    """Return a line for each kind of file in a split that is not trained on."""
    notes = []
    beside = [path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS and path.name[0] != "."]
    if count := sum(path.is_file() for path in beside):
        notes.append(f"pictures in {label or folder} beside the class folders are left alone ({count:,})")
    if others:
        kinds = printable(", ".join(f"{count:,} {ending}" for ending, count in others.most_common(4)))
        notes.append(f"files in {label or folder} that are no pictures are left alone ({kinds})")
    return notes


def _join_names(folders: Iterable[Path]) -> str:
    return " and ".join(f"{folder.name}/" for folder in folders)


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name[0] != "." and path.is_dir())

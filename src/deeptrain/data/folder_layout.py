"""How a folder of images is read: the splits, the classes, and the class of each file."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from deeptrain.data.decode import EXTENSIONS
from deeptrain.data.image_files import FileLayout, FileSplit
from deeptrain.data.path_messages import describe_missing, list_contents, printable, visible_folders
from deeptrain.data.split_folders import (
    EXPECTED_LAYOUT,
    find_splits,
    inspect_folder,
    join_names,
    refuse_one_split_of_several,
    split_notes,
)
from deeptrain.runtime.paths import quote_setting

IGNORED_FILES = ("thumbs.db", "desktop.ini")  # written by Windows; names that begin with a dot are ignored too


def read_layout(
    root: Path, errors: list[str] | None = None, learned_classes: list[str] | None = None, all_is_test: bool = False
) -> FileLayout:
    """List the images below a folder. ValueError, with what the folder holds, if the layout is unknown.

    With a list of errors, a wrong class folder is skipped, and the list gets its error.
    With the classes that a run has learned, the layout has their order, and test/ may be there without train/.
    all_is_test: bare class folders are the test split, perhaps of some of these classes.
    """
    if not root.is_dir():
        raise ValueError(describe_missing(root))
    try:
        return _read_layout(root, errors, learned_classes, all_is_test)
    except OSError as error:
        path = printable(error.filename or root)
        raise ValueError(f"{path} cannot be read ({error.strerror}); make it readable") from error


def _read_layout(
    root: Path, errors: list[str] | None, learned_classes: list[str] | None, all_is_test: bool
) -> FileLayout:
    folders = [inspect_folder(path) for path in visible_folders(root)]
    splits = find_splits(folders)
    if splits and all_is_test:
        base = printable((splits.get("test") or next(iter(splits.values()))).base)
        raise ValueError(f"has {join_names(splits.values())}; split=all takes class folders, as in data.root={base}")
    if splits and "train" not in splits and not (learned_classes and "test" in splits):
        raise ValueError(f"has {join_names(splits.values())} but no train/; {EXPECTED_LAYOUT}")
    bases = {part: folder.base for part, folder in splits.items()} or {"test" if all_is_test else "train": root}
    classes = _classes(bases["train"], learned_classes) if "train" in bases else learned_classes or []
    if "train" in bases and not splits:
        refuse_one_split_of_several(root)
    layout = FileLayout(learned_classes if learned_classes and set(learned_classes) == set(classes) else classes)
    table = {name: index for index, name in enumerate(layout.classes)}
    layout.splits = {part: _read_split(root, base, table, errors) for part, base in bases.items()}
    layout.notes = split_notes(root, splits, folders) if splits else []
    layout.notes += [note for split in layout.splits.values() for note in split.notes]
    return layout


def natural_order(name: str) -> tuple[list[str | int], str]:
    """Return the sort key of a class name: numbers by value, so that 2 comes before 10; all else as text."""
    return [int(piece) if index % 2 else piece for index, piece in enumerate(re.split(r"(\d+)", name))], name


def _classes(train: Path, learned_classes: list[str] | None) -> list[str]:
    """Return the names of the classes: the class folders in train, in natural order. A trained run may have one."""
    classes = sorted(_class_folders(train), key=natural_order)
    if not classes:
        raise ValueError(f"no class folders ({train} holds {list_contents(train)}); {EXPECTED_LAYOUT}")
    if len(classes) == 1 and not learned_classes:
        meant = _meant_root(train)
        hint = f"did you mean {quote_setting('data.root', meant)}?" if meant else EXPECTED_LAYOUT
        raise ValueError(f"only one class folder in {train}, {classes[0]}/, and one class cannot be learnt; {hint}")
    return classes


def _meant_root(folder: Path) -> Path | None:
    """Return the first folder below that holds several folders; None if pictures come first."""
    inner = visible_folders(folder)
    while len(inner) == 1:
        folder, inner = inner[0], visible_folders(inner[0])
    return folder if inner else None


def _read_split(root: Path, folder: Path, table: dict[str, int], errors: list[str] | None) -> FileSplit:
    """List the images of a split. Classes are matched by name."""
    label = "" if folder == root else f"{folder.relative_to(root)}/"
    names: list[str] = []
    labels: list[int] = []
    others: Counter[str] = Counter()
    for name, class_folder in sorted(_class_folders(folder).items(), key=lambda item: table.get(item[0], len(table))):
        if name not in table:
            known = ", ".join(list(table)[:6]) + (", ..." if len(table) > 6 else "")
            _report(f"{label}{name} is no class of train ({known}); rename or remove it", errors)
            continue
        found = pictures_below(class_folder, others)
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
    for path in visible_folders(folder):
        name = unicodedata.normalize("NFC", path.name)
        if not name.isprintable():
            raise ValueError(f"class folder {printable(path)}: its name has characters that cannot be shown; rename it")
        if twin := folded.get(name.casefold()):
            raise ValueError(f"{twin} and {path.name} are spelt almost alike; make them one class, or rename one")
        found[name] = folded[name.casefold()] = path
    return found


def pictures_below(folder: Path, others: Counter[str], endings: tuple[str, ...] = EXTENSIONS) -> list[str]:
    """Return the names of the images below a folder, its own name first, and count other files by their ending."""
    parents = set(map(_identity, folder.resolve().parents))  # a link to one of them would add the other classes
    return sorted(_pictures(folder, folder.name, parents, others, endings))


def _pictures(
    folder: Path | str, prefix: str, visited: set[tuple[int, int]], others: Counter[str], endings: tuple[str, ...]
) -> Iterator[str]:
    """Yield the names of the images below a class folder, and count other files by their ending.

    Links are followed, but no folder is visited twice.
    """
    waiting = [(str(folder), prefix)]  # no recursion: folders may be nested more deeply than calls
    while waiting:
        folder, prefix = waiting.pop()
        if (identity := _identity(folder)) in visited:
            continue
        visited.add(identity)
        inside = []
        with os.scandir(folder) as items:
            for item in sorted(items, key=lambda item: item.name):
                if item.name.startswith(".") or item.name.lower() in IGNORED_FILES:
                    continue
                target = Path(item.path) if item.is_symlink() else item  # a link may be broken, or a loop
                if target.is_dir():
                    inside.append((item.path, f"{prefix}/{item.name}"))
                elif item.name.lower().endswith(endings) and target.is_file():
                    yield f"{prefix}/{item.name}"
                else:
                    others[Path(item.name).suffix.lower() or "without an ending"] += 1
        waiting += reversed(inside)


def _identity(folder: Path | str) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116 - there may be many
    return status.st_dev, status.st_ino


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

"""Which folders are splits: what they hold decides, and their names only say which part each plays."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import NoReturn

from deeptrain.data.decode import EXTENSIONS
from deeptrain.data.path_messages import list_contents, printable, visible_folders
from deeptrain.runtime.paths import quote_setting

EXPECTED_LAYOUT = "expected <class>/<picture>, or train/, val/ and test/ with class folders inside"
SPELLINGS = {
    "train": ("train", "training", "trainval"),
    "val": ("val", "valid", "validation", "validate", "dev", "development", "eval", "evaluation"),
    "test": ("test", "testing"),
}
# words beside the part that say nothing more: test_set/ and TestImages/ are test/
GENERIC_WORDS = ("set", "data", "dataset", "images", "image", "imgs", "img", "pictures", "split", "folder")
WORD_PARTS = {
    word + ending: part for part, words in SPELLINGS.items() for word in words for ending in ("", *GENERIC_WORDS)
}
MAX_WRAPPERS = 3  # as in seg_train/seg_train/: archives unpacked into a folder of their own name


@dataclass
class Folder:
    """A folder, what its name says and what lies right in it. Wrappers such as seg_train/seg_train/ are unwrapped."""

    path: Path
    base: Path  # the innermost wrapper; path itself if there is none
    part: str | None  # train, val or test, if the name says one of them
    stem: tuple[str, ...]  # the other words of the name: ("cats",) of cats_train
    has_pictures: bool
    inside: dict[str, Path]  # its folders by folded name

    @property
    def is_plain(self) -> bool:
        """Say whether the name is a split's and nothing else: test_set is, test_tube is not."""
        return self.part is not None and not self.stem


def split_part(name: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the part that a folder's name says, and the other words of the name. The part is None for none or two."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFC", name))
    words = re.findall(r"[^\W\d_]+|\d+", spaced.lower())
    parts = {WORD_PARTS[word] for word in words if word in WORD_PARTS}
    stem = tuple(word for word in words if word not in WORD_PARTS and word not in GENERIC_WORDS)
    return (parts.pop() if len(parts) == 1 else None), stem if words else (name,)


def inspect_folder(path: Path) -> Folder:
    """Look into a folder, but not deeper than its wrappers. One that may not be read holds nothing."""
    part, stem = split_part(path.name)
    base, (has_pictures, inside) = path, _contents(path, part is not None)
    for _ in range(MAX_WRAPPERS):
        inner = next(iter(inside.values())) if len(inside) == 1 and not has_pictures else None
        if inner is None or not _is_wrapped(base.name, inner.name):
            break
        base, (has_pictures, inside) = inner, _contents(inner, part is not None)
    return Folder(path, base, part, stem, has_pictures, inside)


def find_splits(folders: list[Folder]) -> dict[str, Folder]:
    """Map train, val and test to the folders that play them; return {} if the folders are classes.

    Raises ValueError, with what to rename, if both are possible or if test images would become a class.
    """
    candidates = [folder for folder in folders if folder.part and folder.inside]
    if not candidates or not _are_splits(candidates, folders):
        _refuse_pictures_in_splits(folders)
        _refuse_classes_by_split(folders)
        _refuse_splits_inside_classes(folders)
        _refuse_nameless_splits(folders)
        return {}
    splits: dict[str, Folder] = {}
    for part in SPELLINGS:
        found = [folder for folder in candidates if folder.part == part]
        found = [folder for folder in found if folder.is_plain] or found
        if len(found) > 1:
            raise ValueError(f"has {join_names(found)}, which mean the same; keep one of them")
        if found:
            splits[part] = found[0]
    return splits


def split_notes(root: Path, splits: dict[str, Folder], folders: list[Folder]) -> list[str]:
    """Return a line that says which folder plays which part, unless all names do, and one for each other folder."""
    paths = {part: printable(split.base.relative_to(root)) for part, split in splits.items()}
    notes = []
    if any(path.lower() != part for part, path in paths.items()):
        parts = ", ".join(f"{part} is {path}/" for part, path in paths.items())
        notes.append(f"split folders: {parts}; rename one if its part is wrong")
    for folder in folders:
        if folder in splits.values():
            continue
        name = printable(folder.path)
        if not folder.inside:
            notes.append(f"{name} is no split with class folders, and is left alone")
        elif folder.part in splits:
            notes.append(f"{name} is left alone: {folder.part} is {paths[folder.part]}/")
        else:
            notes.append(f"{name} is left alone: its name is not that of a split (train, val, test)")
    return notes


def refuse_one_split_of_several(root: Path) -> None:
    """Raise ValueError, with the folder to type, if root is a split and others lie beside it: P/train beside P/val."""
    named = Path(os.path.abspath(root))  # noqa: PTH100 - a link keeps its name
    part = split_part(named.name)[0]
    if part is None:
        return
    above = named.parent
    if split_part(above.name) == split_part(named.name):
        above = above.parent  # seg_train/seg_train
    try:
        names = set(inspect_folder(named).inside)
        named = [path for path in visible_folders(above) if split_part(path.name)[0] not in (None, part)]
    except OSError:
        return
    beside = [folder for folder in map(inspect_folder, named) if _are_alike(names, set(folder.inside))]
    if beside:
        others = f"beside it {'lies' if len(beside) == 1 else 'lie'} {join_names(beside)} with the same class folders"
        raise ValueError(f"is a split, and {others}; type {quote_setting('data.root', above)}")


def join_names(folders: Iterable[Folder]) -> str:
    """Join the names of up to four folders as a sentence does."""
    names = [f"{printable(folder.path.name)}/" for folder in folders]
    if len(names) > 4:
        names = [*names[:3], f"{len(names) - 3} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _contents(path: Path, is_split: bool) -> tuple[bool, dict[str, Path]]:
    """Say whether pictures lie right in a folder, and list its folders.

    Reading stops at the first picture, unless the name is a split's: a class may have a million.
    """
    inside: dict[str, Path] = {}
    has_pictures = False
    try:
        with os.scandir(path) as items:
            for item in items:
                if item.name.startswith(".") or item.name == "__MACOSX":
                    continue
                target = Path(item.path) if item.is_symlink() else item  # a link may be broken, or a loop
                if target.is_dir():
                    inside[fold(item.name)] = Path(item.path)
                elif item.name.lower().endswith(EXTENSIONS):
                    has_pictures = True
                    if not is_split:
                        return True, {}
    except OSError:
        return False, {}
    return has_pictures, inside


def fold(name: str) -> str:
    """Return a name as names are compared: without case, and é in one spelling. macOS writes it as two characters."""
    return unicodedata.normalize("NFC", name).casefold()


def _is_wrapped(outer: str, inner: str) -> bool:
    """Say whether a folder's only folder is no class: it repeats the name or the part, or its name is images or so."""
    part, stem = split_part(inner)
    return fold(outer) == fold(inner) or (not stem and part in (None, split_part(outer)[0]))


def _are_splits(candidates: list[Folder], folders: list[Folder]) -> bool:
    """Decide whether folders with a split in their name, and folders inside, are splits. ValueError if unclear."""
    agreeing = [
        (one, other)
        for one, other in combinations(candidates, 2)
        if one.part != other.part and set(one.inside) & set(other.inside)
    ]
    if any(one.is_plain or other.is_plain or one.stem == other.stem for one, other in agreeing):
        return True
    nameless = [folder for folder in folders if folder not in candidates and not folder.is_plain]
    alike = [other for other in nameless if any(len(set(one.inside) & set(other.inside)) > 1 for one in candidates)]
    plain = [folder for folder in candidates if folder.is_plain]
    if plain and (alike or len({folder.part for folder in folders if folder.is_plain}) > 1):
        return True  # also train/<class>/ beside test/ of unlabelled pictures
    doubtful = alike + [folder for folder in nameless if folder not in alike and _looks_like_a_class(folder)]
    if doubtful and (plain or alike or agreeing):
        _refuse_doubtful((plain or candidates)[0], doubtful)
    return not doubtful


def _looks_like_a_class(folder: Folder) -> bool:
    """Say whether pictures lie right in a folder, or in all folders inside."""
    inner = folder.inside.values()
    return folder.has_pictures or (bool(inner) and all(_contents(path, is_split=False)[0] for path in inner))


def _refuse_doubtful(split: Folder, others: list[Folder]) -> NoReturn:
    """Raise ValueError: a folder has the name of a split, but those beside it look like classes."""
    destination = "elsewhere" if split.part == "train" else "into train/"
    raise ValueError(
        f"{printable(split.path.name)}/ holds {list_contents(split.base, 3)}, so it may be a split, or a class beside "
        f"{join_names(others)}; rename it if it is a class, or move {join_names(others)} {destination}"
    )


def _are_alike(names: set[str], others: set[str]) -> bool:
    return len(names & others) > 1 or (bool(others) and others <= names)


def _refuse_pictures_in_splits(folders: list[Folder]) -> None:
    """Raise ValueError if images of test/ would become a class. A class may have the name train."""
    named = [folder for folder in folders if folder.is_plain]
    only_these = len(named) == len(folders)
    if misplaced := next((folder for folder in named if only_these or folder.part != "train"), None):
        raise ValueError(
            f"{printable(misplaced.path.name)}/ has no class folders (it holds {list_contents(misplaced.path, 3)}); "
            f"{EXPECTED_LAYOUT}; if it is a class, rename it"
        )


def _refuse_classes_by_split(folders: list[Folder]) -> None:
    """Raise ValueError if cats_train/ and cats_test/ hold pictures: they would be two classes."""
    by_stem: dict[tuple[str, ...], Folder] = {}
    for folder in folders:
        if folder.part is None:
            continue
        twin = by_stem.setdefault(folder.stem, folder)
        if twin.part != folder.part:
            name = "_".join(folder.stem)
            raise ValueError(
                f"{join_names([twin, folder])} hold pictures of one class; "
                f"rename them {twin.part}/{name}/ and {folder.part}/{name}/"
            )


def _refuse_splits_inside_classes(folders: list[Folder]) -> None:
    """Raise ValueError if one of several folders holds splits: it should be the root, or they belong above."""
    for folder in folders if len(folders) > 1 else ():
        found: dict[str, Folder] = {}
        for path in folder.inside.values():
            if part := split_part(path.name)[0]:
                found[part] = found.get(part) or inspect_folder(path)
        if len(found) < 2 or folder.has_pictures:
            continue
        held = f"{printable(folder.path.name)}/ holds {join_names(found.values())}"
        if any(split.inside for split in found.values()):
            raise ValueError(f"{held}; did you mean {quote_setting('data.root', folder.base)}?")
        moved = " and ".join(f"{part}/{printable(folder.path.name)}/" for part in found)
        raise ValueError(f"{held}, but splits lie above the classes; rename them {moved}")


def _refuse_nameless_splits(folders: list[Folder]) -> None:
    """Raise ValueError if most folders hold folders of the same names, as splits do, and no pictures."""
    if len(folders) < 2 or any(folder.has_pictures for folder in folders):
        return
    counts = Counter(name for folder in folders for name in folder.inside)
    common = {name for name, count in counts.items() if count > len(folders) / 2}
    if len(common) < 2:
        return
    alike = [folder for folder in folders if common & set(folder.inside)]
    examples = ", ".join(f"{printable(path.name)}/" for name, path in sorted(alike[0].inside.items()) if name in common)
    raise ValueError(
        f"{join_names(alike)} hold folders of the same names ({examples[:60]}), as splits do; "
        "rename them train/, val/ and test/, or give one as data.root; classes hold their pictures directly"
    )

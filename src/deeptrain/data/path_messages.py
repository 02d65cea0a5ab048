"""Messages about paths: what exists of a missing path, and what a folder holds."""

import stat
from pathlib import Path

SPECIAL = {"p": "a pipe", "s": "a socket", "c": "a device", "b": "a device"}  # by the first letter of ls -l


def describe_missing(path: Path) -> str:
    """Return the deepest existing folder of a missing path, and what it holds."""
    deepest = next((folder for folder in (path, *path.absolute().parents) if folder.is_dir()), Path("/"))
    if deepest == path:
        return f"it holds {list_contents(path)}"
    state = "is no folder" if path.exists() else "does not exist"
    return f"{state}; {deepest} does, and holds {list_contents(deepest)}"


def special_file(mode: int) -> str:
    """Return what a file is that is neither a file nor a folder, from its mode; else ""."""
    return SPECIAL.get(stat.filemode(mode)[0], "") if not stat.S_ISREG(mode) else ""


def printable(path: Path | str) -> str:
    """Return a path as one line of text; characters that cannot be shown are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path))


def list_contents(folder: Path, limit: int = 6) -> str:
    """List a few of the visible names in a folder."""
    try:
        names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if path.name[0] != ".")
    except OSError as error:
        return f"what cannot be listed ({error.strerror})"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return printable(", ".join(names[:limit])) + more if names else "nothing"


def visible_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without hidden ones. Links are followed."""
    return sorted(path for path in folder.iterdir() if path.name[0] != "." and path.is_dir())


HEIF = (".heic", ".heif")  # pictures of iPhones, which Pillow alone cannot read


def name_heif_reader(line: str) -> str:
    """Add to a line about HEIC pictures, as iPhones take them, how they become pictures that can be read."""
    is_heif = any(ending in line.lower() for ending in HEIF)
    return f"{line}; the package pillow-heif converts HEIC to jpg" if is_heif else line

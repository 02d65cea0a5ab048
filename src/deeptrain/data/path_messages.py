"""Words about a path that is not what was hoped for: where it stops existing, and what lies there."""

from pathlib import Path


def missing(path: Path) -> str:
    """Name the deepest part of a path that exists and what it holds."""
    deepest = next((folder for folder in (path, *path.absolute().parents) if folder.is_dir()), Path("/"))
    if deepest == path:
        return f"it holds {contents(path)}"
    state = "is no folder" if path.exists() else "does not exist"
    return f"{state}; {deepest} does, and holds {contents(deepest)}"


def printable(path: Path | str) -> str:
    """Write a path into a line of text, whatever characters are in its name."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path))


def contents(folder: Path, most: int = 6) -> str:
    """List a few of the visible names in a folder."""
    try:
        names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if path.name[0] != ".")
    except OSError as error:
        return f"what cannot be listed ({error.strerror})"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return printable(", ".join(names[:most])) + more if names else "nothing"

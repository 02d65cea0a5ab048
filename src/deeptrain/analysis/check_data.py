"""Reading a folder of pictures whole, before it is trained on: how many, how large, which are broken or there twice."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from statistics import median

import numpy as np

from deeptrain.data.csv_file import build_layout
from deeptrain.data.decode import cores, open_image
from deeptrain.data.folder_layout import read_layout
from deeptrain.data.image_files import FileLayout
from deeptrain.data.path_messages import printable
from deeptrain.data.pixels import kind_of, to_8_bit
from deeptrain.runtime.watch import map_in_threads

PIECE = 64  # pictures that a thread decodes in a row
EXAMPLES = 5  # of each thing that is wrong
COPIES = "picture is a copy of another in its class", "pictures are copies of others in their class"
TABLE = 40  # classes; of more, those with the fewest and the most pictures are shown


@dataclass
class Report:
    """What was found. Names of files are relative to the folder that was read."""

    layout: FileLayout
    counts: dict[str, Counter[str]]  # by split, of each class
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # width and height, upright
    kinds: Counter[str] = field(default_factory=Counter)  # such as "JPEG RGB"
    faults: list[str] = field(default_factory=list)  # of class folders, a line each
    broken: list[str] = field(default_factory=list)  # a line each
    leaks: list[list[str]] = field(default_factory=list)  # files of one picture that lie in several splits
    leaked: Counter[tuple[str, str]] = field(default_factory=Counter)  # files of a split that another before it has
    ambiguous: list[list[str]] = field(default_factory=list)  # ... in several classes
    repeated: list[list[str]] = field(default_factory=list)  # ... in one class of a split

    @property
    def is_intact(self) -> bool:
        """Say that nothing was found that spoils training, or a test: repetitions within a class do not."""
        return not (self.faults or self.broken or self.leaks or self.ambiguous)


def check(root: Path) -> Report:
    """Read every picture below a folder; ValueError if it is unclear what the folder is meant for."""
    faults: list[str] = []
    layout = build_layout(root, root.parent) if root.is_file() else read_layout(root, faults)
    counts = {part: Counter(layout.classes[label] for label in split.labels) for part, split in layout.splits.items()}
    report = Report(layout, counts, faults=faults)
    found: dict[bytes, list[tuple[str, int]]] = defaultdict(list)  # split and number in it, by what is to be seen
    for sample, seen in zip(_samples(layout), _look(layout), strict=True):
        if isinstance(seen, str):
            report.broken.append(seen)
            continue
        digest, size, kind = seen
        report.sizes[size] += 1
        report.kinds[kind] += 1
        found[digest].append(sample)
    for same in found.values():
        if len(same) > 1:
            _note(report, same)
    return report


def _samples(layout: FileLayout) -> Iterator[tuple[str, int]]:
    return ((part, index) for part, split in layout.splits.items() for index in range(len(split.names)))


def _note(report: Report, same: list[tuple[str, int]]) -> None:
    """Sort the files of one picture into what it means that there are several."""
    owners = [(report.layout.splits[part], index) for part, index in same]
    names = [printable(f"{split.label}{split.names[index]}") for split, index in owners]
    splits, classes = [part for part, _ in same], {int(split.labels[index]) for split, index in owners}
    if len(set(splits)) > 1:
        report.leaks.append(names)
        report.leaked.update((part, splits[0]) for part in splits if part != splits[0])
    if len(classes) > 1:
        report.ambiguous.append(names)
    if len(set(splits)) == len(classes) == 1:
        report.repeated.append(names)


Seen = tuple[bytes, tuple[int, int], str] | str


def _look(layout: FileLayout) -> Iterator[Seen]:
    """Decode all files in order: pictures are compared by their pixels, not their bytes."""
    from rich.console import Console
    from rich.progress import track

    files = [file for split in layout.splits.values() for file in split.files]
    pieces = (files[start : start + PIECE] for start in range(0, len(files), PIECE))
    threads, warn = cores(), logging.getLogger(__name__).warning
    seen = chain.from_iterable(
        map_in_threads(lambda piece: list(map(_see, piece)), pieces, threads, ahead=4 * threads, warn=warn)
    )
    console = Console(stderr=True)
    yield from track(seen, "reading", len(files), console=console, transient=True, disable=not console.is_terminal)


def _see(path: Path) -> Seen:
    """Return a digest of a picture's pixels, its size and its kind; or the line that says what is wrong with it."""
    from PIL import ImageOps

    try:
        with open_image(path) as image:
            kind = f"{image.format} {image.mode}"
            image = ImageOps.exif_transpose(image)
            pixels = np.asarray(image, np.float64) if kind_of(image) else np.asarray(to_8_bit(image, 3))
    except ValueError as error:
        return str(error)
    size = pixels.shape[1], pixels.shape[0]
    return blake2b(pixels.tobytes(), digest_size=16, salt=b"%dx%d" % size).digest(), size, kind


# --- what is shown ---


def lines(report: Report, *, every: bool = False) -> list[str]:
    """Compose the report, in the order in which one asks; `every` lists all files instead of the first few.

    Files are counted as a run counts them: one for each image that it should not have.
    """
    text = [*_table(report), "", f"sizes      {_sizes(report.sizes)}", f"kinds      {_most(report.kinds)}"]
    text += [f"note       {note}" for note in report.layout.notes]
    limit = None if every else EXAMPLES
    ambiguous = sum(map(len, report.ambiguous))
    copies = sum(len(names) - 1 for names in report.repeated)
    findings = (
        ("folders", report.faults, _counted(len(report.faults), "class folder is wrong", "class folders are wrong")),
        ("broken", report.broken, _counted(len(report.broken), "picture cannot be read", "pictures cannot be read")),
        ("leaks", report.leaks, f"{_leaked(report)}; keep each in one split, or a test tests nothing"),
        ("labels", report.ambiguous, f"{ambiguous:,} pictures are in another class too; keep each in one"),
        ("repeated", report.repeated, _counted(copies, *COPIES)),
    )
    for word, cases, meaning in findings:
        if cases:
            text.append(f"{word:<10} {meaning}")
            text += [f"           {case if isinstance(case, str) else ' = '.join(case)}" for case in cases[:limit]]
            if len(cases) > len(cases[:limit]):
                text.append(f"           and {len(cases) - EXAMPLES:,} more: --all lists them")
    summary = "nothing wrong found" if report.is_intact else "to be mended before training"
    return [*text, f"verdict    {summary}"]


def _counted(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _leaked(report: Report) -> str:
    """Say how many pictures of each split lie in another one too."""
    totals = {part: counts.total() for part, counts in report.counts.items()}
    return ", ".join(
        f"{count:,} of {totals[part]:,} pictures of {part} are in {other} too"
        for (part, other), count in report.leaked.items()
    )


def _table(report: Report) -> Iterable[str]:
    """Count the pictures of each class and split; of very many classes only the smallest and largest in train."""
    parts = list(report.counts)
    classes = report.layout.classes
    if len(classes) > TABLE:
        order = sorted(classes, key=lambda name: report.counts["train"][name])
        classes = [*order[: TABLE // 4], *order[-TABLE // 4 :]]
    rows = [[name, *(f"{report.counts[part][name]:,}" for part in parts)] for name in classes]
    totals = [f"{len(report.layout.classes):,} classes", *(f"{report.counts[part].total():,}" for part in parts)]
    rows = [["class", *parts], *rows, totals]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if len(classes) < len(report.layout.classes):
        yield f"the classes with the fewest and the most pictures, of {len(report.layout.classes):,}"
    for name, *cells in rows:
        yield f"{name:<{widths[0]}}" + "".join(f"  {c:>{w}}" for c, w in zip(cells, widths[1:], strict=True))


def _sizes(sizes: Counter[tuple[int, int]]) -> str:
    if not sizes:
        return "none"
    by_area = sorted(sizes, key=lambda size: size[0] * size[1])
    if len(by_area) == 1:
        return f"all {by_area[0][0]}x{by_area[0][1]}"
    small, large = (f"{width}x{height}" for width, height in (by_area[0], by_area[-1]))
    short = median(min(size) for size in sizes.elements())
    return f"{len(sizes):,}, from {small} to {large}; median short side {short:g}; most often {_most_often(sizes)}"


def _most_often(sizes: Counter[tuple[int, int]]) -> str:
    (width, height), count = sizes.most_common(1)[0]
    return f"{width}x{height} ({count:,})"


def _most(kinds: Counter[str]) -> str:
    return ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common(6)) or "none"

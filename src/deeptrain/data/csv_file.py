"""Your own images in a list: a CSV file with the columns file, label and perhaps split."""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from deeptrain.data.decode import EXTENSIONS
from deeptrain.data.folder_layout import natural_order
from deeptrain.data.image_files import FileLayout, FileSplit, ImageFiles
from deeptrain.data.path_messages import describe_missing, printable, special_file
from deeptrain.schema import validate_call

COLUMNS = ["file", "label", "split"]
SEPARATORS = ",;\t"
SPLITS = ("train", "val", "test")

Row = tuple[str, str, str]  # file, label, split


@validate_call
@dataclass
class CSVFile(ImageFiles):
    """Images listed as `file,label`, or `file,label,split` with the splits train, val and test.

    Paths are relative to `root`, by default the folder of the CSV file. A header is optional. Columns are separated by
    commas, semicolons or tabs. The classes are the labels of train in natural order, so that 2 comes before 10. A
    resume and an evaluation give the classes that their run has learned, which keep their order.
    """

    file: str = "labels.csv"
    learned_classes: list[str] | None = None

    name = "csv"

    def read_layout(self) -> FileLayout:
        path = self.read_path("file")
        if not path.is_file():
            raise ValueError(f"file={self.file}: {describe_missing(path)}")
        try:
            root = self.read_path("root") if self.root else path.parent
            return build_layout(path, root, self.learned_classes)
        except OSError as error:
            raise ValueError(f"file={self.file}: cannot be read ({error.strerror}); make it readable") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"file={self.file}: is not UTF-8 text; save it as UTF-8") from error
        except (ValueError, csv.Error) as error:
            raise ValueError(f"file={self.file}: {error}") from error


def build_layout(path: Path, root: Path, learned_classes: list[str] | None = None) -> FileLayout:
    """Read a CSV file into splits. ValueError, with the number of the line, if a row cannot be used."""
    rows: dict[str, dict[str, str]] = {split: {} for split in SPLITS}  # label by file
    lines: dict[str, int] = {}
    for line, (file, label, split) in read_rows(path):
        if file in lines:
            raise ValueError(f"line {line}: {printable(file)} is in line {lines[file]} too; keep one of them")
        if state := _state(root / file):
            raise ValueError(f"line {line}: {printable(root / file)} {state}")
        lines[file] = line
        rows[split][file] = label
    classes = sorted(set(rows["train"].values()), key=natural_order)
    if len(classes) < 2:
        found = f"only the label {classes[0]}" if classes else "no images"
        raise ValueError(f"train has {found}; training needs two classes")
    layout = FileLayout(learned_classes if learned_classes and set(learned_classes) == set(classes) else classes)
    table = {name: index for index, name in enumerate(layout.classes)}
    for split, labels in rows.items():
        if unknown := next((file for file, label in labels.items() if label not in table), None):
            raise ValueError(f"line {lines[unknown]}: label {labels[unknown]} of {split} is no class of train")
        if labels:
            ids = np.array([table[label] for label in labels.values()], np.int64)
            label = f"split {split}" if rows["val"] or rows["test"] else ""
            layout.splits[split] = FileSplit(root, label, list(labels), ids, class_in_name=False)
    return layout


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (line number, row) of a CSV file, without the header and empty lines."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=_separator(file), strict=True)
        columns = COLUMNS
        is_first = True
        for cells in reader:
            values = [cell.strip() for cell in cells]
            if not any(values):
                continue
            if is_first and not values[0].lower().endswith(EXTENSIONS):
                columns = _check_header(values)
            else:
                yield reader.line_num, _parse_row(reader.line_num, values, columns)
            is_first = False


def _separator(file: TextIO) -> str:
    """Return the first separator by which the first row is a header, or begins with a picture; else the comma."""
    first = next((line for line in file if line.strip()), "")
    file.seek(0)
    for separator in SEPARATORS:
        cells = [cell.strip().lower() for cell in next(csv.reader([first], delimiter=separator), [])]
        if len(cells) > 1 and ({"file", "label"} <= set(cells) or cells[0].endswith(EXTENSIONS)):
            return separator
    return SEPARATORS[0]


def _check_header(values: list[str]) -> list[str]:
    columns = [value.lower() for value in values]
    if unknown := next((name for name in columns if name not in COLUMNS), None):
        raise ValueError(f"unknown column {unknown!r}; the columns are file, label and perhaps split")
    if len(set(columns)) < len(columns) or not {"file", "label"} <= set(columns):
        raise ValueError(f"the header is {','.join(columns)}; it must have file and label once each")
    return columns


def _parse_row(line: int, values: list[str], columns: list[str]) -> Row:
    if not 2 <= len(values) <= len(columns) or (columns is not COLUMNS and len(values) < len(columns)):
        raise ValueError(f"line {line}: has {len(values)} columns; expected {','.join(columns)}")
    cells = dict(zip(columns, values, strict=False))
    split = cells.get("split", "train").lower()
    if split not in SPLITS:
        raise ValueError(f"line {line}: split {split!r}; choose from {', '.join(SPLITS)}")
    for name in ("file", "label"):
        if not cells[name]:
            raise ValueError(f"line {line}: {name} is empty")
    if not cells["label"].isprintable():
        raise ValueError(f"line {line}: the label has characters that cannot be shown; rename it")
    return os.path.normpath(cells["file"]), cells["label"], split


def _state(path: Path) -> str:
    """Say why a path cannot be a picture; "" if it is a file."""
    try:
        if path.is_file():
            return ""
        if path.exists():
            kind = special_file(path.stat().st_mode)
            return f"is {kind}, no picture; remove its line" if kind else "is no file"
        return "does not exist; paths are relative to data.root, or to the CSV file"
    except OSError as error:  # a folder that may not be read, a name that no disk takes
        return f"cannot be read ({error.strerror})"

"""card.html: a run on one page that needs nothing but itself, to mail, to print, to open in ten years."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deeptrain.metrics.metric import METRICS, Metric
from deeptrain.report import formatting
from deeptrain.report.figures import CURVES

if TYPE_CHECKING:
    from deeptrain.metrics.confusion import Confusion

Row = Mapping[str, float]

PICTURES = {  # by file in the run folder
    "curves.png": "Curves",
    "layers.png": "Layers, at the start and at the end",
    "samples.png": "What the network was trained on",
    "mistakes.png": "Worst mistakes",
    "confusion.png": "What was taken for what",
}
PARTS = {part: label for part, (label, _) in CURVES.items()}


@dataclass(frozen=True)
class WorstClass:
    """A class that the network finds hard: its accuracy, and the share of it taken for one other class, in [0, 1]."""

    name: str
    images: int
    accuracy: float
    confused_with: str
    confused_share: float


@dataclass(frozen=True)
class CardData:
    """What the page says; empty fields are left out.

    title: what ran, as it was typed.
    result: the content of result.json (status, reason, monitor, best, best_epoch, epochs, steps, train_seconds,
        images_per_second, parameters, versions).
    rows: those of metrics.csv; the gap is read from the row of the best epoch.
    changed: the settings that differ from the defaults, a `key=value` each; None where that is not known.
    data, model: a line on each.
    worst: from `worst_classes`; split: what they and the confusions were measured on.
    largest_class: its share of the images of that split, in [0, 1]: the accuracy of an answer that never changes.
    reading: what the curves show: pairs of `reading` and a sentence, or `try` and a command.
    commands: pairs of what a command does and the command, to paste from here on; the first repeats the run.
    """

    title: str
    result: Mapping[str, Any]
    rows: Sequence[Row] = ()
    metrics: Mapping[str, Metric] = field(default_factory=lambda: METRICS)
    changed: Sequence[str] | None = None
    data: str = ""
    model: str = ""
    worst: Sequence[WorstClass] = ()
    split: str = "val"
    largest_class: float | None = None
    commands: Sequence[tuple[str, str]] = ()
    reading: Sequence[tuple[str, str]] = ()


def worst_classes(confusion: "Confusion", classes: Sequence[str], limit: int = 10) -> list[WorstClass]:
    """List the classes of lowest accuracy; none without an error."""
    images = confusion.images
    accuracy = 1 - (images - confusion.hits) / np.maximum(images, 1)
    found = []
    for index in map(int, np.argsort(accuracy, kind="stable")[:limit]):
        (other, errors), total = confusion.most_taken_for(index), int(images[index])
        share = errors / max(total, 1)
        found.append(WorstClass(classes[index], total, float(accuracy[index]), classes[other], share))
    return [entry for entry in found if entry.confused_share > 0]


def write_card(folder: Path, facts: CardData) -> Path:
    """Write card.html into the run folder, with the pictures found there inside it; return its path."""
    import jinja2

    folder, row, status = Path(folder), _best_row(facts), facts.result.get("status", "")
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    found = [name for name in facts.metrics if any(f"{name}/{part}" in row for part in PARTS)]
    heads = sorted(found, key=lambda name: name == "loss")  # last
    setting = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    page = setting.get_template("card.html.jinja").render(
        facts=facts,
        tiles=_tiles(facts, row),
        heads=heads,
        table=[(label, cells) for part, label in PARTS.items() if any(cells := _cells(facts, row, part, heads))],
        epoch=row.get("epoch"),
        stopped=": ".join(filter(None, (status.replace("_", " ").capitalize(), facts.result.get("reason")))),
        versions=facts.result.get("versions", {}),
        titles=PICTURES,
        pictures={name: _embed(folder / name) for name in PICTURES if (folder / name).is_file()},
        percent=formatting.percent,
    )
    path = folder / "card.html"
    path.write_text(page, encoding="utf-8")
    return path


def _best_row(facts: CardData) -> Row:
    """Return the row of the best epoch, else the last, else an empty one."""
    best = [row for row in facts.rows if row.get("epoch") == facts.result.get("best_epoch")]
    return (best or list(facts.rows) or [{}])[-1]


def _tiles(facts: CardData, row: Row) -> list[tuple[str, str]]:
    """Return the numbers at the head of the page, the result first, each with what it is."""
    result, tiles = facts.result, []
    if result.get("best") is not None:
        metric, _, split = result["monitor"].partition("/")
        value = formatting.format_metric(metric, result["best"], facts.metrics)
        label = f"best {metric.replace('_', ' ')} on {PARTS.get(split, split)}, epoch {result['best_epoch']}"
        if metric == "accuracy" and split == facts.split and facts.largest_class is not None:
            label += f"; largest class {formatting.percent(facts.largest_class)}"
        tiles.append((value, label))
    if "accuracy/train_clean" in row and "accuracy/val" in row:
        gap = formatting.format_points(row["accuracy/train_clean"] - row["accuracy/val"])
        tiles.append((gap, "points of accuracy: the gap from train, not augmented, to val"))
    numbers = {
        "epochs": (lambda value: f"{value:g}", f"epochs, {result.get('steps', 0):,} steps"),
        "train_seconds": (formatting.duration, "of training"),
        "images_per_second": (formatting.speed, "images a second"),
        "parameters": (formatting.count, "parameters"),
    }
    return tiles + [(write(result[key]), label) for key, (write, label) in numbers.items() if key in result]


def _cells(facts: CardData, row: Row, part: str, heads: Sequence[str]) -> list[str]:
    values = [row.get(f"{name}/{part}") for name in heads]
    pairs = zip(heads, values, strict=True)
    return ["" if value is None else formatting.format_metric(name, value, facts.metrics) for name, value in pairs]


def _embed(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()

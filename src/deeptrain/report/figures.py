"""The pictures of a run: its curves, its confusions, its learning rate. Drawn without a display and without pyplot."""

import math
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deeptrain.report import formatting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

    from deeptrain.metrics.calibration import Bin
    from deeptrain.metrics.confusion import Confusion

Rows = Sequence[Mapping[str, float]]

DPI = 150  # a figure 10 inches wide is 1500 pixels, its text legible when shown at 1000
INK, PALE = "#333333", "#8a8a8a"
CURVES = {  # colours that stay apart for colour-blind eyes (Okabe & Ito, 2008)
    "train": ("train, as trained on", "#9aa5b1"),
    "train_clean": ("train, not augmented", "#0072b2"),
    "val": ("val", "#d55e00"),
    "val_average": ("val, averaged weights", "#009e73"),
}
FEW_POINTS, MAX_DOTS = 8, 1500  # log points: fewer are not worth a mean, more are not all drawn
LOG_FROM = 30  # ratio of the largest to the smallest loss from which its axis is logarithmic
MANY_LAYERS = 24  # with more there is no room for their names
MAX_CELLS = 1000  # of a confusion matrix, in a row: a picture has not many more pixels
MANY_CLASSES = 20  # with more, cells are too small for numbers
MAX_NAME = 24  # letters of a class at the axes
UNNAMED_CLASSES = 120  # with more, too small for names


def draw_curves(
    rows: Rows,
    path: Path,
    title: str,
    best_epoch: float | None = None,
    initial_loss: Mapping[str, float] | None = None,
    steps: Rows = (),
    val_images: int = 0,
) -> None:
    """Draw the rows of metrics.csv: loss, accuracy, learning rate, and the gap between train and val in points.

    The best epoch is marked; without `best_epoch` it is that of the highest accuracy on val. initial_loss: of `train`
    before the first step, where its curve begins, and of `equal_logits`. steps: the rows of steps.csv, drawn as points
    with their moving average. val_images: so many give a standard error, which is shaded.
    """
    from matplotlib.ticker import PercentFormatter

    x = "epoch" if len({row["epoch"] for row in rows}) == len(rows) else "step"
    figure = new_figure(10, 5.6, title)
    grid = figure.add_gridspec(2, 2, height_ratios=[3, 1])
    loss, accuracy = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    start = [{x: 0, "loss/train": initial_loss["train"]}] if initial_loss else []
    if has_steps := sum("loss/train" in row for row in steps) > FEW_POINTS:
        _draw_steps(loss, steps, x)
    parts = ("train_clean", "val", "val_average") if has_steps else ("train", "train_clean", "val", "val_average")
    _draw_metric(loss, [*start, *rows], x, "loss", parts)
    if has_steps:
        below_the_words = {"loc": "upper right", "bbox_to_anchor": (1, 0.94)}  # a loss that falls leaves room there
        loss.legend(**below_the_words, fontsize=9.5, edgecolor="none", framealpha=0.9, borderpad=0.2)
    clean = any("accuracy/train_clean" in row for row in rows)
    _draw_metric(accuracy, rows, x, "accuracy", ("train_clean" if clean else "train", "val", "val_average"))
    _shade_error(accuracy, rows, x, val_images)
    if initial_loss:
        _mark_equal_logits(loss, initial_loss["equal_logits"])
    _scale_loss(loss)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    accuracy.set_ylim(top=min(accuracy.get_ylim()[1], 1.01))  # room for the marker of a perfect score, and no more
    below = _draw_below(grid, loss, accuracy, rows, steps if has_steps else rows, x)
    _mark_best(accuracy, [loss, *below], rows, x, best_epoch)
    save_figure(figure, path)


def draw_confusion(confusion: "Confusion", classes: Sequence[str], path: Path) -> None:
    """Draw a matrix, a row a true class, as shares of its images; up to 20 classes with the percentages.

    Of more than 1,000 classes, neighbours share a row and a column: the mean of their rows, the sum of their columns.
    """
    from matplotlib.colors import PowerNorm

    size, images = len(classes), int(confusion.counts.sum())
    shares = confusion.shares(MAX_CELLS)
    accuracy = formatting.percent(confusion.hits.sum() / max(images, 1))
    side = min(13.0, 3.5 + 0.5 * size)
    figure = new_figure(
        side,
        side * (1 if size <= MANY_CLASSES else 0.93),
        f"{accuracy} of {images:,} images right; in % of each true class",
    )
    axes = figure.add_subplot()
    norm = PowerNorm(0.5, 0, 1)  # a root, so that a few per cent of confusion show
    extent = -0.5, size - 0.5, size - 0.5, -0.5
    image = axes.imshow(shares, cmap="Blues", norm=norm, interpolation="nearest", extent=extent)
    if size <= MANY_CLASSES:
        for row, column in zip(confusion.true, confusion.predicted, strict=True):
            share = shares[row, column]
            color = "white" if share > 0.4 else INK
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=color, fontsize=9)
    else:
        bar = figure.colorbar(image, ax=axes, format="{x:.0%}", shrink=0.5, ticks=[0, 0.02, 0.1, 0.25, 0.5, 1])
        bar.outline.set_visible(False)  # type: ignore[operator]
    _name_classes(axes, classes)
    save_figure(figure, path)


def draw_reliability(columns: "Mapping[str, Sequence[Bin]]", path: Path) -> None:
    """Draw accuracy over confidence in bins, with a histogram of the confidences below (Guo et al., 2017).

    columns: the bins of some probabilities, by what they are.
    """
    from matplotlib.ticker import PercentFormatter

    figure = new_figure(7, 7.5, "How often the network is right, by how sure it is")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color=PALE, linewidth=1, linestyle=(0, (4, 3)))
    total = max(sum(one.images for one in bins) for bins in columns.values())
    for (label, bins), (_, color), marker in zip(columns.items(), reversed(CURVES.values()), "os", strict=False):
        filled = [one for one in bins if one.images]
        points = [(one.confidence, one.accuracy) for one in filled]
        upper.plot(*zip(*points, strict=True), color=color, linewidth=1.6, label=label)
        sizes = [12 + 200 * one.images / total for one in filled]
        upper.scatter(*zip(*points, strict=True), s=sizes, color=color, marker=marker, alpha=0.6, linewidth=0, zorder=3)
        edges, shares = [one.low for one in bins] + [bins[-1].high], [one.images / total for one in bins]
        lower.stairs(shares, edges, color=color, fill=True, alpha=0.25)
        lower.stairs(shares, edges, color=color, linewidth=1.4)
    style_axes(upper, "accuracy")
    style_axes(lower, "images", "confidence: the probability of the class that it names")
    for axes in (upper, lower):
        axes.set_xlim(0, 1)
        axes.set_xticks(np.arange(0, 1.01, 0.2))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
    upper.set_ylim(0, 1.02)
    upper.text(0.98, 0.04, "below the line: too sure", color=PALE, fontsize=9.5, ha="right")
    upper.legend(fontsize=9.5, edgecolor="none", loc="upper left")
    save_figure(figure, path)


def draw_schedule(
    points: Sequence[tuple[float, float]], path: Path, title: str, base_rate: float = 1.0, unit: str = "epoch"
) -> None:
    """Draw the learning rate over a run from (position, factor) points, the factor times `base_rate`."""
    x, rate = np.array(points, dtype=float).T
    rate = rate * base_rate
    figure = new_figure(10, 4, title)
    axes = figure.add_subplot()
    axes.plot(x, rate, color=CURVES["train_clean"][1], linewidth=2)
    axes.fill_between(x, rate, color=CURVES["train_clean"][1], alpha=0.08, linewidth=0)
    axes.set_ylim(0, 1.12 * max(rate.max(), 1e-12))
    axes.set_xlim(x[0], x[-1])
    peak = int(rate.argmax())
    for index, name in ((peak, "highest"), (len(x) - 1, "last")):
        if name == "highest" or rate[index] < rate[peak]:
            side = "right" if x[index] > (x[0] + x[-1]) / 2 else "left"
            axes.annotate(
                f"{name} {formatting.format_lr(rate[index])}",
                (x[index], rate[index]),
                xytext=(-4 if side == "right" else 4, 5),
                textcoords="offset points",
                ha=side,
                color=INK,
                fontsize=10,
            )
    style_axes(axes, "learning rate", unit)
    save_figure(figure, path)


LAYERS = {  # columns of layers.csv: what is drawn of them, and whether on a logarithmic axis
    "activation_std": ("std of the output", True),
    "dead": ("dead units", False),
    "gradient": ("norm of the gradient", True),
    "ratio": ("update / weight", True),
}


def draw_layers(rows: Rows, path: Path, title: str, typed: Rows = ()) -> None:
    """Draw statistics of each layer, the first ones that are known and the last, from the rows of layers.csv.

    typed: rows of the run as it was typed. If given, its last statistics take the place of the first ones.
    """
    from matplotlib.ticker import LogLocator, PercentFormatter

    figure = new_figure(10, 6.2, title)
    grid, beside = figure.add_gridspec(2, 2), []
    for index, (what, (label, is_log)) in enumerate(LAYERS.items()):
        axes = figure.add_subplot(grid[index // 2, index % 2])
        ends = _ends(rows, typed, what)
        names = list(dict.fromkeys(name for _, values in ends for name in values))
        for (end, values), color, shift in zip(ends, (PALE, CURVES["train_clean"][1]), (-0.12, 0.12), strict=True):
            points = [(index + shift, values[name]) for index, name in enumerate(names) if name in values]
            points = [(at, value) for at, value in points if math.isfinite(value) and (value > 0 or not is_log)]
            if points:
                axes.plot(*zip(*points, strict=True), "o-", color=color, label=end, markersize=5, linewidth=1)
        style_axes(axes, label, "")
        if is_log and axes.lines:
            low, high = np.log10(axes.dataLim.intervaly)
            axes.set_yscale("log")
            axes.set_ylim(0.8 * 10.0 ** math.floor(low), 1.25 * 10.0 ** math.ceil(high))  # two numbers at least
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(LogLocator(subs=[2, 5]))  # each tick takes as long as a number
            axes.yaxis.set_minor_formatter("")
        elif not is_log:
            axes.set_ylim(-0.03, 1.03)
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        _name_layers(axes, names)
        axes.set_visible(bool(axes.lines))
        labels = [line.get_label() for line in axes.lines]
        if labels and (index % 2 == 0 or labels != beside):
            axes.legend(fontsize=9.5, edgecolor="none", framealpha=0.9)
        beside = labels
    save_figure(figure, path)


def _ends(rows: Rows, typed: Rows, what: str) -> list[tuple[str, dict[str, float]]]:
    """Return two times a label and the values by layer: of the first and the last row that has the statistic.

    Where there are rows of the run as typed, those of its last row and of the last one.
    """
    found, others = _known(rows, what), _known(typed, what)
    if typed:
        step, values = others[-1]
        return [(f"as typed, step {step:,.0f}", values), (f"changed, step {found[-1][0]:,.0f}", found[-1][1])]
    last = found[-1] if len(found) > 1 else (0, {})
    return [(f"step {step:,.0f}", values) for step, values in (found[0], last)]


def _known(rows: Rows, what: str) -> list[tuple[float, dict[str, float]]]:
    """Return step and values by layer of each row that has the statistic, at least one."""
    pairs = [
        (row["step"], {n.partition("/")[2]: v for n, v in row.items() if n.startswith(f"{what}/")}) for row in rows
    ]
    return [pair for pair in pairs if pair[1]] or [(0, {})]


def _name_layers(axes: "Axes", names: Sequence[str]) -> None:
    if len(names) <= MANY_LAYERS:
        short = [textwrap.shorten(name, 22, placeholder="…") for name in names]
        axes.set_xticks(range(len(names)), short, rotation=90, fontsize=8, parse_math=False)
    else:
        axes.set_xlabel(f"{len(names)} layers, from the input to the output", color=INK)


def moving_average(values: Sequence[float] | np.ndarray, width: int) -> np.ndarray:
    """Return the mean of each value and its neighbours, in a window of so many; shorter at both ends."""
    ys = np.asarray(values, float)
    sums = np.concatenate([[0.0], np.cumsum(ys)])
    index = np.arange(len(ys))
    half = np.minimum(np.minimum(index, len(ys) - 1 - index), width // 2)
    return (sums[index + half + 1] - sums[index - half]) / (2 * half + 1)


# --- pieces of the curves ---


def _best(rows: Rows, epoch: float | None) -> tuple[Mapping[str, float], str] | None:
    """Return the row to mark, and which of its accuracies: of the weights as they were or of their average."""
    keys = ("accuracy/val", "accuracy/val_average")
    measured = [(row, key) for row in rows for key in keys if epoch in (None, row["epoch"]) and key in row]
    return max(measured, key=lambda point: point[0][point[1]], default=None)


def _has_gap(row: Mapping[str, float]) -> bool:
    return "accuracy/train_clean" in row and "accuracy/val" in row


def _draw_below(grid: "GridSpec", loss: "Axes", accuracy: "Axes", rows: Rows, rates: Rows, x: str) -> list["Axes"]:
    """Draw the learning rate below the loss, and below the accuracy the gap, if there is one; return these axes."""
    figure = loss.figure
    gaps = [{**row, "gap": 100 * (row["accuracy/train_clean"] - row["accuracy/val"])} for row in rows if _has_gap(row)]
    rate = figure.add_subplot(grid[1, 0] if gaps else grid[1, :], sharex=loss)
    _line(rate, rates, x, "rate/lr", color=INK)
    rate.set_ylim(bottom=0)
    style_axes(rate, "learning\nrate", x)
    if not gaps:
        return [rate]
    gap = figure.add_subplot(grid[1, 1], sharex=accuracy)
    _line(gap, gaps, x, "gap", color=INK)
    gap.axhline(0, color=PALE, linewidth=0.8)
    style_axes(gap, "train - val\n(points)", x)
    _shade_gap(accuracy, gaps, x)
    return [rate, gap]


def _draw_metric(axes: "Axes", rows: Rows, x: str, metric: str, parts: Sequence[str]) -> None:
    for part in parts:
        label, color = CURVES[part]
        _line(axes, rows, x, f"{metric}/{part}", color=color, label=label, linewidth=1.4 if part == "train" else 2)
    style_axes(axes, metric)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=9.5, edgecolor="none", framealpha=0.9, borderpad=0.2)


def _line(axes: "Axes", rows: Rows, x: str, key: str, **style: Any) -> None:
    """Draw one curve through the rows that have it; a few points are drawn as such, or one alone would not show."""
    points = [(row[x], row[key]) for row in rows if math.isfinite(row.get(key, math.nan))]
    if points:
        axes.plot(*zip(*points, strict=True), marker="o" if len(points) <= 12 else None, markersize=4, **style)


def _draw_steps(axes: "Axes", steps: Rows, x: str) -> None:
    """Draw the training loss of each log point as a dot, and through them their moving average."""
    label, color = CURVES["train"]
    points = [(row[x], row["loss/train"]) for row in steps if math.isfinite(row.get("loss/train", math.nan))]
    position, losses = np.array(points).T
    every = slice(None, None, -(-len(points) // MAX_DOTS))
    axes.plot(position[every], losses[every], ".", color=color, markersize=4.5, alpha=0.7, markeredgewidth=0, zorder=1)
    average = moving_average(losses, max(3, len(losses) // 10))
    axes.plot(position, average, color=color, label=label, linewidth=1.8)


def _shade_error(axes: "Axes", rows: Rows, x: str, images: int) -> None:
    """Shade one standard error on both sides of the accuracy on val."""
    points = [(row[x], row["accuracy/val"]) for row in rows if math.isfinite(row.get("accuracy/val", math.nan))]
    if len(points) > 1 and images > 1:
        position, share = np.array(points).T
        error = np.sqrt(np.maximum(share * (1 - share), 1 / images) / images)
        color = CURVES["val"][1]
        axes.fill_between(position, share - error, share + error, color=color, alpha=0.22, linewidth=0, zorder=1)


def _mark_equal_logits(axes: "Axes", loss: float) -> None:
    axes.axhline(loss, color=PALE, linewidth=1, linestyle=":", zorder=0)
    words = f"equal logits: {formatting.format_loss(loss)}"
    position = {"xy": (1, loss), "xycoords": ("axes fraction", "data"), "xytext": (0, 3), "textcoords": "offset points"}
    plate = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # the line of the best epoch may pass behind
    axes.annotate(words, **position, ha="right", fontsize=9, color=PALE, bbox=plate)


def _scale_loss(axes: "Axes") -> None:
    losses = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.lines] or [np.ones(1)])
    if losses.min() > 0 and losses.max() > LOG_FROM * losses.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=min(0, losses.min()))


def _shade_gap(axes: "Axes", gaps: Rows, x: str) -> None:
    train, val = ([row[f"accuracy/{part}"] for row in gaps] for part in ("train_clean", "val"))
    axes.fill_between([row[x] for row in gaps], train, val, color=CURVES["val"][1], alpha=0.1, linewidth=0)


def _mark_best(accuracy: "Axes", others: "Sequence[Axes]", rows: Rows, x: str, epoch: float | None) -> None:
    best = _best(rows, epoch)
    if best is None:
        return
    row, key = best
    label, color = CURVES[key.partition("/")[2]]
    for axes in (accuracy, *others):
        axes.axvline(row[x], color=PALE, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    accuracy.plot(row[x], row[key], "o", color=color, markersize=8, markeredgecolor="white", zorder=5)
    words = f"best {formatting.percent(row[key])} on {label}, {x} {row[x]:g}"
    accuracy.set_title(words, loc="right", fontsize=10.5, color=color)


def _name_classes(axes: "Axes", classes: Sequence[str]) -> None:
    size = len(classes)
    names = [formatting.shorten(name, lambda text: len(text) <= MAX_NAME) for name in classes]
    if size <= UNNAMED_CLASSES:
        font = 10 if size <= MANY_CLASSES else max(4.5, 560 / size * 0.95)
        turned = 0 if max(map(len, names)) <= 3 and size <= MANY_CLASSES else 90 if size > MANY_CLASSES else 40
        axes.set_xticks(range(size), names, rotation=turned, fontsize=font, parse_math=False)
        if turned == 40:
            for label in axes.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        axes.set_yticks(range(size), names, fontsize=font, parse_math=False)
    axes.tick_params(length=0, colors=INK)
    axes.set_xlabel("taken for", color=INK)
    axes.set_ylabel("true class", color=INK)
    axes.spines[:].set_visible(False)


# --- all figures ---


def new_figure(width: float, height: float, title: str) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    letters = int(width * 9.5)
    text = textwrap.fill(title, letters, max_lines=2, placeholder=" …")
    figure.suptitle(text, x=0.01, ha="left", fontsize=12, color=INK, parse_math=False)  # a $ is a $
    return figure


def style_axes(axes: "Axes", label: str, x: str | None = None) -> None:
    """Label an axis pair and take away what does not inform."""
    from matplotlib.ticker import MaxNLocator

    axes.set_ylabel(label, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.tick_params(colors=INK, labelsize=9.5)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins="auto", steps=[1, 2, 5, 10]))
    if x is None:
        axes.tick_params(labelbottom=False)
    else:
        axes.set_xlabel(x, color=INK)


def save_figure(figure: "Figure", path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a class named in a script that the font lacks
        if (layout := figure.get_layout_engine()) is not None:
            layout.execute(figure)
            figure.set_layout_engine(None)  # else savefig goes through all that is drawn once more
        figure.savefig(path, metadata={"Software": None})  # the same run draws the same bytes

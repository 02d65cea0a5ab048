"""The pictures of a diagnosis: short runs over learning rate and weight decay, and the run with its remedies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deeptrain.report.figures import INK, PALE, new_figure, save_figure, style_axes
from deeptrain.report.formatting import percent

COLORS = "#0072b2", "#e69f00", "#56b4e9", "#cc79a7", "#8a6d3b"  # of runs that are not the best (Okabe & Ito, 2008)
DARK = 0.5  # of the range of colours: below it the numbers are white


def draw_grid(cells: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """Draw the accuracy on val of each rate and decay as a colour and a number; the chosen one has a frame.

    cells: of each short run rate, decay (None: the optimizer has none), accuracy, steps and whether it is the chosen
    one, as diagnosis.json has them.
    """
    from matplotlib.patches import Rectangle

    rates = sorted({cell["rate"] for cell in cells})
    decays = sorted({cell["decay"] for cell in cells}, key=lambda decay: -1.0 if decay is None else decay)
    values = np.full((len(decays), len(rates)), np.nan)
    for cell in cells:
        values[decays.index(cell["decay"]), rates.index(cell["rate"])] = cell["accuracy"]
    figure = new_figure(10, 1.6 + 0.62 * len(decays), title)
    axes = figure.add_subplot()
    low, high = np.nanmin(values), np.nanmax(values)
    axes.imshow(values, cmap="cividis", aspect="auto", origin="lower", vmin=low, vmax=max(high, low + 0.01))
    for row, column in np.argwhere(np.isfinite(values)):
        share = (values[row, column] - low) / max(high - low, 0.01)
        color = "white" if share < DARK else "black"
        axes.text(column, row, f"{values[row, column]:.1%}", ha="center", va="center", color=color, fontsize=11)
    for cell in (cell for cell in cells if cell["chosen"]):
        corner = rates.index(cell["rate"]) - 0.5, decays.index(cell["decay"]) - 0.5
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor="#d55e00", linewidth=3))
    style_axes(axes, "weight decay", "learning rate")
    axes.grid(visible=False)
    axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    axes.set_yticks(range(len(decays)), ["none" if decay is None else f"{decay:g}" for decay in decays])
    axes.set_title(f"val accuracy after {cells[0]['steps']} steps, annealed", loc="right", fontsize=10.5, color=INK)
    save_figure(figure, path)


def draw_mended(mended: Mapping[str, Any], path: Path, title: str) -> None:
    """Draw the accuracy on val, over steps, of the run as typed and of those with the remedies that were tried.

    mended: runs, each with its change, its accuracy, whether it is the best, and rows as of metrics.csv; the accuracies
    of a straight line and of guessing are levels.
    """
    from matplotlib.ticker import PercentFormatter

    runs = mended["runs"]
    figure = new_figure(10, 4.2 + 0.2 * len(runs), title)
    axes = figure.add_subplot()
    colors = iter(COLORS * len(runs))
    for run in runs:
        is_typed = run is runs[0]
        color = PALE if is_typed else "#d55e00" if run["best"] else next(colors)
        points = [(row["step"], row["accuracy/val"]) for row in run["rows"] if "accuracy/val" in row]
        width = 2.6 if run["best"] or is_typed else 1.4
        label = f"{percent(run['accuracy'])}  {run['change']}"
        axes.plot(*zip(*points or [(0, run["accuracy"])], strict=True), "o-", color=color, lw=width, ms=4, label=label)
    for level, words, below in ((mended["straight_line"], "a straight line", 3), (mended["guessing"], "guessing", -12)):
        axes.axhline(level, color=PALE, linewidth=1, linestyle=":", zorder=0)
        axes.annotate(words, (0, level), (4, below), ("axes fraction", "data"), "offset points", color=PALE)
    style_axes(axes, "accuracy on val", "step")
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    figure.legend(loc="outside lower left", frameon=False, fontsize=10, alignment="left")
    save_figure(figure, path)

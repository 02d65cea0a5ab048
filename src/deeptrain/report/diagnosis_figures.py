"""The picture of short runs over learning rate and weight decay."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deeptrain.report.figures import INK, new_figure, save_figure, style_axes

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

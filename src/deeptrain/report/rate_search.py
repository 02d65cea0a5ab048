"""The picture of a search for the learning rate: the range test, the races, and the rate that was taken."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deeptrain.report.figures import CURVES, INK, PALE, new_figure, save_figure, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHORTEST, LONGEST = CURVES["train_clean"][1], CURVES["val"][1]


def draw_rate_search(summary: Mapping[str, Any], path: Path, title: str) -> None:
    """Draw what find_lr.json holds: above the range test with the marks of other tools' rules, below the races."""
    figure = new_figure(10, 6.4, title)
    grid = figure.add_gridspec(2, 1, height_ratios=[3, 2])
    test = figure.add_subplot(grid[0])
    races = figure.add_subplot(grid[1], sharex=test)
    test.set_xscale("log")
    _draw_test(test, summary)
    _draw_races(races, summary)
    for axes in (test, races):
        if summary["lr"] is not None:
            axes.axvline(summary["lr"], color=INK, linewidth=1.4, zorder=1)
            axes.axvspan(*summary["range"], color=INK, alpha=0.08, linewidth=0)
        if summary["diverges"] is not None:
            axes.axvline(summary["diverges"], color=PALE, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    words = "no rate is better than guessing" if summary["lr"] is None else f"taken: {summary['lr']:g}"
    test.set_title(words, loc="right", fontsize=10.5, color=INK)
    save_figure(figure, path)


def _draw_test(axes: "Axes", summary: Mapping[str, Any]) -> None:
    rates = np.array(summary["range_test"]["lr"])
    losses = np.array([math.nan if loss is None else loss for loss in summary["range_test"]["loss"]])
    first = np.nanmean(losses[:10])
    top = first + 0.5 * (first - np.nanmin(losses)) + 1e-9
    axes.plot(rates, losses, ".", color=CURVES["train"][1], markersize=5, label="loss of each step")
    smoothed = _smooth(losses)
    smoothed[np.maximum.accumulate(np.nan_to_num(smoothed, nan=math.inf)) > 2 * top] = math.nan  # it has diverged
    axes.plot(rates, smoothed, color=SHORTEST, linewidth=2, label="mean of 9 steps")
    low = min(float(np.nanmin(losses)), summary["loss_of_guessing"])
    high = max(top, summary["loss_of_guessing"] * 1.1)
    axes.set_ylim(low - 0.06 * (high - low), high + 0.22 * (high - low))
    axes.axhline(summary["loss_of_guessing"], color=PALE, linewidth=1, linestyle=":", zorder=0)
    _mark_rules(axes, summary["other_rules"])
    style_axes(axes, "loss in the range test")
    _log_ticks(axes)
    axes.legend(fontsize=9.5, edgecolor="none", framealpha=0.9, borderpad=0.2, loc="lower left")


def _mark_rules(axes: "Axes", rules: Mapping[str, float]) -> None:
    """Mark on the upper edge what the rules of other tools would take."""
    for number, (name, rate) in enumerate(sorted(rules.items(), key=lambda pair: pair[1])):
        options = {"transform": axes.get_xaxis_transform(), "color": PALE}
        axes.plot([rate], [0.985], marker="v", markersize=5, clip_on=False, **options)
        height = 0.955 - 0.055 * (number % 3)
        box = {"facecolor": "white", "alpha": 0.8, "pad": 0.5, "linewidth": 0}
        axes.text(rate, height, name, ha="center", va="top", fontsize=8, bbox=box, **options)


def _draw_races(axes: "Axes", summary: Mapping[str, Any]) -> None:
    races = summary["races"]
    for race, color in zip(races, (SHORTEST, LONGEST), strict=False):
        pairs = [(float(rate), loss) for rate, loss in race["losses"].items() if loss is not None]
        if pairs:
            rates, losses = zip(*pairs, strict=True)
            axes.plot(rates, losses, "o-", color=color, label=f"after {race['steps']} steps, annealed")
    axes.axhline(summary["loss_of_guessing"], color=PALE, linewidth=1, linestyle=":", zorder=0)
    _note(axes, "guessing", (0.01, summary["loss_of_guessing"]), ("axes fraction", "data"))
    if summary["diverges"] is not None:
        _note(axes, "diverges", (summary["diverges"], 0.03), ("data", "axes fraction"), "right")
    losses = [loss for race in races for loss in race["losses"].values() if loss is not None]
    top = summary["loss_of_guessing"]
    axes.set_ylim(min([0.0, *losses]), 1.15 * max(top, min(max([top, *losses]), 2 * top)))
    style_axes(axes, "loss of short runs", "learning rate")
    _log_ticks(axes)
    axes.legend(fontsize=9.5, edgecolor="none", framealpha=0.9, borderpad=0.2, loc="lower left")


def _note(axes: "Axes", words: str, position: tuple[float, float], units: tuple[str, str], side: str = "left") -> None:
    shift = {"xytext": (-4 if side == "right" else 0, 3), "textcoords": "offset points"}
    axes.annotate(words, position, xycoords=units, ha=side, fontsize=9, color=PALE, **shift)  # pyright: ignore


def _log_ticks(axes: "Axes") -> None:
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator

    axes.xaxis.set_major_locator(LogLocator(numticks=20))
    axes.xaxis.set_major_formatter(LogFormatterSciNotation())


def _smooth(losses: np.ndarray) -> np.ndarray:
    finite = losses[np.isfinite(losses)]
    ones, middle = np.ones(9), slice(4, 4 + len(finite))
    means = np.convolve(finite, ones)[middle] / np.convolve(np.ones(len(finite)), ones)[middle]
    return np.concatenate([means, np.full(len(losses) - len(finite), math.nan)])

"""report.html: a comparison of settings on one page that needs nothing but itself, and no script to be read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

COLORS = 8  # of curves; further ones are grey
MAX_POINTS = 200  # of a curve
HEIGHT = 100  # of the chart of curves, in its own units
WIDTH = 300
SKIPPED = 0.3  # of the run: how it starts does not set the scale of the curves
FEW = 8  # points of a curve, of which none is skipped
MARGIN = 0.04  # left and right of the widest interval


class Strip(NamedTuple):
    """An interval on a line with a zero: all in the unit of the axis, better to the right.

    dots: of single seeds or folds. half: nan where there is no interval.
    """

    center: float
    half: float
    dots: Sequence[float] = ()


@dataclass(frozen=True)
class IntervalRow:
    """A row of a chart of intervals. strip: None for the baseline. index: of the setting, which colors it."""

    label: str
    value: str
    difference: str
    strip: Strip | None
    kind: str = ""  # better, worse, baseline or ""
    index: int = -1


@dataclass(frozen=True)
class Curve:
    """A setting's metric over the epochs: for each, the mean over the seeds, the lowest and the highest."""

    label: str
    is_baseline: bool
    epochs: Sequence[float]
    means: Sequence[float]
    lows: Sequence[float]
    highs: Sequence[float]


@dataclass(frozen=True)
class PageData:
    """What the page says, in its order; empty fields are left out.

    axis: what the intervals measure; sign: -1 where lower values are better, so that the axis shows the metric's own.
    table: header and rows. facts: title and text of each way in which the numbers were computed.
    commands: label and command of each setting.
    """

    title: str
    subtitle: str
    headline: str
    repeats: str = "seeds"  # what the runs of a setting differ in: seeds, or folds
    sentences: Sequence[str] = ()
    rows: Sequence[IntervalRow] = ()
    axis: str = ""
    sign: int = 1
    table: Sequence[Sequence[str]] = ()
    separate: str = ""
    curves: Sequence[Curve] = ()
    curves_title: str = ""
    as_percent: bool = True
    differences: Sequence[Sequence[str]] = ()
    pairs: Sequence[IntervalRow] = ()
    classes: Sequence[IntervalRow] = ()
    classes_title: str = ""
    problems: Sequence[tuple[str, Sequence[tuple[str, str]]]] = ()
    method: Sequence[str] = ()
    notes: Sequence[str] = ()
    commands: Sequence[tuple[str, str]] = ()
    files: Sequence[str] = field(default_factory=tuple)


def render(page: PageData) -> str:
    """Return the page as HTML."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    setting = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    charts = {name: Axis.of(getattr(page, name), page.sign) for name in ("rows", "pairs", "classes")}
    chart = CurveChart.of(page.curves, page.as_percent) if page.curves else None
    return setting.get_template("comparison.html.jinja").render(page=page, charts=charts, chart=chart, colors=COLORS)


# --- intervals ---


@dataclass(frozen=True)
class Axis:
    """The common axis of a chart of intervals: where numbers stand, in per cent of its width."""

    low: float
    high: float
    sign: int = 1

    @classmethod
    def of(cls, rows: Sequence[IntervalRow], sign: int) -> "Axis | None":
        """Fit an axis around all intervals and dots, with 0 on it; None if there are none."""
        strips = [row.strip for row in rows if row.strip is not None]
        if not strips:
            return None
        ends = [0.0, *(dot for strip in strips for dot in strip.dots)]
        for strip in strips:
            half = 0.0 if math.isnan(strip.half) else strip.half
            ends += [strip.center - half, strip.center + half]
        room = (max(ends) - min(ends) or 1.0) * MARGIN
        return cls(min(ends) - room, max(ends) + room, sign)

    def at(self, value: float) -> str:
        """Return where a number stands: 37.5%."""
        return f"{100 * (value - self.low) / (self.high - self.low):.2f}%"

    def ticks(self) -> list[tuple[str, str]]:
        """Return place and text of round numbers on the axis, in the metric's own direction."""
        values = round_numbers(self.low, self.high)
        inside = [value for value in values if self.low + 0.03 * (self.high - self.low) < value]
        inside = [value for value in inside if value < self.high - 0.03 * (self.high - self.low)]
        return [(self.at(value), f"{self.sign * value:+.4g}" if value else "0") for value in inside]


def round_numbers(low: float, high: float, most: int = 6) -> list[float]:
    """Return round numbers between two, evenly spaced: steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if (high - low) / (factor * power) <= most)
    return [round(index * step, 12) for index in range(math.ceil(low / step), math.floor(high / step) + 1)]


# --- curves ---


@dataclass(frozen=True)
class CurveChart:
    """Curves as points of polylines in a box of WIDTH by HEIGHT, with the ticks beside it in per cent."""

    lines: list[tuple[int, str, bool, str, str]]  # index, label, is it the baseline, points of mean and band
    x_ticks: list[tuple[str, str]]
    y_ticks: list[tuple[str, str]]

    @classmethod
    def of(cls, curves: Sequence[Curve], as_percent: bool) -> "CurveChart":
        longest = max(max(curve.epochs) for curve in curves)
        start = min(min(curve.epochs) for curve in curves)
        later = [
            value
            for curve in curves
            for epoch, low, high in zip(curve.epochs, curve.lows, curve.highs, strict=True)
            if epoch >= start + SKIPPED * (longest - start) or len(curve.epochs) < FEW
            for value in (low, high)
        ]
        low, high = min(later), max(later)
        room = (high - low or abs(high) or 1.0) * 0.05
        low, high = low - room, high + room

        def x(epoch: float) -> float:
            return WIDTH * (epoch - start) / (longest - start or 1.0)

        def y(value: float) -> float:
            return HEIGHT * (high - value) / (high - low)

        def points(epochs: Sequence[float], values: Sequence[float]) -> str:
            pairs = zip(epochs, values, strict=True)
            return " ".join(f"{x(epoch):.1f},{max(-900.0, min(900.0, y(value))):.1f}" for epoch, value in pairs)

        lines = []
        for index, curve in enumerate(curves):
            epochs, means, lows, highs = (thin(each) for each in (curve.epochs, curve.means, curve.lows, curve.highs))
            band = f"{points(epochs, highs)} {points(epochs[::-1], lows[::-1])}"
            lines.append((index, curve.label, curve.is_baseline, points(epochs, means), band))
        x_values = [value for value in round_numbers(start, longest) if value == int(value)] if longest > start else []
        scale, unit = (100, "%") if as_percent else (1, "")
        return cls(
            lines,
            [(f"{100 * x(value) / WIDTH:.2f}%", f"{value:g}") for value in x_values],
            [
                (f"{100 * y(value) / HEIGHT:.2f}%", f"{scale * value:.5g}{unit}")
                for value in round_numbers(low, high, 5)
            ],
        )


def thin(values: Sequence[float], most: int = MAX_POINTS) -> list[float]:
    """Return at most so many values: means over equal spans."""
    if len(values) <= most:
        return list(values)
    edges = [len(values) * index // most for index in range(most + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]

"""Figures of runs are made but not drawn in tests: drawing is three quarters of a tiny run's time.

A test that looks at a figure takes the fixture `drawn_figures`, or tells `forked.run`.
"""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

DRAW = Figure.savefig


def save_blank(figure: Figure, path: Path, **options: Any) -> None:
    """Stand in for Figure.savefig: write a picture of a few pixels."""
    Image.new("L", (8, 8)).save(path)


def leave_figures_undrawn() -> None:
    Figure.savefig = save_blank  # pyright: ignore[reportAttributeAccessIssue]

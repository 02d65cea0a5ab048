"""Figures of runs are made but neither laid out nor drawn in tests: that is three quarters of a tiny run's time.

A test that looks at a figure takes the fixture `drawn_figures`, or tells `forked.run`.
"""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

DRAWN = [(Figure, "savefig", Figure.savefig), (ConstrainedLayoutEngine, "execute", ConstrainedLayoutEngine.execute)]


def save_blank(figure: Figure, path: Path, **options: Any) -> None:
    """Stand in for Figure.savefig: write a picture of a few pixels."""
    Image.new("L", (8, 8)).save(path)


def leave_figures_undrawn() -> None:
    Figure.savefig = save_blank  # pyright: ignore[reportAttributeAccessIssue]
    ConstrainedLayoutEngine.execute = lambda *_: None

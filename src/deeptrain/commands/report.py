"""Compare runs, and write a page that says what is better: python scripts/report.py outputs/sweeps/DATE/SWEEP"""

from dataclasses import dataclass
from typing import Literal

from deeptrain.commands.cli import answer
from deeptrain.runtime import terminal
from deeptrain.schema import PositiveFloat, PositiveInt

USAGE = """\
python scripts/report.py FOLDER [FOLDER ...] [baseline='aug=none'] [smallest=0.5] [value=final|best] [out=DIR]

A FOLDER is a sweep, a run, or any folder with runs below it. Unfinished runs and runs of earlier versions count too.
Runs that differ in nothing but their seed are one setting. Every setting is compared with the baseline, seed by seed.
Shows a table and what it proves; writes report.html, report.csv, report.tex and report.md.

baseline='aug=none'   the setting to compare with; without it, the one whose values are most often none or 0
smallest=0.5          the difference that matters, in points: says whether it is excluded, or how many seeds it takes
value=final           which weights count: final, or best (the default only if all runs stop early)
looks=2               how often you have looked: seeds that are added until a difference shows make false claims
out=DIR               where the files go; by default into the folder if there is one, else into report/
"""


@dataclass
class Options:
    """What is asked."""

    baseline: str | None = None
    smallest: PositiveFloat | None = None
    value: Literal["auto", "final", "best"] = "auto"
    looks: PositiveInt | None = None
    out: str | None = None


def report(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    return answer(arguments, USAGE, _report)


def _report(arguments: list[str]) -> int:
    from deeptrain.commands import words
    from deeptrain.compare import collect
    from deeptrain.compare import report as room
    from deeptrain.errors import UsageError
    from deeptrain.run.folder import read_named

    command = words.parse(arguments, Options, USAGE, "a report", (), "folders of runs")
    options = command.options
    folders = [read_named("FOLDER", name) for name in command.names]
    if options.out is not None:
        out = read_named("out", options.out)
    else:
        is_one = len(folders) == 1 and not collect.is_run(folders[0])
        out = folders[0] if is_one else read_named("out", "report")
    chosen = {name: getattr(options, name) for name in ("baseline", "value", "smallest", "looks")}
    try:
        lines = room.report(folders, out, **chosen)
    except OSError as error:
        raise UsageError([f"out={out}: cannot be written ({error.strerror}); name another folder with out="]) from None
    terminal.show(*lines)
    return 0

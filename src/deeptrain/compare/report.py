"""The report of a comparison: folders in; files and the lines for the terminal out. numpy, scipy and jinja2 wait."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deeptrain.runtime.files import write_atomically
from deeptrain.runtime.terminal import printable

if TYPE_CHECKING:
    from deeptrain.compare.comparison import Comparison

FILES = ("report.html", "report.csv", "report.tex", "report.md")
SHOWN = 5  # failures in the terminal


def report(
    folders: Sequence[Path],
    out: Path,
    *,
    baseline: str | None = None,
    value: str = "auto",
    smallest: float | None = None,
    looks: int | None = None,
) -> list[str]:
    """Compare the runs in folders, write report.html, .csv, .tex and .md into `out`; return the lines to show.

    A sweep calls it at its end, with its folder for both. UsageError if there are no runs, or not that baseline.
    """
    from deeptrain.compare import collect, study

    found = study.compare_runs(collect.collect(folders), baseline, value, smallest, looks)
    write(found, out, title(folders))
    return lines(found, out)


def title(folders: Sequence[Path]) -> str:
    names = [folder.resolve().name for folder in folders]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"Comparison: {', '.join(names[:3])}{more}"


def write(found: "Comparison", out: Path, title: str) -> None:
    """Write the four files of a report."""
    from deeptrain.compare import page, tables
    from deeptrain.report import comparison

    html = comparison.render(page.page_of(found, title))
    out.mkdir(parents=True, exist_ok=True)
    texts = (html, tables.as_csv(found), tables.latex(found), tables.markdown(found))
    for name, text in zip(FILES, texts, strict=True):
        write_atomically(out / name, text.encode())


def lines(found: "Comparison", out: Path) -> list[str]:
    """Return what the terminal shows: the table, the verdict, what failed, the files."""
    from deeptrain.compare import page, tables, verdict

    table = tables.terminal(found) if found.rows else []
    marked = [f"{tables.MARK} more than chance; {verdict.scope(found)}"] if found.is_claim else []
    texts = [verdict.headline(found), *filter(None, verdict.sentences(found))]
    notes = [f"note     {note}" for note in found.notes]
    again, best = [], found.best
    if best is not None and found.compared:
        basis = f"the best mean of {len(best.values)} runs" if len(best.values) > 1 else "by one run"
        again = [f"best     {best.label}, {basis}", f"again    {page.repeat_command(best)}"]
    files = f"report   {out / FILES[0]} (also {', '.join(Path(name).suffix for name in FILES[1:])})"
    printed = [*table, *marked, "", *texts, "", *notes, *_not_finished(found), *again, files]
    return [printable(line) for line in printed]  # a folder may be a stranger's


def _not_finished(found: "Comparison") -> list[str]:
    """Name the runs that failed, and count those that wait or were cut."""
    failed = [f"failed   {run.path}: {run.reason}" for run in found.with_status("failed")]
    more = [f"failed   {len(failed) - SHOWN} more"] if len(failed) > SHOWN else []
    left = found.with_status("unfinished", "interrupted", "waiting")
    return [
        *failed[:SHOWN],
        *more,
        *([f"left     {len(left)} of {len(found.runs)} runs are not finished"] if left else []),
    ]

"""Compare runs, and write a page that says what is better: python scripts/report.py outputs/sweeps/DATE/SWEEP"""

import math

from deeptrain.commands.cli import guarded, in_this_installation, show, split_flags
from deeptrain.runtime import terminal

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

OPTIONS = ("baseline", "smallest", "value", "looks", "out")
VALUES = ("auto", "final", "best")


def report(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    if {"-h", "--help"} & set(arguments) or not arguments:
        return show(in_this_installation(USAGE))
    return guarded(lambda: _report(arguments), debug="--debug" in arguments)


def _report(arguments: list[str]) -> int:
    from deeptrain.compare import collect
    from deeptrain.compare import report as room
    from deeptrain.errors import UsageError
    from deeptrain.run.folder import read_named
    from deeptrain.schema import suggest

    flags, words = split_flags(arguments)
    if flags - {"debug"}:
        raise UsageError([f"report takes no flags; {in_this_installation(USAGE).splitlines()[0]}"])
    folders, options = [], {}
    for word in words:
        key, sign, value = word.partition("=")
        if key in OPTIONS and sign:
            options[key] = value
        elif word.startswith("-") or (sign and not read_named("FOLDER", word).exists()):
            raise UsageError([f"{word}: {suggest(key, OPTIONS)}"])
        else:
            folders.append(read_named("FOLDER", word))
    if not folders:
        raise UsageError([f"name a folder of runs first: {in_this_installation(USAGE).splitlines()[0]}"])
    value = options.get("value", "auto")
    if value not in VALUES:
        raise UsageError([f"value={value}: {suggest(value, VALUES)}"])
    is_one = len(folders) == 1 and not collect.is_run(folders[0])
    out = (
        read_named("out", options["out"]) if "out" in options else folders[0] if is_one else read_named("out", "report")
    )
    smallest, looks = (_number(key, options[key]) if key in options else None for key in ("smallest", "looks"))
    if looks is not None and looks != int(looks):
        raise UsageError([f"looks={options['looks']}: must be a whole number"])
    try:
        lines = room.report(
            folders,
            out,
            baseline=options.get("baseline"),
            value=value,
            smallest=smallest,
            looks=None if looks is None else int(looks),
        )
    except OSError as error:
        raise UsageError([f"out={out}: cannot be written ({error.strerror}); name another folder with out="]) from None
    terminal.show(*lines)
    return 0


def _number(key: str, text: str) -> float:
    """Read a number above 0; UsageError if it is none."""
    from deeptrain.errors import UsageError

    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise UsageError([f"{key}={text}: must be a number above 0"])
    return number

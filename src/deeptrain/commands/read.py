"""Say in words what the curves of a run show: python scripts/read.py outputs/DATE/RUN"""

from deeptrain.commands.cli import answer, in_this_installation
from deeptrain.runtime import terminal

USAGE = """\
python scripts/read.py RUN...

RUN is a run's folder; the run may still train. Reads its curves and settings, and says in at most three lines what they
show, how sure that is, and what to try. Nothing is trained or changed. It is likely or possible, never certain.
"""


def read(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    return answer(arguments, USAGE, _read)


def _read(arguments: list[str]) -> int:
    from deeptrain.errors import UsageError
    from deeptrain.run import record

    names = [word.removeprefix("run=") for word in arguments if word != "--debug"]
    if unknown := [name for name in names if name.startswith("-")]:
        raise UsageError([f"{unknown[0]}: no such flag; {in_this_installation(USAGE).splitlines()[0]}"])
    folders = [record.find(name) for name in names]
    for folder in folders:
        lines = record.reading(folder) or ["reading  no diagnosis: the curves show nothing that asks for a change"]
        if len(folders) > 1:
            terminal.show(str(folder))
        terminal.show(*(f"{label:<8} {text}" for label, _, text in (line.partition("  ") for line in lines)))
    return 0

"""Read a whole folder of pictures before training on it: python scripts/check_data.py DIR"""

from deeptrain.commands.cli import answer, in_this_installation
from deeptrain.runtime import terminal
from deeptrain.runtime.paths import read_path

USAGE = """\
python scripts/check_data.py DIR [--all]

DIR holds <class>/<picture>, or train/, val/ and test/ of those, as for data=image_folder. Decodes every picture and
shows how many there are of each class and split, their sizes and kinds, files that cannot be read, pictures that lie in
more than one split (leaks) or class, and repetitions. Pictures are the same if their pixels are. --all lists all files.

Exit code: 0 nothing wrong found; 1 broken files, leaks or a picture with two labels; 2 no folder of pictures.
"""


def check_data(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    return answer(arguments, USAGE, _check_data)


def _check_data(arguments: list[str]) -> int:
    from deeptrain.errors import UsageError

    folders = [word for word in arguments if not word.startswith("-")]
    if len(folders) != 1 or set(arguments) - {*folders, "--all", "--debug"}:
        raise UsageError([f"name one folder: {in_this_installation(USAGE).splitlines()[0]}"])
    from deeptrain.analysis.check_data import check, lines

    try:
        report = check(read_path(folders[0]))
    except (ValueError, OSError) as error:
        raise UsageError([f"{folders[0]}: {error}"]) from error
    terminal.show(*lines(report, every="--all" in arguments))
    return 0 if report.is_intact else 1

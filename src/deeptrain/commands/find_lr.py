"""Search the learning rate of a run by short runs: python scripts/find_lr.py model=vgg data=cifar10"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deeptrain.commands.cli import answer

if TYPE_CHECKING:
    from deeptrain.analysis.find_lr import RateSearch
    from deeptrain.config.settings import RunConfig

USAGE = """\
python scripts/find_lr.py [group=option ...] [key=value ...]

Takes the settings of python train.py and searches the learning rate for that run. First a range test: 100 steps with a
rising rate show where the loss falls and where it diverges. Then two races of short runs. Each anneals its rate to
zero. A short run has 5 % of the steps that the run plans, and at least 24; the second race is four times as long. So
epochs= and limit_steps= count: limit_steps=1000 searches the rate of a run of 1,000 steps.

Shows the rate, those that are as good, and the command to paste. Writes find_lr.png and find_lr.json into
outputs/find_lr, or into the folder of dir=. optimizer.lr=auto in python train.py does the same before the run.

Exit code: 0 a rate was found; 1 no rate makes the network better than guessing; 2 a mistake in the command.
"""


def find_lr(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    return answer(arguments, USAGE, _find_lr, alone=True)


def _find_lr(arguments: list[str]) -> int:
    from deeptrain.commands.words import settings_of_a_run
    from deeptrain.config.compose import compose_run
    from deeptrain.config.override import last_value, override_key
    from deeptrain.run import dry_run, found_rate

    words = settings_of_a_run(arguments, "a search for the rate", ("resume", "rerun"))
    folder = Path(last_value(words, "dir") or Path("outputs") / "find_lr")
    words = [word for word in words if override_key(word) not in ("dir", "optimizer.lr")]
    run = compose_run([*words, "optimizer.lr=auto"])
    dry_run.check_settings(run)
    found_rate.check(run)
    return _search(run, folder)


def _search(run: "RunConfig", folder: Path) -> int:
    from deeptrain import build
    from deeptrain.loggers.console import Console
    from deeptrain.run import found_rate
    from deeptrain.run.launch import log_to_console
    from deeptrain.runtime.device import keep_malloc_arena

    console = Console(sys.stdout)
    with log_to_console(console):
        keep_malloc_arena()
        setup = build.open_setup(run)
        try:
            found = found_rate.search(setup, console.status)
        finally:
            console.close()
    folder.mkdir(parents=True, exist_ok=True)
    found_rate.write(found, folder, run.title)
    console.end([*_lines(found), f"picture  {folder / found_rate.PICTURE}"])
    if found.lr is None:
        console.end([f"rate  none: {found_rate.does_not_learn(found)}"])
        return 1
    if found.is_unstable:
        console.warn(found_rate.UNSTABLE)
    console.end([f"rate  {found_rate.sentence(found)}", f"try  {found_rate.train_command(run, found.lr)}"])
    return 0


def _lines(found: "RateSearch") -> list[str]:
    """Say what the range test and each race have shown."""
    from deeptrain.report.formatting import format_loss

    end = f"diverges at {found.diverges:.2g}" if found.diverges is not None else "diverges nowhere"
    lines = [
        f"range test  the loss has fallen most of its way at {found.fallen:.2g} and {end}; {len(found.losses)} steps"
    ]
    for number, race in enumerate(found.races, start=1):
        losses = ", ".join(f"{rate:g}: {format_loss(loss)}" for rate, loss in race.means.items())
        lines.append(f"race {number}  loss after {race.steps} steps at {losses}")
    return lines

"""Test a set-up in steps, and say what is wrong: python scripts/diagnose.py model=vgg data=cifar10"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeptrain.commands.cli import answer
from deeptrain.config.command_options import split_options
from deeptrain.errors import UsageError
from deeptrain.runtime import terminal
from deeptrain.runtime.paths import quote_setting
from deeptrain.runtime.resources import command
from deeptrain.runtime.world import get_world

if TYPE_CHECKING:
    from deeptrain.analysis.diagnosis.ledger import Ledger
    from deeptrain.config.settings import RunConfig

USAGE = """\
python scripts/diagnose.py [group=option ...] [key=value ...] [steps=1-3] [budget=10m]
python scripts/diagnose.py resume=outputs/diagnose

Takes the settings of python train.py and tests them in seven steps. The first step that fails ends the diagnosis:

  1 start     images, labels, the first loss; does the loss reward right answers; do images influence one another
  2 memorise  64 images without regularization, in training and in evaluation mode
  3 rate      a search as in find_lr.py, with the run's own rate beside it
  4 grid      short runs over three rates and some weight decays
  5 refine    whole runs around the best of them, beside the run as it was typed
  6 curves    what the best run's curves show, beside a straight line and images without their pixels
  7 next      what the curves advise, each tried in a run; only what is better is told

Where a step fails, changes are tried in short runs: another rate, initialization, norm, no dropout, and so on.
"certain" means that the symptom names its cause, that its remedy was tried and helps, and that no other does as well;
or that the symptom proves its cause. Only a fault fails a step.
The last lines name the command to type next. diagnosis.json and diagnosis.html are written into outputs/diagnose,
or into the folder of dir=.

  steps=1-3      ends after step 3, and so does steps=3; steps=1 trains nothing
  budget=10m     makes the runs shorter so that all fits, else leaves out the last steps; 90s and 1h work too
  resume=DIR     goes on with a diagnosis that was stopped, with the same numbers

Exit code: 0 no fault; 1 a fault; 2 a mistake in the command.
"""
STEPS = 7
UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass
class Options:
    """How far a diagnosis goes, and how long it may take."""

    steps: str = f"1-{STEPS}"
    budget: str | None = None


def diagnose(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    return answer(arguments, USAGE, _diagnose, alone=True)


def _diagnose(arguments: list[str]) -> int:
    from deeptrain.commands.words import settings_of_a_run
    from deeptrain.config.compose import compose_run
    from deeptrain.config.override import last_value, override_key
    from deeptrain.run import dry_run

    words = settings_of_a_run(arguments, "a diagnosis", ("rerun", "overfit"))
    options, words = split_options(words, Options)
    last, budget = _last_step(options.steps), _seconds(options.budget)
    if get_world().size > 1:
        raise UsageError(["a diagnosis does not go with torchrun; run it in one process"])
    if (resumed := last_value(words, "resume")) is not None:
        return _resume(Path(resumed), words, last, budget)
    folder = Path(last_value(words, "dir") or Path("outputs") / "diagnose")
    run = compose_run([word for word in words if override_key(word) != "dir"])
    dry_run.check_settings(run)
    return _show(run, folder, last, budget)


def _last_step(text: str) -> int:
    """Return the last step to take; UsageError for what is none."""
    found = re.fullmatch(rf"(?:1-)?([1-{STEPS}])", text)
    if found is None:
        choices = ", ".join(["1", *(f"1-{number}" for number in range(2, STEPS + 1))])
        raise UsageError([f"steps={text}: choose from {choices}; a step needs those before it"])
    return int(found[1])


def _seconds(text: str | None) -> float | None:
    """Return the seconds of a span such as 10m; UsageError for what is none."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if found is None or float(found[1]) <= 0:
        raise UsageError([f"budget={text}: write a time as 90s, 10m or 1h"])
    return float(found[1]) * UNITS[found[2]]


def _resume(folder: Path, words: Sequence[str], last: int, budget: float | None) -> int:
    """Go on with the diagnosis of a folder: with its settings, and what it has measured."""
    from deeptrain.analysis.diagnosis import ledger, procedure
    from deeptrain.config.compose import compose_run
    from deeptrain.config.override import override_key
    from deeptrain.run import saved

    path = folder / ledger.FILE
    if not path.is_file():
        raise UsageError([f"resume={folder}: has no {ledger.FILE}, so no diagnosis was started there"])
    if other := [word for word in words if override_key(word) not in ("resume", *saved.TRUSTED)]:
        raise UsageError([f"{other[0]}: does not go with resume=, which keeps the settings; leave it out"])
    try:
        known = ledger.Ledger.read(path, saved.read_json(path, dict, {}), procedure.TYPES)
        typed = [str(word) for word in known.facts["words"]]
        planned = known.facts["budget"]
        budget = budget if budget is not None else None if planned is None else float(planned)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError([f"{path}: is damaged, or no file of a diagnosis; move it away"]) from error
    saved.check_trusted(path, typed, words)
    own = [word for word in typed if not saved.writes_elsewhere(word)]  # these only its user may decide
    return _show(compose_run(own), folder, last, budget, known)


def _show(run: "RunConfig", folder: Path, last: int, budget: float | None, known: "Ledger | None" = None) -> int:
    from deeptrain.analysis.diagnosis import ledger
    from deeptrain.analysis.diagnosis.procedure import TYPES, diagnose
    from deeptrain.analysis.diagnosis.subject import ComposedRun
    from deeptrain.loggers.console import Console
    from deeptrain.run.launch import log_to_console
    from deeptrain.runtime.device import keep_malloc_arena

    folder.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"words": run.overrides, "budget": budget}
    known = known or ledger.Ledger(folder / ledger.FILE, TYPES, facts)
    console = Console(sys.stdout)
    with log_to_console(console):
        keep_malloc_arena()
        try:
            done = lambda step: console.message(str(step))  # noqa: E731
            diagnosis = diagnose(ComposedRun(run), last, console.status, done, known, budget)
        except KeyboardInterrupt:
            console.close()
            terminal.report(f"goes on with: {command('diagnose')} {quote_setting('resume', folder)}")
            raise
        finally:
            console.close()
    page = diagnosis.save(folder)
    console.end([*diagnosis.lines(), f"page  {page}"])
    return int(diagnosis.failed)

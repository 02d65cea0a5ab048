"""Test a set-up in steps, and say what is wrong: python scripts/diagnose.py model=vgg data=cifar10"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deeptrain.commands.cli import answer
from deeptrain.runtime.world import get_world

if TYPE_CHECKING:
    from deeptrain.analysis.diagnose import Step
    from deeptrain.config.settings import RunConfig

USAGE = """\
python scripts/diagnose.py [group=option ...] [key=value ...] [steps=1-3]

Takes the settings of python train.py and tests them in three steps. The first step that fails ends the diagnosis:

  1 start     images, labels, the first loss; does the loss reward right answers; do images influence one another
  2 memorise  64 images without regularization, in training and in evaluation mode
  3 rate      a search as in find_lr.py, with the run's own rate beside it

Where a step fails, changes are tried in short runs: another rate, initialization, norm, no dropout, and so on.
"certain" means that a change was tried and helps, or that the symptom proves its cause. Only a fault fails a step.
The last lines name the command to type next. diagnosis.json and diagnosis.html are written into outputs/diagnose,
or into the folder of dir=. steps=1-2 leaves out the rate, steps=1 trains nothing.

Exit code: 0 no fault; 1 a fault; 2 a mistake in the command.
"""


LAST = {"1": 1, "1-2": 2, "1-3": 3}  # what steps= may be: the last step


def diagnose(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    return answer(arguments, USAGE, _diagnose, alone=True)


def _diagnose(arguments: list[str]) -> int:
    from deeptrain.commands.words import settings_of_a_run
    from deeptrain.config.compose import compose_run
    from deeptrain.config.override import last_value, override_key
    from deeptrain.errors import UsageError
    from deeptrain.run import dry_run

    words = settings_of_a_run(arguments, "a diagnosis", ("resume", "rerun", "overfit"))
    folder = Path(last_value(words, "dir") or Path("outputs") / "diagnose")
    steps = last_value(words, "steps") or "1-3"
    if steps not in LAST:
        raise UsageError([f"steps={steps}: choose from {', '.join(LAST)}; a step needs those before it"])
    if get_world().size > 1:
        raise UsageError(["a diagnosis does not go with torchrun; run it in one process"])
    run = compose_run([word for word in words if override_key(word) not in ("dir", "steps")])
    dry_run.check_settings(run)
    return _show(run, folder, LAST[steps])


def _show(run: "RunConfig", folder: Path, last: int) -> int:
    from deeptrain.analysis.diagnose import diagnose, summary
    from deeptrain.loggers.console import Console
    from deeptrain.report.diagnosis_page import write_page
    from deeptrain.run.launch import log_to_console
    from deeptrain.runtime.device import keep_malloc_arena

    console = Console(sys.stdout)
    with log_to_console(console):
        keep_malloc_arena()
        try:
            diagnosis = diagnose(run, last, console.status, lambda step: console.message(_step_line(step)))
        finally:
            console.close()
    content = summary(diagnosis)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "diagnosis.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    page = write_page(folder, content, run.title)
    console.end([*_reading(content), f"page  {page}"])
    return int(diagnosis.failed)


def _step_line(step: "Step") -> str:
    return f"{step.number} {step.name:<9} {step.status}   {step.line}"


def _reading(content: dict) -> list[str]:
    """Return the lines that matter: at most one fault and two pieces of advice, and what to type next."""
    found = [verdict for verdict in content["verdicts"] if verdict["kind"] == "fault"][:1]
    found += [verdict for verdict in content["verdicts"] if verdict["kind"] == "advice"][:2]
    lines = [f"reading  {verdict['sentence']}" for verdict in found]
    if not found:
        lines = [f"reading  nothing is wrong in steps 1 to {len(content['steps'])}"]
    elif content["excluded"]:
        lines.append(f"excluded  {', '.join(content['excluded'])}")
    return [*lines, *(f"try  {command}" for command in content["commands"])]

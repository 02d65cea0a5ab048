"""optimizer.lr=auto: the search for the rate, before the run; from then on it is a run with that rate typed."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeptrain import build
from deeptrain.config.compose import compose_run
from deeptrain.config.override import override_key
from deeptrain.config.settings import RunConfig
from deeptrain.errors import UsageError
from deeptrain.report import formatting
from deeptrain.run import saved
from deeptrain.runtime.files import write_atomically
from deeptrain.runtime.garbage import USUALLY, collect_every
from deeptrain.runtime.paths import quote
from deeptrain.runtime.resources import command
from deeptrain.runtime.world import get_world

if TYPE_CHECKING:
    from deeptrain.analysis.find_lr import RateSearch

KEY = "optimizer.lr"
IMAGES = 1000  # of train, and of val, on which short runs are compared
FILE, PICTURE = "find_lr.json", "find_lr.png"
UNSTABLE = "training diverges at less than three times this rate; schedule.warmup=0.1 or clip_norm=1 may help"


def check(run: RunConfig) -> None:
    """Raise UsageError if the rate of a run is to be searched and cannot be."""
    if not run.find_lr:
        return
    settings, optimizer = run.settings, run.choices["optimizer"]
    if settings.resume or settings.rerun:
        word = "goes on" if settings.resume else "is repeated"
        raise UsageError([f"{KEY}=auto: a run that {word} keeps its rate; leave this out"])
    if get_world().size > 1:
        remedy = f"run {command('find-lr')} in one process first, and type the rate"
        raise UsageError([f"{KEY}=auto: does not go with torchrun; {remedy}"])
    if settings.scale_lr != "none":
        raise UsageError([f"{KEY}=auto: is searched with this batch size; leave out scale_lr={settings.scale_lr}"])
    if "lr" not in run.parts["optimizer"]:
        raise UsageError([f"{KEY}=auto: optimizer={optimizer} has no setting lr; add lr: 0.01 to its file"])


def with_rate(run: RunConfig, rate: float) -> list[str]:
    """Return a run's overrides with this rate in place of the one that was typed."""
    return [*(word for word in run.overrides if override_key(word) != KEY), f"{KEY}={rate:g}"]


def train_command(run: RunConfig, rate: float) -> str:
    """Return the command that trains this run with a rate."""
    return " ".join([command("train"), *(quote(word) for word in with_rate(run, rate))])


@collect_every(USUALLY)
def search(setup: build.Setup, report: Callable[[str], None]) -> "RateSearch":
    """Search the rate of a run whose data are open; report takes a line at every step."""
    from deeptrain.analysis.find_lr import find_lr

    trainer = build.trainer(setup)
    parts = [part.evenly_spaced(IMAGES) for part in (setup.dataset.train, setup.dataset.val)]
    slices = [build.eval_loader(setup.source, part, setup.run, setup.runtime) for part in parts]
    try:
        return find_lr(trainer, build.rates_of(setup, trainer.model), slices, report)
    finally:
        trainer.close()
        for loader in slices:
            loader.close()


def settle(setup: build.Setup, report: Callable[[str], None]) -> "RateSearch | None":
    """Search the rate of a run with optimizer.lr=auto, and put it into its settings; None for any other run."""
    if not setup.run.find_lr:
        return None
    found = search(setup, report)
    if found.lr is None:
        raise UsageError([f"{KEY}=auto: {does_not_learn(found)}"])
    setup.run = compose_run(with_rate(setup.run, found.lr))
    return found


def does_not_learn(found: "RateSearch") -> str:
    """Say that no rate was found, and what to look at."""
    race = found.races[-1]
    loss, guess = (formatting.format_loss(value) for value in (race.means[race.best], found.guess))
    tried = f"{min(race.scores):g} to {max(race.scores):g}"
    return (
        f"no rate from {tried} is better than guessing after {race.steps} steps (loss {loss}, guessing {guess}); "
        "write overfit=64 to see whether this network can learn these images at all"
    )


def write(found: "RateSearch", folder: Path, title: str) -> None:
    """Write find_lr.json and find_lr.png."""
    from deeptrain.report.rate_search import draw_rate_search

    summary = found.summary()
    write_atomically(folder / FILE, json.dumps(summary, indent=1).encode())
    draw_rate_search(summary, folder / PICTURE, title)


def sentence(found: "RateSearch") -> str:
    """Say which rate was found, and which others are as good."""
    low, high = found.span
    others = f"; from {low:g} to {high:g} the races see no difference" if low < high else ""
    return f"{found.lr:g}, found in {found.steps:,} steps of search{others}"


def known(run_dir: Path) -> dict[str, Any]:
    """Return what result.json says of the search whose file a run folder holds; {} if there was none."""
    try:
        summary = saved.read_json(run_dir / FILE, dict, {})
    except UsageError:  # a stranger's
        return {}
    lr, span = summary.get("lr"), summary.get("range")
    numbers = [lr, *(span if isinstance(span, list) else [])]
    if not all(isinstance(number, float) and math.isfinite(number) for number in numbers):
        return {}
    return {"found_lr": {"lr": lr, "range": span, "steps": summary.get("steps")}}

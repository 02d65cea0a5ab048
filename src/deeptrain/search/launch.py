"""One search, from its words to its best setting; going on with it; and the confirmation of what it has found."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from deeptrain.config.axes import Choice
from deeptrain.config.command_options import split_options
from deeptrain.config.override import last_value, override_key, override_value
from deeptrain.errors import UsageError
from deeptrain.report import formatting
from deeptrain.run import folder, saved
from deeptrain.runtime import signals, terminal
from deeptrain.runtime.paths import as_typed, quote, quote_setting
from deeptrain.runtime.resources import command as typed_command
from deeptrain.schema import PositiveFloat, PositiveInt
from deeptrain.search import confirm, report, study, trials
from deeptrain.search.sampler import Kind
from deeptrain.search.study import PRUNE, Study
from deeptrain.sweep import launch as sweeps
from deeptrain.sweep import plan as plans
from deeptrain.sweep import server
from deeptrain.sweep.check import Facts, check
from deeptrain.sweep.ledger import Ledger
from deeptrain.sweep.options import Options
from deeptrain.sweep.plan import Plan
from deeptrain.sweep.worker import Worker

TRIALS = 40  # unless others, or hours, are asked for
SLOW_STARTERS = re.compile(r"aug\b|epochs|dropout|stochastic_depth|drop_connect|label_smoothing|penalty|sam\b|average")
PACKAGE = "optuna"
TRIAL = "trial"  # no option: the words of people who mean trials=, or one of the runs


@dataclass
class SearchOptions(Options):
    """How long a search goes on, and with which sampler. Results depend on the sampler alone."""

    trials: PositiveInt | None = None  # in all
    hours: PositiveFloat | None = None  # in which trials are started
    sampler: Kind | None = None  # auto: a Gaussian process, or TPE for what it is bad at
    confirm: str | None = None  # 5x3: the best 5 settings on 3 other seeds


def search(words: list[str], command: server.Command) -> int:
    """Check the space, then draw and run trials; the exit code is 1 if none has come to its end."""
    check_package()
    with sweeps.interruptible():
        options, words, added = split(words)
        if added or options.retry:
            word = f"trials=+{added}" if added else "retry=failed"
            raise UsageError([f"{word}: goes with resume=, the folder of a search"])
        _refuse_trial(words)
        directory, words = last_value(words, "dir"), [word for word in words if override_key(word) != "dir"]
        sweeps.check_directory(directory, words)
        new = Study.of(words)
        plan, warnings, facts = _check(new, words, options)
        slots, gpus = _places(options, plan, facts)
        warnings = [*warnings, *_warnings(new, plan)]
        if options.dry_run:
            _show_dry_run(new, plan, facts, slots, warnings)
            return 0
        if (same := sweeps.find_unfinished(words)) and directory is None:
            again = f"{typed_command('tune')} {quote_setting('resume', same)}"
            warnings.append(f"the same search was begun before; to go on with it instead: {again}")
        plan = plans.moved(plan, folder.new_sweep_folder(directory))
        sweeps.save_once(plan, directory)
        terminal.show(*_head(new, plan, slots), *(f"warning: {sentence}" for sentence in warnings))
        return work(new, plan, command, slots, gpus, options)


def go_on(path: Path, words: list[str], command: server.Command) -> int:
    """Go on with a search, or join the terminals that are at work on it."""
    check_package()
    with sweeps.interruptible():
        options, words, added = split([word for word in words if override_key(word) != "resume"])
        unread = [word for word in words if override_key(word) not in (*saved.TRUSTED, TRIAL)]
        if unread:
            raise UsageError(f"{word}: a search goes on with the settings that it has; leave it out" for word in unread)
        plan = plans.load(path, words)
        if not plans.is_search(path):
            raise UsageError([f"resume={path}: is a sweep; go on with it by {typed_command('train')} resume={path}"])
        study.check_facts(plan)
        _refuse_trial(words, plan)
        begun = Study.of(plan.words, words)
        changes = _changes(options, plan, added)
        if options.dry_run:
            terminal.show(*report.lines(begun, plan), "nothing was started; leave out dry_run to go on")
            return 0
        plan = study.update(path, words, **changes)
        slots, gpus = _places(options, plan, {})
        over = study.why_over(plan)
        terminal.show(f"search  {len(plan.jobs)} trials so far{f'; {over}' if over else ''}", f"folder  {path}")
        return work(begun, plan, command, slots, gpus, options)


def work(own: Study, plan: Plan, command: server.Command, slots: int, gpus: list[str], options: Options) -> int:
    """Draw and run trials until there are enough, confirm the best, and say what was found."""
    worker = Worker(
        plan, command, slots, gpus, retry=options.retry is not None, fail_fast=options.fail_fast, grow=own.grow
    )
    try:
        worker.work()
    finally:
        plan = plans.load(plan.folder, own.now)
        terminal.show("", *report.lines(own, plan))
    if worker.received:
        terminal.show(f"stopped  all running trials are saved; go on: {report.tune_command(plan)}")
        return signals.EXIT_CODE
    if text := plan.facts.get("confirm"):
        return confirm.run(own, plan, text, command, slots, gpus, options)
    known, _ = trials.read(Ledger(plan))
    return 0 if any(trial.is_finished for trial in known) else 1


def split(words: Sequence[str]) -> tuple[SearchOptions, list[str], int]:
    """Separate the options from the words of the runs; also return the trials that trials=+20 adds."""
    if "sampler=grid" in words:
        raise UsageError(["sampler=grid: write -m with train.py instead, which runs all combinations"])
    added = [word for word in words if re.fullmatch(r"trials=\+[1-9]\d*", word)]
    if wrong := [word for word in words if word.startswith("trials=+") and word not in added]:
        raise UsageError([f"{wrong[0]}: write a whole number from 1, as in trials=+20"])
    options, rest = split_options([word for word in words if word not in added], SearchOptions)
    if options.launcher != "local":
        remedy = (
            f"{typed_command('tune')} resume=SEARCH joins from every machine that sees its folder (docs/clusters.md)"
        )
        raise UsageError([f"launcher={options.launcher}: is for sweeps, as a search draws trial after trial; {remedy}"])
    if options.confirm is not None:
        confirm.parse(options.confirm)
    return options, rest, int(override_value(added[-1])) if added else 0


def check_package() -> None:
    if find_spec(PACKAGE) is None:
        raise UsageError([f"tune: needs the package {PACKAGE}; pip install 'deeptrain[tune]'"])


def _refuse_trial(words: Sequence[str], plan: Plan | None = None) -> None:
    """Raise UsageError if trial= is typed: say where the run of that trial is, or that trials= was meant."""
    word = next((word for word in words if override_key(word) == TRIAL), None)
    if word is None:
        return
    number = override_value(word)
    if plan is None or not number.isdecimal():
        raise UsageError([f"{word}: write trials={number if number.isdecimal() else TRIALS} for so many trials"])
    known, _ = trials.read(Ledger(plan))
    if int(number) >= len(known):
        raise UsageError([f"{word}: there are trials 0 to {len(known) - 1}; write trials=+20 for 20 more"])
    trial = known[int(number)]
    raise UsageError([f"{word}: is in {quote(as_typed(trial.job.folder))}; again: {report.repeat_command(trial)}"])


def _check(own: Study, words: Sequence[str], options: SearchOptions) -> tuple[Plan, list[str], dict[str, Facts]]:
    """Build the user's own run, and one for each choice and each end of a range; return the plan with the first."""
    base = Plan(Path(), tuple(words), tuple(own.keys), (), _facts(options))
    first = own.first_job(base)
    probes = [
        own.job(base, 0, probe, own.space.words(probe), 0) for key in own.space.axes for probe in own.space.probes(key)
    ]
    _, warnings, _ = check(replace(base, jobs=tuple(probes)))
    checked, own_warnings, facts = check(replace(base, jobs=(first,)), measure=options.dry_run)
    known = facts.get(first.name)
    if known is not None:
        is_fixed = not any(key.partition(".")[0] in study.LENGTH_KEYS for key in own.keys)
        base.facts.update(threads=known.threads, **({"steps": known.steps} if is_fixed else {}))
    return replace(checked, facts=base.facts | sweeps.origin()), list(dict.fromkeys([*own_warnings, *warnings])), facts


def _places(options: Options, plan: Plan, facts: dict[str, Facts]) -> tuple[int, list[str]]:
    """Return how many trials run at a time, and the GPUs; a search that only time ends has enough for every core."""
    wanted = plan.facts["trials"] or sweeps.cores()
    return sweeps.places(options, replace(plan, facts=plan.facts | {"trials": wanted}), facts)


def _facts(options: SearchOptions) -> dict[str, Any]:
    """Return what a new search is to do, for sweep.json."""
    wanted = options.trials if options.trials or options.hours else TRIALS
    until = study.until(options.hours) if options.hours else None
    return {"sampler": options.sampler or "auto", "trials": wanted, "until": until, "confirm": options.confirm}


def _changes(options: SearchOptions, plan: Plan, added: int) -> dict[str, Any]:
    """Return what a search is to do from now on."""
    changes: dict[str, Any] = {}
    if options.trials and options.trials < len(plan.jobs):
        there = f"{len(plan.jobs)} trials are there already; write trials=+{options.trials} for so many more"
        raise UsageError([f"trials={options.trials}: {there}"])
    if added or options.trials:
        changes |= {"trials": plan.total + added if added else options.trials, "until": None}
    if options.hours:
        changes |= {"until": study.until(options.hours), "trials": options.trials}
    changes |= {"sampler": options.sampler} if options.sampler else {}
    return changes | ({"confirm": options.confirm} if options.confirm else {})


def _warnings(own: Study, plan: Plan) -> list[str]:
    """Say what makes a search weaker than it looks."""
    said = []
    slow = [key for key in own.keys if SLOW_STARTERS.search(key)]
    if slow and not any(override_key(word) == PRUNE for word in own.space.fixed):
        said.append(f"{', '.join(slow)}: what starts slowly may be pruned too soon; {PRUNE}=null turns pruning off")
    outside = [key for key in own.keys if not _is_inside(own, key)]
    if outside:
        listed = ", ".join(f"{key}={own.own[key]}" for key in outside)
        said.append(f"your own {listed} lies outside its range: trial 0 has it, the sampler does not learn from it")
    said += [
        f"{key}={axis}: two values alone; all between them are {quote(f'{key}={between}')}"
        for key, axis in own.space.axes.items()
        if isinstance(axis, Choice) and (between := axis.between())
    ]
    size, wanted = own.space.size, plan.facts.get("trials")
    if size is not None and wanted and size <= wanted:
        said.append(f"there are only {size} settings; {typed_command('train')} -m runs each once")
    return said


def _is_inside(own: Study, key: str) -> bool:
    if key not in own.own or not own.space.exists(key, own.own):
        return True
    return replace(own.space, axes={key: own.space.axes[key]}, under={}).parameters(own.own) is not None


def _head(own: Study, plan: Plan, slots: int) -> list[str]:
    """Say before the first trial what is about to happen."""
    wanted, until = plan.facts.get("trials"), plan.facts.get("until")
    length = " or ".join([*([f"{wanted} trials"] if wanted else []), *([f"until {until}"] if until else [])])
    kind = study.kind_of(plan, own.space)
    threads = plan.facts.get("threads")
    places = f"{slots} at a time" + (f", threads={threads} each" if threads else "")
    return [
        f"search  {length}, sampler={kind}; {places}",
        *(f"        {key}={axis}" for key, axis in own.space.axes.items()),
        f"folder  {plan.folder}",
        f"join    {report.tune_command(plan)}   (also to go on after Ctrl-C, which saves all runs)",
    ]


def _show_dry_run(own: Study, plan: Plan, facts: dict[str, Facts], slots: int, warnings: Sequence[str]) -> None:
    """Show the space, and how long the trials would take if none was pruned."""
    known = facts.get(plan.jobs[0].name)
    head = _head(own, plan, slots)[:-2]
    seconds = known.seconds if known else None
    if seconds is not None:
        whole = seconds * plan.total / min(slots, max(1, plan.total))
        every = (
            f"; all {plan.total} without pruning: about {formatting.duration(whole)}" if plan.facts["trials"] else ""
        )
        head.append(f"time    about {formatting.duration(seconds)} a trial{every}")
    terminal.show(*head, *(f"warning: {sentence}" for sentence in warnings))
    terminal.show("nothing was started; leave out dry_run to start")

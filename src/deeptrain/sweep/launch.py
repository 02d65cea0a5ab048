"""One sweep, from its words to its table; and going on with one that was stopped."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import deeptrain
from deeptrain.compare import report
from deeptrain.config.command_options import split_options
from deeptrain.config.compose import renamed_in
from deeptrain.config.override import last_value, override_key
from deeptrain.errors import UsageError, error_line
from deeptrain.report import formatting
from deeptrain.run import folder, lock, saved
from deeptrain.runtime import signals, terminal
from deeptrain.runtime.paths import as_typed, quote, quote_setting
from deeptrain.runtime.resources import command as typed_command
from deeptrain.sweep import folds, launchers, server
from deeptrain.sweep import plan as plans
from deeptrain.sweep.check import Facts, check, count_gpus
from deeptrain.sweep.cluster import Engine, Follower
from deeptrain.sweep.ledger import Ledger
from deeptrain.sweep.options import Options
from deeptrain.sweep.plan import Plan
from deeptrain.sweep.worker import Worker


def sweep(words: list[str], command: server.Command, lay_out: Callable[[Sequence[str]], Plan] = plans.lay_out) -> int:
    """Check every run, then train them; the exit code is 1 if any failed.

    command: what a job's words are given to. lay_out: makes the jobs from the words.
    """
    with interruptible():
        options, words = split_options(words, Options)
        placing, words = launchers.take_out(options.launcher, words)
        directory, words = last_value(words, "dir"), [word for word in words if override_key(word) != "dir"]
        check_directory(directory, words)
        is_elsewhere = options.launcher != "local"
        checked, warnings, facts = check(lay_out(words), measure=options.dry_run, elsewhere=is_elsewhere)
        warnings = list(dict.fromkeys([*renamed_in(words), *warnings]))
        slots, gpus = places(options, checked, facts)
        engine = None if options.dry_run else engine_of(options, placing, checked)
        if options.dry_run:
            _show_dry_run(checked, facts, slots, warnings)
            return 0
        if (same := find_unfinished(words)) and directory is None:
            warnings.append(f"the same sweep was begun before; to go on with it instead: {resume_command(same, words)}")
        plan = plans.moved(checked, folder.new_sweep_folder(directory))
        save_once(replace(plan, facts=origin()), directory)
        where = f"launcher={options.launcher}" if engine else _places(plan, facts, slots, gpus)
        terminal.show(*_head(plan, where), *(f"warning: {sentence}" for sentence in warnings))
        return work(plan, command, slots, gpus, options, engine)


def go_on(path: Path, words: list[str], command: server.Command) -> int:
    """Go on with a sweep, or join the terminals that are at work on it."""
    with interruptible():
        options, words = split_options([word for word in words if override_key(word) != "resume"], Options)
        placing, words = launchers.take_out(options.launcher, words)
        unread = [word for word in words if override_key(word) not in saved.TRUSTED]
        if unread:
            raise UsageError(f"{word}: a sweep goes on with the settings that it has; leave it out" for word in unread)
        plan = plans.load(path, words)
        ledger = Ledger(plan)
        failed = ledger.failures()
        open_jobs = len(plan.jobs) - len(ledger.results()) - len(failed)
        if options.dry_run:
            terminal.show(f"sweep   {len(ledger.results())} of {len(plan.jobs)} runs are done, {len(failed)} failed")
            return 0
        if not open_jobs and not (failed and options.retry):
            show_report(plan)
            retry = f"; to try the {len(failed)} failed again, add retry=failed" if failed else ""
            terminal.show(f"{quote_setting('resume', path)}: nothing left to do{retry}")
            return 1 if failed else 0
        slots, gpus = places(options, plan, {})
        engine = engine_of(options, placing, plan)
        again, where = f", {len(failed)} failed" if failed else "", f"launcher={options.launcher}"
        where = where if engine else f"{slots} at a time"
        terminal.show(f"sweep   {open_jobs} of {len(plan.jobs)} runs left{again}; {where}", f"folder  {path}")
        return work(plan, command, slots, gpus, options, engine)


def engine_of(options: Options, placing: Any, plan: Plan) -> Engine | None:
    """Return what places the jobs on other machines, if the launcher does."""
    at_once = options.jobs if isinstance(options.jobs, int) else None
    return launchers.engine(options.launcher, placing, _threads(plan), at_once)


def work(
    plan: Plan,
    command: server.Command,
    slots: int,
    gpus: list[str],
    options: Options,
    engine: Engine | None = None,
) -> int:
    """Work through a plan, here or by an engine, then show its table; return the exit code."""
    retry, fail_fast = options.retry is not None, options.fail_fast
    worker = (
        Worker(plan, command, slots, gpus, retry=retry, fail_fast=fail_fast)
        if engine is None
        else Follower(plan, command, engine, retry=retry, fail_fast=fail_fast)
    )
    try:
        worker.work()
    finally:
        show_report(plan)
    results, failed = worker.ledger.results(), worker.ledger.failures()
    elsewhere = sum(job.folder.name in worker.claims.owners() for job in plan.jobs if job.name not in results)
    if elsewhere:
        terminal.show(f"others   {elsewhere} runs go on in other terminals; the last one shows the whole table")
    elif len(results) + len(failed) < len(plan.jobs):
        terminal.show(f"go on    {resume_command(plan.folder, plan.words)}")
    elif failed:
        terminal.show(f"retry    {resume_command(plan.folder, plan.words)} retry=failed")
    if worker.received:
        return signals.EXIT_CODE
    return 1 if failed else 0


def show_report(plan: Plan) -> None:
    """Show what the runs say so far, and write the report into the sweep's folder; nothing before a run has begun."""
    if not Ledger(plan).failures() and not any(job.folder.is_dir() for job in plan.jobs):
        return
    try:
        lines = report.report([plan.folder], plan.folder, baseline=plan.facts.get("baseline"))
    except (UsageError, OSError) as error:
        lines = [f"warning: there is no report: {error_line(error)}"]
    terminal.show("", *lines, f"curves   tensorboard --logdir {quote(as_typed(plan.folder))}")


def resume_command(path: Path, words: Sequence[str]) -> str:
    """Return what to type to go on with a sweep, with the words that are not taken from a folder."""
    trusted = [quote(word) for word in words if override_key(word) in saved.TRUSTED]
    return " ".join([typed_command("train"), quote_setting("resume", path), *trusted])


def places(options: Options, plan: Plan, facts: dict[str, Facts]) -> tuple[int, list[str]]:
    """Return how many jobs run at a time, and the GPUs that they are spread over.

    auto: a job for each GPU; without one, as many as there are cores for the threads of a job. On a cluster its engine
    decides.
    """
    gpus = _gpus(plan, facts) if options.launcher == "local" else []
    if options.jobs != "auto":
        return options.jobs or 1, gpus
    if gpus:
        return len(gpus), gpus
    return min(plan.total, max(1, cores() // _threads(plan))), []


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads(plan: Plan) -> int:
    """Return the most threads that a job of the plan computes with."""
    counts = [last_value(list(job.words), "threads") for job in plan.jobs]
    return max(int(count) if count and count.isdigit() else cores() for count in counts)


def _gpus(plan: Plan, facts: dict[str, Facts]) -> list[str]:
    """Return the GPUs that jobs may be spread over: none if a job names its own, or computes on the CPU."""
    devices = {last_value(list(job.words), "device") or "auto" for job in plan.jobs}
    known = {fact.device for fact in facts.values()}
    if not devices <= {"auto", "cuda"} or (known and "cuda" not in known):
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [number for number in visible.split(",") if number not in ("", "-1")]
    return [str(number) for number in range(server.call(count_gpus))]


def check_directory(directory: str | None, words: Sequence[str]) -> None:
    """Raise UsageError if dir= holds anything; of a sweep, say how to go on with it."""
    if directory is None:
        return
    path = folder.read_named("dir", directory)
    if not plans.is_sweep(path):
        folder.check_new(directory)
        return
    content = saved.read_json(path / plans.FILE, dict, {})
    if content.get("words") == list(words):
        message = f"this sweep is there already; go on with it: {resume_command(path, words)}"
    else:
        message = f"holds another sweep; name a new folder, or go on with that one: {resume_command(path, words)}"
    raise UsageError([f"dir={directory}: {message}"])


def find_unfinished(words: Sequence[str]) -> Path | None:
    """Return the newest sweep in outputs/ that was made of the same words and has open jobs."""
    for file in sorted((folder.OUTPUTS / "sweeps").glob(f"*/*/{plans.FILE}"), reverse=True):
        try:
            if saved.read_json(file, dict, {}).get("words") != list(words):
                continue
            plan = plans.load(file.parent, words)
        except UsageError:
            continue
        ledger = Ledger(plan)
        if len(ledger.results()) + len(ledger.failures()) < plan.total:
            return file.parent
    return None


def save_once(plan: Plan, directory: str | None) -> None:
    """Write the plan, unless another sweep was begun in this folder at the same moment."""
    lock.lock(plan.folder, "dir=")
    try:
        check_directory(directory, plan.words)
        plans.save(plan)
    finally:
        lock.unlock(plan.folder)


def origin() -> dict[str, str]:
    return {"deeptrain": deeptrain.__version__, "made": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}


def _places(plan: Plan, facts: dict[str, Facts], slots: int, gpus: list[str]) -> str:
    """Say how many jobs run at a time, and with what."""
    threads = sorted({fact.threads for fact in facts.values()})
    places = f"{slots} at a time" + (f" on {len(gpus)} GPU{'s' if len(gpus) > 1 else ''}" if gpus else "")
    places += f", threads={'|'.join(map(str, threads))} each" if threads else ""
    if threads and not gpus and (most := min(len(plan.jobs), cores() // threads[-1])) > slots:
        places += f"; jobs={most} would use all cores"
    return places


def _head(plan: Plan, where: str) -> list[str]:
    """Say before the first job what is about to happen."""
    parts = folds.take_out(plan.words)[0]
    held_out = f"folds   the training images in {parts} parts, each held out once as val; the test images stay shut"
    return [
        f"sweep   {len(plan.jobs)} runs over {', '.join(plan.keys) or 'nothing'}; {where}",
        *([held_out] if parts else []),
        f"folder  {plan.folder}",
        f"join    {resume_command(plan.folder, plan.words)}   (also to go on after Ctrl-C, which saves all runs)",
    ]


def _show_dry_run(plan: Plan, facts: dict[str, Facts], slots: int, warnings: Sequence[str]) -> None:
    """List the jobs in their order, with an estimate of their time, and of that of the sweep."""
    width, total, known = max(len(job.name) for job in plan.jobs), 0.0, 0
    for index, job in enumerate(plan.jobs, start=1):
        seconds = facts[job.name].seconds if job.name in facts else None
        total, known = total + (seconds or 0.0), known + (seconds is not None)
        estimate = f"about {formatting.duration(seconds)}" if seconds is not None else "?"
        terminal.show(f"{index:>3}/{len(plan.jobs)}  {job.name:<{width}}  {estimate}")
    whole = total * len(plan.jobs) / max(1, known) / min(slots, len(plan.jobs))
    terminal.show(f"sweep   {len(plan.jobs)} runs, {slots} at a time: about {formatting.duration(whole)}")
    terminal.show(*(f"warning: {sentence}" for sentence in warnings), "nothing was started; leave out dry_run to start")


@contextmanager
def interruptible() -> Iterator[None]:
    with signals.handle_signals(signals.first_then_exit(signals.raise_interrupt)):
        yield

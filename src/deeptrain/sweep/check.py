"""Every job of a sweep is built before the first one starts: what is wrong with it, and what is known of it then."""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from deeptrain.config.compose import compose_run, in_jobs
from deeptrain.config.override import override_key
from deeptrain.config.repeats import FOLD, SEED, SPLIT_SEED
from deeptrain.config.settings import RunConfig
from deeptrain.errors import UsageError
from deeptrain.loggers.console import Console
from deeptrain.run import dry_run
from deeptrain.run.launch import log_to_console
from deeptrain.sweep import server
from deeptrain.sweep.plan import Job, Plan

if TYPE_CHECKING:
    from deeptrain.training.trainer import Trainer

REPEAT_KEYS = (SEED, FOLD, SPLIT_SEED)
MEASURED_STEPS, MEASURED_SECONDS = 20, 3.0  # of each setting, for an estimate
FORWARD = 1 / 3  # of the time of a step, which goes forward once and backward as long as twice


@dataclass(frozen=True)
class Facts:
    """What is known of a run once it is built. seconds: an estimate of the whole run, if that was asked for."""

    threads: int
    steps: int
    device: str
    seconds: float | None = None


def check(plan: Plan, *, measure: bool = False, elsewhere: bool = False) -> tuple[Plan, list[str], dict[str, Facts]]:
    """Build every job; UsageError names the jobs of each mistake. Nothing is written.

    Jobs that differ in seed and fold alone are built once. Returns the plan, the warnings, and the facts by the names
    of jobs. The words of the plan's jobs hold the number of threads, which is part of their results. What else goes
    wrong in building (too little memory here and now) is for the run itself to say.
    """
    groups: dict[tuple[str, ...], list[Job]] = defaultdict(list)
    for job in plan.jobs:
        groups[tuple(word for word in job.words if override_key(word) not in REPEAT_KEYS)].append(job)
    jobs = list(groups.values())
    composed = [_attempt(compose_run, list(same[0].words)) for same in jobs]
    _gather([run if isinstance(run, UsageError) else [] for run in composed], jobs)
    runs: list[RunConfig] = [run for run in composed if isinstance(run, RunConfig)]
    warnings = _gather([_attempt(dry_run.check_settings, run) for run in runs], jobs)
    built = server.call(build_each, [_without_device(run) for run in runs] if elsewhere else runs, measure)
    warnings += _gather([answer for answer, _ in built], jobs)
    facts = {job.name: known for same, (_, known) in zip(jobs, built, strict=True) if known for job in same}
    with_threads = tuple(_with_threads(job, facts.get(job.name)) for job in plan.jobs)
    return replace(plan, jobs=with_threads), list(dict.fromkeys(warnings)), facts


def build_each(runs: Sequence[RunConfig], measure: bool) -> list[tuple[list[str] | UsageError, Facts | None]]:
    """Build every run, one after the other; return its warnings or mistakes, and its facts."""
    import torch

    threads = torch.get_num_threads()
    built = []
    for run in runs:
        torch.set_num_threads(threads)
        try:
            with log_to_console(Console(sys.stdout)):
                built.append(_build(run, measure))
        except UsageError as error:
            built.append((error, None))
        except Exception:  # for the run to tell
            built.append(([], None))
    return built


def _without_device(run: RunConfig) -> RunConfig:
    return replace(run, settings=replace(run.settings, device="cpu"))


def count_gpus() -> int:
    """Count the GPUs; to be called in a process of its own, since none may be forked after it."""
    import torch

    return torch.cuda.device_count()


def _build(run: RunConfig, measure: bool) -> tuple[list[str], Facts]:
    import torch

    from deeptrain.runtime.device import pick_device

    setup, trainer = dry_run.check_by_building(run, on_cpu=not measure)
    try:
        device, _ = pick_device(run.settings.device)
        seconds = estimate(trainer, run) if measure else None
        return setup.warnings, Facts(torch.get_num_threads(), trainer.plan.total_steps, device.type, seconds)
    finally:
        trainer.close()


def estimate(trainer: "Trainer", run: RunConfig) -> float:
    """Estimate how long a run takes from a few of its steps: training, and a forward pass for each validated image."""
    images = trainer.train_loader.sizes[0]
    began, steps = time.perf_counter(), 0
    for batch in trainer.train_loader.epoch(0, 0):
        trainer.train_step(*batch)
        steps += 1
        if steps == 1:  # which also warms everything up
            began = time.perf_counter()
        elif steps > MEASURED_STEPS or time.perf_counter() - began > MEASURED_SECONDS:
            break
    step = (time.perf_counter() - began) / max(1, steps - 1)
    plan, limit = trainer.plan, run.settings.max_seconds
    every = plan.validate_every_steps or plan.steps_per_epoch * plan.validate_every_epochs
    validated = plan.val_images + run.settings.validate.clean_images
    validations = -(-plan.total_steps // every)
    training = min(step * plan.total_steps, limit or float("inf"))
    return training + validations * validated * step / images * FORWARD


def _attempt(function: Callable[[Any], Any], argument: Any) -> Any:
    try:
        return function(argument)
    except UsageError as error:
        return error


def _gather(answers: Sequence[list[str] | UsageError], jobs: Sequence[list[Job]]) -> list[str]:
    """Return all warnings; UsageError with each mistake and the jobs that have it."""
    mistakes: dict[str, list[str]] = defaultdict(list)
    for answer, same in zip(answers, jobs, strict=True):
        for line in answer.lines if isinstance(answer, UsageError) else []:
            mistakes[line] += [job.name for job in same]
    if mistakes:
        total = sum(map(len, jobs))
        raise UsageError(f"{line}{in_jobs(names, total)}" for line, names in mistakes.items())
    return [line for answer in answers if not isinstance(answer, UsageError) for line in answer]


def _with_threads(job: Job, facts: Facts | None) -> Job:
    if facts is None:
        return job
    own = any(override_key(word) == "threads" and not word.endswith("=auto") for word in job.words)
    words = job.words if own else (*job.words, f"threads={facts.threads}")
    return replace(job, words=words, steps=facts.steps)

"""One run, from its overrides to result.json."""

import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from deeptrain import build
from deeptrain.config.override import last_value
from deeptrain.config.settings import RunConfig
from deeptrain.errors import NothingToDo, UsageError, error_line
from deeptrain.run import dry_run, folder, lock
from deeptrain.run.resume import (
    compose_without_origin,
    follow,
    initial_weights,
    learned_classes,
    load_state,
    prepare,
    read_state,
)
from deeptrain.runtime import signals, terminal
from deeptrain.runtime.files import write_atomically
from deeptrain.runtime.garbage import RARELY, collect_every
from deeptrain.runtime.paths import quote_setting
from deeptrain.runtime.world import get_world

if TYPE_CHECKING:  # what a run needs once its settings are right; a mistake is answered without it
    from deeptrain.loggers.console import Console
    from deeptrain.run.rerun import Original
    from deeptrain.training.trainer import Trainer

EXIT_CODES = {"finished": 0, "stopped_early": 0, "pruned": 0, "failed": 1, "interrupted": signals.EXIT_CODE}


@collect_every(RARELY)
def main(overrides: list[str]) -> int:
    """Compose, check and train; return the exit code. Nothing is written before all checks have passed."""
    try:
        with signals.handle_signals(signals.first_then_exit(signals.raise_interrupt, get_world().signal_grace)):
            signals.end_with_torchrun()
            if (original := last_value(overrides, "rerun")) is not None:
                return repeat(overrides, original)
            try:
                run, run_dir, checkpoint = (
                    prepare(overrides) if get_world().is_main else (follow(overrides), None, None)
                )
            except UsageError as error:
                raise dry_run.with_settings_checked(error) from None
            check(run)
            return train(run, run_dir, checkpoint)
    except NothingToDo as answer:
        if get_world().is_main:
            terminal.show(str(answer))
        return 0
    finally:
        lock.unlock_all()


def repeat(overrides: list[str], path: str) -> int:
    """Repeat a run from its folder alone, in a new one; the exit code is also 1 if other bits come out."""
    from deeptrain.run import rerun

    overrides = [override for override in overrides if not override.startswith("rerun=")]
    saved_overrides, original = rerun.find(path, overrides) if get_world().is_main else ([], None)
    run = compose_without_origin(get_world().broadcast([*saved_overrides, *overrides]))
    run.settings.rerun = path
    check(run)
    return train(run, original=original)


def check(run: RunConfig) -> None:
    """Raise UsageError with all mistakes that can be found before torch is imported."""
    messages = []
    from deeptrain.run import found_rate

    checks: list[Callable[[], object]] = [lambda: dry_run.check_settings(run), lambda: found_rate.check(run)]
    if get_world().is_main:  # it makes the folder
        checks.append(lambda: folder.check_new(run.settings.dir))
    for each in checks:
        try:
            each()
        except UsageError as error:
            messages += error.lines
    if messages:
        raise UsageError(messages)


def train(
    run: RunConfig,
    run_dir: Path | None = None,
    checkpoint: Path | None = None,
    original: "Original | None" = None,
) -> int:
    """Build everything, make the run folder, train, draw; return the exit code.

    run_dir, checkpoint: of a run that goes on. original: the run that this one repeats.
    """
    from deeptrain.loggers.console import Console

    console = Console(sys.stdout, quiet=not get_world().is_main)
    with log_to_console(console):
        return train_and_show(run, console, run_dir, checkpoint, original)


def train_and_show(
    run: RunConfig, console: "Console", run_dir: Path | None, checkpoint: Path | None, original: "Original | None"
) -> int:
    """Do what `train` says, and show it on a console."""
    from deeptrain.analysis.initial_loss import known_initial_loss, measure_initial_loss
    from deeptrain.run import found_rate, pruning
    from deeptrain.run.fit import fit
    from deeptrain.run.result import make_result, provenance
    from deeptrain.run.summary import header

    began = perf_counter()
    state = read_state(run, checkpoint, console)
    classes = learned_classes(run, state or (original.last_state() if original else {}))
    started = run_dir or (original and original.path)
    setup = build.open_setup(run, classes, initial_weights(run, started, state))
    setup.world.init()
    found = found_rate.settle(setup, console.status)
    run = setup.run
    trainer = build_trainer(setup)
    trainer.plan.prune = pruning.rule(trainer, run, run_dir)
    if setup.world.broadcast(checkpoint is not None):
        load_state(trainer, run, checkpoint, state, console)
        trainer.metadata["initial_loss"] = known_initial_loss(state)
    else:
        trainer.metadata["initial_loss"] = measure_initial_loss(trainer, setup)
    logs = state.get("logs")
    del state  # it is as large as the trainer
    if not setup.world.is_main:
        return train_worker(trainer, run)
    run_dir = open_folder(trainer, setup, console, run_dir, logs)
    if found is not None:
        found_rate.write(found, run_dir, run.title)
    warnings = original.expected_differences(run, provenance(trainer)) if original else []
    warnings += [found_rate.UNSTABLE] if found is not None and found.is_unstable else []
    rate = found and found_rate.sentence(found)
    console.header(header(trainer, setup, run_dir, rate), [*setup.warnings, *warnings])
    status, reason = fit(trainer, run, run_dir)
    console.close()
    result = make_result(trainer, setup, status, reason, perf_counter() - began) | found_rate.known(run_dir)
    with signals.handle_signals(signals.first_then_exit(lambda number: None, setup.world.signal_grace)):
        return finish(trainer, setup, run_dir, result, console, original)


def finish(
    trainer: "Trainer",
    setup: build.Setup,
    run_dir: Path,
    result: dict[str, Any],
    console: "Console",
    original: "Original | None",
) -> int:
    """Say how it ended, draw the figures, write the result; return the exit code."""
    from deeptrain.run import artifacts
    from deeptrain.run.summary import closing_lines

    status = result["status"]
    sentence, is_same = original.compare(setup.run, result) if original else ("", True)
    console.end([*closing_lines(trainer, setup, run_dir, result), *([f"rerun  {sentence}"] if sentence else [])])
    if status != "failed" or setup.world.is_single:  # else the other ranks are gone, and torchrun ends this one soon
        artifacts.draw(trainer, setup, run_dir, result, console)
    trainer.logger.close()
    trainer.close()
    try:
        write_atomically(run_dir / "result.json", json.dumps(result, indent=1).encode())
    except OSError as error:
        console.warn(f"{error_line(error)}; once there is room, {quote_setting('resume', run_dir)} writes it")
        return EXIT_CODES["failed"]
    shutdown(trainer, status)
    return EXIT_CODES[status] if is_same else 1


def build_trainer(setup: build.Setup) -> "Trainer":
    """Build the trainer; UsageError if the model does not fit into memory, or its state into a checkpoint."""
    from deeptrain.run.result import metadata
    from deeptrain.runtime.device import is_out_of_memory
    from deeptrain.training.rehearsal import check_state_size

    name = setup.run.choices["model"]
    try:
        trainer = build.trainer(setup, metadata(setup))
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise UsageError([f"model={name}: does not fit into memory; choose a smaller one"]) from error
        raise
    try:
        check_state_size(trainer)
    except ValueError as error:
        raise UsageError([f"model={name}: {error}"]) from error
    return trainer


def open_folder(
    trainer: "Trainer", setup: build.Setup, console: "Console", run_dir: Path | None, logs: Any = None
) -> Path:
    """Make the run folder, or take the one of a run that goes on, and write its first files.

    logs: what the checkpoint knows of the logs of a run that goes on.
    """
    from deeptrain.run import artifacts

    is_new, run_dir = run_dir is None, run_dir or folder.new_folder(setup.run.settings.dir)
    try:
        artifacts.write_first_files(trainer, setup, console, run_dir, logs)
    except BaseException as error:
        if is_new:  # a run without a first step leaves nothing behind
            shutil.rmtree(run_dir)
        if isinstance(error, ValueError | OSError):  # a file that no run of ours wrote, or a full disk
            raise UsageError([error_line(error)]) from error
        raise
    return run_dir


def train_worker(trainer: "Trainer", run: RunConfig) -> int:
    """Train as a rank that writes nothing; return the exit code once rank 0 is done too."""
    from deeptrain.run.fit import fit

    status, reason = fit(trainer, run, None)
    if status == "failed":
        terminal.report(f"error: process {trainer.world.rank}: {reason}")
    trainer.close()
    shutdown(trainer, status)
    return EXIT_CODES[status]


def shutdown(trainer: "Trainer", status: str) -> None:
    """Let all ranks end together. A rank that failed ends at once: the others may not have failed."""
    if status == "failed" and not trainer.world.is_single:
        lock.unlock_all()
        trainer.world.abort(EXIT_CODES[status])
    trainer.world.finalize()


@contextmanager
def log_to_console(console: "Console") -> Iterator[None]:
    """Show what our modules log while they work, for example that a data set is decoded for the first time."""
    logger, handler = logging.getLogger("deeptrain"), logging.Handler(logging.INFO)

    def emit(record: logging.LogRecord) -> None:
        show = console.warn if record.levelno >= logging.WARNING else console.message
        show(record.getMessage())

    handler.emit = emit
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)

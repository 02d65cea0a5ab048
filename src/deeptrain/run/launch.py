"""One run from its words to result.json."""

import json
import logging
import os
import shlex
import shutil
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from deeptrain import build
from deeptrain.config.compose import RunConfig, by_experiment, compose_run
from deeptrain.errors import UsageError
from deeptrain.loggers.console import Console
from deeptrain.run import folder, rerun, resume_policy
from deeptrain.run.rerun import Original
from deeptrain.runtime import signals
from deeptrain.runtime.world import get_world

if TYPE_CHECKING:
    from deeptrain.data.loader import Loader
    from deeptrain.training.trainer import Trainer

CHANGED = "changed.json"  # what was changed whenever a run went on; there only if something was
NOT_KEPT = ("resume=", "resume_changed=", "rerun=")  # words that are of this start alone
IMPATIENT = 2  # seconds after which a second signal is a person's: torchrun passes on what the terminal sends as well
EXIT_CODES = {"finished": 0, "stopped_early": 0, "failed": 1, "interrupted": signals.EXIT_CODE}


def start(words: list[str]) -> int:
    """Compose, check and train; return the exit code. Nothing is written before everything has been found good."""
    try:
        with signals.handle_signals(signals.first_then_exit(signals.raise_interrupt, _patience())):
            if (original := _given(words, "rerun")) is not None:
                return again(words, original)
            try:
                run, folder_of_run, resumed = prepare(words)
            except UsageError as wrong:
                raise build.with_rehearsal(wrong) from None
            _rehearse(run)
            _, code = train(run, Console(sys.stdout, quiet=not get_world().is_main), folder_of_run, resumed)
            return code
    finally:
        folder.release()


def _patience() -> float:
    return 0.0 if get_world().is_single else IMPATIENT


def prepare(words: list[str]) -> tuple[RunConfig, Path | None, Path | None]:
    """Compose a run; with resume=RUN from the words it was started with, then those given now.

    Returns the run, the folder and the checkpoint to go on from: None and None for a new run, no checkpoint for one
    that was killed before it had saved anything, which begins again in its folder.
    """
    given = _given(words, "resume")
    if given is None:
        return compose_run(words), None, None
    if any(word.startswith("dir=") for word in words):
        raise UsageError(["dir=: a resumed run goes on in its own folder; leave out dir"])
    now = [word for word in words if not word.startswith("resume=")]
    if not get_world().is_main:  # the folder is the first one's business alone
        return _composed(get_world().broadcast([])), None, None
    at, state = folder.find_to_resume(given)
    folder.hold(at, f"resume={given}")
    run = _composed(get_world().broadcast([*folder.saved_words(at, now), *now]))
    if state is not None:
        resume_policy.check(
            folder.saved_settings(at), folder.settings_of(run.yaml, "now"), asked=run.spine.resume_changed
        )
    return run, at, state


def again(words: list[str], path: str) -> int:
    """Repeat a run from its folder alone, in a new one; the exit code is 1 also where other bits come out."""
    now = [word for word in words if not word.startswith("rerun=")]
    saved, original = rerun.find(path, now) if get_world().is_main else ([], None)
    run = _composed(get_world().broadcast([*saved, *now]))
    if original is not None:
        run.spine.rerun = str(original.path)
    _rehearse(run)
    _, code = train(run, Console(sys.stdout, quiet=not get_world().is_main), original=original)
    return code


def _rehearse(run: RunConfig) -> None:
    """Find what can be found wrong before torch is imported, all of it at once."""
    mistakes = []
    for check in (build.rehearse, _check_folder):
        try:
            check(run)
        except UsageError as wrong:
            mistakes += wrong.lines
    if mistakes:
        raise UsageError(mistakes)


def _check_folder(run: RunConfig) -> None:
    if get_world().is_main:  # it makes the folder
        folder.check_new(run.spine.dir)


def _given(words: list[str], key: str) -> str | None:
    """Return the path that a word gives; None where there is none, or null."""
    given = [word.partition("=")[2] for word in words if word.startswith(f"{key}=")]
    return given[-1].strip("'") if given and given[-1] not in ("", "null") else None


def _composed(words: list[str]) -> RunConfig:
    """Compose a run whose words do not say that it goes on from another, since that is not to be done twice."""
    run = compose_run(words)
    run.overrides = [word for word in run.overrides if not word.startswith(NOT_KEPT)]
    return run


def train(
    run: RunConfig,
    screen: Console,
    at: Path | None = None,
    resumed: Path | None = None,
    original: Original | None = None,
) -> tuple[float | None, int]:
    """Build everything, make the folder, train, write what a person looks at; return the objective and exit code."""
    started = perf_counter()
    with passing_on(screen):
        bench = build.bench(run)
    bench.world.init()
    try:
        trainer = build.trainer(bench, _about(bench))
    except (RuntimeError, MemoryError) as error:
        from deeptrain.runtime.device import is_out_of_memory

        if is_out_of_memory(error):
            raise UsageError(
                [f"model={run.choices['model']}: does not fit into memory; choose a smaller one"]
            ) from error
        raise
    if get_world().broadcast(resumed is not None):
        _load(trainer, run, resumed, screen)
    if not bench.world.is_main:
        return None, _help(trainer, run)
    is_new, at = at is None, at or folder.new_folder(run.spine.dir)
    try:
        _open_record(trainer, bench, screen, at)
    except BaseException as error:
        if is_new:  # what has not taken its first step leaves nothing behind
            shutil.rmtree(at)
        if isinstance(error, ValueError | OSError):  # of a file there that is none of a run, or a full disk
            raise UsageError([_told_of(error)]) from error
        raise
    forewarnings = original.forewarnings(run, _facts(trainer)) if original else []
    screen.lines(_head(trainer, bench, at), [*bench.warnings, *forewarnings])
    status, reason = _fit(trainer, run, at)
    trainer.logger.close()
    result = _result(trainer, status, reason, perf_counter() - started)
    left_alone = status == "failed" and not bench.world.is_single  # the others are gone, and torchrun is impatient
    try:
        if not left_alone:
            _draw(trainer, bench, at, result)
    except Exception as error:  # the training is done: a picture less does not undo it
        screen.warn(f"the pictures could not all be drawn ({type(error).__name__}: {error})")
    trainer.close()
    said, same = original.verdict(run, result) if original else ("", True)
    screen.end([*_closing_lines(trainer, at, result), *([f"rerun  {said}"] if said else [])])
    try:
        _write(at / "result.json", json.dumps(result, indent=1))
    except OSError as error:
        screen.warn(f"{_told_of(error)}; once there is room, resume={at} writes it")
        return trainer.progress.best, EXIT_CODES["failed"]
    _part(trainer, status)
    return trainer.progress.best, EXIT_CODES[status] if same else 1


def _help(trainer: "Trainer", run: RunConfig) -> int:
    """Train as one of the processes that write nothing; return the exit code once the first one is done too."""
    status, reason = _fit(trainer, run, None)
    if status == "failed":
        print(f"error: process {trainer.world.rank}: {reason}", file=sys.stderr)
    trainer.close()
    _part(trainer, status)
    return EXIT_CODES[status]


def _part(trainer: "Trainer", status: str) -> None:
    """Let all processes end together, unless this one has failed, which the others may not have."""
    if status == "failed" and not trainer.world.is_single:
        folder.release()
        sys.stdout.flush()
        trainer.world.abort(EXIT_CODES[status])
    trainer.world.finalize()


@contextmanager
def passing_on(screen: Console) -> Iterator[None]:
    """Show what a room has to say while it works, such as that it decodes a data set for the first time."""
    logger, handler = logging.getLogger("deeptrain"), logging.Handler(logging.INFO)
    handler.emit = lambda record: screen.note(record.getMessage())
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _fit(trainer: "Trainer", run: RunConfig, at: Path | None) -> tuple[str, str]:
    """Train; whatever ends it becomes a status and a reason, an unforeseen error's traceback goes into run.log."""
    from deeptrain.runtime.device import is_out_of_memory
    from deeptrain.runtime.files import FULL
    from deeptrain.training import recovery

    try:
        with signals.handle_signals(
            signals.first_then_exit(trainer.stop.request, _patience())
        ):  # it ends its step and saves
            return recovery.fit(trainer, run.spine.on_nan)
    except (recovery.TrainingFailed, ValueError) as error:  # a ValueError: an image that cannot be read, in one line
        return "failed", str(error)
    except Exception as error:
        if os.environ.get("DEEPTRAIN_DEBUG"):
            raise
        if isinstance(error, OSError) and error.errno in FULL:
            return "failed", f"{_told_of(error)}; make room, then go on from the last checkpoint"
        if is_out_of_memory(error):
            return "failed", f"out of memory in step {trainer.progress.step + 1}: {_what_needs_less(trainer, run)}"
        first = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        if not trainer.world.is_single and "onnection" in first:  # what gloo and NCCL say of it is for experts
            first = "another process has ended, perhaps with a message of its own above; go on with resume"
        if at is None:
            return "failed", first
        with suppress(OSError), (at / "run.log").open("a") as log:
            traceback.print_exc(file=log)
        return "failed", f"{first} (traceback in {at / 'run.log'})"


def _what_needs_less(trainer: "Trainer", run: RunConfig) -> str:
    """Say what to change where memory does not suffice, the settings that keep the same step first."""
    images = len(trainer.train_loader.indices(0, 0))
    pieces = "" if run.spine.accumulate == "auto" else "go on with accumulate=auto (the same step, in pieces), or "
    smaller = [
        f"batch_size={max(1, images // 2)}",
        *(["precision=bf16"] if trainer.runtime.precision == "fp32" else []),
    ]
    return f"{pieces}start anew with {', '.join(smaller)}, a smaller model or another device"


def _told_of(error: Exception) -> str:
    """Say in a line what went wrong, of a file by its name first."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


# --- before ---


def _about(bench: build.Setup) -> dict[str, Any]:
    """Return what every checkpoint says of itself, so that it can be used without the run's folder."""
    from deeptrain.runtime.versions import hardware_info, versions

    dataset = bench.dataset
    return {
        "overrides": bench.run.overrides,
        "versions": versions(),
        "machine": hardware_info(bench.runtime.device) | {"processes": get_world().size},
        "data": dataset.fingerprint,
        "changed": [],
        "classes": dataset.classes,
        "input_shape": list(dataset.image_shape),
        "mean": [float(value) for value in dataset.mean],
        "std": [float(value) for value in dataset.std],
        "whitening": bench.pipeline.whitening and bench.pipeline.whitening.state_dict(),
    }


def _load(trainer: "Trainer", run: RunConfig, path: Path | None, screen: Console) -> None:
    """Put a checkpoint's state into the trainer; UsageError if it does not fit or there is nothing left to do.

    Only the first of several processes has a path; the others get the state from it.
    """
    if path is None:
        trainer.load_state_dict(get_world().broadcast({}))
        return
    from deeptrain.training import checkpoint

    try:
        state, warning = checkpoint.load_newest(path)
        if warning:
            screen.warn(warning)
        _check_data(trainer, run, state.get("data"))
        trainer.metadata["changed"] = _history(trainer, run, state.get("changed"), path.parent.parent)
        trainer.load_state_dict(get_world().broadcast(state))
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError([f"resume={path}: {error}".replace(f"{path}: {path}", str(path))]) from error
    except RuntimeError as error:
        raise UsageError([f"resume={path}: its weights do not fit this model; resume with the model it had"]) from error
    except (TypeError, KeyError, AttributeError, IndexError) as error:
        raise UsageError([f"resume={path}: is not what a run of deeptrain writes"]) from error
    end, validated = trainer.outcome(), trainer.progress.validated == trainer.progress.step
    was_drawn = (path.parent.parent / "result.json").is_file()
    if end is not None and validated and was_drawn:  # else it stopped before its last validation, or drawing pictures
        raise UsageError([f"resume={path}: nothing left to do ({end[1]}); to train longer add {_more(trainer)}"])


def _check_data(trainer: "Trainer", run: RunConfig, then: Any) -> None:
    """Raise UsageError if the training images are not those that a run was trained on, unless that is asked for."""
    now = trainer.metadata["data"]
    if then is not None and then != now and not run.spine.resume_changed:
        fingerprints = f"fingerprint {resume_policy.shown(then)}, now {now}"
        said = f"resume={run.spine.resume}: the training images are others: {fingerprints}"
        raise UsageError([f"{said}; give it those that it had (data.root), or add resume_changed=true"])


def _history(trainer: "Trainer", run: RunConfig, before: Any, at: Path) -> list[str]:
    """List what has been changed whenever a run went on, this time included.

    Its file knows of a time after which the run was killed before it saved anything.
    """
    before = folder.read_json(at / CHANGED, list, before)
    known = [resume_policy.shown(line) for line in before[:100]] if isinstance(before, list) else []
    found = resume_policy.between(folder.saved_settings(at), folder.settings_of(run.yaml, "now"))
    return list(dict.fromkeys([*known, *(str(change) for change in found if change.kind != resume_policy.FREE)]))


def _open_record(trainer: "Trainer", bench: build.Setup, screen: Console, at: Path) -> None:
    """Start the run's files: its settings, its split, its first pictures, and what is written as it goes."""
    from deeptrain.analysis.preview import training_samples
    from deeptrain.loggers.run_logger import RunLogger
    from deeptrain.report.image_grid import save
    from deeptrain.training.checkpoint import Checkpoints

    run, step = bench.run, trainer.progress.step
    screen.open_log(at / "run.log")
    _write(at / "split.json", json.dumps(bench.dataset.split, indent=1))
    if trainer.metadata["changed"]:  # before the settings that they are compared with are written anew
        _write(at / CHANGED, json.dumps(trainer.metadata["changed"], indent=1))
    _write(at / "config.yaml", run.yaml)
    _write(at / "overrides.yaml", yaml.safe_dump(run.overrides, allow_unicode=True))  # last: now it can be resumed
    (at / "result.json").unlink(missing_ok=True)  # of the run that now goes on
    metrics = trainer.metric_names()
    trainer.logger = RunLogger(screen, at, metrics=metrics, first_step=step, tensorboard=run.spine.log.tensorboard)
    trainer.checkpoints = Checkpoints(at / "checkpoints")
    moment = trainer.progress.epoch, trainer.progress.step_in_epoch, trainer.plan.fraction(trainer.progress)
    batches = trainer.train_loader if bench.world.is_single else build.train_loader(bench)  # whole ones
    picture = training_samples(bench, batches, *moment)
    if batches is not trainer.train_loader:
        batches.close()
    save(at / "samples.png", picture)
    trainer.logger.describe(picture, _hyperparameters(run), step)


def _hyperparameters(run: RunConfig) -> dict[str, Any]:
    """Return the settings that a sweep compares: the choices by name, and every value."""
    plumbing = ("dir", "resume", "rerun", "cache_dir", "allow_targets", "log.", "workers", "data.root", "data.download")
    values = {key: value for key, value in run.settings.items() if not key.startswith(plumbing)}
    return {**run.choices, **values}


def _head(trainer: "Trainer", bench: build.Setup, at: Path) -> list[str]:
    """Say before the first step what is about to happen; at most 12 lines."""
    run, choices = bench.run, bench.run.choices
    count = sum(parameter.numel() for parameter in trainer.model.parameters())
    batch = f"{bench.batch_size} images a step, {len(trainer.train_loader)} steps an epoch"
    auto = " (auto: about 100 steps an epoch)" if run.spine.batch_size == "auto" else ""
    groups = ("aug", "optimizer", "schedule", "loss", "penalty", "average")
    recipe = ", ".join(f"{group} {choices[group]}" for group in groups if group == "aug" or choices[group] != "none")
    lines = [
        f"data       {bench.dataset.summary}",
        f"model      {choices['model']}, {count:,} parameters",
        f"recipe     {recipe}; {_count(run.spine.epochs, 'epoch')}",
        f"batch      {batch}{auto}",
        f"device     {bench.machine}",
        *(f"chosen     {note}" for note in bench.dataset.notes),
        f"changed    {' '.join([*run.overrides, *by_experiment(run)]) or 'nothing: all settings are the defaults'}",
    ]
    if run.spine.max_seconds is not None:
        lines.append("clock      the rate follows the clock (max_seconds), so that repeats differ a little")
    if trainer.progress.step:
        lines.append(f"resumed    after epoch {trainer.progress.epoch}, step {trainer.progress.step}")
    return [*lines, f"folder     {at}"]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


# --- after ---


def _result(trainer: "Trainer", status: str, reason: str, seconds: float) -> dict[str, Any]:
    from deeptrain.training.checkpoint import digest

    progress = trainer.progress
    weights = digest(trainer.model.state_dict()) if status != "failed" else None  # what last.pt holds
    return {
        "status": status,
        "reason": reason,
        "monitor": trainer.plan.monitor,
        "best": progress.best,
        "best_epoch": progress.best_epoch,
        "epochs": trainer.plan.epochs_done(trainer.progress),
        "steps": progress.step,
        "seconds": round(seconds, 3),
        "train_seconds": round(progress.train_seconds, 3),
        "images_per_second": round(progress.images / max(progress.train_seconds, 1e-9), 1),
        "metrics": progress.metrics,
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "weights": weights,
        **_facts(trainer),
    }


def _facts(trainer: "Trainer") -> dict[str, Any]:
    """Return what a result depends on besides the words of its run."""
    return {name: trainer.metadata[name] for name in ("versions", "machine", "data", "changed")}


def _draw(trainer: "Trainer", bench: build.Setup, at: Path, result: dict[str, Any]) -> None:
    """Draw the curves, and of the best weights' answers on val the confusions and worst mistakes; then the card."""
    from deeptrain.metrics import confusion_matrix
    from deeptrain.report.card import CardData, worst_classes, write_card
    from deeptrain.report.figures import draw_confusion, draw_curves
    from deeptrain.training import checkpoint
    from deeptrain.training.validation import predict

    rows = trainer.logger.table.rows() if trainer.logger.table is not None else []
    best = at / "checkpoints" / "best.pt"
    if not rows or not best.is_file():
        return
    classes, words = bench.dataset.classes, bench.run.overrides
    draw_curves(rows, at / "curves.png", bench.run.title, best_epoch=trainer.progress.best_epoch)
    trainer.model.load_state_dict(checkpoint.load(best)["model"])
    val = trainer.validator.loader
    if not bench.world.is_single:  # of which it has a part
        val = build.eval_loader(bench.source, bench.dataset.val, bench.run, bench.runtime)
    logits, labels = predict(trainer.model, val.epoch(0), trainer.pipeline, trainer.runtime)
    matrix = confusion_matrix(logits.argmax(1), labels, len(classes)).numpy()
    draw_confusion(matrix, classes, at / "confusion.png")
    _draw_mistakes(val, classes, logits, labels, at / "mistakes.png")
    if val is not trainer.validator.loader:
        val.close()
    repeat = " ".join(["python train.py", *(shlex.quote(word) for word in words if not word.startswith("dir="))])
    facts = CardData(
        title=bench.run.title,
        result=result,
        rows=rows,
        changed=[*words, *by_experiment(bench.run)],
        data=bench.dataset.summary,
        model=f"{bench.run.choices['model']}, {result['parameters']:,} parameters",
        worst=worst_classes(matrix, classes),
        commands=[("repeat this run", repeat), *_next_commands(trainer, at)],
    )
    write_card(at, facts)


def _draw_mistakes(val: "Loader", classes: list[str], logits: Any, labels: Any, path: Path) -> None:
    """Draw the images of val that the network is most wrong about, what it says and what it should, worst first."""
    from torch.nn.functional import cross_entropy

    from deeptrain.report.image_grid import grid, save

    losses = cross_entropy(logits, labels, reduction="none").masked_fill(logits.argmax(1) == labels, 0)
    worst = [index for index in losses.argsort(descending=True)[:32].tolist() if losses[index] > 0]
    pixels, start = {}, 0
    for images, _ in val.epoch(0):
        here = [index for index in worst if start <= index < start + len(images)]
        pixels |= {index: images[index - start].permute(1, 2, 0).cpu().numpy() for index in here}
        start += len(images)
    if worst:
        said = [f"{classes[int(logits[index].argmax())]}, not {classes[int(labels[index])]}" for index in worst]
        save(path, grid(np.stack([pixels[index] for index in worst]), said))


def _next_commands(trainer: "Trainer", at: Path) -> list[tuple[str, str]]:
    """Return what one may want to do next, as commands to paste, with the words that are not taken from a folder."""
    where, kept = shlex.quote(str(at)), at / "checkpoints"
    trusted = [shlex.quote(word) for word in trainer.metadata["overrides"] if word.partition("=")[0] in folder.RUN_CODE]
    where = " ".join([where, *trusted])
    over = trainer.outcome() is not None and not trainer.stop.reason
    commands = []
    if (kept / "best.pt").is_file():
        commands.append(("evaluate", f"python scripts/evaluate.py {where}"))
    if (kept / "last.pt").is_file():
        longer = f" {_more(trainer)}" if over else ""
        commands.append(("train longer" if over else "go on", f"python train.py resume={where}{longer}"))
    return [*commands, ("see curves", f"tensorboard --logdir {shlex.quote(str(at.parent))}")]


def _more(trainer: "Trainer") -> str:
    """Return the setting that lets a run that is over go on: twice the limit that it has reached."""
    progress = trainer.progress
    limits = (
        ("limit_steps", trainer.plan.limit_steps, progress.step),
        ("max_seconds", trainer.plan.max_seconds, progress.train_seconds),
        ("early_stop.patience", trainer.plan.patience, progress.since_best),
    )
    reached = ((name, limit) for name, limit, value in limits if limit is not None and value >= limit)
    name, limit = next(reached, ("epochs", trainer.plan.epochs))
    return f"{name}={2 * limit:g}"


def _closing_lines(trainer: "Trainer", at: Path, result: dict[str, Any]) -> list[str]:
    """Say how it ended, how good it is and what to type next, in 6 to 8 lines."""
    metrics, best = result["metrics"], result["best"]
    lines = [f"{result['status'].replace('_', ' ')}  {result['reason']}"]
    if best is not None:
        lines.append(f"best  {trainer.plan.monitor} {best:.4g} in epoch {result['best_epoch']}")
    if "accuracy/train_clean" in metrics:
        train, val = metrics["accuracy/train_clean"], metrics["accuracy/val"]
        lines.append(f"gap  {train - val:+.4f} at the end: train {train:.4f} (not augmented), val {val:.4f}")
    speed = f"{result['images_per_second']:,.0f} images/s"
    lines.append(f"time  {result['train_seconds']:.1f} s of training, {speed}; {result['seconds']:.1f} s in all")
    lines.append(f"folder  {at}" + (" (card.html, curves.png)" if (at / "card.html").is_file() else ""))
    return [*lines, *(f"{what}  {command}" for what, command in _next_commands(trainer, at))]


def _write(path: Path, text: str) -> None:
    from deeptrain.runtime.files import write_atomically

    write_atomically(path, text.encode())

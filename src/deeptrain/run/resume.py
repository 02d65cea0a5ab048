"""Going on with a run: from its overrides and its last checkpoint."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeptrain.config.compose import compose_run
from deeptrain.config.override import last_value
from deeptrain.config.settings import RunConfig
from deeptrain.data.fingerprint import is_same
from deeptrain.errors import NothingToDo, UsageError
from deeptrain.run import defaults, folder, lock, resume_policy, saved
from deeptrain.runtime.paths import quote_setting
from deeptrain.runtime.world import get_world
from deeptrain.training import checkpoint

if TYPE_CHECKING:
    from deeptrain.loggers.console import Console
    from deeptrain.training.initial_weights import InitialWeights
    from deeptrain.training.trainer import Trainer

CHANGED = "changed.json"  # lists what was changed whenever the run went on; exists only if something was
RATE_KEYS = ("epochs", "limit_steps", "max_seconds", "schedule")  # decide which rate a step has
NOT_INHERITED = ("resume=", "resume_changed=", "rerun=")  # overrides of this start alone


def prepare(words: list[str]) -> tuple[RunConfig, Path | None, Path | None]:
    """Compose a run; with resume=RUN from its own overrides, then those typed now.

    Returns the run, and the folder and checkpoint to go on from. A new run has neither; a run that was killed before it
    saved anything has no checkpoint, and starts again in its folder.
    """
    given = last_value(words, "resume")
    if given is None:
        return compose_run(words), None, None
    if any(word.startswith("dir=") for word in words):
        raise UsageError(["dir=: a resumed run goes on in its own folder; leave out dir"])
    now = [word for word in words if not word.startswith("resume=")]
    try:
        at, state = folder.find_to_resume(given, [word for word in now if not word.startswith(NOT_INHERITED)])
    except NothingToDo:
        get_world().broadcast(None)
        raise
    lock.lock(at, f"resume={given}")
    run = compose_without_origin(get_world().broadcast([*defaults.load_overrides(at, now), *now]))
    run.settings.resume = given
    if state is not None:
        resume_policy.check(
            settings_before(at, now), saved.parse_config(run.yaml, "now"), is_confirmed=run.settings.resume_changed
        )
    return run, at, state


def follow(words: list[str]) -> RunConfig:
    """Compose the run of a rank that reads no folder; with resume=RUN it gets the overrides from rank 0.

    Raises NothingToDo if rank 0 finds the run finished.
    """
    if (path := last_value(words, "resume")) is None:
        return compose_run(words)
    if (overrides := get_world().broadcast([])) is None:
        raise NothingToDo
    run = compose_without_origin(overrides)
    run.settings.resume = path
    return run


def settings_before(at: Path, now: list[str]) -> dict[str, Any]:
    """Return the whole configuration that a run had; without its config.yaml, the one that its own overrides make."""
    if not (at / "config.yaml").exists():
        return saved.parse_config(compose_without_origin(saved.load_overrides(at, now)).yaml, "overrides.yaml")
    return saved.load_config(at)


def compose_without_origin(words: list[str]) -> RunConfig:
    """Compose a run without the overrides that say where it comes from: a resume must not follow them again."""
    run = compose_run(words)
    run.overrides = [word for word in run.overrides if not word.startswith(NOT_INHERITED)]
    return run


def read_state(run: RunConfig, path: Path | None, console: "Console") -> dict[str, Any]:
    """Read the checkpoint that a run goes on from, {} if there is none. Only rank 0 has a path."""
    if path is None:
        return {}
    try:
        state, warning = checkpoint.load_newest(path)
    except checkpoint.Damaged as error:
        other = folder.other_checkpoint(path)
        remedy = f"go on from another one: {quote_setting('resume', other)}" if other else "start a new run"
        raise UsageError([f"resume={error}; {remedy}"]) from error
    except ValueError as error:
        raise UsageError([f"resume={error}"]) from error
    if warning:
        console.warn(warning)
    return state


def learned_classes(run: RunConfig, state: dict[str, Any]) -> list[str] | None:
    """Return, on every rank, the classes of a run that goes on or is repeated: older versions had another order."""
    is_old = run.settings.resume or run.settings.rerun
    return get_world().broadcast(saved.learned_classes(state)) if is_old else None


def initial_weights(run: RunConfig, run_dir: Path | None, state: dict[str, Any]) -> "InitialWeights | None":
    """Return what a run that goes on or is repeated has started from; None for a new run, and on other ranks.

    run_dir: of the run that goes on or is repeated. It has its own copy, so the origin may be gone. state: the
    checkpoint that it goes on from, if any.
    """
    if run.origin is None or run_dir is None:
        return None
    from deeptrain.training import initial_weights

    try:
        if state:
            return initial_weights.continued(state, run.origin[1])
        return initial_weights.read(run_dir / initial_weights.COPY)
    except ValueError as error:
        raise UsageError([f"{'rerun' if run.settings.rerun else 'resume'}={error}"]) from error


def load_state(
    trainer: "Trainer", run: RunConfig, path: Path | None, state: dict[str, Any], console: "Console"
) -> None:
    """Load a checkpoint into the trainer; UsageError if it does not fit or nothing is left to do.

    Only rank 0 has a path and a state; the other ranks get the state from it.
    """
    if path is None:
        trainer.load_state_dict(get_world().broadcast({}))
        return
    changes = resume_policy.diff(
        settings_before(path.parent.parent, run.overrides), saved.parse_config(run.yaml, "now")
    )
    changed_keys = [change.key for change in changes]
    try:
        _check_data(trainer, run, state.get("data"))
        trainer.metadata["changed"] = _history(trainer, run, state.get("changed"), path.parent.parent)
        trainer.load_state_dict(get_world().broadcast(state))
        _check_limits(trainer, changed_keys, path)
        if state["optimizer"] is None:
            console.warn(f"{path.name} holds the weights alone: the optimizer starts anew, with other bits")
        elif jump := _rate_jump(trainer, changed_keys, state["optimizer"]):
            console.warn(jump)
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError([f"resume={path}: {error}".replace(f"{path}: {path}", str(path))]) from error
    except RuntimeError as error:
        raise UsageError([f"resume={path}: its weights do not fit this model; resume with the model it had"]) from error
    except (TypeError, KeyError, AttributeError, IndexError) as error:
        raise UsageError([f"resume={path}: is not what a run of deeptrain writes"]) from error
    if warning := _describe_best(trainer, path):
        console.warn(warning)
    end, validated = trainer.outcome(), trainer.progress.validated == trainer.progress.step
    is_complete = folder.is_complete(path.parent.parent)
    if end is not None and validated and is_complete:  # else it stopped before its last validation, or drawing pictures
        from deeptrain.run.summary import longer_override

        longer = longer_override(trainer)
        raise UsageError([f"resume={path}: nothing left to do ({end[1]}); to train longer add {longer}"])


def _describe_best(trainer: "Trainer", path: Path) -> str | None:
    """Say that the best weights of a run are lost, and what that means; None if they are there, or were never."""
    from deeptrain.report.formatting import format_metric

    best, progress = path.with_name("best.pt"), trainer.progress
    if progress.best is None or checkpoint.is_whole(best):
        return None
    value = format_metric(trainer.plan.monitor, progress.best, trainer.validator.metrics)
    state = "damaged" if best.is_file() else "missing"
    known = f"{trainer.plan.monitor} {value} in epoch {progress.best_epoch:g}"
    remedy = f"a better validation than the best so far ({known}) writes it anew, until then use last.pt"
    return f"{best}: is {state}; {remedy}"


def _check_limits(trainer: "Trainer", changed_keys: list[str], path: Path) -> None:
    """Raise UsageError if a limit is new and the run is beyond it already."""
    from deeptrain.run.summary import limits

    for name, limit, used in limits(trainer):
        if used > limit and name in changed_keys:
            remedy = f"leave {name} out, or write {name}={math.floor(used) + 1} or more"
            raise UsageError(
                [f"resume={path}: nothing left to do: {name}={limit:g}, and {used:g} are done already; {remedy}"]
            )


def _rate_jump(trainer: "Trainer", changed_keys: list[str], optimizer: dict[str, Any]) -> str | None:
    """Say how the learning rate jumps if its schedule has another length or shape than before."""
    from deeptrain.report.formatting import format_lr
    from deeptrain.run.summary import JUMP

    keys = [key for key in changed_keys if key.partition(".")[0] in RATE_KEYS]
    group = optimizer["param_groups"][0]
    last, base = float(group["lr"]), float(group.get("initial_lr", 0))
    factor = trainer.schedule(trainer.plan.fraction(trainer.progress)) * trainer.progress.lr_scale
    if not keys or not base or last / base / JUMP <= factor <= last / base * JUMP:
        return None
    rates = f"from {format_lr(last)} to {format_lr(factor * trainer.optimizer.param_groups[0]['initial_lr'])}"
    verb, names = "rises" if factor > last / base else "falls", ", ".join(keys)
    return f"the rate {verb} {rates}: the schedule is laid out anew for {names}; a new run would have no such jump"


def _check_data(trainer: "Trainer", run: RunConfig, then: Any) -> None:
    """Raise UsageError if the training images differ from those of the checkpoint, unless resume_changed=true."""
    now = trainer.metadata["data"]
    if then is not None and not is_same(then, now) and not run.settings.resume_changed:
        fingerprints = f"fingerprint {resume_policy.safe_repr(then)}, now {now}"
        message = f"resume={run.settings.resume}: the training images are others: {fingerprints}"
        raise UsageError([f"{message}; give it those that it had (data.root), or add resume_changed=true"])


def _history(trainer: "Trainer", run: RunConfig, before: Any, at: Path) -> list[str]:
    """List every change made when the run went on, this time included.

    The file changed.json also knows of a resume that was killed before it saved a checkpoint.
    """
    before = saved.read_json(at / CHANGED, list, before)
    known = [resume_policy.safe_repr(line) for line in before[:100]] if isinstance(before, list) else []
    found = resume_policy.diff(settings_before(at, run.overrides), saved.parse_config(run.yaml, "now"))
    return list(dict.fromkeys([*known, *(str(change) for change in found if not change.is_ignored)]))

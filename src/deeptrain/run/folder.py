"""Run folders: making a new one, finding an old one."""

import os
import secrets
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from deeptrain.errors import NothingToDo, UsageError
from deeptrain.run.lock import LOCK, is_locked, lock, lock_owner, unlock
from deeptrain.run.saved import OVERRIDES_REMEDY, check_own_files, read_json, read_overrides
from deeptrain.runtime.files import UNFINISHED
from deeptrain.runtime.paths import quote_setting, read_path
from deeptrain.training import checkpoint, initial_weights

OUTPUTS = Path("outputs")
OVERRIDES = "overrides.yaml"
# what a start makes first
BEFORE_OVERRIDES = {LOCK, "checkpoints", "run.log", "split.json", "config.yaml", initial_weights.COPY}
MAX_NAMED = 3  # files of a folder in a message

# --- new ---


def new_folder(named: str | None = None) -> Path:
    """Make and lock a run folder: two starts at one moment get two folders. UsageError if `named` is not empty."""
    if named is None:
        return _make_unique(OUTPUTS)
    check_new(named)
    folder, key = read_named("dir", named), f"dir={named}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock(folder, key)
        if _is_used(folder):
            unlock(folder)
            check_new(named)
        (folder / "checkpoints").mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError([f"{key}: cannot be made ({error.strerror}); name a folder that you may write to"]) from None
    return folder


def check_new(named: str | None) -> None:
    """Raise UsageError if a run's folder is named that holds anything already, or that cannot be made."""
    if named is None:
        return
    folder, key = read_named("dir", named), f"dir={named}"
    try:
        used = _is_used(folder)
    except OSError as error:
        raise UsageError([f"{key}: cannot be read ({error.strerror}); name a folder that you may write to"]) from None
    if used:
        raise UsageError([f"{key}: {_describe_used(folder, named)}"])
    above = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not os.access(above, os.W_OK | os.X_OK):
        reason = "Permission denied" if above.is_dir() else "Not a directory"
        raise UsageError([f"{key}: cannot be made ({reason}: {above}); name a folder that you may write to"])


def _describe_used(folder: Path, named: str) -> str:
    """Say why no run can begin in a folder, and what to type instead."""
    if not folder.is_dir():
        return "is a file; name a new folder"
    if is_locked(folder):
        return f"is in use{lock_owner(folder)}; name a new folder, or wait for its end"
    if (folder / OVERRIDES).is_file():
        return f"is there already; name a new folder, or go on there with {quote_setting('resume', named)}"
    names = sorted(path.name for path in folder.iterdir())
    more = ", ..." if len(names) > MAX_NAMED else ""
    return f"holds other files ({', '.join(names[:MAX_NAMED])}{more}); name a new folder"


def new_sweep_folder(named: str | None = None) -> Path:
    """Make the folder of a sweep; UsageError if `named` is not empty."""
    if named is None:
        return _make_unique(OUTPUTS / "sweeps", checkpoints=False)
    folder = read_named("dir", named)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError([f"dir={named}: cannot be made ({error.strerror}); name another folder"]) from None
    return folder


def read_named(key: str, text: str) -> Path:
    """Return the path that a setting names; UsageError if no disk can have it."""
    try:
        return read_path(text)
    except ValueError as error:
        raise UsageError([f"{key}={text}: {error}"]) from None


def _is_used(folder: Path) -> bool:
    if not folder.is_dir():
        return folder.exists()
    return any(path.name != LOCK for path in folder.iterdir()) and not _has_not_begun(folder)


def _has_not_begun(folder: Path) -> bool:
    """Tell whether a run was killed in this folder before it had written its overrides. Nothing in it is of use.

    A kill leaves the lock's file. Without it the folder may be a folder of the user's own.
    """
    names = {path.name for path in folder.iterdir() if not path.name.endswith(UNFINISHED)}
    checkpoints = folder / "checkpoints"
    return (
        {LOCK, "checkpoints"} <= names <= BEFORE_OVERRIDES and checkpoints.is_dir() and not any(checkpoints.iterdir())
    )


def _make_unique(base: Path, *, checkpoints: bool = True) -> Path:
    now = datetime.now()
    while True:
        folder = base / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}-{secrets.token_hex(2)}"
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            if not _is_made(folder):
                continue
            if checkpoints:
                lock(folder, "outputs")
                (folder / "checkpoints").mkdir()
        except OSError as error:
            raise UsageError([f"{folder}: cannot be made ({error.strerror}); name another folder with dir="]) from None
        return folder


def _is_made(folder: Path) -> bool:
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


# --- found again ---


def find(path: str, key: str, *, best: bool = False) -> tuple[Path, Path]:
    """Return the folder of a run and its last.pt (or best.pt), given the folder or the checkpoint itself.

    Raises UsageError that say what was expected.
    """
    folder, state = resolve(path, key, best=best)
    if not _is_saved(state):
        raise UsageError([f"{key}={path}: {_describe_missing(state)}"])
    return folder, state


def find_to_resume(path: str, now: Sequence[str] = ()) -> tuple[Path, Path | None]:
    """Return the folder of a run and its last.pt, or the checkpoint that is named; None if it was killed before any.

    `auto` is the newest run in outputs/, sweeps included, that did not finish and that no process holds. now: the
    overrides typed now. NothingToDo if all have finished and the newest was started with them.
    """
    folder, state = resolve(str(_newest_unfinished(now)) if path == "auto" else path, "resume")
    files = [file for file in state.parent.iterdir() if not file.name.endswith(UNFINISHED)]
    if files and not _is_saved(state):
        raise UsageError([f"resume={path}: {_describe_missing(state)}"])
    return folder, state if _is_saved(state) else None


def find_to_rerun(path: str) -> Path:
    """Return the folder of a run that may have finished or not."""
    return resolve(path, "rerun")[0]


def resolve(path: str, key: str, *, best: bool = False) -> tuple[Path, Path]:
    given = read_named(key, path)
    folder, state = given, given / "checkpoints" / ("best.pt" if best else "last.pt")
    if given.suffix == ".pt" and not given.is_dir():
        folder, state = given.parent.parent, given
    if not given.exists():
        raise UsageError(
            [f"{key}={path}: there is no such run; name its folder, for example {_newest() or 'outputs/...'}"]
        )
    if not state.parent.is_dir():
        raise UsageError([f"{key}={path}: is no run to load (checkpoints is missing); name the folder of a run"])
    if not (folder / OVERRIDES).exists():
        raise UsageError([f"{key}={path}: {_describe_without_overrides(folder)}"])
    check_own_files([folder, state.parent], f"{key}={path}")
    return folder, state


def _describe_without_overrides(folder: Path) -> str:
    """Say what to do with a folder that has no overrides.yaml."""
    if _has_not_begun(folder):
        named = quote_setting("dir", folder)
        return f"was stopped before it had begun; start it again with its own settings, and with {named}"
    if any((folder / "checkpoints").iterdir()):
        return f"{OVERRIDES} is missing; {OVERRIDES_REMEDY}"
    return f"is no run to load ({OVERRIDES} is missing); name the folder of a run"


def _describe_missing(state: Path) -> str:
    other = other_checkpoint(state)
    remedy = f"name the one that is there, {other}" if other else "name the folder of a run"
    return f"is no run to load ({state.name} is missing); {remedy}"


def other_checkpoint(state: Path) -> Path | None:
    """Return the whole checkpoint that is there besides this one: the last or the best weights of its run."""
    others = (state.with_name(name) for name in ("last.pt", "best.pt") if name != state.name)
    return next((path for path in others if checkpoint.is_whole(path)), None)


def _is_saved(state: Path) -> bool:
    return state.is_file() or checkpoint.previous(state).is_file()


def _newest() -> Path | None:
    return next(iter(_newest_first()), None)


def _newest_first() -> list[Path]:
    """List the runs in outputs/, those of sweeps too, by when they were last started."""
    starts = [*OUTPUTS.glob("*/*/overrides.yaml"), *OUTPUTS.glob("sweeps/*/*/*/overrides.yaml")]
    return [path.parent for path in sorted(starts, key=lambda path: (path.lstat().st_mtime_ns, path), reverse=True)]


def _newest_unfinished(now: Sequence[str]) -> Path:
    folders = _newest_first()
    for folder in folders:
        is_unfinished = read_result(folder).get("status", "interrupted") in ("interrupted", "failed")
        if is_unfinished and not is_locked(folder):
            return folder
    raise _nothing_unfinished(folders[0] if folders else None, now)


def _nothing_unfinished(newest: Path | None, now: Sequence[str]) -> Exception:
    """Return what resume=auto raises where no run is left to go on with; a requeued job that is over is no mistake."""
    if newest is None:
        return UsageError([f"resume=auto: there is no run in {OUTPUTS}/; start one without resume"])
    if is_locked(newest):
        return UsageError([f"resume=auto: {newest} is in use{lock_owner(newest)}; wait for its end, or end it"])
    longer = f"{quote_setting('resume', newest)} epochs=N"
    if set(now) <= set(read_overrides(newest)):
        return NothingToDo(f"resume=auto: {newest} has finished; to train longer, name it: {longer}")
    return UsageError([f"resume=auto: every run in {OUTPUTS}/ has finished; name one to train longer, {longer}"])


def read_result(folder: Path) -> dict[str, Any]:
    """Return a run's result; {} if it has none, or one that is cut off: then it counts as not finished."""
    try:
        return read_json(folder / "result.json", dict, {})
    except UsageError:
        return {}


def is_complete(folder: Path) -> bool:
    """Tell whether a run that is over has left all that it should: its result, and its pictures with the card last."""
    is_drawn = (folder / "card.html").is_file() or not (folder / "checkpoints" / "best.pt").is_file()
    return bool(read_result(folder)) and is_drawn

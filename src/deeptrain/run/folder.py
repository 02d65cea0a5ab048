"""Run folders: making a new one, finding an old one."""

import os
import secrets
from datetime import datetime
from pathlib import Path

from deeptrain.errors import UsageError
from deeptrain.run.lock import LOCK, is_locked, lock, lock_owner, unlock
from deeptrain.run.saved import check_own_files, read_json
from deeptrain.runtime.files import UNFINISHED
from deeptrain.training import checkpoint

OUTPUTS = Path("outputs")

# --- new ---


def new_folder(named: str | None = None) -> Path:
    """Make and lock a run folder: two starts at one moment get two folders. UsageError if `named` is not empty."""
    if named is None:
        return _make_unique(OUTPUTS)
    check_new(named)
    folder, key = Path(named).expanduser(), f"dir={named}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock(folder, key)
        if _is_used(folder):
            unlock(folder)
            check_new(named)
        (folder / "checkpoints").mkdir()
    except OSError as error:
        raise UsageError([f"{key}: cannot be made ({error.strerror}); name a folder that you may write to"]) from None
    return folder


def check_new(named: str | None) -> None:
    """Raise UsageError if a run's folder is named that holds anything already, or that cannot be made."""
    if named is None:
        return
    folder, key = Path(named).expanduser(), f"dir={named}"
    try:
        used = _is_used(folder)
    except OSError as error:
        raise UsageError([f"{key}: cannot be read ({error.strerror}); name a folder that you may write to"]) from None
    if used:
        holder = lock_owner(folder)
        state = f"is in use{holder}" if holder else "is there already" if folder.is_dir() else "is a file"
        raise UsageError([f"{key}: {state}; name a new folder, or go on there with resume={named}"])
    above = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not os.access(above, os.W_OK | os.X_OK):
        reason = "Permission denied" if above.is_dir() else "Not a directory"
        raise UsageError([f"{key}: cannot be made ({reason}: {above}); name a folder that you may write to"])


def new_sweep_folder(named: str | None = None) -> Path:
    """Make the folder of a sweep; UsageError if `named` is not empty."""
    if named is None:
        return _make_unique(OUTPUTS / "sweeps", checkpoints=False)
    folder = Path(named).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError([f"dir={named}: cannot be made ({error.strerror}); name another folder"]) from None
    return folder


def _is_used(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(path.name != LOCK for path in folder.iterdir()))


def _make_unique(base: Path, *, checkpoints: bool = True) -> Path:
    now = datetime.now()
    while True:
        folder = base / f"{now:%Y-%m-%d}" / f"{now:%H-%M-%S}-{secrets.token_hex(2)}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        if checkpoints:
            lock(folder, "outputs")
            (folder / "checkpoints").mkdir()
        return folder


# --- found again ---


def find(path: str, key: str, *, best: bool = False) -> tuple[Path, Path]:
    """Return the folder of a run and its last.pt (or best.pt), given the folder or the checkpoint itself.

    Raises UsageError that say what was expected.
    """
    folder, state = resolve(path, key, best=best)
    if not _is_saved(state):
        raise UsageError([f"{key}={path}: is no run to load ({state.name} is missing); name the folder of a run"])
    return folder, state


def find_to_resume(path: str) -> tuple[Path, Path | None]:
    """Return the folder of a run and its last.pt, or the checkpoint that is named; None if it was killed before any.

    `auto` is the newest run in outputs/, sweeps included, that did not finish and that no process holds.
    """
    folder, state = resolve(str(_newest_unfinished()) if path == "auto" else path, "resume")
    files = [file for file in state.parent.iterdir() if not file.name.endswith(UNFINISHED)]
    if files and not _is_saved(state):
        raise UsageError([f"resume={path}: is no run to load ({state.name} is missing); name the folder of a run"])
    return folder, state if _is_saved(state) else None


def find_to_rerun(path: str) -> Path:
    """Return the folder of a run that may have finished or not."""
    return resolve(path, "rerun")[0]


def resolve(path: str, key: str, *, best: bool = False) -> tuple[Path, Path]:
    given = Path(path).expanduser()
    folder, state = given, given / "checkpoints" / ("best.pt" if best else "last.pt")
    if given.suffix == ".pt":
        folder, state = given.parent.parent, given
    if not given.exists():
        raise UsageError(
            [f"{key}={path}: there is no such run; name its folder, for example {_newest() or 'outputs/...'}"]
        )
    for needed in (folder / "overrides.yaml", state.parent):
        if not needed.exists():
            raise UsageError([f"{key}={path}: is no run to load ({needed.name} is missing); name the folder of a run"])
    check_own_files([folder, state.parent], f"{key}={path}")
    return folder, state


def _is_saved(state: Path) -> bool:
    return state.is_file() or checkpoint.previous(state).is_file()


def _newest() -> Path | None:
    return next(iter(_newest_first()), None)


def _newest_first() -> list[Path]:
    """List the runs in outputs/, those of sweeps too, by when they were last started."""
    starts = [*OUTPUTS.glob("*/*/overrides.yaml"), *OUTPUTS.glob("sweeps/*/*/*/overrides.yaml")]
    return [path.parent for path in sorted(starts, key=lambda path: (path.lstat().st_mtime_ns, path), reverse=True)]


def _newest_unfinished() -> Path:
    for folder in _newest_first():
        result = read_json(folder / "result.json", dict, {})
        if result.get("status", "interrupted") in ("interrupted", "failed") and not is_locked(folder):
            return folder
    raise UsageError(
        [f"resume=auto: every run in {OUTPUTS}/ has finished; name one to train longer, resume=RUN epochs=N"]
    )

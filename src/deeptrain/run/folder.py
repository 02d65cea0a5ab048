"""The run folder: made for one run alone, told apart by name, found again, held by one process at a time."""

import json
import os
import platform
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import yaml

from deeptrain.errors import UsageError
from deeptrain.runtime.files import UNFINISHED, clear_unfinished
from deeptrain.training import checkpoint

try:
    import fcntl
except ImportError:  # Windows: nobody is kept out
    fcntl = None

OUTPUTS = Path("outputs")
LOCK = ".lock"
LARGEST_JSON = 64 * 2**20  # bytes of a file that is read back from a run folder
LARGEST_YAML = 2**18  # it is read a thousand times more slowly
RUN_CODE = ("allow_targets", "--config-dir", "-cd")
MOST_WORDS, LONGEST_WORD = 1000, 10_000

_held: dict[Path, IO[str]] = {}  # the locks of this process, by folder


# --- new ---


def new_folder(named: str | None = None) -> Path:
    """Make and lock a run folder: two starts at one moment get two folders. UsageError if `named` is not empty."""
    if named is None:
        return _make_unique(OUTPUTS)
    check_new(named)
    folder, key = Path(named).expanduser(), f"dir={named}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        hold(folder, key)
        if _is_used(folder):
            _let_go(folder)
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
        holder = _holder(folder)
        state = f"is in use{holder}" if holder else "is there already" if folder.is_dir() else "is a file"
        raise UsageError([f"{key}: {state}; name a new folder, or go on there with resume={named}"])
    above = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not os.access(above, os.W_OK | os.X_OK):
        reason = "Permission denied" if above.is_dir() else "Not a directory"
        raise UsageError([f"{key}: cannot be made ({reason}: {above}); name a folder that you may write to"])


def new_sweep_folder() -> Path:
    return _make_unique(OUTPUTS / "sweeps", checkpoints=False)


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
            hold(folder, "outputs")
            (folder / "checkpoints").mkdir()
        return folder


# --- held ---


def hold(folder: Path, key: str) -> None:
    """Keep other processes out of a run's folder until `release`, or until this process ends, however it does.

    Raises UsageError that say who is in there. The lock is the system's own on a file in the folder (flock), so a kill
    frees it. Without locks (Windows, some network disks) nobody is kept out; and whether machines that share a disk see
    each other's locks is up to that disk.
    """
    folder = folder.resolve()
    if folder in _held:
        return
    try:
        file = _locked(folder / LOCK)
    except BlockingIOError:
        raise UsageError([f"{key}: another run is in there{_holder(folder)}; wait for its end, or end it"]) from None
    except OSError as error:
        raise UsageError([f"{key}: {folder} cannot be written to ({error.strerror})"]) from None
    with suppress(OSError):  # on a full disk it holds as well
        file.truncate(0)
        said = f"process {os.getpid()} on {platform.node()}, since {datetime.now():%Y-%m-%d %H:%M:%S}"
        os.write(file.fileno(), said.encode())
    _held[folder] = file
    for place in (folder, folder / "checkpoints"):
        clear_unfinished(place)


def release() -> None:
    """Let other processes into the folders that this one holds."""
    for folder in list(_held):
        _let_go(folder)


def _let_go(folder: Path) -> None:
    file = _held.pop(folder.resolve())
    (folder / LOCK).unlink(missing_ok=True)
    file.close()


def _locked(path: Path, *, make: bool = True) -> IO[str]:
    """Open and lock a file; BlockingIOError if another process has, FileNotFoundError if none is to be made."""
    follow = getattr(os, "O_NOFOLLOW", 0)  # no link: it could lead to a file of yours
    flags = os.O_RDWR | follow | (os.O_CREAT if make else 0)
    while True:
        file = os.fdopen(os.open(path, flags, 0o666), "r+", encoding="utf-8")
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise
        except OSError:  # a disk without locks
            return file
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()  # whoever held it has just removed it


def _holder(folder: Path) -> str:
    """Return what the lock of a folder says of who took it; nothing where there is no lock."""
    for _ in range(20):
        try:
            with (folder / LOCK).open(encoding="utf-8", errors="replace") as file:
                said = "".join(letter for letter in file.read(200) if letter.isprintable())
        except OSError:
            return ""
        if said:
            return f" ({said})"
        time.sleep(0.05)  # who has just taken it is about to write
    return ""


def _forget() -> None:
    """Close the locks in a forked process (one that reads images): living on, it would keep its killed parent's."""
    while _held:
        _held.popitem()[1].close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


# --- found again ---


def find(path: str, key: str, *, best: bool = False) -> tuple[Path, Path]:
    """Return the folder of a run and its last.pt (or best.pt), given the folder or the checkpoint itself.

    Raises UsageError that say what was expected.
    """
    folder, state = _at(path, key, best=best)
    if not _is_saved(state):
        raise UsageError([f"{key}={path}: is no run to load ({state.name} is missing); name the folder of a run"])
    return folder, state


def find_to_resume(path: str) -> tuple[Path, Path | None]:
    """Return the folder of a run and its last.pt, or the checkpoint that is named; None if it was killed before any.

    `auto` is the newest run in outputs/, sweeps included, that did not finish and that no process holds.
    """
    folder, state = _at(str(_newest_unfinished()) if path == "auto" else path, "resume")
    kept = [file for file in state.parent.iterdir() if not file.name.endswith(UNFINISHED)]
    if kept and not _is_saved(state):
        raise UsageError([f"resume={path}: is no run to load ({state.name} is missing); name the folder of a run"])
    return folder, state if _is_saved(state) else None


def find_to_rerun(path: str) -> Path:
    """Return the folder of a run that may have finished or not."""
    return _at(path, "rerun")[0]


def _at(path: str, key: str, *, best: bool = False) -> tuple[Path, Path]:
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
    _check_own_files([folder, state.parent], f"{key}={path}")
    return folder, state


def _is_saved(state: Path) -> bool:
    return state.is_file() or checkpoint.previous(state).is_file()


def _check_own_files(folders: list[Path], key: str) -> None:
    """Refuse folders in which a file is a link: a stranger's could lead what is written there to anywhere."""
    for entry in [entry for folder in folders for entry in os.scandir(folder)]:
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            raise UsageError([f"{key}: {entry.path} is a link or no file; put the file itself there"])


def saved_words(folder: Path, now: Sequence[str] = ()) -> list[str]:
    """Read back the words that a run was started with, less those that reach beyond its folder.

    The folder may be a stranger's. What could run any code (allow_targets, --config-dir) raises UsageError unless it is
    among the words given now; whether to fetch (data.download) and where to write (dir, and cache_dir unless it is a
    cache already) is for those alone to say.
    """
    path = folder / "overrides.yaml"
    try:
        words = yaml.safe_load(_read_text(path, LARGEST_YAML)) or []
    except (yaml.YAMLError, RecursionError) as error:
        raise UsageError([f"{path}: is no list of settings ({str(error).partition(chr(10))[0]})"]) from None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UsageError([f"{path}: is not a list of settings"])
    if len(words) > MOST_WORDS or any(len(word) > LONGEST_WORD or not word.isprintable() for word in words):
        raise UsageError([f"{path}: holds what no command line would; is it from a run of deeptrain?"])
    typed = {_key(word) for word in now}
    for word in words:
        if _key(word) in RUN_CODE and _key(word) not in typed:
            raise UsageError(
                [f"{path}: asks for {word}, by which it could run any code; if you trust it, add this word"]
            )
    return [word for word in words if _key(word) not in RUN_CODE and not _reaches_out(word)]


def saved_settings(folder: Path) -> dict[str, Any]:
    """Read back the whole configuration that a run had; empty if it does not say."""
    path = folder / "config.yaml"
    return settings_of(_read_text(path, LARGEST_YAML), str(path)) if path.is_file() else {}


def settings_of(text: str, name: str) -> dict[str, Any]:
    """Read a configuration as text; UsageError if it is none."""
    try:
        settings = yaml.safe_load(text) or {}
    except (yaml.YAMLError, RecursionError, ValueError):
        settings = None
    if not isinstance(settings, dict):
        raise UsageError([f"{name}: is damaged; move it away"])
    return settings


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0].partition("@")[0]


def _reaches_out(word: str) -> bool:
    if _key(word) == "cache_dir":
        return not any(Path(word.partition("=")[2]).expanduser().glob("*/entry.json"))
    return _key(word) in ("data.download", "dir", "resume", "resume_changed", "rerun")


def read_json(path: Path, kind: type, empty: Any) -> Any:
    """Read what a run wrote as JSON; `empty` if there is no such file, UsageError if it holds something else."""
    if not path.is_file():
        return empty
    try:
        content = json.loads(_read_text(path, LARGEST_JSON))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, kind):
        raise UsageError([f"{path}: is damaged; move it away"])
    return content


def _read_text(path: Path, most: int) -> str:
    try:
        if path.stat().st_size > most:
            raise UsageError([f"{path}: is too large to be of a run of deeptrain"])
        return path.read_text("utf-8")
    except OSError as error:
        raise UsageError([f"{path}: cannot be read ({error.strerror})"]) from None
    except UnicodeDecodeError:
        raise UsageError([f"{path}: is no text"]) from None


def _newest() -> Path | None:
    return next(iter(_newest_first()), None)


def _newest_first() -> list[Path]:
    """List the runs in outputs/, those of sweeps too, by when they were last started."""
    starts = [*OUTPUTS.glob("*/*/overrides.yaml"), *OUTPUTS.glob("sweeps/*/*/*/overrides.yaml")]
    return [path.parent for path in sorted(starts, key=lambda path: (path.lstat().st_mtime_ns, path), reverse=True)]


def _newest_unfinished() -> Path:
    for folder in _newest_first():
        result = read_json(folder / "result.json", dict, {})
        if result.get("status", "interrupted") in ("interrupted", "failed") and not _is_held(folder):
            return folder
    raise UsageError(
        [f"resume=auto: every run in {OUTPUTS}/ has finished; name one to train longer, resume=RUN epochs=N"]
    )


def _is_held(folder: Path) -> bool:
    """Tell whether a process is at work in a folder, of which nothing is changed."""
    try:
        _locked(folder / LOCK, make=False).close()
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False

"""The run folder: made for one run alone, told apart by name, found again."""

import secrets
from datetime import datetime
from pathlib import Path

import yaml

from deeptrain.config import Mistakes

OUTPUTS = Path("outputs")


def new_folder(named: str | None = None) -> Path:
    """Make a run's folder, exclusively: two starts at one moment get two folders. Mistakes if `named` is in use."""
    if named is None:
        return _make_unique(OUTPUTS)
    folder = Path(named).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Mistakes([f"dir={named}: is in use; name a new folder, or go on there with resume={named}"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "checkpoints").mkdir()
    except FileExistsError:
        raise Mistakes([f"dir={named}: another run has just taken it; name a new folder"]) from None
    except OSError as error:
        raise Mistakes(
            [f"dir={named}: cannot be made ({error.strerror}); name a folder that you may write to"]
        ) from None
    return folder


def new_sweep_folder() -> Path:
    return _make_unique(OUTPUTS / "sweeps", checkpoints=False)


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
            (folder / "checkpoints").mkdir()
        return folder


def find(path: str, key: str, *, best: bool = False) -> tuple[Path, Path]:
    """Return the folder of a run and its last.pt (or best.pt), given the folder or the checkpoint itself.

    Raises Mistakes that say what was expected.
    """
    given = Path(path).expanduser()
    folder, checkpoint = given, given / "checkpoints" / ("best.pt" if best else "last.pt")
    if given.suffix == ".pt":
        folder, checkpoint = given.parent.parent, given
    if not given.exists():
        raise Mistakes(
            [f"{key}={path}: there is no such run; name its folder, for example {_newest() or 'outputs/...'}"]
        )
    for needed in (folder / "overrides.yaml", checkpoint):
        if not needed.is_file():
            raise Mistakes([f"{key}={path}: is no run to load ({needed.name} is missing); name the folder of a run"])
    return folder, checkpoint


def saved_words(folder: Path) -> list[str]:
    """Read back the words that a run was started with."""
    try:
        words = yaml.safe_load((folder / "overrides.yaml").read_text("utf-8")) or []
    except (OSError, yaml.YAMLError) as error:
        raise Mistakes([f"{folder / 'overrides.yaml'}: cannot be read ({error})"]) from None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise Mistakes([f"{folder / 'overrides.yaml'}: is not a list of settings"])
    return words


def _newest() -> Path | None:
    runs = sorted(path.parent for path in OUTPUTS.glob("*/*/overrides.yaml"))
    return runs[-1] if runs else None

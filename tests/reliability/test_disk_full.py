"""A disk that fills up at any write of a run: told in a line, nothing lost, and gone on with once there is room.

In the tests every so many writes of a short run in turn are the first to fail; DEEPTRAIN_WRITES=1 takes each one. Where
a small file system can be mounted, a real one is filled too (this file is also the script that runs in there).
"""

import builtins
import errno
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deeptrain.commands import cli
from deeptrain.run import artifacts, launch
from deeptrain.runtime.files import UNFINISHED
from deeptrain.runtime.resources import ROOT
from deeptrain.training import checkpoint

sys.path.insert(0, str(ROOT / "scripts"))
import torture  # pyright: ignore

WORDS = ["data=synthetic", "data.shape=[3,8,8]", "data.size=80", "data.flip=true", "model=fcn", "model.hidden=[8]"]
WORDS += ["model.dropout=0.2", "aug=mixup", "average=ema", "batch_size=16", "epochs=2", "log.every_steps=2"]
WORDS += ["checkpoint.every_steps=2", "device=cpu", "threads=1"]
EVERY = int(os.environ.get("DEEPTRAIN_WRITES", "5"))
BALLAST = "ballast"
LEVELS = int(os.environ.get("DEEPTRAIN_LEVELS", "5"))  # of a real disk, at which it is full

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]


class Full:
    """A file on a disk that gets full: half of a write arrives, then OSError; `fails` is asked before each."""

    def __init__(self, file: Any, fails: Callable[[], bool]):
        self.file, self.fails = file, fails

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "Full":
        return self

    def __exit__(self, *_) -> None:
        self.file.close()

    def write(self, data: Any) -> int:
        if self.fails():
            self.file.write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)


class Disk:
    """Counts the writes of this process to files below a folder, of which some fail."""

    def __init__(self, place: Path, fails: Callable[[int], bool], modes: str = "wxa+"):
        self.place, self.number, self.modes = place.resolve(), 0, modes
        self.fails_at, self.real = fails, io.open
        io.open = builtins.open = self.open

    def open(self, file: Any, mode: str = "r", *args: Any, **named: Any) -> Any:
        opened = self.real(file, mode, *args, **named)
        if isinstance(file, int) or not set(mode) & set(self.modes) or self.place not in Path(file).resolve().parents:
            return opened
        return Full(opened, self.fails)

    def fails(self) -> bool:
        self.number += 1
        return self.fails_at(self.number)


def trained(words: list[str], log: Path, before: Callable[[], Any] = lambda: None) -> int:
    """Train in a forked process, its output into a file; return the exit code."""
    log.write_text("")
    sys.stdout.flush()
    number = os.fork()
    if number == 0:
        code = 3
        try:
            with log.open("a") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            artifacts._draw = lambda *_: None  # most of so short a run's time
            before()
            code = cli.train(words)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])


def assert_told_and_whole(folder: Path, said: str, code: int) -> None:
    """One line names the file, needed and free bytes; what lies there can be loaded."""
    assert "Traceback" not in said, said
    if code:
        told = [
            line for line in said.splitlines() if re.search(r"bytes needed, [\d,]+ free|cannot be (made|written)", line)
        ]
        assert code in (1, 2) and told and all(str(folder) in line for line in told), said
        assert len([line for line in told if line.startswith(("failed", "error"))]) <= 1, said
    for name in ("last", "best"):
        path = folder / "checkpoints" / f"{name}.pt"
        if path.exists():
            checkpoint.load(path)
    assert not list(folder.rglob(f"*{UNFINISHED}")), "no half of a file is left"


def go_on(folder: Path, log: Path) -> None:
    """Give the command that a person would: resume where there is a run, else start it again."""
    begun = (folder / "overrides.yaml").is_file()
    if not begun:
        shutil.rmtree(folder, ignore_errors=True)
    code = trained([f"resume={folder}"] if begun else [*WORDS, f"dir={folder}"], log)
    assert code == 0 or "nothing left to do" in log.read_text(), log.read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Return an uninterrupted run."""
    place = tmp_path_factory.mktemp("whole")
    import_everything(place / "first")
    assert trained([*WORDS, f"dir={place / 'run'}"], place / "log") == 0, (place / "log").read_text()
    return place / "run"


def import_everything(folder: Path) -> None:
    """Train once in this process, so that those forked from it do not each import for seconds."""
    assert cli.train([*WORDS, f"dir={folder}"]) == 0
    torture.points(folder)


def count_writes(place: Path) -> int:
    """Return how often a run writes into its folder."""
    answer = place / "count"
    disk: list[Disk] = []

    def before() -> None:
        disk.append(Disk(place / "run", lambda number: False))
        end = os._exit
        os._exit = lambda code: (answer.write_text(str(disk[0].number)), end(code))  # pyright: ignore

    assert trained([*WORDS, f"dir={place / 'run'}"], place / "log", before) == 0
    shutil.rmtree(place / "run")
    return int(answer.read_text())


def test_full_from_any_write_on(whole, tmp_path):
    """It ends in a line; with room again a resume comes to the run that was never disturbed, in every file."""
    writes = count_writes(tmp_path)
    assert writes > 40
    folder, codes = tmp_path / "run", set()
    for first in range(1, writes + 1, EVERY):
        code = trained([*WORDS, f"dir={folder}"], tmp_path / "log", lambda f=first: Disk(folder, lambda n: n >= f))
        codes.add(code)
        assert_told_and_whole(folder, (tmp_path / "log").read_text(), code)
        go_on(folder, tmp_path / "log")
        assert torture.differences(whole, folder) == [], f"full from write {first} on"
        shutil.rmtree(folder)
    assert {1, 2} <= codes


def test_a_full_disk_for_a_while_costs_the_logs_nothing(whole, tmp_path):
    """Only appending fails (metrics.csv, TensorBoard, run.log): training goes on, says so once each, and catches up."""
    folder = tmp_path / "run"
    code = trained([*WORDS, f"dir={folder}"], tmp_path / "log", lambda: Disk(folder, lambda n: 8 <= n < 18, "a"))
    said = (tmp_path / "log").read_text()
    assert code == 0, said
    assert 1 <= said.count("No space left on device") <= 3 and "the run goes on" in said
    assert torture.differences(whole, folder) == []


def test_a_full_disk_at_the_end_only_leaves_out_the_result(whole, tmp_path):
    folder = tmp_path / "run"

    def before() -> None:
        write = launch.write_atomically

        def full(path: Path, content: bytes) -> None:
            if path.name == "result.json":
                Disk(folder, lambda n: True)
            write(path, content)

        launch.write_atomically = full

    assert trained([*WORDS, f"dir={folder}"], tmp_path / "log", before) == 1
    said = (tmp_path / "log").read_text()
    assert "result.json: No space left on device" in said and f"resume={folder}" in said
    assert trained([f"resume={folder}"], tmp_path / "log") == 0 and (folder / "result.json").is_file()
    assert torture.differences(whole, folder) == []


def fill(disk: Path, free: int) -> None:
    """Leave so many bytes free."""
    with (disk / BALLAST).open("wb") as file:
        file.write(bytes(max(0, shutil.disk_usage(disk).free - free)))


def on_a_real_disk(disk: Path, whole: Path) -> None:
    """Train with less and less room, make room, go on, and compare."""
    import_everything(disk / "first")
    shutil.rmtree(disk / "first")
    needed = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    folder, failed = disk / "run", 0
    for level in range(LEVELS):
        fill(disk, needed * level // LEVELS)
        code = trained([*WORDS, f"dir={folder}"], whole.parent / "log")
        said = (whole.parent / "log").read_text()
        failed += code != 0
        (disk / BALLAST).unlink()
        assert_told_and_whole(folder, said, code)
        go_on(folder, whole.parent / "log")
        assert torture.differences(whole, folder) == [], f"{level} of {LEVELS}\n{said}"
        shutil.rmtree(folder)
    assert failed > LEVELS // 2


def test_a_real_disk_that_is_full(whole, tmp_path):
    mount = ["unshare", "-Urm", "sh", "-c", 'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"', str(tmp_path)]
    try:
        subprocess.run([*mount, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no file system can be mounted here")
    script = [*mount, sys.executable, __file__, str(tmp_path), str(whole)]
    done = subprocess.run(script, capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    on_a_real_disk(Path(sys.argv[1]), Path(sys.argv[2]))

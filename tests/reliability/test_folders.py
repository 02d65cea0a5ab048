"""Run folders: one run each, whoever else starts at the same moment; held while it lasts, free after a kill."""

import json
import multiprocessing
import os
import re
import signal
import time
from pathlib import Path

import pytest

from deeptrain.commands.cli import train
from deeptrain.data import torchvision_sets
from deeptrain.data.cache import get_or_build
from deeptrain.errors import UsageError
from deeptrain.run import folder, lock
from deeptrain.training.trainer import Trainer

pytestmark = pytest.mark.slow

FORK = multiprocessing.get_context("fork")
TINY = [
    "data=synthetic",
    "data.shape=[3,8,8]",
    "data.size=40",
    "model=fcn",
    "model.hidden=[4]",
    "loggers=none",
]
HELD = r"\(process \d+ on \S+, since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\)"


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    lock.unlock_all()


def together(count: int, work, *arguments) -> list[str]:
    """Call work in so many processes at one moment; return what each one returned or was refused with."""
    barrier, answers = FORK.Barrier(count), FORK.SimpleQueue()

    def process() -> None:
        barrier.wait()
        try:
            answers.put(f"made {work(*arguments)}")
        except UsageError as mistakes:
            answers.put(str(mistakes))
        done.wait()  # what is held stays held until all have tried

    done = FORK.Event()
    processes = [FORK.Process(target=process) for _ in range(count)]
    for one in processes:
        one.start()
    said = [answers.get() for _ in processes]
    done.set()
    for one in processes:
        one.join()
    return said


def test_fifty_starts_make_fifty_folders():
    said = together(50, folder.new_folder)
    assert len(set(said)) == 50 and all(word.startswith("made ") for word in said)
    assert len(list(Path("outputs").glob("*/*/checkpoints"))) == 50


def test_of_fifty_starts_in_one_folder_one_wins_and_the_others_learn_who():
    said = together(50, folder.new_folder, "shared")
    assert said.count("made shared") == 1
    for line in set(said) - {"made shared"}:
        assert re.fullmatch(rf"dir=shared: (another run is in there|is in use) {HELD}; [^\n]+", line), line


def test_of_two_resumes_one_is_refused_in_a_line_that_names_the_other(capsys):
    assert train([*TINY, "epochs=1", "dir=run"]) == 0
    with holding("run") as holder:
        assert train(["resume=run", "epochs=2"]) == 2
        said = capsys.readouterr().err
        assert re.fullmatch(rf"error: resume=run: another run is in there {HELD}; wait for its end, or end it\n", said)
        assert f"process {holder.pid} " in said
    assert train(["resume=run", "epochs=2"]) == 0, "free after the kill"
    assert not Path("run/.lock").exists()


class holding:
    """Another process that holds a folder until it is killed; with a child of its own, as one that reads images."""

    def __init__(self, name: str, child: bool = False):
        self.name, self.child = Path(name), child

    def __enter__(self):
        ready = FORK.SimpleQueue()

        def hold() -> None:
            lock.lock(self.name, "resume=x")
            pid = os.fork() if self.child else 0
            if self.child and pid == 0:
                time.sleep(60)
                os._exit(0)
            ready.put(pid)
            time.sleep(60)

        self.process = FORK.Process(target=hold)
        self.process.start()
        self.grandchild = ready.get()
        return self.process

    def __exit__(self, *_):
        self.process.kill()
        self.process.join()


def test_a_lock_is_free_after_a_kill_even_if_a_child_lives_on():
    Path("run").mkdir()
    other = holding("run", child=True)
    try:
        with other, pytest.raises(UsageError, match="another run is in there"):
            lock.lock(Path("run"), "resume=run")
        os.kill(other.grandchild, 0)  # still there
        lock.lock(Path("run"), "resume=run")
    finally:
        os.kill(other.grandchild, signal.SIGKILL)


def test_a_held_folder_may_be_held_again_by_the_same_process():
    Path("run").mkdir()
    lock.lock(Path("run"), "resume=run")
    lock.lock(Path("run"), "resume=run")
    lock.unlock_all()
    assert not list(Path("run").iterdir())


def test_a_run_that_fails_at_the_start_lets_go(capsys):
    assert train([*TINY, "epochs=1", "dir=run"]) == 0
    assert train(["resume=run"]) == 2, "nothing left to do"
    assert train(["resume=run", "epochs=2"]) == 0
    assert "is in there" not in capsys.readouterr().err


def test_a_folder_in_use_is_named_with_what_to_do():
    Path("full").mkdir()
    Path("full/notes.txt").write_text("")
    with pytest.raises(UsageError, match=r"dir=full: holds other files \(notes.txt\); name a new folder"):
        folder.new_folder("full")
    assert [path.name for path in Path("full").iterdir()] == ["notes.txt"]
    Path("file").write_text("")
    with pytest.raises(UsageError, match="dir=file: is a file"):
        folder.new_folder("file")


def test_without_locks_a_run_goes_on(monkeypatch):
    """On a disk that has none nobody is kept out, and nothing breaks."""

    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    assert folder.new_folder("run") == Path("run")
    lock.unlock_all()


def test_the_lock_lasts_as_long_as_the_run(monkeypatch):
    """Seen from another process, in the middle of a training."""
    said, train_step = [], Trainer.train_step

    def look_from_outside(self, *batch):
        said.extend(together(1, folder.new_folder, "run"))
        return train_step(self, *batch)

    monkeypatch.setattr(Trainer, "train_step", look_from_outside)
    assert train([*TINY, "epochs=1", "limit_steps=1", "dir=run"]) == 0
    assert re.match(rf"dir=run: is in use {HELD}", said[0])


# --- one download, one decoding ---


def test_of_sixteen_first_downloads_one_is_made(tmp_path, monkeypatch):
    log = tmp_path / "log"

    class Fetched:
        def __init__(self, root, train, download):
            with log.open("a") as file:
                file.write(f"{train}\n")
            time.sleep(0.2)
            for name in known.train if train else known.test:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(b"whole")

    known = torchvision_sets.SPECS["mnist"]
    monkeypatch.setattr(torchvision_sets, "_torchvision", lambda name: Fetched)

    def fetch() -> str:
        torchvision_sets._download(known, tmp_path / "data", tmp_path / "cache")
        return "".join((tmp_path / "data" / name).read_text()[0] for name in known.train + known.test)

    assert together(16, fetch) == ["made wwww"] * 16
    assert sorted(log.read_text().split()) == ["False", "True"]
    assert not list((tmp_path / "data").glob(".download-*"))


def test_of_sixteen_first_decodings_one_is_made(tmp_path):
    def build(made: Path) -> None:
        with (tmp_path / "log").open("a") as file:
            file.write("built\n")
        time.sleep(0.2)
        (made / "images").write_bytes(bytes(1000))

    said = together(16, lambda: get_or_build(tmp_path / "cache", "set", {}, build))
    assert len(set(said)) == 1 and (tmp_path / "log").read_text() == "built\n"


def test_resume_auto_finds_the_run_last_started_that_did_not_finish_and_that_nobody_holds():
    """Also if it is of a sweep; folders that are only looked at stay as they are."""
    names = ["2026-01-03/10-00-00-aaaa", "sweeps/2026-01-02/10-00-00-bbbb/seed=0", "2026-01-01/10-00-00-cccc"]
    first, swept, last = (Path("outputs", name) for name in names)
    for at, status in ((first, "interrupted"), (swept, "failed"), (last, "finished")):
        (at / "checkpoints").mkdir(parents=True)
        (at / "checkpoints" / "last.pt").touch()
        (at / "overrides.yaml").write_text("[]")
        (at / "result.json").write_text(json.dumps({"status": status}))
        time.sleep(0.02)
    assert folder.find_to_resume("auto")[0] == swept
    assert not list(Path().rglob(lock.LOCK))
    (first / "overrides.yaml").write_text("[]")  # as a start does
    assert folder.find_to_resume("auto")[0] == first
    lock.lock(first, "")
    assert folder.find_to_resume("auto")[0] == swept
    (swept / "result.json").unlink()
    (last / "result.json").unlink()  # killed
    assert folder.find_to_resume("auto")[0] == last

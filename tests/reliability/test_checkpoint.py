"""Checkpoints: whole or detected, the one before kept until then and after, nothing left lying about."""

import errno
import multiprocessing
import os
import random
import stat
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch

from deeptrain.commands.cli import train
from deeptrain.run import lock
from deeptrain.runtime.files import clear_unfinished
from deeptrain.training import checkpoint

pytestmark = pytest.mark.slow

TINY = [
    "data=synthetic",
    "data.shape=[3,8,8]",
    "data.size=40",
    "model=fcn",
    "model.hidden=[4]",
    "loggers=none",
]
STATE = {
    "model": {"weight": torch.arange(12.0).reshape(3, 4), "steps": torch.tensor(7)},
    "optimizer": {
        "state": {0: {"exp_avg": torch.ones(2, dtype=torch.bfloat16)}},
        "param_groups": [{"betas": (0.9, 1)}],
    },
    "average": None,
    "progress": {"epoch": 3, "best": 0.5, "done": True, "name": "é"},
}


def state(number: int) -> dict:
    return {"model": {"weight": torch.full((3,), float(number))}, "number": number}


def files(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


def test_save_and_load_have_one_limit_of_tensors(tmp_path, monkeypatch):
    """A shared storage counts once; besides tensors an archive has fewer entries than the limits differ by."""
    assert checkpoint.MAX_ENTRIES - checkpoint.MAX_TENSORS == 8
    monkeypatch.setattr(checkpoint, "MAX_ENTRIES", 20)
    monkeypatch.setattr(checkpoint, "MAX_TENSORS", 12)
    tensors = {str(index): torch.full((3,), float(index)) for index in range(12)}
    full = {"model": tensors | {"tied": tensors["0"][:2]}}
    checkpoint.save(tmp_path / "last.pt", full)
    assert checkpoint.load(tmp_path / "last.pt")["model"].keys() == full["model"].keys()
    with pytest.raises(ValueError, match="are 13 tensors, a checkpoint holds 12; take a model of fewer layers"):
        checkpoint.save(tmp_path / "last.pt", {"model": tensors | {"12": torch.zeros(1)}})
    assert len(checkpoint.load(tmp_path / "last.pt")["model"]) == 13


@pytest.mark.parametrize(("optimizer", "count"), [("sgd", 4), ("adamw", 8)])
def test_a_state_of_too_many_tensors_is_refused_before_a_run(tmp_path, monkeypatch, capsys, optimizer, count):
    """Two layers have four tensors; momentum adds four, Adam's averages and step counters twelve."""
    monkeypatch.chdir(tmp_path)
    words = [*TINY, f"optimizer={optimizer}", "epochs=1"]
    monkeypatch.setattr(checkpoint, "MAX_TENSORS", count - 1)
    assert train([*words, "dir=run"]) == 2
    error = capsys.readouterr().err
    assert "error: model=fcn: weights and optimizer state are" in error and error.count("\n") == 1
    assert not Path("run").exists()
    monkeypatch.setattr(checkpoint, "MAX_TENSORS", 4 + 4 * 3)
    assert train([*words, "dir=run"]) == 0


def test_what_is_saved_comes_back(tmp_path):
    checkpoint.save(tmp_path / "last.pt", STATE)
    found = checkpoint.load(tmp_path / "last.pt")
    assert found.keys() == STATE.keys() and found["progress"] == STATE["progress"]
    assert torch.equal(found["model"]["weight"], STATE["model"]["weight"])
    average = found["optimizer"]["state"][0]["exp_avg"]
    assert average.dtype == torch.bfloat16 and average.device.type == "cpu"
    assert files(tmp_path) == {"last.pt"}


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o022)
    try:
        checkpoint.save(tmp_path / "last.pt", STATE)
    finally:
        os.umask(before)
    assert (tmp_path / "last.pt").stat().st_mode & 0o777 == 0o644


def test_torch_alone_can_read_it(tmp_path):
    checkpoint.save(tmp_path / "last.pt", STATE)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["progress"]["epoch"] == 3


def test_a_thousand_flipped_bits_are_all_detected(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, STATE)
    whole, rng = path.read_bytes(), random.Random(0)
    for _ in range(1000):
        flipped = bytearray(whole)
        flipped[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match="damaged"):
            checkpoint.load(path)


def test_every_truncation_is_detected(tmp_path):
    path = tmp_path / "last.pt"
    checkpoint.save(path, STATE)
    whole = path.read_bytes()
    for length in [*range(80), *range(80, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="damaged"):
            checkpoint.load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.load(path)


def test_the_one_before_is_kept(tmp_path):
    path = tmp_path / "last.pt"
    for number in range(4):
        checkpoint.save(path, state(number), keep=True)
    assert checkpoint.load(path)["number"] == 3 and checkpoint.load(checkpoint.previous(path))["number"] == 2
    assert files(tmp_path) == {"last.pt", "last.previous.pt"}


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "missing"])
def test_a_damaged_newest_gives_way_to_the_one_before(tmp_path, damage):
    path = tmp_path / "last.pt"
    for number in range(3):
        checkpoint.save(path, state(number), keep=True)
    whole = path.read_bytes()
    broken = {"truncated": whole[:-9], "flipped": whole[:99] + bytes([whole[99] ^ 4]) + whole[100:], "empty": b""}
    path.unlink() if damage == "missing" else path.write_bytes(broken[damage])
    found, warning = checkpoint.load_newest(path)
    assert found["number"] == 1
    assert warning and "\n" not in warning and str(path) in warning and "last.previous.pt" in warning
    checkpoint.save(path, state(9), keep=True)
    assert checkpoint.load(path)["number"] == 9
    assert checkpoint.load(checkpoint.previous(path))["number"] == 1, (
        "the damaged one did not take the good one's place"
    )


def test_without_a_good_one_the_newest_is_named(tmp_path):
    path = tmp_path / "last.pt"
    for number in range(2):
        checkpoint.save(path, state(number), keep=True)
    path.write_bytes(b"")
    checkpoint.previous(path).write_bytes(b"")
    with pytest.raises(ValueError, match=r"last\.pt: damaged"):
        checkpoint.load_newest(path)


def test_at_every_moment_a_good_one_is_there(tmp_path, monkeypatch):
    """Whichever call to the system is the last one before a kill."""
    path = tmp_path / "last.pt"
    for number in range(2):
        checkpoint.save(path, state(number), keep=True)
    calls = {"left": 0}

    class Killed(BaseException):
        pass

    def counted(real):
        def call(*args, **options):
            if calls["left"] == 0:
                raise Killed
            calls["left"] -= 1
            return real(*args, **options)

        return call

    for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "hardlink_to"), (Path, "unlink"), (Path, "open")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    for moment in range(20):
        calls["left"] = moment
        try:
            checkpoint.save(path, state(100 + moment), keep=True)
            finished = True
        except Killed:
            finished = False
        calls["left"] = -1  # nothing is cut off while we look
        assert checkpoint.load(path)["number"] in (1, *range(100, 101 + moment))
        assert checkpoint.load(checkpoint.previous(path))
        clear_unfinished(tmp_path)
        assert files(tmp_path) == {"last.pt", "last.previous.pt"}
    assert finished


def test_a_disk_without_links_keeps_the_one_before_too(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    for number in range(3):
        checkpoint.save(tmp_path / "last.pt", state(number), keep=True)
    assert checkpoint.load(tmp_path / "last.previous.pt")["number"] == 1
    assert files(tmp_path) == {"last.pt", "last.previous.pt"}


def test_a_full_disk_leaves_the_old_one_and_says_what_is_needed(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    checkpoint.save(path, state(1), keep=True)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device \([\d,]+ bytes needed, [\d,]+ free\): '.*last\.pt'"):
        checkpoint.save(path, state(2), keep=True)
    assert checkpoint.load(path)["number"] == 1 and files(tmp_path) == {"last.pt"}


def test_the_file_is_on_the_disk_before_its_name_and_the_folder_after(tmp_path, monkeypatch):
    order = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: order.append("folder" if is_folder(fd) else "file") or fsync(fd))
    monkeypatch.setattr(Path, "replace", lambda self, to: order.append("rename") or replace(self, to))
    checkpoint.save(tmp_path / "last.pt", state(1))
    assert order == ["file", "rename", "folder"]


def is_folder(descriptor: int) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def test_who_takes_a_folder_clears_what_a_kill_left(tmp_path):
    kept = tmp_path / "checkpoints"
    kept.mkdir()
    for path in (
        kept / ".last.pt.1a2b.unfinished",
        kept / ".last.pt.unfinished",
        tmp_path / ".result.json.9.unfinished",
    ):
        path.write_bytes(b"half")
    lock.lock(tmp_path, "resume=x")
    lock.unlock_all()
    assert files(tmp_path) == {"checkpoints"} and not files(kept)


def test_a_process_killed_while_it_saves_leaves_a_good_one(tmp_path):
    """Fifty times, at any moment of a loop that does nothing else (DEEPTRAIN_KILLS=500 for more)."""
    path, rng = tmp_path / "last.pt", random.Random(0)
    big = {"model": {"weight": torch.zeros(50_000)}, "number": 0}
    checkpoint.save(path, big, keep=True)

    context = multiprocessing.get_context("fork")

    def save_on_and_on(first: int, begun: Event) -> None:
        begun.set()
        for number in range(first, first + 10_000):
            checkpoint.save(path, big | {"number": number}, keep=True)

    reached, left = 0, 0
    for _ in range(int(os.environ.get("DEEPTRAIN_KILLS", "50"))):
        begun = context.Event()
        process = context.Process(target=save_on_and_on, args=(reached + 1, begun))
        process.start()
        assert begun.wait(60)
        time.sleep(rng.uniform(0.002, 0.03))
        process.kill()
        process.join()
        found = checkpoint.load(path)["number"]
        assert found >= reached, "what was saved before the last start is not lost"
        reached = found
        left += len(files(tmp_path) - {"last.pt", "last.previous.pt"})
        clear_unfinished(tmp_path)
        assert files(tmp_path) <= {"last.pt", "last.previous.pt"}
    assert reached and left, "kills between and in the middle of saves"


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path, monkeypatch, capfd, damage):
    """With one line that says so; the epoch that is trained again comes out as it was."""
    monkeypatch.chdir(tmp_path)
    assert train([*TINY, "epochs=2", "dir=run"]) == 0
    path = tmp_path / "run" / "checkpoints" / "last.pt"
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    weights = checkpoint.load(path)["model"]
    path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:-1] + b"?")
    capfd.readouterr()
    assert train(["resume=run"]) == 0
    said = capfd.readouterr()
    assert said.out.count("going on from the one before, last.previous.pt") == 1 and not said.err
    again = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[:6] for row in again] == [row.split(",")[:6] for row in rows]
    assert all(torch.equal(weights[name], value) for name, value in checkpoint.load(path)["model"].items())


def test_a_run_whose_checkpoints_are_all_damaged_says_so_in_a_line(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert train([*TINY, "epochs=2", "dir=run"]) == 0
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.write_bytes(b"")
    capfd.readouterr()
    assert train(["resume=run", "epochs=3"]) == 2
    said = capfd.readouterr().err
    assert said.startswith("error: resume=run/checkpoints/last.pt: damaged") and said.count("\n") == 1

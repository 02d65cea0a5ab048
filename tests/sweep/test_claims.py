"""Each job is somebody's, once: on one machine by a lock, on a shared disk by the file and its age."""

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from deeptrain.sweep import claims
from deeptrain.sweep.claims import Claims


def of_another_machine(folder, name: str, age: float) -> None:
    (folder / name).write_text(json.dumps({"host": "elsewhere", "process": 1}))
    os.utime(folder / name, (time.time() - age,) * 2)


def test_a_job_is_taken_once_and_can_be_given_back(tmp_path):
    one, other = Claims(tmp_path / "claims"), Claims(tmp_path / "claims")
    assert one.take("a", gpu="1") and not other.take("a") and other.take("b")
    assert other.owner("a") == one.owner("a") and other.owner("a")["process"] == os.getpid()
    assert set(one.owners()) == {"a", "b"} and one.owners()["a"]["gpu"] == "1"
    one.release("a")
    assert one.owner("a") is None and other.take("a")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_process_holds_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    taken = context.Event()
    process = context.Process(target=take_and_wait, args=(tmp_path, taken))
    process.start()
    assert taken.wait(10)
    mine = Claims(tmp_path)
    assert not mine.take("a") and mine.owner("a")["process"] == process.pid
    process.kill()
    process.join()
    assert mine.owner("a") is None and mine.take("a")


def take_and_wait(folder: Path, taken) -> None:
    claims = Claims(folder)
    claims.take("a")
    taken.set()
    time.sleep(60)


def test_another_machines_claim_counts_as_long_as_it_is_touched(tmp_path, monkeypatch):
    mine = Claims(tmp_path)
    of_another_machine(tmp_path, "a", age=60)
    assert not mine.take("a") and mine.owner("a")["host"] == "elsewhere"
    of_another_machine(tmp_path, "a", age=2 * claims.STALE_SECONDS)
    assert mine.owner("a") is None and mine.take("a")
    os.utime(tmp_path / "a", (0, 0))
    monkeypatch.setattr(claims, "REFRESH_SECONDS", -1)
    mine.refresh()
    assert time.time() - (tmp_path / "a").stat().st_mtime < 60


def test_a_clock_that_is_ahead_takes_nothing_from_another_machine(tmp_path, monkeypatch):
    of_another_machine(tmp_path, "a", age=60)
    now = time.time
    monkeypatch.setattr(claims.time, "time", lambda: now() + 3 * claims.STALE_SECONDS)
    assert not Claims(tmp_path).take("a")


def test_a_claim_that_is_just_being_made_is_somebodys(tmp_path):
    mine = Claims(tmp_path)
    (tmp_path / "a").touch()
    assert not mine.take("a")
    os.utime(tmp_path / "a", (0, 0))
    assert mine.take("a"), "its maker was killed"

"""Whole sweeps: past failures, going on, joining, and what is answered instead of doing work twice."""

import json
import multiprocessing
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from deeptrain.commands.cli import train
from deeptrain.sweep import launch, server
from deeptrain.sweep.claims import Claims
from deeptrain.sweep.options import Options
from deeptrain.sweep.plan import Job, Plan, save

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]

WORDS = [
    "data=synthetic",
    "data.size=120",
    "model=fcn",
    "model.hidden=[8]",
    "epochs=1",
    "loggers=none",
    "limit_steps=2",
]
WORDS += ["device=cpu", "batch_size=16", "validate.clean_images=16"]


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path, monkeypatch):
    """Fork from this process, which has imported everything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(server, "start", lambda: multiprocessing.get_context("fork"))


def crash(words: list[str]) -> int:
    """Stand in for a run: the one with seed=1 fails, unless a file says that it is mended; all note that they ran."""
    (word,) = [word for word in words if word.startswith(("dir=", "resume="))]
    folder = Path(word.partition("=")[2].strip("'"))
    with Path("ran.txt").open("a") as file:
        file.write(f"{folder.name}\n")
    folder.mkdir(exist_ok=True)
    if folder.name == "seed=1" and not Path("mended").exists():
        os.write(2, b"a line\nerror: no luck\n")
        return 1
    result = {"status": "finished", "monitor": "accuracy/val", "higher_is_better": True, "best": 0.5, "steps": 1}
    result |= {"as_percent": True, "seconds": 1.0, "train_seconds": 1.0, "metrics": {}}
    (folder / "result.json").write_text(json.dumps(result))
    return 0


def plan_of(count: int, base: str = "sweep") -> Plan:
    Path(base).mkdir(exist_ok=True)
    jobs = tuple(Job(Path(base) / f"seed={seed}", (f"seed={seed}",), {"seed": str(seed)}) for seed in range(count))
    save(plan := Plan(Path(base), (f"seed=range({count})",), ("seed",), jobs))
    return plan


def test_one_job_that_crashes_stops_no_other_and_can_be_tried_again(capfd):
    plan = plan_of(30)
    assert launch.work(plan, crash, 2, [], Options()) == 1
    said = capfd.readouterr().out
    assert "failed   sweep/seed=1: no luck" in said and "resume=sweep retry=failed" in said
    assert sorted(Path("ran.txt").read_text().split()) == sorted(job.folder.name for job in plan.jobs)
    assert json.loads(Path("sweep/failures/seed=1.json").read_text())["attempts"] == 1
    assert launch.work(plan, crash, 2, [], Options()) == 1, "a failed job waits until it is asked for"
    Path("mended").touch()
    assert launch.work(plan, crash, 2, [], Options(retry="failed")) == 0
    assert Path("ran.txt").read_text().split()[30:] == ["seed=1"] and not list(Path("sweep/failures").iterdir())
    assert not list(Path("sweep/claims").iterdir()), "nothing is left behind"


def test_fail_fast_starts_no_further_job(capfd):
    assert launch.work(plan_of(30), crash, 1, [], Options(fail_fast=True)) == 1
    assert Path("ran.txt").read_text().split() == ["seed=0", "seed=1"]
    assert "left     28 of 30 runs" in capfd.readouterr().out


def test_two_terminals_share_the_jobs():
    plan = plan_of(12)
    Path("mended").touch()
    context, arguments = multiprocessing.get_context("fork"), (plan, crash, 2, [], Options())
    both = [context.Process(target=launch.work, args=arguments) for _ in "ab"]
    for terminal in both:
        terminal.start()
    for terminal in both:
        terminal.join()
    assert sorted(Path("ran.txt").read_text().split()) == sorted(job.folder.name for job in plan.jobs)


def test_jobs_are_spread_over_the_gpus(monkeypatch):
    monkeypatch.setattr("deeptrain.sweep.claims.Claims.release", lambda self, name: None)  # as if all ran at once
    launch.work(plan_of(5), note_gpu, 5, ["3", "7"], Options())
    assert sorted(Path("gpus.txt").read_text().split()) == ["3", "3", "3", "7", "7"]


def note_gpu(words: list[str]) -> int:
    with Path("gpus.txt").open("a") as file:
        file.write(f"{os.environ['CUDA_VISIBLE_DEVICES']}\n")
    return crash(words)


def test_jobs_at_a_time(monkeypatch):
    monkeypatch.setattr(launch, "cores", lambda: 8)
    plan = plan_of(12)
    two = replace(plan, jobs=tuple(replace(job, words=("threads=2", "device=cpu")) for job in plan.jobs))
    assert launch.places(Options("auto"), two, {}) == (4, [])
    assert launch.places(Options(3), two, {}) == (3, [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2")
    assert launch.places(Options("auto"), plan, {}) == (2, ["0", "2"])


def test_a_sweep_goes_on_and_says_how_instead_of_doing_work_twice(capfd):
    command = ["-m", *WORDS, "optimizer.lr=0.1,0.2", "seed=0,1"]
    assert train([*command, "dir=s", "dry_run=true"]) == 0
    said = capfd.readouterr().out
    assert "4/4  optimizer.lr=0.2,seed=1  about" in said and not Path("s").exists()
    assert train([*command, "dir=s", "jobs=2"]) == 0
    assert "threads=1" in json.loads(Path("s/sweep.json").read_text())["jobs"][0]["words"]
    said = capfd.readouterr().out
    assert "best     optimizer.lr=" in said and Path("s/report.html").is_file()

    assert train([*command, "dir=s"]) == 2
    assert "this sweep is there already; go on with it: python train.py resume=s" in capfd.readouterr().err
    assert train(["-m", *WORDS, "seed=0,1", "dir=s"]) == 2
    assert "holds another sweep; name a new folder" in capfd.readouterr().err
    assert train(["resume=s"]) == 0
    assert "nothing left to do" in capfd.readouterr().out
    assert train(["resume=s", "epochs=3", "seed=5"]) == 2
    assert "epochs=3: a sweep goes on with the settings that it has" in capfd.readouterr().err

    before = Path("s/optimizer.lr=0.1,seed=0/result.json").read_bytes()
    shutil.rmtree("s/optimizer.lr=0.2,seed=1")
    Path("s/optimizer.lr=0.1,seed=1/result.json").unlink()
    assert train(["resume=s"]) == 0
    assert Path("s/optimizer.lr=0.1,seed=0/result.json").read_bytes() == before
    assert len(list(Path("s").glob("*/result.json"))) == 4

    shutil.copytree("s", "outputs/sweeps/2026-01-01/00-00-00-aaaa")
    shutil.rmtree("outputs/sweeps/2026-01-01/00-00-00-aaaa/optimizer.lr=0.2,seed=1")
    capfd.readouterr()
    assert launch.find_unfinished(command[1:]) == Path("outputs/sweeps/2026-01-01/00-00-00-aaaa")
    assert launch.find_unfinished([*command[1:], "aug=mixup"]) is None


def test_a_terminal_without_a_job_to_take_says_who_works(capfd):
    plan = plan_of(1)
    held = Claims(plan.folder / "claims")
    held.take("seed=0")
    assert launch.work(plan, crash, 1, [], Options()) == 0
    assert "1 runs go on in other terminals" in capfd.readouterr().out and not Path("ran.txt").exists()

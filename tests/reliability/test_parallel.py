"""Several processes train what one would: the same curve, each image counted once, one folder, one end."""

import csv
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest
import torch

from deeptrain.commands import cli
from deeptrain.loggers.metrics_csv import TIME_COLUMNS
from deeptrain.run import answers, artifacts, launch
from deeptrain.runtime.distributed import DistributedWorld
from deeptrain.runtime.resources import ROOT
from deeptrain.runtime.world import World, get_world
from deeptrain.training import checkpoint

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]
TOGETHER, LAUNCHED = (Path(__file__).with_name(f"{name}.py") for name in ("together", "launched"))
TRAIN = ROOT / "train.py"
SMALL = "data=synthetic data.size=459 model=fcn model.hidden=[16] model.norm=none batch_size=63 log.every_steps=3"
SMALL += " schedule=constant device=cpu loggers=none"
TRIED = {
    "mixing": "epochs=2 aug=[cutout,mixup]",
    "pieces": "epochs=1 aug=cutmix aug.cutmix.probability=0.5 accumulate=4 clip_norm=0.5 average=ema penalty=l2",
    "sharpness": "epochs=1 sam=0.05 max_norm=2 model.norm=layer loss.label_smoothing=0.1 average=swa average.start=0.5",
    "norms": (
        "epochs=2 optimizer=sgd model.norm=batch sync_batch_norm=true average=swa average.start=0.5 aug=random_crop"
    ),
    "started": "epochs=2 data.num_classes=5 init_from=ORIGIN finetune.backbone_lr_factor=0.1",
    "stream": "epochs=1 data.loader=stream workers=1 aug=mixup validate.every_steps=2",
}
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")]


def torchrun(count: int, script: Path, *words: str, **options) -> subprocess.Popen:
    command = [*TORCHRUN, str(count), "--standalone", str(script), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


def launched(count: int, *words: str, script: Path = LAUNCHED, **options: object) -> forked.Started:
    """Start what torchrun does without importing anything; the processes train."""
    options = {"min_nodes": 1, "max_nodes": 1, "nproc_per_node": count, "run_id": "one"} | options
    rendezvous = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", **options}
    return forked.start([sys.executable, script, json.dumps(rendezvous), *words])


def curve(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{key: float(value) for key, value in row.items() if key not in TIME_COLUMNS and value} for row in rows]


def assert_alike(one: Path, several: Path) -> None:
    """Compare curves and weights to 1e-5; what counts images (accuracies) exactly."""
    first, second = curve(one), curve(several)
    assert len(first) == len(second) > 0
    for row, other in zip(first, second, strict=True):
        assert row == pytest.approx(other, abs=1e-5, rel=1e-5)
        assert row["accuracy/val"] == other["accuracy/val"]
    states = [checkpoint.load(folder / "checkpoints" / "last.pt") for folder in (one, several)]
    assert states[0]["progress"]["images"] == states[1]["progress"]["images"]
    torch.testing.assert_close(states[0]["model"], states[1]["model"], atol=1e-5, rtol=1e-5)


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


def children(job: forked.Started) -> list[int]:
    """Return the processes that a job has started, which it does by rank."""
    found = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    return [int(pid) for pid in found]


def test_parts_make_the_whole():
    for count in (1, 2, 3, 7):
        for size in (0, 1, 2, 6, 63):
            parts = [World(rank, count).shard(slice(10, 10 + size)) for rank in range(count)]
            assert [index for part in parts for index in range(part.start, part.stop)] == list(range(10, 10 + size))
            assert max(part.stop - part.start for part in parts) <= -(-size // count)


def test_alone_without_torchrun():
    assert get_world({}).is_single and get_world({"WORLD_SIZE": "2", "RANK": "1"}).is_single, "not torchrun's"
    world = get_world({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"})
    assert world == DistributedWorld(3, 4, 1, 2) and not world.is_main


def endless(folder: Path) -> str:
    return f"{SMALL} epochs=100000 dir={folder} checkpoint.every_steps=5 validate.every_epochs=1000"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """Train everything that is tried, in two processes and in one; and the first part of a run for the next test."""
    base = tmp_path_factory.mktemp("parallel")
    tried_words = {name: tried.replace("ORIGIN", f"{base}/two/mixing") for name, tried in TRIED.items()}
    words = [f"{SMALL} {tried} dir={base}/two/{name}" for name, tried in tried_words.items()]
    words += [f"{SMALL} epochs=3 limit_steps=4 dir={base}/resumed", endless(base / "told")]
    code, *said = launched(2, *words, script=TOGETHER).finish(100)
    assert code == 0, said
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifacts, "_draw", lambda *_: None)
        for name, tried in tried_words.items():
            words = f"{SMALL} {tried} dir={base}/one/{name}".replace("sync_batch_norm=true", "")
            assert launch.main(shlex.split(words)) == 0
    return base


@pytest.mark.parametrize("name", TRIED)
def test_same_curve(folders, name):
    """With a batch of 63 and a val of odd size, so that shares differ; no image of val is counted twice or left out."""
    assert_alike(folders / "one" / name, folders / "two" / name)
    assert sorted(path.name for path in (folders / "two").iterdir()) == sorted(TRIED), "one folder a run"


def test_resumed_by_another_number_of_processes(folders):
    """Two processes, then one, then two come to what one alone comes to."""
    whole, at = folders / "whole", folders / "resumed"
    assert launch.main([*shlex.split(f"{SMALL} epochs=3"), f"dir={whole}"]) == 0
    assert launch.main([f"resume={at}", "limit_steps=9"]) == 0
    _, said, _ = launched(2, f"resume={at}", "limit_steps=null").finish(100)
    assert json.loads((at / "result.json").read_text())["status"] == "finished", said
    assert curve(at)[-1] == pytest.approx(curve(whole)[-1], abs=1e-5, rel=1e-5)
    assert "resumed" in said and said.count("finished  ") == 1, "one process speaks"
    assert (at / "confusion.png").is_file() and "could not all be drawn" not in said
    found = answers.load(at)
    assert found and len(found.labels) == 46, "all of val, by rank 0"
    right = json.loads((at / "result.json").read_text())["final"]["accuracy/val"]
    assert (found.predicted["final"] == found.labels).mean() == pytest.approx(right)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
def test_a_killed_process_ends_all(tmp_path):
    job = launched(2, *shlex.split(endless(tmp_path / "run")))
    last = tmp_path / "run" / "checkpoints" / "last.previous.pt"
    try:
        wait_for(last.is_file)
        pids = children(job)
        os.kill(pids[1], signal.SIGKILL)
        code, *said = job.finish(60)  # which kills it if it has not ended
        assert code not in (0, -signal.SIGKILL), said
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
        assert checkpoint.load_newest(last.with_name("last.pt"))[0]["progress"]["step"] > 0
    finally:
        job.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's parent-death signal")
def test_torchrun_that_is_killed_takes_its_processes_with_it(tmp_path):
    """They save, as after SIGTERM."""
    job = torchrun(2, TRAIN, *shlex.split(endless(tmp_path / "run")))
    wait_for((tmp_path / "run" / "checkpoints" / "last.previous.pt").exists)
    job.kill()
    wait_for((tmp_path / "run" / "result.json").exists)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["reason"] == "stopped by SIGTERM"


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_a_stopped_process_is_named_and_a_signal_obeyed(tmp_path, rank):
    """The other one waits inside torch, where no handler of Python's runs."""
    job = launched(2, *shlex.split(endless(tmp_path / "run")))
    last = tmp_path / "run" / "checkpoints" / "last.previous.pt"
    try:
        wait_for(last.is_file)
        pids = children(job)
        os.kill(pids[rank], signal.SIGSTOP)
        os.kill(pids[1 - rank], signal.SIGTERM)
        wait_for(lambda: not Path(f"/proc/{pids[1 - rank]}").exists())
        os.kill(pids[rank], signal.SIGKILL)  # torchrun does so after 30 s
        _, *said = job.finish(100)
        assert "stopped by SIGTERM while it waited for another process; go on with resume" in "".join(said)
        assert checkpoint.load_newest(last.with_name("last.pt"))[0]["progress"]["step"] > 0
    finally:
        job.kill()


def test_told_to_stop_all_save_at_the_same_step(folders, tmp_path):
    """A signal to any one process, and one to torchrun, which passes it on to all."""
    job, at = launched(2, *shlex.split(endless(tmp_path / "run"))), tmp_path / "run"
    try:
        wait_for((at / "checkpoints" / "last.previous.pt").is_file)
        job.terminate()
        said = job.finish(40)
    finally:
        job.kill()
    for told in (folders / "told", at):
        result = json.loads((told / "result.json").read_text())
        assert (result["status"], result["reason"]) == ("interrupted", "stopped by SIGTERM"), said
        assert checkpoint.load(told / "checkpoints" / "last.pt")["progress"]["step"] == result["steps"]


def test_two_nodes(tmp_path):
    """Two torchruns that meet by their rendezvous, as on two machines."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    meet = {"min_nodes": 2, "max_nodes": 2, "rdzv_endpoint": f"localhost:{port}"}
    nodes = [launched(1, *shlex.split(f"{SMALL} epochs=1 dir={tmp_path}/run"), **meet) for _ in range(2)]
    codes, *said = zip(*[node.finish(100) for node in nodes], strict=True)
    assert codes == (0, 0), said
    assert launch.main([*shlex.split(f"{SMALL} epochs=1"), f"dir={tmp_path}/one"]) == 0
    assert_alike(tmp_path / "one", tmp_path / "run")
    assert sum("finished  " in words for words in said[0]) == 1


def test_sweeps_and_torchrun_do_not_go_together(monkeypatch, capsys):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert cli.train(["-m", "seed=0,1"]) == 2
    assert capsys.readouterr().err.startswith("error: -m: a sweep does not go with torchrun; run python train.py -m")
    assert cli.train(["batch_size=1"]) == 2
    assert "batch_size=1: is that of all processes together" in capsys.readouterr().err
    assert cli.train(["sync_batch_norm=true", "accumulate=2"]) == 2
    assert "does not go with accumulate=2" in capsys.readouterr().err


def test_no_process_gets_a_single_image_for_its_batch_norm(tmp_path):
    """179 training images are 11 batches of 16 and 3: two processes would get 1 and 2 of them."""
    words = "data=synthetic data.size=199 model=fcn model.hidden=[8] model.norm=batch batch_size=16 epochs=1"
    words += " device=cpu loggers=none"
    code, *said = launched(2, *words.split(), f"dir={tmp_path / 'run'}").finish(100)
    assert code == 0, said
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 11

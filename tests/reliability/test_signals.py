"""Told to stop, by any signal at any moment: what there is to save is saved, nothing is left over, exit code 130."""

import functools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeptrain.build import loaders
from deeptrain.commands import cli
from deeptrain.data import decode, loader
from deeptrain.run import artifacts
from deeptrain.runtime import signals
from deeptrain.runtime.resources import ROOT
from deeptrain.sweep import check, server
from deeptrain.training import checkpoint, trainer

sys.path.append(str(ROOT / "scripts"))
import torture
import torture_sweep

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]

WORDS = ["device=cpu", "threads=1", "model=fcn", "model.hidden=[8]", "loggers=none"]
DATA = ["data=synthetic", "data.shape=[3,16,16]", "data.size=200", "batch_size=16", "validate.clean_images=16"]
STREAMED = ["data.loader=stream", "workers=2"]
TINY = [*WORDS, *DATA, "epochs=2", "validate.every_steps=4", "aug=mixup", "average=ema"]
PATIENCE = 60  # seconds, of which a good machine takes two


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def forked(words: list[str], prepare: Callable[[], None] = lambda: None) -> int:
    """Run a command in a process and a process group of its own, in which `prepare` may change what it is to do.

    A fork of this process, which has imported torch, is soon at work. What it says goes into said.txt.
    """
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(said, stream)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        loaders.EVAL_BATCH = 8
        torture_sweep.fork_directly()
        prepare()
        code = cli.train(words)
        threading._shutdown()  # as any process waits for its threads
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(number: int) -> int:
    """Wait for a process; return its exit code."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        done, status = os.waitpid(number, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.killpg(number, signal.SIGKILL)
    os.waitpid(number, 0)
    raise AssertionError("it did not end\n" + Path("said.txt").read_text())


def is_empty(group: int) -> bool:
    """Tell whether all processes of a group are gone, after waiting for them."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    return False


def tell_self(number: int) -> None:
    os.kill(os.getpid(), number)


def tell_group(number: int) -> None:
    os.killpg(os.getpgrp(), number)


def in_step(wanted: int, tell: Callable[[], None]) -> Callable[[], None]:
    """Have a run told within that step."""

    def prepare(old=trainer.Trainer.train_step) -> None:
        def train_step(self, *batch):
            if self.progress.step + 1 == wanted:
                tell()
            return old(self, *batch)

        trainer.Trainer.train_step = train_step

    return prepare


def appears(pattern: str) -> Path:
    """Wait for a file."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := list(Path().glob(pattern)):
            return found[0]
        time.sleep(0.01)
    raise AssertionError(f"no {pattern}\n" + Path("said.txt").read_text())


def while_decoding(tell: Callable[[], None]) -> Callable[[], None]:
    """Have a run told by the first of its pictures, of which each takes a while; decoded.txt has a letter for each."""

    def prepare(fixed=decode.Decoder.decode_center) -> None:
        def slow(self, path):
            with Path("decoded.txt").open("a") as file:
                file.write("x")
                first = file.tell() == 1
            if first:
                tell()
            time.sleep(0.05)
            return fixed(self, path)

        decode.Decoder.decode_center = slow

    return prepare


def status(folder: str) -> str:
    return json.loads(Path(folder, "result.json").read_text())["status"]


@pytest.mark.parametrize("number", [*signals.SIGNALS], ids=lambda number: number.name)
def test_in_a_step_of_a_process_group_with_workers(number):
    """Workers leave signals to their run, which saves, draws its pictures, with workers again, and ends them."""
    run = forked([*TINY, *STREAMED, "dir=run"], in_step(6, lambda: tell_group(number)))
    assert ended(run) == 130, Path("said.txt").read_text()
    assert status("run") == "interrupted" and checkpoint.load(Path("run/checkpoints/last.pt"))["progress"]["step"] == 6
    assert Path("run/card.html").is_file() and "could not all be drawn" not in Path("said.txt").read_text()
    assert is_empty(run)


@pytest.mark.parametrize("second", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_closed_terminal_sends_a_hangup_and_more_and_the_run_saves(second):
    signals = (signal.SIGHUP, second)
    run = forked([*TINY, "dir=run"], in_step(6, lambda: [(tell_self(one), time.sleep(0.1)) for one in signals]))
    assert ended(run) == 130, Path("said.txt").read_text()
    assert checkpoint.load(Path("run/checkpoints/last.pt"))["progress"]["step"] == 6


@pytest.mark.parametrize("first", [signal.SIGHUP, signal.SIGTERM])
def test_a_hangup_while_the_pictures_are_drawn_changes_nothing(first):
    def prepare(draw=artifacts._draw) -> None:
        in_step(6, lambda: tell_self(first))()
        artifacts._draw = lambda *parts: [tell_self(signal.SIGHUP), draw(*parts)]

    run = forked([*TINY, "dir=run"], prepare)
    assert ended(run) == 130, Path("said.txt").read_text()
    assert status("run") == "interrupted" and Path("run/card.html").is_file()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_while_the_pictures_are_drawn_leaves_a_result(number):
    def prepare(draw=artifacts._draw) -> None:
        artifacts._draw = lambda *parts: [tell_self(number), draw(*parts)]

    assert ended(forked([*TINY, "epochs=1", "dir=run"], prepare)) == 0, Path("said.txt").read_text()
    assert status("run") == "finished" and not Path("run/card.html").exists()
    assert "stopped before all pictures were drawn; resume=run draws them" in Path("said.txt").read_text()
    assert ended(forked(["resume=run"])) == 0 and Path("run/card.html").is_file()


def test_under_nohup_a_run_goes_on():
    def prepare() -> None:
        in_step(6, lambda: tell_self(signal.SIGHUP))()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    assert ended(forked([*TINY, "dir=run"], prepare)) == 0
    assert status("run") == "finished"


def test_workers_of_a_run_that_is_killed_end():
    run = forked([*TINY, *STREAMED, "dir=run"], in_step(6, lambda: tell_self(signal.SIGKILL)))
    assert ended(run) == -signal.SIGKILL
    assert is_empty(run)


@pytest.fixture
def pictures() -> list[str]:
    """Return the words to train on 400 pictures, not decoded yet."""
    for index in range(400):
        path = Path("pictures", ["cat", "dog"][index % 2], f"{index}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), index % 256, np.uint8)).save(path)
    return [*WORDS, "data=image_folder", "data.root=pictures", "cache_dir=cache", "epochs=1"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1], ids=lambda number: number.name)
def test_while_pictures_are_decoded(number, pictures):
    """Nothing is left behind, and the pictures in hand are the last."""
    assert ended(forked(pictures, while_decoding(lambda: tell_self(number)))) == 130
    assert Path("said.txt").read_text().endswith("interrupted\n") and not Path("outputs").exists()
    assert not [path for path in Path("cache").glob("*image_folder*") if path.suffix != ".lock"]
    assert Path("decoded.txt").stat().st_size < 60, "a piece is of 64"


@pytest.mark.parametrize("moment", ["a step", "decoding"])
def test_told_twice(moment, pictures):
    """The process ends at once, though a step or a picture never does."""

    def twice_and_hang() -> None:
        for _ in range(10 * PATIENCE):  # two signals become one where the process has no time to see the first
            tell_self(signal.SIGINT)
            time.sleep(0.2)

    if moment == "a step":
        run = forked([*TINY, "dir=run"], in_step(6, twice_and_hang))
    else:
        run = forked(pictures, while_decoding(twice_and_hang))
    assert ended(run) == 130
    assert not Path("run/result.json").exists()


def in_validation(batch: int, tell: Callable[[], None]) -> Callable[[], None]:
    """Have a run told after so many batches of images to evaluate; at each save batches.txt says how many it had."""

    def prepare(slices=loader.ResidentLoader._slices, save=trainer.Trainer.save) -> None:
        seen = []

        def watched(self, first):
            for images in slices(self, first):
                seen.append(images)
                if len(seen) == batch:
                    tell()
                yield images

        def told_save(self):
            Path("batches.txt").write_text(str(len(seen)))
            save(self)

        loader.ResidentLoader._slices, trainer.Trainer.save = watched, told_save

    return prepare


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert ended(forked([*TINY, "loggers=tensorboard", "dir=run"])) == 0
    return folder / "run"


@pytest.mark.parametrize("batch", [12, 8 * 5 + 2], ids=["the second", "the last"])
def test_in_a_validation(batch, whole):
    """It is left at once; resumed, a run validates there first and arrives at the bits of the one left alone.

    A validation is of 8 batches: 2 of train as it is, 3 of val, 3 of val by the averaged weights.
    """
    run = forked([*TINY, "loggers=tensorboard", "dir=run"], in_validation(batch, lambda: tell_self(signal.SIGTERM)))
    assert ended(run) == 130 and status("run") == "interrupted"
    assert int(Path("batches.txt").read_text()) <= batch + 1
    assert ended(forked(["resume=run"])) == 0, Path("said.txt").read_text()
    assert torture.differences(whole, Path("run")) == []


def test_in_the_last_step(whole):
    """There is nothing to train any more, but to validate."""
    run = forked([*TINY, "loggers=tensorboard", "dir=run"], in_step(24, lambda: tell_self(signal.SIGUSR1)))
    assert ended(run) == 130 and status("run") == "interrupted"
    assert ended(forked(["resume=run"])) == 0, Path("said.txt").read_text()
    assert torture.differences(whole, Path("run")) == []
    assert ended(forked(["resume=run"])) == 2, "now nothing is left to do"


@pytest.mark.parametrize("tell", [os.kill, os.killpg], ids=["the process", "its group"])
def test_in_a_sweep(tell):
    """Told alone or as a terminal does: the run in hand saves, the others are not begun, and none is left behind."""
    run = forked(["-m", *WORDS, *DATA, "epochs=100000", "max_seconds=60", "seed=0,1", "checkpoint.every_steps=1"])
    job = appears("outputs/sweeps/*/*/seed=0/checkpoints/last.previous.pt").parents[1]
    tell(run, signal.SIGINT)
    assert ended(run) == 130
    assert status(str(job)) == "interrupted" and not (job / ".lock").exists()
    said = Path("said.txt").read_text()
    assert "left     2 of 2 runs" in said and f"resume={job.parent}" in said


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's parent-death signal")
def test_a_sweep_that_is_killed_takes_its_run_with_it():
    """The run saves before it ends."""
    run = forked(["-m", *WORDS, *DATA, "epochs=100000", "max_seconds=60", "seed=0,1", "checkpoint.every_steps=1"])
    job = appears("outputs/sweeps/*/*/seed=0/checkpoints/last.previous.pt").parents[1]
    os.kill(run, signal.SIGKILL)
    assert ended(run) == -signal.SIGKILL
    appears(str(job / "result.json"))
    assert status(str(job)) == "interrupted"


def stand_in(words: list[str], until: int) -> int:
    """Note the signals that come, in place of a run; end as if none had come, once there were enough."""
    came: list[str] = []
    for number in signals.SIGNALS:
        signal.signal(number, lambda number, frame: came.append(signal.Signals(number).name))
    folder = Path(words[-1].removeprefix("dir=").strip("'"))
    folder.mkdir(parents=True)
    (folder / "ready").touch()
    end = time.monotonic() + PATIENCE
    while len(came) < until and time.monotonic() < end:
        time.sleep(0.01)
    (folder / "came").write_text(" ".join(came))
    return 0


@pytest.mark.parametrize("numbers", [["SIGTERM"], ["SIGINT", "SIGUSR1"], ["SIGHUP"]], ids=" ".join)
def test_a_sweep_passes_on_whatever_it_is_told_and_ends_whatever_comes_of_it(numbers):
    """With a process in place of a run that ends as if it had not been told, once it has been often enough."""

    def prepare(run=server._run) -> None:
        command = functools.partial(stand_in, until=len(numbers))
        server._run = lambda _, *rest: run(command, *rest)
        check.build_each = lambda runs, measure: [([], None) for _ in runs]

    run = forked(["-m", *WORDS, "seed=0,1"], prepare)
    job = appears("outputs/sweeps/*/*/seed=0/ready").parent
    for number in numbers:
        os.kill(run, getattr(signal, number))
        time.sleep(0.2)  # two at one moment may come in any order
    assert ended(run) == 130, Path("said.txt").read_text()
    assert (job / "came").read_text() == " ".join(numbers)
    assert not (job.parent / "seed=1").exists()


@pytest.mark.parametrize("teller", [os.getpid, os.getppid], ids=["before its runs are built", "while they are"])
def test_while_a_sweep_is_checked(teller):
    """Nothing is left behind, and no table is printed of what has not begun."""

    def tell(*_) -> None:
        os.kill(teller(), signal.SIGTERM)
        time.sleep(PATIENCE)

    def prepare() -> None:
        if teller is os.getpid:
            check.dry_run.check_settings = tell
        else:
            check.build_each = tell

    assert ended(forked(["-m", *WORDS, *DATA, "seed=0,1"], prepare)) == 130
    assert Path("said.txt").read_text() == "interrupted\n" and not Path("outputs").exists()

"""Workers: whatever befalls one ends in a line, and no process is left; images arrive also without shared memory."""

import logging
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time

import numpy as np
import pytest
import torch

from deeptrain.data import workers
from deeptrain.data.dataset import Samples
from deeptrain.data.loader import BatchDataset, StreamLoader
from deeptrain.data.workers import WorkerError
from deeptrain.runtime import signals, watch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def short_patience(monkeypatch):
    monkeypatch.setattr(watch, "TICK", 0.1)
    monkeypatch.setattr(watch, "WARN_AFTER", 2)
    monkeypatch.setattr(watch, "LIMIT", 5)
    yield
    assert not multiprocessing.active_children(), "a worker is left"


@pytest.fixture
def stream():
    images = np.random.default_rng(0).integers(0, 256, (64, 6, 6, 3), np.uint8)
    loader = StreamLoader(Samples(images, None, np.arange(64)), 2, CPU, 0, True, workers=2)
    yield loader
    loader.close()


def hit(stream: StreamLoader, number: int) -> None:
    """Send a worker a signal, and wait until it has had its effect: a kernel takes its time on a busy machine."""
    worker = stream.loader._iterator._workers[1].pid
    os.kill(worker, number)
    os.waitid(os.P_PID, worker, os.WEXITED | os.WSTOPPED | os.WNOWAIT)


def befall(stream: StreamLoader, number: int) -> str:
    """Send a signal to a worker within an epoch; return the line in which that ends."""
    with pytest.raises(WorkerError) as error:
        for step, _ in enumerate(stream.epoch(0)):
            if step == 0:
                hit(stream, number)
    return str(error.value)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=lambda number: number.name)
def test_a_killed_worker(stream, number):
    """Afterwards the main process reads, so that figures can be drawn."""
    line = befall(stream, number)
    assert line.startswith(f"workers=2: one was killed ({number.name}") and line.endswith(workers.FEWER)
    assert len(list(stream.epoch(0))) == 32


def test_a_silent_worker(stream, caplog):
    line = befall(stream, signal.SIGSTOP)
    assert "the workers do nothing (stopped: kill -CONT " in line and "\n" not in line
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.records[0].getMessage().startswith("no images for 2 s: the workers do nothing (stopped: kill -CONT ")


def test_a_signal_to_stop_is_obeyed_while_a_worker_is_silent(stream, monkeypatch):
    monkeypatch.setattr(signals, "received", [signal.SIGTERM])
    with pytest.raises(signals.Interrupted):
        for _ in stream.epoch(0):
            hit(stream, signal.SIGSTOP)


@pytest.fixture
def hung(monkeypatch):
    """Return a loader without workers whose disk does not answer in its second batch."""
    answer = threading.Event()

    def read(self, epoch, shard, old=BatchDataset._assemble):
        if shard.start:
            answer.wait(20)
        return old(self, epoch, shard)

    monkeypatch.setattr(BatchDataset, "_assemble", read)
    monkeypatch.setattr(watch, "work_of", lambda _: 0.0)
    images = np.zeros((8, 6, 6, 3), np.uint8)
    yield StreamLoader(Samples(images, None, np.arange(8)), 2, CPU)
    answer.set()


def test_a_disk_that_does_not_answer_the_main_process(hung, caplog):
    with pytest.raises(ValueError, match=r"^no file was read for 5 s: the disk does not answer; look at the disk$"):
        list(hung.epoch(0))
    assert [record.getMessage()[:24] for record in caplog.records] == ["no file was read for 2 s"]


def test_a_signal_to_stop_is_obeyed_while_the_main_process_waits(hung, monkeypatch):
    monkeypatch.setattr(signals, "received", [signal.SIGTERM])
    with pytest.raises(signals.Interrupted):
        list(hung.epoch(0))


def test_a_worker_that_works_is_waited_for(stream, monkeypatch, caplog):
    def slow(self, epoch, shard, old=BatchDataset._assemble):
        time.sleep(1)
        return old(self, epoch, shard)

    monkeypatch.setattr(BatchDataset, "_assemble", slow)
    monkeypatch.setattr(watch, "work_of", lambda _: 1000 * time.monotonic())
    next(stream.epoch(0))
    assert not caplog.records


def test_not_all_workers_start(stream, monkeypatch, capsys):
    started = []

    def start(self, old=multiprocessing.context.ForkProcess.start):
        if started:
            raise OSError(24, "Too many open files")
        started.append(self)
        old(self)

    monkeypatch.setattr(multiprocessing.context.ForkProcess, "start", start)
    with pytest.raises(WorkerError, match=r"^workers=2: cannot all be started \(Too many open files\); set fewer"):
        list(stream.epoch(0))
    assert started and capsys.readouterr().err == ""


def test_a_batch_that_cannot_be_sent(stream, monkeypatch):
    class Unsendable(np.ndarray):
        def __reduce_ex__(self, protocol):
            raise pickle.PicklingError

    monkeypatch.setattr("deeptrain.data.loader.share", lambda array: array.view(Unsendable))
    with pytest.raises(WorkerError, match=r"^workers=2: one could not send a batch"):
        list(stream.epoch(0))


def test_a_worker_without_memory(stream, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(BatchDataset, "_assemble", fail)
    with pytest.raises(ValueError, match=r"^no memory is left to read a batch of images; take a smaller batch_size"):
        list(stream.epoch(0))


def test_without_shared_memory_images_go_through_pipes(stream, monkeypatch, caplog):
    def fail(_):
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    expected = list(stream.epoch(1))
    stream.close()
    stream.loader = stream._open(2)
    monkeypatch.setattr(torch.Tensor, "share_memory_", fail)
    workers.warn_of_space.cache_clear()
    for (images, labels), (other_images, other_labels) in zip(expected, stream.epoch(1), strict=True):
        assert torch.equal(images, other_images) and torch.equal(labels, other_labels)
    assert ["/dev/shm" in record.getMessage() for record in caplog.records] == [True]

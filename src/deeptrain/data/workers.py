"""Processes that read batches. Every failure of one ends in a line: start, memory, space, limits, kill, silence."""

import io
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data.dataloader import _BaseDataLoaderIter

from deeptrain.runtime import signals, watch
from deeptrain.runtime.world import get_world

UNSENT = 75  # exit code of a worker that could not send a batch
FEWER = "set fewer workers, or workers=0"

logger = logging.getLogger(__name__)


class WorkerError(ValueError):
    """The workers cannot go on; the message says what to change."""


# --- in a worker ---


def init_worker(number: int) -> None:
    """Prepare a worker. It leaves signals to the main process, which ends the step, saves, and stops its workers.

    Ctrl-C and Slurm signal all processes at once. A worker ends by itself if its main process has died. A batch that
    cannot be sent ends it, since it would be waited for in vain. The main process says so in a line, so that tracebacks
    of workers are shown with --debug only.
    """
    for each in signals.SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    Queue._on_queue_feeder_error = staticmethod(lambda error, batch: os._exit(UNSENT))  # pyright: ignore
    if not os.environ.get("DEEPTRAIN_DEBUG"):
        sys.stderr = io.StringIO()


def share(array: np.ndarray) -> torch.Tensor | np.ndarray:
    """Put an array where the main process can read it; without room in /dev/shm return it, to be sent by a pipe."""
    tensor = torch.from_numpy(array)
    if get_worker_info() is None:
        return tensor
    try:
        return tensor.share_memory_()
    except (RuntimeError, OSError):
        return array


def as_it_is(batch: Any) -> Any:
    """Collate nothing: the dataset returns whole batches."""
    return batch


# --- in the main process ---


def batches(loader: DataLoader) -> Iterator[Any]:
    """Yield a loader's batches. WorkerError if a worker cannot be started, has ended, or is silent for too long.

    Without workers a thread of this process reads; ValueError if its disk is silent for too long. Interrupted if the
    run is asked to stop while it waits.
    """
    if not loader.num_workers:
        own, steps = iter(loader), range(len(loader))
        yield from watch.map_in_threads(lambda _: next(own), steps, 1, ahead=1, warn=logger.warning, look=stop_if_asked)
        return
    iterator: Any = loader._iterator
    try:
        if iterator is None:
            iterator = _start(loader)
        else:  # the workers of an epoch before
            iter(loader)
        yield from iterator
    except (RuntimeError, OSError, EOFError) as error:
        raise _explain(error, iterator._workers) from error  # pyright: ignore[reportOptionalMemberAccess]


@cache
def warn_of_space() -> None:
    """Say once that batches take the slower way."""
    remedy = "give it more (docker run --shm-size=1g), or set workers=0"
    logger.warning("/dev/shm has too little room: images go through pipes, which is slower; %s", remedy)


def end_workers(loader: DataLoader) -> None:
    """End the workers now: the garbage collector can take seconds for each."""
    iterator: Any = loader._iterator
    if iterator is None:  # no workers, or none yet
        return
    for worker in iterator._workers:
        with suppress(OSError, AttributeError):  # it has ended; Windows stops no processes
            os.kill(worker.pid, signal.SIGCONT)
    iterator._shutdown_workers()
    for worker in iterator._workers:  # one that hangs ignores what torch ends it with
        worker.kill()


def _start(loader: DataLoader) -> Any:
    """Start the workers and have them watched; WorkerError if one cannot be started."""
    earlier = set(multiprocessing.active_children())
    is_main = threading.current_thread() is threading.main_thread() and hasattr(signal, "SIGCHLD")
    handler = signal.getsignal(signal.SIGCHLD) if is_main else None
    try:
        iterator: Any = iter(loader)
    except (OSError, RuntimeError, MemoryError) as error:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            unfinished: Any = frame.f_locals.get("self")
            if isinstance(unfinished, _BaseDataLoaderIter):  # it would fail to end what it has not started
                unfinished._shutdown = True  # pyright: ignore
        for process in set(multiprocessing.active_children()) - earlier:
            process.kill()
            process.join()
        reason = getattr(error, "strerror", None) or str(error) or "no memory is left"
        raise WorkerError(f"workers={loader.num_workers}: cannot all be started ({reason}); {FEWER}") from None
    if is_main:  # torch's handler would raise an error wherever the training happens to be
        signal.signal(signal.SIGCHLD, handler)
    get = partial(type(iterator)._try_get_data, weakref.proxy(iterator))  # a cycle would keep the workers alive
    iterator._try_get_data = Wait(iterator._workers, get)
    return iterator


class Wait:
    """Waits for a batch, and looks every second at the workers that do not send it.

    get: DataLoader's method that waits for a batch; it raises RuntimeError if a worker has ended.
    """

    def __init__(self, workers: Sequence[BaseProcess], get: Callable[[float], tuple[bool, Any]]):
        self.get = get
        self.watch = watch.Watch(lambda: [worker.pid for worker in workers if worker.pid])

    def __call__(self, timeout: float = 0) -> tuple[bool, Any]:
        if self.watch.stopped():  # its batch may be here, but not the memory it shares, which `get` would wait for
            time.sleep(watch.TICK)
            arrived, batch = False, None
        else:
            arrived, batch = self.get(watch.TICK)
        if arrived:
            self.watch.restart()
        else:
            self._tick()
        return arrived, batch

    def _tick(self) -> None:
        self.watch.tick()
        stop_if_asked(self.watch)
        line = f"no images for {self.watch.silent} s: the workers do nothing{self.watch.hint()}"
        if self.watch.silent == watch.WARN_AFTER:
            logger.warning("%s; the run waits until %d s have passed", line, watch.LIMIT)
        if self.watch.silent >= watch.LIMIT:
            raise WorkerError(f"{line}; look at the disk, {FEWER}")


def stop_if_asked(waiting: watch.Watch) -> None:
    """End a wait that takes long if a signal has asked the run to stop: Interrupted, or WorkerError in one of ranks."""
    if waiting.waited >= watch.WARN_AFTER and signals.received:
        if get_world().is_single:
            raise signals.Interrupted
        raise WorkerError(f"stopped by {signals.SIGNALS[signals.received[0]]} while it waited for images")


def _explain(error: Exception, workers: Sequence[BaseProcess]) -> Exception:
    """Return a WorkerError if a worker has ended or files ran out, else the worker's own error."""
    for worker in workers:
        worker.join(0.1)
        if worker.exitcode is not None:
            return WorkerError(f"workers={len(workers)}: one {_ending(worker.exitcode)}; {FEWER}")
    if "Too many open files" in str(error):
        return WorkerError(f"workers={len(workers)}: too many open files; raise the limit (ulimit -n), or {FEWER}")
    return error


def _ending(code: int) -> str:
    if code == UNSENT:
        return "could not send a batch (threads, open files or memory ran out)"
    if code >= 0:
        return f"ended by itself (exit code {code})"
    reason = ", perhaps because memory ran out" if code == -signal.SIGKILL else ""
    return f"was killed ({signal.Signals(-code).name}{reason})"

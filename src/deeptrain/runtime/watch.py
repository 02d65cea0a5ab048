"""Looking at processes and threads that are waited for: a line once they do nothing."""

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar

TICK = 1.0  # seconds between two looks
WARN_AFTER, LIMIT = 10, 180  # ticks: until a line says what is waited for, until the wait ends

Item = TypeVar("Item")
Result = TypeVar("Result")


class Watch:
    """Counts the ticks in which processes, with those that they have started, do nothing.

    pids: returns their numbers. all_needed: one that is stopped holds up the others, even if these seem to work.
    """

    def __init__(self, pids: Callable[[], Iterable[int]], *, all_needed: bool = False):
        self.pids, self.all_needed = pids, all_needed
        self.waited, self.silent, self.work = 0, 0, 0.0  # ticks, those without work, and the work before these

    def restart(self) -> None:
        """Begin a new wait: what was waited for has come."""
        self.waited = self.silent = 0

    def tick(self) -> None:
        """Look once. More than one per cent of a core is work."""
        work, self.waited, self.silent = work_of(self.pids()), self.waited + 1, self.silent + 1
        is_held_up = self.all_needed and self.stopped()
        if self.waited == 1 or (work - self.work > self.silent and not is_held_up):
            self.work, self.silent = work, 0

    def stopped(self) -> list[int]:
        """Return the processes that a signal such as SIGSTOP has stopped."""
        return [pid for pid in self.pids() if _stat(pid)[:1] == ["T"]]

    def hint(self) -> str:
        """Return how the stopped ones go on; "" if there are none."""
        stopped = " ".join(map(str, self.stopped()))
        return f" (stopped: kill -CONT {stopped} lets them go on)" if stopped else ""


def map_in_threads(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    *,
    ahead: int | None = None,
    warn: Callable[[str], None],
    look: Callable[[Watch], None] = lambda watch: None,
) -> Iterator[Result]:
    """Yield function(item) in the order of the items. ValueError if the threads do nothing for LIMIT ticks.

    ahead: items that may be done before they are asked for; None: all. warn: gets a line after WARN_AFTER ticks.
    look: is called at each tick and may end the wait by an error. Threads that hang do not keep a process from its end.
    """
    tasks: queue.SimpleQueue = queue.SimpleQueue()
    for _ in range(threads):
        threading.Thread(target=_serve, args=(tasks,), daemon=True).start()
    rest, waiting, watch = iter(items), deque[Future[Result]](), Watch(lambda: [os.getpid()])
    try:
        while True:
            for item in rest if ahead is None else islice(rest, ahead - len(waiting)):
                waiting.append(Future())
                tasks.put((waiting[-1], function, item))
            if not waiting:
                return
            _await(waiting[0], watch, warn, look)
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        for _ in range(threads):
            tasks.put(None)


def _serve(tasks: queue.SimpleQueue) -> None:
    while (task := tasks.get()) is not None:
        future, function, item = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function(item))
            except BaseException as error:
                future.set_exception(error)


def _await(future: Future, watch: Watch, warn: Callable[[str], None], look: Callable[[Watch], None]) -> None:
    watch.restart()
    while not future.done() and not wait([future], TICK).done:
        watch.tick()
        look(watch)
        line = f"no file was read for {watch.silent} s: the disk does not answer"
        if watch.silent == WARN_AFTER:
            warn(f"{line}; it is waited for until {LIMIT} s have passed")
        if watch.silent >= LIMIT:
            raise ValueError(f"{line}; look at the disk")


def work_of(pids: Iterable[int]) -> float:
    """Return the processor time of processes and of those that they have started, in hundredths of a second.

    0 where the system does not say.
    """
    family = {number for pid in pids for number in (pid, *children(pid))}
    return sum(float(ticks) for pid in family for ticks in _stat(pid)[11:13])


def children(pid: int) -> list[int]:
    """Return the processes that a process has started; [] where the system does not say."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, file.read_text().split())
    return sorted(found)


def _stat(pid: int) -> list[str]:
    """Return what Linux says of a process, its state first."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []

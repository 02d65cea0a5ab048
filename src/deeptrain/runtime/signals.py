"""Signals that ask a run to stop: Ctrl-C, SIGTERM, and SIGUSR1, which Slurm sends before the time limit."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any, TypeVar

from deeptrain.runtime.world import SINGLE, World

T = TypeVar("T")

EXIT_CODE = 130  # of a command that a signal stopped
NAMES = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGUSR1": "SIGUSR1"}  # Windows lacks the last
SIGNALS = {getattr(signal, name): label for name, label in NAMES.items() if hasattr(signal, name)}
HANGUP = [getattr(signal, name) for name in ("SIGHUP",) if hasattr(signal, name)]  # of the terminal


@contextmanager
def handle_signals(handler: Callable[[int], Any], also: Sequence[int] = ()) -> Iterator[None]:
    """Call `handler` with the number of each signal that asks to stop; afterwards restore the handlers before it.

    also: further signals. Those that this process was started to ignore (nohup) stay ignored. Only the main thread can
    handle signals; in other threads nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [*SIGNALS, *(number for number in also if signal.getsignal(number) != signal.SIG_IGN)]
    before = {number: signal.signal(number, lambda number, frame: handler(number)) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def first_then_exit(handler: Callable[[int], Any], grace: float = 0.0) -> Callable[[int], None]:
    """Return what calls `handler` for the first signal. A second one, `grace` seconds later, ends the process.

    Files are written whole or not at all, so nothing needs cleaning up.
    """
    received_at: list[float] = []

    def handle(number: int) -> None:
        if not received_at:
            received_at.append(perf_counter())
            handler(number)
        elif perf_counter() - received_at[0] > grace:
            os._exit(EXIT_CODE)

    return handle


def raise_interrupt(number: int) -> None:
    """Stop a command that has nothing to save."""
    raise KeyboardInterrupt


class Interrupted(Exception):
    """A validation ended early because the run was asked to stop."""


class StopRequest:
    """A signal that asks a run to stop. One process stops after its step, several after the step in which they agree.

    reason: the signal's name once the run is to stop, else "".
    """

    def __init__(self, world: World = SINGLE):
        self.world, self.signal, self.reason = world, 0, ""

    def request(self, number: int) -> None:
        """Take a signal's number, as a signal handler does."""
        self.signal = number
        self.reason = self.world.decide_alone(SIGNALS[number])

    def sync(self, seconds: float) -> float:
        """Return the time of the slowest rank, and learn whether one has a signal. So all ranks decide alike."""
        seconds, number = self.world.all_reduce_max(seconds, self.signal)
        if number:
            self.reason = SIGNALS[int(number)]
        return seconds

    def stoppable(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield batches; raise Interrupted once the run is to stop."""
        for batch in batches:
            if self.reason:
                raise Interrupted
            yield batch

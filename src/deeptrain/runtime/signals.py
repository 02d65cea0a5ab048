"""Signals that ask a run to stop: Ctrl-C, SIGTERM, SIGUSR1 (Slurm, before the time limit), SIGHUP (no terminal)."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, TypeVar

from deeptrain.runtime.world import SINGLE, World, was_torchrun

T = TypeVar("T")

EXIT_CODE = 130  # of a command that a signal stopped
NAMES = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGUSR1": "SIGUSR1", "SIGHUP": "SIGHUP"}  # Windows lacks two
SIGNALS = {getattr(signal, name): label for name, label in NAMES.items() if hasattr(signal, name)}
HANGUP = getattr(signal, "SIGHUP", None)
received: list[int] = []  # signals that asked to stop, since the innermost handle_signals began
PR_SET_PDEATHSIG = 1  # of Linux's prctl


def end_with_torchrun() -> None:
    """Have the system send SIGTERM to this process once torchrun ends, even by SIGKILL (Linux only)."""
    if sys.platform == "linux" and was_torchrun():
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def handle_signals(handler: Callable[[int], Any]) -> Iterator[None]:
    """Call `handler` with the number of each signal that asks to stop; afterwards restore the handlers before it.

    A process that was started to ignore SIGHUP (nohup) goes on ignoring it. One that was asked to stop ignores it from
    then on: a closed terminal sends it more than once, perhaps while the pictures are drawn. Only the main thread
    can handle signals; in other threads nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ignored = [HANGUP] if HANGUP is not None and signal.getsignal(HANGUP) == signal.SIG_IGN else []
    numbers = [number for number in SIGNALS if number not in ignored]
    outer, received[:] = list(received), []

    def handle(number: int, frame: Any) -> None:
        received.append(number)
        handler(number)

    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        if received and HANGUP in before:
            before[HANGUP] = signal.SIG_IGN
        received[:] = outer
        for number, previous in before.items():
            signal.signal(number, previous)


def first_then_exit(handler: Callable[[int], Any], grace: float = 0.0) -> Callable[[int], None]:
    """Return what calls `handler` for the first signal. A second one, `grace` seconds later, ends the process.

    SIGHUP is not counted: a closed terminal sends it more than once, and the end of a session SIGTERM right after it.
    Files are written whole or not at all, so nothing needs cleaning up.
    """
    is_handled, counted_at = False, None

    def handle(number: int) -> None:
        nonlocal is_handled, counted_at
        if number != HANGUP:
            if counted_at is not None and perf_counter() - counted_at > grace:
                os._exit(EXIT_CODE)
            counted_at = perf_counter() if counted_at is None else counted_at
        if not is_handled:
            is_handled = True
            handler(number)

    return handle


def raise_interrupt(number: int) -> None:
    """Stop a command that has nothing to save."""
    raise KeyboardInterrupt


class Interrupted(Exception):
    """A validation, or waiting for images, ended early because the run was asked to stop."""


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

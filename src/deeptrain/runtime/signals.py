"""Being told to stop: by Ctrl-C, or by who runs the machine (SIGTERM, and SIGUSR1 as Slurm sends it ahead)."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

EXIT_CODE = 130  # of whatever was told to stop, by which signal ever
NAMES = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGUSR1": "SIGUSR1"}  # Windows lacks the last
SIGNALS = {getattr(signal, name): said for name, said in NAMES.items() if hasattr(signal, name)}


HANGUP = [getattr(signal, name) for name in ("SIGHUP",) if hasattr(signal, name)]  # of the terminal


@contextmanager
def listening(told: Callable[[int], Any], also: Sequence[int] = ()) -> Iterator[None]:
    """Call `told` with the number of each signal to stop; what was called before is called again afterwards.

    Of the signals `also` listened to, those that this process was started to ignore (nohup) stay ignored. Only a
    process's main thread may listen; elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [*SIGNALS, *(number for number in also if signal.getsignal(number) != signal.SIG_IGN)]
    before = {number: signal.signal(number, lambda number, frame: told(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def once(told: Callable[[int], Any], patience: float = 0.0) -> Callable[[int], None]:
    """Make what calls `told` the first time; told again, more than `patience` seconds later, it ends the process.

    Files are written whole or not at all, so nothing needs to be put in order before.
    """
    told_at: list[float] = []

    def tell(number: int) -> None:
        if not told_at:
            told_at.append(perf_counter())
            told(number)
        elif perf_counter() - told_at[0] > patience:
            os._exit(EXIT_CODE)

    return tell


def leave(number: int) -> None:
    """Stop where nothing is to be saved."""
    raise KeyboardInterrupt

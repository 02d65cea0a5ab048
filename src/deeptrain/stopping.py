"""Being told to stop: by Ctrl-C, or by who runs the machine (SIGTERM, and SIGUSR1 as Slurm sends it ahead)."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

EXIT_CODE = 130  # of whatever was told to stop, by which signal ever
NAMES = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGUSR1": "SIGUSR1"}  # Windows lacks the last
SIGNALS = {getattr(signal, name): said for name, said in NAMES.items() if hasattr(signal, name)}


@contextmanager
def listening(told: Callable[[int], Any], *, keyboard: bool = True) -> Iterator[None]:
    """Call `told` with the number of each signal to stop; what was called before is called again afterwards.

    Only a process's main thread may listen; elsewhere nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in SIGNALS if keyboard or number != signal.SIGINT]
    before = {number: signal.signal(number, lambda number, frame: told(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def at_once(number: int) -> None:
    """Stop where nothing is to be saved."""
    raise KeyboardInterrupt

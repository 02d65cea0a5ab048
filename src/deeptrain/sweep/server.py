"""Processes forked from one that has imported everything: a run begins at once, with the bits of a run alone."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from deeptrain.runtime import signals

Command = Callable[[list[str]], int]
HAS_FORK = "forkserver" in multiprocessing.get_all_start_methods()
PRELOAD = ["deeptrain.sweep.preload"]


def start() -> Any:
    """Start the server, if it does not run yet; return the context that makes processes from it.

    Without fork every process is a new interpreter. The server is deaf to signals: it ends with this process, or when
    the last process that it has forked does.
    """
    if not HAS_FORK:
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver, resource_tracker

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*signals.SIGNALS, signal.SIGUSR2})  # the last one of submitit
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


class Process:
    """A command in a process of its own, its output in a file. It is asked to stop once this process has ended."""

    def __init__(self, command: Command, words: Sequence[str], output: Path, environment: Mapping[str, str]):
        self._process = start().Process(target=_run, args=(command, list(words), str(output), dict(environment)))
        self._process.start()

    @property
    def sentinel(self) -> int:
        """Return what becomes ready when the process ends."""
        return self._process.sentinel

    @property
    def exit_code(self) -> int | None:
        """Return the exit code; minus the number of the signal that killed the process; None while it runs."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self.exit_code is None:
            os.kill(self._process.pid, number)

    def close(self) -> None:
        self._process.join()
        self._process.close()


def wait_for_one(processes: Sequence[Process], seconds: float) -> None:
    """Wait until one of the processes has ended, or for so many seconds."""
    wait([process.sentinel for process in processes], seconds)


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own, for what this one is not to import; return or raise what it does."""
    context = start()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        is_error, value = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"the process that checks the runs ended with exit code {process.exitcode}") from None
    except BaseException:
        process.kill()
        raise
    finally:
        process.join()
        receiver.close()
    if is_error:
        raise value
    return value


def _run(command: Command, words: list[str], output: str, environment: dict[str, str]) -> None:
    target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for stream in (1, 2):
        os.dup2(target, stream)
    os.close(target)
    os.environ.update(environment)
    _leave_terminal()
    sys.exit(command(words))


def _answer(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    _leave_terminal()
    try:
        answer = (False, function(*arguments))
    except Exception as error:
        answer = (True, error)
    sender.send(answer)
    sender.close()


def _leave_terminal() -> None:
    """Hear signals from the sweep alone, not from the terminal; be asked to stop once it has ended."""
    if not HAS_FORK:
        return
    os.setsid()
    for number in signals.SIGNALS:
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.SIGNALS)
    threading.Thread(target=_end_with_sweep, daemon=True).start()


def _end_with_sweep() -> None:
    sweep = multiprocessing.parent_process()
    if sweep is not None:
        sweep.join()
        os.kill(os.getpid(), signal.SIGTERM)

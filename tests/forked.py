"""`python ...` in a process of its own, forked by the server of a sweep: 3 CPU-seconds less each.

Not for tests of starting up, of signals from a terminal, or of what is imported.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import undrawn

from deeptrain.runtime import signals
from deeptrain.sweep import server

RUN = subprocess.run


class Started:
    """A command that runs in a process of its own; its output, and what it says on stderr, go into files."""

    def __init__(self, words: Sequence[str], cwd: str | Path, env: Mapping[str, str], drawn: bool):
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - open until it ends
        files = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (self._out, self._err)]
        self._process = server.start().Process(target=_python, args=(list(words), str(cwd), dict(env), files, drawn))
        self._process.start()
        self.pid: int = self._process.pid
        self.kill, self.terminate = self._process.kill, self._process.terminate

    def finish(self, seconds: float | None = None) -> tuple[int, str, str]:
        """Wait, kill it after so many seconds; return the exit code and what it has said."""
        self._process.join(seconds)
        self._process.kill()
        self._process.join()
        with self._out, self._err:
            return self._process.exitcode or 0, _read(self._out), _read(self._err)


def start(
    command: Sequence[object],
    *,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    drawn: bool = False,
) -> Started:
    """Start [sys.executable, script or "-c", ...]; needs fork.

    drawn: whether figures are drawn; otherwise they are saved blank.
    """
    return Started([str(word) for word in command][1:], cwd or Path.cwd(), os.environ if env is None else env, drawn)


def run(
    command: Sequence[object],
    *,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    drawn: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a command as `start` does and return what it printed, as subprocess.run does."""
    words = [str(word) for word in command]
    if not server.HAS_FORK:
        return subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    return subprocess.CompletedProcess(words, *start(words, cwd=cwd, env=env, drawn=drawn).finish())


def run_here(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Stand in for subprocess.run in a process that `run` has started: a command of Python is forked from it."""
    if command[0] != sys.executable:
        return RUN(command, **options)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        files = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (out, err)]
        place, environment = str(options["cwd"]), dict(options.get("env") or os.environ)
        arguments = command[1:], place, environment, files, False
        process = multiprocessing.get_context("fork").Process(target=_python, args=arguments)
        process.start()
        process.join()
        return subprocess.CompletedProcess(command, process.exitcode or 0, _read(out), _read(err))


def _python(words: list[str], cwd: str, environment: dict[str, str], files: list[str], drawn: bool) -> None:
    """Become an interpreter that was started with these words."""
    for stream, path in enumerate(files, 1):
        os.dup2(os.open(path, os.O_WRONLY), stream)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.SIGNALS)  # the server is deaf
    if not drawn:
        undrawn.leave_figures_undrawn()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        sys.path.insert(0, "")
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
    elif words[0] == "-m":
        sys.argv = words[1:]
        sys.path[:0] = ["", *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")


def _read(file) -> str:
    file.seek(0)
    return file.read().decode()

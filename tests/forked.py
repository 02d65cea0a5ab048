"""`python ...` in a process of its own, forked by the server of a sweep: 3 CPU-seconds less each.

Not for tests of starting up, of signals from a terminal, or of what is imported.
"""

import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import undrawn

from deeptrain.runtime import signals
from deeptrain.sweep import server


def run(
    command: Sequence[object],
    *,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    drawn: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run [sys.executable, script or "-c", ...] and return what it printed, as subprocess.run does.

    drawn: whether figures are drawn; otherwise they are saved blank.
    """
    words = [str(word) for word in command]
    variables = dict(os.environ if env is None else env)
    if not server.HAS_FORK:
        return subprocess.run(words, cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        files = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (out, err)]
        arguments = words[1:], str(cwd or Path.cwd()), variables, files, drawn
        process = server.start().Process(target=_python, args=arguments)
        process.start()
        process.join()
        texts = [_read(file) for file in (out, err)]
    return subprocess.CompletedProcess(words, process.exitcode or 0, *texts)


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
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")


def _read(file) -> str:
    file.seek(0)
    return file.read().decode()

"""Runs every command that loads a run on every hostile one, and notes whatever reaches out: python audited.py ANSWERS

In a process of its own, because an audit hook can never be taken out again. Writes, for each case and command, the
exit code, what was said on stderr, and what the hook saw: programs started, sockets, files written outside the run.
"""

import contextlib
import copy
import functools
import io
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import cycle, repeat
from pathlib import Path
from typing import Any

import hostile_files
import undrawn
from PIL import Image

import deeptrain
from deeptrain.commands import cli
from deeptrain.config import compose
from deeptrain.report import figures
from deeptrain.run import artifacts, defaults, resume
from deeptrain.runtime.resources import ROOT
from deeptrain.training import checkpoint

SECRET = "hunter2"
SECONDS = 60  # that a command may take, on a busy machine too
LARGE = 2**27  # bytes of a file in which no secret is looked for
TINY = ["data=synthetic", "data.shape=[3,8,8]", "data.size=40", "model=fcn", "model.hidden=[4]", "log.every_steps=1"]


def script(name: str, *words: str) -> int:
    """Carry out what scripts/<name>.py does, in this process."""
    return cli.guarded(lambda: getattr(import_module(name), name)(list(words)))


PICTURE, SOUND = Path("picture.png"), Path("base")  # what predict is asked about, and a run that is not hostile


def in_python(run: Path) -> int:
    """Do what a notebook does."""
    return len(deeptrain.load(run).predict([PICTURE])) - 1


COMMANDS: dict[str, Callable[[Path], int]] = {
    "resume": lambda run: cli.train([f"resume={run}", "epochs=2"]),
    "evaluate": lambda run: script("evaluate", str(run)),
    "evaluate val": lambda run: script("evaluate", str(run), "split=val"),
    "rerun": lambda run: cli.train([f"rerun={run}", f"dir={run / 'again'}"]),
    "predict": lambda run: script("predict", str(run), str(PICTURE), "coverage=0.9"),
    "load": lambda run: cli.guarded(lambda: in_python(run)),
    "ensemble": lambda run: script("ensemble", str(run), str(SOUND)),
    "export": lambda run: script("export", str(run), "to=safetensors"),
    "init_from": lambda run: cli.train([*TINY, f"init_from={run}", f"dir={run / 'new'}", "epochs=1"]),
    "read": lambda run: script("read", str(run)),
    "report": lambda run: script("report", str(run), f"out={run / 'report'}"),
}
RESUME, EVALUATE, VAL, RERUN, PREDICT, LOAD, ENSEMBLE, EXPORT, INIT, READ, REPORT = COMMANDS
ROADS = (RESUME, EVALUATE, PREDICT, LOAD, ENSEMBLE, EXPORT, INIT)  # to a checkpoint
NETWORK = ("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser.")
PROGRAMS = ("os.system", "os.exec", "os.spawn", "os.posix_spawn", "os.fork", "os.startfile", "pty.", "subprocess.")
FILES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.chmod", "os.truncate", "os.utime", "shutil.")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
INSTALLED = tuple(str(Path(folder).resolve()) for folder in (sys.prefix, sys.base_prefix, ROOT))


class Watch:
    """The hook: what it compares with, and what it saw."""

    places: tuple[Path, ...] = ()  # where may be written; while there are none, it sleeps
    seen: list[str] = []  # noqa: RUF012

    @classmethod
    def hook(cls, event: str, arguments: tuple) -> None:
        if cls.places and (wrong := cls.judge(event, arguments)):
            cls.seen.append(wrong)
            raise PermissionError(wrong)

    @classmethod
    def judge(cls, event: str, arguments: tuple) -> str:
        """Return what is wrong with an event, nothing if it may be."""
        if event == "open":
            path, _, flags = arguments
            return f"open {path!r}" if flags & WRITING and cls.is_outside(path) else ""
        if event == "exec":  # also of every import, and of the methods that dataclasses write themselves
            source = arguments[0].co_filename
            own = source.startswith((*INSTALLED, "<frozen")) or any("dataclasses.py" in name for name in _callers())
            return "" if own else f"exec {source}"
        if event == "subprocess.Popen" and list(arguments[1])[:4] == ["git", "-C", str(ROOT), "describe"]:
            return ""  # which commit this is
        if event in ("os.fork", "os.posix_spawn") and any("subprocess.py" in name for name in _callers()):
            return ""  # how subprocess does it
        if event.startswith((*NETWORK, *PROGRAMS)) or event == "pickle.find_class":
            return f"{event} {arguments!r}"
        if event.startswith(FILES) and any(cls.is_outside(path) for path in arguments[:2]):
            return f"{event} {arguments!r}"
        return ""

    @classmethod
    def is_outside(cls, path: Any) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return False
        real = Path(os.path.realpath(os.fsdecode(path)))
        return real != Path("/dev/null") and not any(real.is_relative_to(place) for place in cls.places)


def _callers() -> Iterator[str]:
    frame = sys._getframe(3)
    while frame is not None:
        yield frame.f_code.co_filename
        frame = frame.f_back


def watched(command: Callable[[Path], Any], run: Path) -> dict[str, Any]:
    """Carry a command out; return its exit code, its errors, what the hook saw, and seconds and bytes that it took."""

    def too_long(*_: Any) -> None:
        raise TimeoutError(f"took longer than {SECONDS} s")

    out, errors, started = io.StringIO(), io.StringIO(), time.perf_counter()
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(SECONDS)
    memory = _peak(reset=True)
    Watch.seen, Watch.places = [], (run.resolve(), Path(os.environ["XDG_CACHE_HOME"]).resolve())
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            code: Any = command(run)
    except BaseException as error:
        code = f"{type(error).__name__}: {error}"
    finally:
        Watch.places = ()
        signal.alarm(0)
    held = _peak() - memory
    files = [path for path in run.rglob("*") if path.is_file() and path.stat().st_size < LARGE]
    told = [path.read_bytes() for path in files] + [out.getvalue().encode()]
    return {
        "code": code,
        "errors": errors.getvalue(),
        "raw": sorted({letter for letter in out.getvalue() + errors.getvalue() if not letter.isprintable()} - {"\n"}),
        "seen": Watch.seen,
        "secret": any(SECRET.encode() in text for text in told),
        "seconds": round(time.perf_counter() - started, 2),
        "bytes": held,
    }


def _peak(*, reset: bool = False) -> int:
    """Return the most memory that this process has held since the last reset (Linux), in bytes."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


Case = tuple[str, str, str, hostile_files.Spoil]


def cases(base: Path) -> Iterator[Case]:
    """Yield of each case its kind, its name, the command, and what makes a copy of a sound run hostile.

    The commands that read a file take turns, so that each of them meets files of every kind.
    """
    newest = base / "checkpoints" / "last.pt"
    whole, state = newest.read_bytes()[: -checkpoint.TAIL], checkpoint.load(newest)
    roads, folder_roads = cycle(ROADS), cycle((RESUME, EVALUATE, RERUN))
    unsealed_roads = cycle(road for road in ROADS if road != RESUME)  # which takes the checkpoint before a damaged one

    def replaced(content: bytes) -> hostile_files.Spoil:
        return lambda run: [(run / "checkpoints" / f"{name}.pt").write_bytes(content) for name in ("last", "best")]

    def saved(content: dict[str, Any]) -> hostile_files.Spoil:
        return lambda run: [checkpoint.save(run / "checkpoints" / f"{name}.pt", content) for name in ("last", "best")]

    for kind, found in (("payload", hostile_files.payloads()), ("tensor", hostile_files.lying_tensors())):
        for name, operations in found:
            content = hostile_files.packed(hostile_files.holding(operations))
            yield kind, name, next(roads), replaced(content)
    for name, content in hostile_files.archives(whole):
        yield "archive", name, next(roads), replaced(hostile_files.sealed(content))
    for name, content in hostile_files.foreign():
        yield "foreign", name, next(unsealed_roads), replaced(content)
        yield "foreign", f"{name}, sealed", next(roads), replaced(hostile_files.sealed(content))
    both = cycle((RESUME, EVALUATE))
    for name, content in hostile_files.weights(state):
        yield "weights", name, next(both), saved(content)
    for name, content in hostile_files.progress(state):
        yield "progress", name, RESUME, saved(content)
    for name, content in hostile_files.descriptions(state):
        yield "description", name, EVALUATE, saved(content)
    for kind, spoils, commands in (
        ("folder", hostile_files.FOLDERS, folder_roads),
        ("folder", hostile_files.READ_BY_RESUME, repeat(RESUME)),
        ("folder", hostile_files.READ_BY_EVALUATE, repeat(VAL)),
        ("folder", hostile_files.READ_BY_RERUN, repeat(RERUN)),
        ("folder", hostile_files.READ_BY_PREDICT, repeat(PREDICT)),
        ("harmless", hostile_files.HARMLESS, folder_roads),
        ("harmless", hostile_files.IGNORED_BY_REPORT, repeat(REPORT)),
        ("harmless", hostile_files.IGNORED_BY_READ, repeat(READ)),
    ):
        for (name, spoil), command in zip(spoils.items(), commands, strict=False):
            yield kind, name, command, spoil


def main(answers: Path) -> None:
    """Train a run, then make copies of it hostile, one by one, and load each."""
    sys.dont_write_bytecode = True
    os.environ["DEEPTRAIN_SECRET"] = SECRET
    here = Path.cwd()
    base, run, outside = here / "base", here / "case" / "run", here / "case" / "outside"
    Image.new("RGB", (8, 8)).save(PICTURE)
    undrawn.leave_figures_undrawn()
    with contextlib.redirect_stdout(io.StringIO()):
        assert cli.train([*TINY, "epochs=1", f"dir={base}"]) == 0
        for command in COMMANDS.values():  # what is imported on the way is imported now
            shutil.copytree(base, here / "warm")
            assert command(here / "warm") == 0
            shutil.rmtree(here / "warm")
    _forget_logs(base / "checkpoints" / "last.pt")
    for picture in base.glob("*.png"):
        picture.unlink()
    _save_time()
    found = []
    sys.addaudithook(Watch.hook)
    for kind, name, command, spoil in cases(base):
        shutil.rmtree(run.parent, ignore_errors=True)
        shutil.copytree(base, run)
        outside.mkdir()
        spoil(run)
        before = _content(outside)
        answer = watched(COMMANDS[command], run)
        answer["outside"] = _content(outside) != before or any(here.rglob(hostile_files.CANARY))
        found.append({"kind": kind, "name": name, "command": command, **answer})
    answers.write_text(json.dumps({"cases": found, "noticed": _what_must_not_be(run)}, indent=1))


def _forget_logs(path: Path) -> None:
    """Take away what a checkpoint knows of its logs: a damaged table would be mended, where it is to be refused."""
    checkpoint.save(path, {name: value for name, value in checkpoint.load(path).items() if name != "logs"})


def _save_time() -> None:
    """Compose the same words, which come again and again, once; draw nothing more, as those files are not special."""
    original = compose.compose_run
    composed = functools.cache(lambda words: original(list(words)))
    for module in (compose, defaults, resume):
        vars(module)["compose_run"] = lambda words: copy.deepcopy(composed(tuple(words)))
    artifacts._draw = figures.draw_confusion = lambda *_: None


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def _what_must_not_be(run: Path) -> list[list[str]]:
    """Do what must not be done, to show that the hook would notice."""
    import socket
    import subprocess

    forbidden: list[Callable[[Path], Any]] = [
        lambda _: subprocess.run(["true"], check=False),
        lambda _: os.system("true"),
        lambda _: socket.create_connection(("127.0.0.1", 9)),
        lambda _: Path("elsewhere").write_text("x"),
        lambda _: Path("elsewhere").mkdir(),
        lambda _: Path("base").rename("elsewhere"),
        lambda _: eval("1"),
    ]
    return [watched(deed, run)["seen"] for deed in forbidden]


if __name__ == "__main__":
    main(Path(sys.argv[1]))

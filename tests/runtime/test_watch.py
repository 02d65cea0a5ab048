"""What is waited for: work is counted, stopped processes are named, threads that hang end in a line."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from deeptrain.runtime import watch
from deeptrain.runtime.watch import Watch, children, map_in_threads, work_of

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def lines(monkeypatch):
    monkeypatch.setattr(watch, "TICK", 0.02)
    monkeypatch.setattr(watch, "WARN_AFTER", 2)
    monkeypatch.setattr(watch, "LIMIT", 4)
    monkeypatch.setattr(watch, "work_of", lambda _: 0.0)
    return []


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "100"])
    yield process.pid
    process.kill()
    process.wait()


@linux
def test_work_is_counted_in_hundredths_of_a_second():
    before, end = work_of([os.getpid()]), time.process_time() + 0.1
    while time.process_time() < end:
        pass
    assert work_of([os.getpid()]) - before >= 5


@linux
def test_a_stopped_process_is_named_and_holds_up_the_others(sleeper, monkeypatch):
    work = iter(range(0, 10_000, 100))  # a core that is busy all the time
    monkeypatch.setattr(watch, "work_of", lambda _: float(next(work)))
    some, all_needed = Watch(lambda: [sleeper]), Watch(lambda: [sleeper], all_needed=True)
    assert sleeper in children(os.getpid()) and some.hint() == ""
    os.kill(sleeper, signal.SIGSTOP)
    os.waitpid(sleeper, os.WUNTRACED)
    for each in (some, all_needed):
        for _ in range(5):
            each.tick()
    assert (some.silent, all_needed.silent) == (0, 4)
    assert all_needed.hint() == f" (stopped: kill -CONT {sleeper} lets them go on)"


@pytest.mark.parametrize("ahead", [None, 1, 3, 100])
@pytest.mark.parametrize("threads", [1, 4])
def test_the_order_is_that_of_the_items(threads, ahead, lines):
    def square(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number**2

    found = map_in_threads(square, range(20), threads, ahead=ahead, warn=lines.append)
    assert list(found) == [number**2 for number in range(20)]
    assert list(map_in_threads(square, [], threads, ahead=ahead, warn=lines.append)) == []


def test_no_more_is_done_than_asked_for(lines):
    done = []
    found = map_in_threads(done.append, range(20), 2, ahead=3, warn=lines.append)
    next(found)
    found.close()
    time.sleep(0.05)
    assert len(done) <= 4


@pytest.mark.parametrize("error", [ValueError("a.png: broken"), TimeoutError("a network disk"), SystemExit(1)])
def test_an_error_of_a_thread_is_raised(error, lines):
    def fail(_):
        raise error

    with pytest.raises(type(error)):
        list(map_in_threads(fail, range(3), 2, warn=lines.append))


def test_threads_that_hang_end_in_a_line(lines):
    hanging = threading.Event()
    with pytest.raises(ValueError, match=r"^no file was read for \d+ s: the disk does not answer; look at the disk$"):
        list(map_in_threads(lambda _: hanging.wait(20), range(3), 2, warn=lines.append))
    hanging.set()
    assert len(lines) == 1 and "it is waited for until 4 s have passed" in lines[0]


@linux
def test_threads_that_hang_do_not_keep_a_process_from_its_end():
    """SIGTERM ends the wait, and the process, though a thread never comes back."""
    script = (
        "import os, signal, threading; from deeptrain.runtime.signals import handle_signals, raise_interrupt\n"
        "from deeptrain.runtime.watch import map_in_threads\n"
        "def hang(_):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    threading.Event().wait()\n"
        "with handle_signals(raise_interrupt):\n"
        "    list(map_in_threads(hang, [1], 1, warn=print))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert "KeyboardInterrupt" in ended.stderr and ended.returncode != 0

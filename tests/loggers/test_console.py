"""What a person sees: short, on one line while it lasts, plain on a pipe, and never a reason to stop."""

import io
import os
import re
import struct
import subprocess
import sys
import types

import pytest

from deeptrain.loggers.console import HEAD_LINES, Console

ESCAPE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
ROW = {
    "epoch": 1,
    "step": 100,
    "loss/train": 2.3025,
    "accuracy/train": 0.1,
    "loss/train_clean": 0.12345,
    "accuracy/train_clean": 0.98765,
    "loss/val": 123.456,
    "accuracy/val": 0.9,
    "top5/val": 1.0,
    "rate/lr": 0.0123456,
    "images_per_second": 123456.7,
    "seconds": 12.5,
    "data_wait": 0.234,  # there while it is much
    "seconds_left": 3840,
}
HEAD = ["data       4,500 train, 500 val, test kept shut", "model   resnet, 272,474 parameters", "folder  outputs/a b"]

SHOW = """
import sys
from deeptrain.loggers.console import Console
screen = Console()
screen.header(["data  digits", "model   fcn"])
epochs = int(sys.argv[1])
screen.start(epochs, 100)
import deeptrain.loggers.console
deeptrain.loggers.console.REDRAW_SECONDS = 0
for epoch in (1, epochs):
    for step in range(0, 101, 10):
        screen.progress(epoch, step, 2.30258, 0.98765, 0.0123456, 123456.7, 5025)
    screen.epoch({"epoch": epoch, "loss/train": 1.0, "loss/val": 2.0, "accuracy/val": 0.5, "rate/lr": 0.1}, epoch == 1)
screen.progress(epochs, 50, 2.30258, 0.98765, 0.0123456, 123456.7, 5025)
screen.close()
screen.end(["best  epoch 1", "next  python scripts/evaluate.py " + "x" * 150])
"""


def show(stream, epochs=2, log=None):
    screen = Console(stream, log)
    screen.header(HEAD)
    screen.start(epochs, 100)
    for epoch in range(1, epochs + 1):
        for step in range(0, 100, 5):
            screen.progress(epoch, step, 2.3, 0.5, 0.1, 12340, 100)
        screen.epoch({**ROW, "epoch": epoch}, best=epoch == 1)
    screen.close()
    screen.end(["best   epoch 1, accuracy/val 90.00%", "test   python scripts/evaluate.py outputs/a"])
    return screen


@pytest.fixture
def on_terminal():
    """Return a function that runs SHOW on a pseudo-terminal of so many columns and gives back its output."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    import fcntl

    def run(columns, epochs=100, **environment):
        others = {name: os.environ[name] for name in os.environ.keys() - {"COLUMNS", "LINES", "NO_COLOR"}}
        environment = {**others, "TERM": "xterm-256color", **environment}
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        command = [sys.executable, "-c", SHOW, str(epochs)]
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
            os.close(theirs)
            output = b""
            try:
                while part := os.read(ours, 65536):
                    output += part
            except OSError:  # the other end is closed
                pass
        os.close(ours)
        assert process.returncode == 0, output.decode()
        return output.decode().replace("\r\n", "\n")

    return run


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_the_live_line_stays_one_line(on_terminal, columns):
    output = on_terminal(columns)
    frames = [frame for frame in output.split("\r\x1b[2K") if "loss 2.303" in frame]
    assert len(frames) >= 20
    lines = [ESCAPE.sub("", frame.rpartition("\n")[2]) for frame in frames]
    assert all("loss 2.303" in line and len(line) < columns for line in lines)  # taken away, not left behind
    if columns >= 80:
        assert all(fact in frames[-1] for fact in ("/100", "acc 98.8%", "lr 1.23e-2", "123k img/s", "1h23m left"))
    assert "━" in frames[-1] or columns == 40


def test_the_terminal_is_left_clean(on_terminal):
    output = on_terminal(80)
    left = "\n".join(line.rpartition("\r\x1b[2K")[2] for line in output.split("\n"))
    assert "img/s" not in ESCAPE.sub("", left)
    assert "\x1b[?25l" not in output  # the cursor is never hidden: a killed run would leave it so
    assert "python scripts/evaluate.py " + "x" * 150 in left  # a command is never broken


def test_no_color_is_honoured(on_terminal):
    colored = re.compile(r"\x1b\[[0-9;]*3[0-9]m")
    assert colored.search(on_terminal(80))
    assert not colored.search(on_terminal(80, NO_COLOR="1"))


def test_a_dumb_terminal_gets_plain_lines(on_terminal):
    output = on_terminal(80, TERM="dumb")
    assert "\x1b" not in output and "\r" not in output and "1/100" in output


def test_a_piped_log_is_plain_and_short(tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # of a user's shell: says nothing about pipes
    stream = io.StringIO()
    show(stream, log=tmp_path / "run.log")
    output = stream.getvalue()
    assert len(output.encode()) < 2048 - 9 * 80  # leaves room for a full head of 12 lines
    assert "\r" not in output and "\x1b" not in output
    assert sum("/2 " in line for line in output.splitlines()) == 2
    assert output.count("val loss") == 1
    assert (tmp_path / "run.log").read_text() == output


def test_the_table_fits_eighty_columns_with_four_digits():
    """The gap stays beside an average; what goes is the speed, and with it whatever tells of a slow loader."""
    stream = io.StringIO()
    screen = Console(stream)
    screen._console.width = 80
    screen.start(999, 100)
    screen.epoch({**ROW, "epoch": 999, "accuracy/val_average": 0.99}, best=True)
    head, row = stream.getvalue().splitlines()
    assert len(head) <= 80 and len(row) <= 80
    assert head.split() == ["epoch", "train", "loss", "val", "loss", "val", "acc", "avg", "acc", "gap", "lr", "left"]
    assert row.split() == ["999/999", "2.303", "123.5", "90.00%", "*", "99.00%", "+8.77", "1.23e-2", "1h04m"]


def test_a_wider_line_has_room_for_all_columns():
    stream = io.StringIO()
    screen = Console(stream)
    screen.start(999, 100)
    screen.epoch({**ROW, "epoch": 999, "accuracy/val_average": 0.99}, best=True)
    _, head, row = stream.getvalue().splitlines()
    assert head.split()[-5:] == ["gap", "lr", "img/s", "left", "wait"]
    assert row.split()[-5:] == ["+8.77", "1.23e-2", "123k", "1h04m", "23%"]


def test_a_slow_loader_gets_a_column_and_a_line_that_explains_it():
    stream = io.StringIO()
    screen = Console(stream)
    screen.start(4, 100)
    fast = {name: value for name, value in ROW.items() if name != "data_wait"}
    for epoch, row in enumerate((fast, ROW, fast, ROW), start=1):
        screen.epoch({**row, "epoch": epoch}, best=False)
    head, first, explanation, new_head, second, third, fourth = stream.getvalue().splitlines()
    assert "gap" in head and "wait" not in head and "+8.77" in first and "*" not in first
    assert explanation.startswith("wait is the share of the time") and "workers=" in explanation
    assert new_head.endswith("wait") and second.endswith("23%") and fourth.endswith("23%")
    assert first.endswith("1h04m") and third.endswith("1h04m")


def test_an_average_that_starts_late_gets_its_column():
    stream = io.StringIO()
    screen = Console(stream)
    screen.start(3, 100)
    for epoch, extra in enumerate(({}, {"accuracy/val_average": 0.99}, {"accuracy/val_average": 0.98}), start=1):
        screen.epoch({**ROW, "epoch": epoch, **extra}, best=False)
    _, head, _, new, second, third = stream.getvalue().splitlines()
    assert "gap" in head and "avg acc" not in head
    assert "avg acc" in new and "gap" in new
    assert "99.00%" in second and "98.00%" in third


def test_the_head_is_aligned_and_short():
    stream = io.StringIO()
    Console(stream).header([*HEAD, *(f"setting{i}  " + "model.depth=20 " * 12 for i in range(20))])
    lines = stream.getvalue().splitlines()
    assert len(lines) == HEAD_LINES
    assert all(len(line) <= 120 for line in lines)
    assert {line.index(word) for line, word in zip(lines, ("4,500", "resnet", "outputs"), strict=False)} == {11}
    assert lines[-2] == "and 15 more lines, in run.log"
    assert lines[-1].startswith("setting19")


def test_warnings_share_the_lines_of_the_head_and_all_stand_in_the_log(tmp_path):
    """The head keeps about half of them, and its last line, which names the folder."""
    head = [*(f"setting{i}  here" for i in range(9)), "folder  outputs/run"]
    for count, shown, first in ((2, 2, 7), (4, 4, 5), (20, 5, 4)):
        stream = io.StringIO()
        screen = Console(stream, log=tmp_path / f"{count}.log")
        screen.header(head, [f"number {index}" for index in range(count)])
        lines = stream.getvalue().splitlines()
        warnings = [line for line in lines if line.startswith("warning: ")]
        assert len(lines) == HEAD_LINES and len(warnings) == shown and lines[first - 1].endswith("outputs/run")
        assert ("more like these, in run.log" in warnings[-1]) == (count > shown)
        assert (tmp_path / f"{count}.log").read_text().count("warning: number") == count


def test_notes_of_one_kind_share_a_line_where_there_is_no_room(tmp_path):
    notes = [f"chosen  {word} {'because ' * 20}" for word in ("first", "second", "third")]
    for others, shown in ((5, 3), (6, 1)):
        stream, log = io.StringIO(), tmp_path / f"{others}.log"
        Console(stream, log=log).header([*notes, *(f"setting{i}  here" for i in range(others)), "folder  outputs"])
        lines = stream.getvalue().splitlines()
        chosen = [line for line in lines if line.startswith("chosen")]
        assert len(chosen) == shown and len(lines) <= HEAD_LINES and log.read_text().count("chosen") == 3
        assert chosen[0].endswith("because…; 2 more in run.log") == (shown == 1) and max(map(len, lines)) <= 120


def test_a_long_line_of_the_head_is_broken_between_words_under_its_value():
    stream = io.StringIO()
    Console(stream).header(["changed  " + "model.depth=20 " * 12, "folder  outputs/" + "x" * 150])
    first, second, third = stream.getvalue().splitlines()
    assert first.endswith("=20") and second.startswith("         model.depth=20")
    assert third == "folder   outputs/" + "x" * 150  # half a path is of no use


def test_the_log_has_the_lines_from_before_it_was_opened(tmp_path):
    screen = Console(io.StringIO())
    screen.header(HEAD)
    screen.warn("early")
    screen.open_log(tmp_path / "run.log")
    screen.message("late [not markup]")
    text = (tmp_path / "run.log").read_text()
    assert text.startswith("data    4,500") and text.endswith("warning: early\nlate [not markup]\n")


def test_a_full_disk_under_the_log_stops_nothing_and_loses_no_line(tmp_path, full_disk):
    stream = io.StringIO()
    screen = Console(stream, tmp_path / "run.log")
    with full_disk():
        screen.message("first")
    screen.message("second")
    first, warning, second = (tmp_path / "run.log").read_text().splitlines()
    assert (first, second) == ("first", "second") and warning.startswith("warning: ") and "No space left" in warning
    assert sorted(stream.getvalue().splitlines()) == sorted([first, warning, second])


def test_a_closed_pipe_stops_nothing(tmp_path):
    class Broken(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    show(Broken(), log=tmp_path / "run.log")
    assert "best" in (tmp_path / "run.log").read_text()


def test_an_old_encoding_gets_plain_letters():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Console(stream).header(["classes  café · 3 × 32 × 32"])
    assert raw.getvalue() == b"classes  caf\\xe9 - 3 x 32 x 32\n"


def test_a_second_log_has_only_its_own_lines(tmp_path):
    screen = Console(io.StringIO(), tmp_path / "one.log")
    screen.message("one")
    screen.open_log(tmp_path / "two.log")
    screen.message("two")
    assert (tmp_path / "one.log").read_text() == "one\n" and (tmp_path / "two.log").read_text() == "two\n"


def test_quiet_shows_nothing(capsys):
    screen = Console(quiet=True)
    screen.header(HEAD)
    screen.start(1, 1)
    screen.epoch(ROW, best=True)
    screen.close()
    assert capsys.readouterr().out == ""


def test_a_notebook_has_one_line_that_is_replaced_and_plain_rows(monkeypatch):
    """IPython's display handle, recorded: notebooks know no escape codes."""
    shown = []

    class Printer:
        def text(self, text):
            shown.append(text)

    class Handle:
        def display(self, line):
            assert not shown, "one line, made once"
            line._repr_pretty_(Printer(), False)

        def update(self, line):
            line._repr_pretty_(Printer(), False)

    ipython, display, out = types.ModuleType("IPython"), types.ModuleType("IPython.display"), io.StringIO()
    ipython.get_ipython, display.DisplayHandle = (lambda: types.SimpleNamespace(kernel=1)), Handle
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr("deeptrain.loggers.console.REDRAW_SECONDS", 0)
    monkeypatch.setattr(sys, "stdout", out)
    console = Console()
    console.start(2, 10)
    console.progress(1, 5, 0.5, 0.9, 0.1, 1000.0, 3.0)
    console.epoch({"epoch": 1, "accuracy/val": 0.5}, best=True)
    assert shown[1].startswith("epoch 1/2 ") and "loss 0.5000" in shown[1]
    assert shown[-1] == "", "a row takes the line away; the last row of a run leaves nothing behind"
    assert out.getvalue().splitlines() == ["epoch  val acc", "  1/2   50.00% *"]
    ipython.get_ipython = lambda: None  # IPython in a terminal, or imported by chance
    assert not Console()._live

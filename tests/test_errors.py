"""Lines that hold a stranger's words."""

import io

import pytest

from deeptrain.commands import cli
from deeptrain.errors import UsageError
from deeptrain.loggers.console import Console
from deeptrain.runtime.terminal import MAX_CHARACTERS, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("loss 0.5 · ça va", "loss 0.5 · ça va"),
        ("\x1b[31mred\x07", "\ufffd[31mred\ufffd"),
        ("one\r\nerror: two\tthree", "one  error: two three"),
        ("gpj.\u202eexe\x9b", "gpj.\ufffdexe\ufffd"),
        ("x" * 10**6, "x" * MAX_CHARACTERS + " ..."),
    ],
)
def test_a_line_is_printable_and_short(text, shown):
    assert printable(text) == shown


def test_every_line_of_a_mistake_is_cleaned(capsys):
    def fail(error: Exception) -> int:
        raise error

    assert cli.guarded(lambda: fail(UsageError(["a\x1b[31m\nerror: b", "c"]))) == 2
    assert capsys.readouterr().err == "error: a\ufffd[31m error: b\nerror: c\n"
    assert cli.guarded(lambda: fail(RuntimeError("a\x1b" + "x" * 10**6))) == 1
    err = capsys.readouterr().err
    assert "a\ufffdx" in err and "--debug" in err and len(err) < 2000


def test_the_console_cleans_words_and_keeps_its_own_colours(tmp_path):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    console = Console(screen, tmp_path / "run.log")
    evil = "\x1b]0;title\x07evil\r"
    console.header([f"data  {evil}"], [evil])
    console.warn(f"{evil}\nwarning: forged")
    console.message(evil)
    console.end([f"rerun  {evil}"])
    assert "\x1b]0" not in screen.getvalue() and "\x07" not in screen.getvalue()
    assert "\x1b[1m" in screen.getvalue() and screen.getvalue().count("evil") == 5
    assert "\x1b" not in (tmp_path / "run.log").read_text() and "\nwarning: forged" not in screen.getvalue()

"""Whatever becomes of standard output, a command does its work, and every line is shown as far as it can be."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeptrain.runtime import terminal

ROOT = Path(__file__).resolve().parents[2]
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0"}


class Broken(io.StringIO):
    def __init__(self, error: Exception):
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EFBIG])
def test_what_cannot_be_written_is_dropped_and_a_full_disk_is_said(number, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Broken(OSError(number, os.strerror(number))))
    terminal.show("a line")
    is_said = number in (errno.ENOSPC, errno.EFBIG)
    assert capsys.readouterr().err.count(os.strerror(number)) == is_said


@pytest.mark.parametrize("stream", [None, Broken(ValueError("I/O operation on closed file"))])
def test_closed_streams_lose_lines_and_nothing_else(stream, monkeypatch):
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    terminal.show("a line")
    terminal.report("error: a line")
    assert terminal.write("a line", stream) == ""


def test_classes_differ_in_an_encoding_that_cannot_say_them():
    assert terminal.encodable("0.93 ± 0.01 · 3 × 32", "ascii") == "0.93 +- 0.01 - 3 x 32"
    assert terminal.encodable("Müller", "latin-1") == "Müller"
    assert terminal.encodable("猫", "ascii") != terminal.encodable("犬", "ascii")


@pytest.fixture
def pictures(tmp_path):
    for value, name in enumerate(("猫", "собака")):
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True)
        for number in range(3):
            Image.fromarray(np.full((8, 8), 40 * number + value, np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "pictures"


def command(words: str, ending: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    line = f"set -o pipefail; {sys.executable} {ROOT / words} {ending}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment}
    return subprocess.run(["bash", "-c", line], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", ["train.py --help", "train.py explain=mixup", "scripts/check_data.py pictures"])
@pytest.mark.parametrize("ending", ["", ">/dev/full", "<&- >&- 2>&-", "| true"])
def test_every_command_outlives_its_output_on_an_ascii_terminal(words, ending, pictures):
    done = command(words, ending, pictures.parent, **ASCII)
    is_lost = ending == ">/dev/full" and "check_data" not in words  # the page was all that it is for
    assert done.returncode == is_lost, done.stderr
    assert len(done.stderr.splitlines()) == (ending == ">/dev/full")
    assert done.stdout.isascii() and (not ending) == bool(done.stdout)


def test_names_are_read_in_utf8_also_where_the_locale_is_c(pictures):
    plain = command("scripts/check_data.py pictures", "", pictures.parent, PYTHONIOENCODING="utf-8", **ASCII)
    assert plain.returncode == 0 and "猫" in plain.stdout
    refused = command("train.py data=image_folder data.root=pictures/猫", "", pictures.parent, **ASCII)
    assert refused.returncode == 2 and "\\u732b" in refused.stderr

"""A file that is no picture, or cannot be read now: each ends in a line that says which, and none is waited for."""

import builtins
import errno
import os
import re
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeptrain.commands import cli
from deeptrain.data.decode import UnreadableImageError, decode_whole, find_unreadable, open_image
from deeptrain.data.fingerprint import read_content, stat_digests


def pipe(path):
    os.mkfifo(path)


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(path.name)


def device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has none of these")
@pytest.mark.parametrize(("make", "kind"), [(pipe, "a pipe"), (unix_socket, "a socket"), (device, "a device")])
def test_what_is_no_file_is_refused(make, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    make(tmp_path / "cat.png")
    line = f"cat.png: is {kind}, no picture; remove it"
    with pytest.raises(UnreadableImageError, match=re.escape(line)):
        decode_whole(Path("cat.png"), 8)
    with pytest.raises(ValueError, match=re.escape(line)):
        stat_digests(tmp_path, ["cat.png"])
    assert find_unreadable([Path("cat.png")], 60) == ([line], 1)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM])
@pytest.mark.parametrize("when", ["open", "read"])
def test_an_error_of_the_system_is_not_the_pictures_fault(number, when, tmp_path, monkeypatch):
    path = tmp_path / "cat.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    with pytest.raises(ValueError) as error:
        if when == "open":
            monkeypatch.setattr(builtins, "open", fail)
        with open_image(path) as image:
            image.fp.read = fail  # pyright: ignore
            image.load()
    monkeypatch.undo()
    assert type(error.value) is ValueError
    assert str(error.value).startswith(f"{path}: {os.strerror(number)}; ")


def test_the_content_of_files_is_hashed_with_the_same_line(tmp_path, monkeypatch):
    (tmp_path / "cat.png").touch()

    def fail(*_, **__):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(builtins, "open", fail)
    with pytest.raises(ValueError, match=r"cat\.png: Too many open files; this shell allows too few open files"):
        read_content(tmp_path, ["cat.png"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes")
def test_a_pipe_in_a_list_of_pictures_is_named(tmp_path, capsys):
    for index in range(8):
        Image.new("L", (8, 8), index).save(tmp_path / f"{index}.png")
    os.mkfifo(tmp_path / "8.png")
    (tmp_path / "labels.csv").write_text("".join(f"{index}.png,{'ab'[index % 2]}\n" for index in range(9)))
    assert cli.train(["data=csv", f"data.file={tmp_path / 'labels.csv'}"]) == 2
    assert "8.png is a pipe, no picture" in capsys.readouterr().err

"""What a system or a file refuses is one line that names the file or the setting, and what to do."""

import errno
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from deeptrain import build
from deeptrain.commands import cli
from deeptrain.config.compose import compose_run
from deeptrain.data.decoded_images import from_cache
from deeptrain.data.folder_layout import read_layout
from deeptrain.data.torchvision_sets import SPECS, _read
from deeptrain.errors import UsageError


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = np.array(array.shape, ">u4").tobytes()
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes())


@pytest.mark.parametrize("labels", [np.zeros(4), np.zeros((5, 2)), np.zeros((5, 2, 2))])
def test_idx_files_that_disagree_are_named(labels, tmp_path):
    images, other = (tmp_path / name for name in SPECS["mnist"].train)
    write_idx(images, np.zeros((5, 28, 28)))
    write_idx(other, labels)
    with pytest.raises(ValueError, match="do not belong together") as raised:
        _read(SPECS["mnist"], tmp_path, "train")
    assert str(images) in str(raised.value) and str(other) in str(raised.value)


@pytest.mark.parametrize("count", [3, 7])
def test_the_cache_keeps_no_images_without_labels(count, tmp_path):
    images = np.zeros((5, 4, 4, 1), np.uint8)
    with pytest.raises(ValueError, match=f"5 images but {count} labels"):
        from_cache(tmp_path, "own", {}, lambda: ([images], np.zeros(count, np.int64)))
    assert not list(tmp_path.glob("own-*/images.npy"))


@pytest.mark.parametrize("text", [b"a: [1", b"\xff\xfe", b"[" * 2000, b"a: &x [*x"])
def test_a_broken_yaml_of_your_own_is_named(text, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_bytes(text)
    with pytest.raises(UsageError) as raised:
        compose_run([f"--config-dir={tmp_path}", "model=mine"])
    assert len(raised.value.lines) == 1 and "model/mine" in raised.value.lines[0]


def test_class_folders_may_be_nested_more_deeply_than_calls(tmp_path, monkeypatch):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        for _ in range(1200):
            Path("d").mkdir()
            os.chdir("d")
        Path("1.png").touch()
    monkeypatch.chdir(tmp_path)
    try:
        assert len(read_layout(tmp_path).splits["train"].names) == 2
    finally:  # pytest's own removal calls itself for every folder
        subprocess.run(["rm", "-r", tmp_path / "cat", tmp_path / "dog"], check=True)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.ENAMETOOLONG])
def test_an_unforeseen_error_of_a_file_names_it(number, capsys):
    def fail() -> int:
        raise OSError(number, os.strerror(number), "/somewhere/a file")

    assert cli.guarded(fail) == 1
    line = capsys.readouterr().err
    assert line.startswith(f"error: /somewhere/a file: {os.strerror(number)}; ") and "--debug" not in line


def test_data_larger_than_memory_is_one_line():
    def load(cache_dir):
        raise MemoryError

    with pytest.raises(UsageError, match="data=digits: does not fit into memory; choose fewer or smaller images"):
        build.load_data(compose_run([]), load)

"""The cache: made once, whole or not at all, by any number of processes, and made again when damaged."""

import errno
import multiprocessing
import time

import numpy as np
import pytest

from deeptrain.data.cache import cache_root, get_or_build
from deeptrain.data.decoded_images import from_arrays, from_cache


def build_two(folder):
    (folder / "a").write_text("alpha")
    (folder / "b").write_bytes(bytes(1000))


def never(folder):
    raise AssertionError("built again")


def test_an_entry_is_built_once_for_each_key(tmp_path):
    first = get_or_build(tmp_path, "x", {"size": 1}, build_two)
    assert get_or_build(tmp_path, "x", {"size": 1}, never) == first
    assert get_or_build(tmp_path, "x", {"size": 2}, build_two) != first


def test_the_default_is_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_root(None) == tmp_path / "deeptrain"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root(None) == tmp_path / ".cache" / "deeptrain"


def truncate(folder):
    (folder / "b").write_bytes(bytes(999))


def flip_a_bit(folder):
    (folder / "b").write_bytes(bytes(500) + b"\x01" + bytes(499))


def lose_a_file(folder):
    (folder / "a").unlink()


def break_the_list(folder):
    (folder / "entry.json").write_text("[")


def empty_the_list(folder):
    (folder / "entry.json").write_text("")


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, lose_a_file, break_the_list, empty_the_list])
def test_a_damaged_entry_is_rebuilt(tmp_path, damage):
    folder = get_or_build(tmp_path, "x", {}, build_two)
    damage(folder)
    assert get_or_build(tmp_path, "x", {}, build_two) == folder
    assert (folder / "a").read_text() == "alpha" and (folder / "b").read_bytes() == bytes(1000)
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name, f"{folder.name}.lock"]


def test_a_build_that_fails_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "a").write_text("half")
        raise ValueError("picture.jpg: not a readable picture")

    with pytest.raises(ValueError, match=r"picture\.jpg"):
        get_or_build(tmp_path, "x", {}, fail)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_what_a_killed_build_left_is_cleared_away(tmp_path):
    folder = get_or_build(tmp_path, "x", {}, build_two)
    truncate(folder)
    (tmp_path / f".{folder.name}.999999").mkdir()
    get_or_build(tmp_path, "x", {}, build_two)
    assert not list(tmp_path.glob(".x*"))


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"^cache_dir=.*file: cannot keep .* cache_dir=FOLDER$"):
        get_or_build(tmp_path / "file", "x", {}, build_two)


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    def fill(folder):
        (folder / "a").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ValueError, match=r"^cache_dir=.*: No space left on device; choose another folder"):
        get_or_build(tmp_path, "x", {}, fill)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def slow_start(cache, log):
    def build(folder):
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(0.3)
        build_two(folder)

    assert (get_or_build(cache, "x", {}, build) / "a").read_text() == "alpha"


def test_of_several_processes_one_builds_and_the_others_wait(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=slow_start, args=(tmp_path / "cache", tmp_path / "log")) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert (tmp_path / "log").read_text() == "built\n"


def test_stored_images_come_back_mapped_with_exact_statistics(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (50, 6, 5, 3), np.uint8), rng.integers(0, 4, 50)
    store = from_cache(tmp_path, "x", {}, lambda: ([images[:20], images[20:]], labels))
    assert isinstance(store.images, np.memmap) and np.array_equal(store.images, images)
    assert np.array_equal(store.labels, labels) and store.labels.dtype == np.int64
    some = rng.permutation(50)[:30]
    mean, std = store.statistics(some)
    np.testing.assert_allclose(mean, images[some].mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, images[some].std((0, 1, 2)), rtol=1e-12)
    assert store.fingerprint == from_arrays(images, labels).fingerprint != from_arrays(images, labels + 1).fingerprint

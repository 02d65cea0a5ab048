"""Files that were replaced are noticed, also where their sizes and times are those of the old ones."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from deeptrain.data import fingerprint
from deeptrain.data.csv_file import CSVFile
from deeptrain.data.fingerprint import PIECE, WHOLE, cached_content, is_same, read_content, stat_digests
from deeptrain.data.image_folder import ImageFolder
from deeptrain.data.map_style import _digest
from deeptrain.data.npz_file import NPZFile

NAMES = [f"{label}/{number}.bmp" for label in "ab" for number in range(4)]  # a BMP's size is that of its pixels alone


def write_pictures(root, seed):
    """Write pictures whose sizes and times do not depend on the seed."""
    rng = np.random.default_rng(seed)
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(root / name)
        os.utime(root / name, (1e9, 1e9))
    (root / "labels.csv").write_text("".join(f"{name},{name[0]}\n" for name in NAMES))


def write_arrays(root, seed):
    images = np.random.default_rng(seed).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    np.savez(root / "data.npz", images=images, labels=np.arange(20) % 2)
    os.utime(root / "data.npz", (1e9, 1e9))


@pytest.mark.parametrize("loader", ["stream", "resident"])
@pytest.mark.parametrize(
    ("write", "source"),
    [
        (write_pictures, lambda root, **settings: ImageFolder(root=str(root), **settings)),
        (write_pictures, lambda root, **settings: CSVFile(file=str(root / "labels.csv"), **settings)),
        (write_arrays, lambda root, **settings: NPZFile(file=str(root / "data.npz"), **settings)),
    ],
    ids=["folder", "csv", "npz"],
)
def test_pictures_of_equal_size_and_time_are_others(tmp_path, write, source, loader):
    """Their fingerprint, and with the cache of decoded images what is trained on."""
    data, cache = tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    write(data, 1)
    before = source(data, loader=loader).load(cache)
    pixels = None if before.train.images is None else np.array(before.train.images)
    write(data, 2)
    after = source(data, loader=loader).load(cache)
    assert not is_same(before.fingerprint, after.fingerprint)
    assert pixels is None or not np.array_equal(pixels, np.array(after.train.images))
    assert not np.array_equal(before.mean, after.mean)
    write(data, 1)
    assert is_same(before.fingerprint, source(data, loader=loader).load(cache).fingerprint)


def test_streamed_and_resident_images_have_a_hash_in_common(tmp_path):
    write_pictures(tmp_path, 1)
    streamed, resident = (ImageFolder(root=str(tmp_path), loader=loader).load() for loader in ("stream", "resident"))
    assert is_same(streamed.fingerprint, resident.fingerprint)


def test_the_dataset_of_another_library_is_looked_into(tmp_path):
    write_pictures(tmp_path, 1)
    before = _digest(tmp_path)
    write_pictures(tmp_path, 2)
    assert _digest(tmp_path) != before


@pytest.mark.parametrize(
    ("then", "now", "same"),
    [
        ("0" * 8, "0" * 8, True),
        ("0" * 16, f"{'0' * 16}-{'1' * 24}", True),  # a streamed run of 0.3
        ("2" * 16, f"{'0' * 16}-{'1' * 24}", False),
        ("a" * 8, f"{'a' * 8}-{'0' * 16}-{'1' * 24}", True),  # a resident run of 0.3
        (
            f"{'a' * 8}-{'0' * 16}-{'2' * 24}",
            f"{'a' * 8}-{'0' * 16}-{'1' * 24}",
            True,
        ),  # the same pixels in other files
        (f"{'0' * 16}-{'2' * 24}", f"{'0' * 16}-{'1' * 24}", False),
        ("a" * 8, "0" * 16, False),
        ("mine-v1", "mine-v2", False),
        ("left-11111111", "side-11111111", False),
        (["0" * 8], "0" * 8, False),
        (None, "0" * 8, False),
    ],
)
def test_the_most_exact_hash_that_both_have_decides(then, now, same):
    assert is_same(then, now) is same


@pytest.mark.parametrize("size", [100, WHOLE, WHOLE + 1, 10 * WHOLE])
def test_the_start_and_the_end_of_a_file_of_any_size_count(tmp_path, size):
    path, content = tmp_path / "file", bytearray(size)
    digests = set()
    for at in (0, min(size, PIECE) // 2, size - 1):
        content[at] ^= 1
        path.write_bytes(content)
        digests.add(read_content(tmp_path, ["file"]))
    assert len(digests) == 3


def test_files_that_have_not_changed_are_not_read_again(tmp_path, monkeypatch):
    data, cache = tmp_path / "data", tmp_path / "cache"
    write_pictures(data, 1)

    def digest(folder=data):
        return cached_content(folder, NAMES, stat_digests(folder, NAMES)[2], cache).digest

    before = digest()
    assert digest(shutil.copytree(data, tmp_path / "copy")) == before
    monkeypatch.setattr(fingerprint, "hash_files", lambda *_: pytest.fail("read again"))
    assert digest() == before


def test_a_file_that_vanishes_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone.png: cannot be read \(No such file"):
        read_content(tmp_path, ["gone.png"])
    with pytest.raises(ValueError, match=r"gone.png: cannot be read \(No such file"):
        stat_digests(tmp_path, ["gone.png"])

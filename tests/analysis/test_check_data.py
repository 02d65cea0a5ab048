"""scripts/check_data.py: what is in a folder of pictures, and what is wrong with it."""

import subprocess
import sys
from pathlib import Path

import forked
import numpy as np
import pytest
from PIL import Image

from deeptrain.analysis.check_data import check, lines
from deeptrain.data.image_folder import ImageFolder
from deeptrain.data.leaks import shared_images
from deeptrain.runtime.resources import ROOT


def picture(path: Path, seed: int, size=(8, 8), **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    for index in range(12):
        part, name = ("train", "test")[index % 2], ("cat", "dog")[index % 4 // 2]
        picture(tmp_path / part / name / f"{index}.png", index)
    return tmp_path


def test_a_sound_folder_is_counted(folder):
    picture(folder / "train" / "cat" / "wide.bmp", 99, size=(20, 10))
    report = check(folder)
    assert report.is_intact and report.counts == {"train": {"cat": 4, "dog": 3}, "test": {"cat": 3, "dog": 3}}
    text = "\n".join(lines(report))
    for words in (
        "class      train  test\ncat            4     3\ndog            3     3\n2 classes      7     6",
        "sizes      2, from 8x8 to 20x10; median short side 8; most often 8x8 (12)",
        "kinds      PNG RGB 12, BMP RGB 1",
        "verdict    nothing wrong found",
    ):
        assert words in text


def test_broken_files_are_all_named(folder):
    (folder / "train" / "cat" / "bad.png").write_bytes(b"")
    (folder / "test" / "dog" / "bad\udcff.jpg").write_bytes(b"\xff\xd8\xff")
    report = check(folder)
    assert not report.is_intact and len(report.broken) == 2
    text = "\n".join(lines(report))
    assert "broken     2 pictures cannot be read" in text and "cat/bad.png: not a readable picture (" in text
    assert "bad\\udcff.jpg" in text and text.isascii()


def test_the_same_pixels_are_found_whatever_the_file(folder):
    """In another format, under another name; a leak between splits, two labels, a repetition."""
    first = folder / "train" / "cat" / "0.png"
    Image.open(first).save(folder / "test" / "cat" / "leak.bmp")
    Image.open(first).save(folder / "test" / "dog" / "wrong.tif")
    picture(folder / "train" / "dog" / "again.webp", 2, lossless=True)
    report = check(folder)
    assert report.leaks == report.ambiguous == [["train/cat/0.png", "test/cat/leak.bmp", "test/dog/wrong.tif"]]
    assert report.repeated == [["train/dog/2.png", "train/dog/again.webp"]]
    text = "\n".join(lines(report))
    assert (
        "leaks      2 of 8 pictures of test are in train too; keep each in one split, or a test tests nothing" in text
    )
    assert "labels     3 pictures are in another class too; keep each in one" in text
    assert "repeated   1 picture is a copy of another in its class" in text
    assert "train/cat/0.png = test/cat/leak.bmp = test/dog/wrong.tif" in text


def test_doubles_are_counted_as_a_run_counts_them(folder):
    for index, seed in enumerate((0, 0, 4, 1)):  # three of train, one of test
        picture(folder / "val" / "cat" / f"{index}.png", seed)
        picture(folder / "val" / "dog" / f"{index}.png", 50 + index)
    picture(folder / "test" / "cat" / "again.png", 4)
    report, source = check(folder), ImageFolder(root=str(folder))
    found = shared_images((dataset := source.load(folder / "cache")).train, dataset.val)
    assert len(found) == 3 == report.leaked["val", "train"] and report.leaked["test", "train"] == 1
    assert "leaks      3 of 8 pictures of val are in train too, 1 of 7 pictures of test are in" in "\n".join(
        lines(report)
    )


def test_deep_pictures_are_compared_by_all_their_bits(folder):
    """Two that differ in the lowest of 12 bits are not the same; the same values in a PNG and a PGM are."""
    values = np.arange(64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(values).save(folder / "train" / "cat" / "deep.png")
    Image.fromarray(values + 1).save(folder / "test" / "cat" / "other.png")
    assert check(folder).is_intact
    Image.fromarray(values).save(folder / "test" / "cat" / "deep.pgm")
    assert check(folder).leaks == [["train/cat/deep.png", "test/cat/deep.pgm"]]


def test_shapes_in_the_alpha_channel_are_not_all_the_same(folder):
    for index, part in enumerate(("train", "test")):
        pixels = np.zeros((8, 8, 4), np.uint8)
        pixels[index, :, 3] = 255
        Image.fromarray(pixels).save(folder / part / "cat" / "icon.png")
    assert check(folder).is_intact


def test_a_repetition_within_a_class_is_told_and_spoils_nothing(folder):
    picture(folder / "train" / "cat" / "again.png", 0)
    report = check(folder)
    assert report.is_intact and "repeated   1 picture is" in "\n".join(lines(report))


def test_pictures_that_only_share_their_bytes_are_not_the_same(folder):
    pixels = np.arange(96, dtype=np.uint8).reshape(4, 8, 3)
    Image.fromarray(pixels).save(folder / "train" / "cat" / "flat.png")
    Image.fromarray(pixels.reshape(8, 4, 3)).save(folder / "test" / "cat" / "tall.png")
    assert check(folder).is_intact


def test_wrong_class_folders_are_told_with_all_the_rest(folder):
    (folder / "train" / "bird").mkdir()
    picture(folder / "val" / "horse" / "a.png", 7)
    (folder / "train" / "cat" / "bad.png").write_bytes(b"")
    report = check(folder)
    said = "\n".join(lines(report))
    assert (
        "2 class folders are wrong" in said
        and "train/bird has no pictures" in said
        and "val/horse is no class of train" in said
    )
    assert len(report.broken) == 1 and not report.is_intact


def test_long_lists_are_cut_unless_asked(folder):
    for index in range(9):
        (folder / "train" / "cat" / f"bad{index}.png").write_bytes(b"")
    report = check(folder)
    short, long = (sum("bad" in line for line in lines(report, every=every)) for every in (False, True))
    assert (short, long) == (5, 9) and any("and 4 more: --all lists them" in line for line in lines(report))


def test_very_many_classes_are_shown_in_part(tmp_path):
    for index in range(60):
        for number in range(1 + index % 3):
            picture(tmp_path / f"class {index:02}" / f"{number}.png", 100 * index + number, size=(2, 2))
    text = lines(check(tmp_path))
    assert text[0] == "the classes with the fewest and the most pictures, of 60" and len(text) < 30


def run(*words: str) -> subprocess.CompletedProcess:
    return forked.run([sys.executable, ROOT / "scripts" / "check_data.py", *words])


def test_the_exit_code_says_what_was_found(folder):
    sound = run(str(folder))
    assert sound.returncode == 0 and "nothing wrong" in sound.stdout and not sound.stderr
    (folder / "train" / "cat" / "bad.png").write_bytes(b"")
    broken = run(str(folder), "--all")
    assert broken.returncode == 1 and "to be mended" in broken.stdout and not broken.stderr
    for words in ([str(folder / "nowhere")], [], [str(folder), "--every"]):
        refused = run(*words)
        assert refused.returncode == (0 if not words else 2)
        assert refused.stderr.count("error: ") == (1 if words else 0) and "Traceback" not in refused.stderr

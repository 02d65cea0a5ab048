"""Sheets of pictures: every image is there, large enough, with its caption."""

import numpy as np
import pytest
from PIL import Image

from deeptrain.report.image_grid import grid, mixed_caption, save

CLASSES = ["cat", "ship", "dog", "frog", "deer"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("side", "enlarged"), [(8, 96), (28, 84), (32, 96), (100, 100), (256, 192)])
def test_grid_shape_and_pixels(channels, side, enlarged):
    images = np.full((5, channels, side, side), 77, np.uint8).transpose(0, 2, 3, 1)  # as it comes from a tensor
    sheet = grid(images, ["a"] * 5, columns=3)
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    assert sheet.shape[1] == 3 * (enlarged + 8) + 8
    assert sheet.shape[0] >= 2 * enlarged
    assert (sheet == 77).all(-1).sum() >= 5 * enlarged**2  # every pixel of every image, nothing drawn over them


def test_small_pixels_stay_square():
    image = np.random.default_rng(0).integers(0, 200, (1, 4, 4, 3), np.uint8)
    sheet = grid(image, [""], cell=40)
    assert np.array_equal(sheet[8:48, 8:48], np.kron(image[0], np.ones((10, 10, 1), np.uint8)))


def test_fewer_images_than_columns_leave_no_empty_columns():
    assert grid(np.zeros((2, 32, 32, 3), np.uint8), ["a", "b"], columns=8).shape[1] == 2 * 104 + 8


def test_each_caption_is_drawn_and_stays_under_its_image():
    images = np.zeros((2, 32, 32, 1), np.uint8)
    plain = grid(images, ["", ""])
    for caption in ("cat", "ä ö ü é", "a very long name of a class that nobody could show", "two\nlines"):
        sheet = grid(images, [caption, ""])
        cell = 8 + 96 + 4  # up to the middle of the margin between the two images
        assert (sheet[104:, :cell] < 128).any()
        assert (sheet[104:, cell:] >= 128).all()
        assert sheet.shape[1] == plain.shape[1]


def test_mixed_captions_are_broken_where_they_do_not_fit():
    images = np.zeros((1, 32, 32, 3), np.uint8)
    one, two = grid(images, ["cat"]), grid(images, ["automobile 0.6 · airplane 0.4"])
    assert two.shape[0] > one.shape[0]


@pytest.mark.parametrize(
    ("target", "caption"),
    [
        (1, "ship"),
        (np.int64(2), "dog"),
        (np.array([0.0, 1.0, 0.0]), "ship"),
        (np.array([0.6, 0.4, 0.0]), "cat 0.6 · ship 0.4"),
        (np.array([0.25, 0.0, 0.75], np.float32), "dog 0.75 · cat 0.25"),
        (np.array([0.5, 0.5, 0.0]), "cat 0.5 · ship 0.5"),
        (np.array([0.998, 0.002, 0.0]), "cat"),
        (np.array([0.3, 0.0, 0.5, 0.2, 0.0]), "dog 0.5 · cat 0.3 · frog 0.2"),
        (np.array([0.4, 0.3, 0.003, 0.2, 0.1]), "cat 0.4 · ship 0.3 · frog 0.2 · deer 0.1"),
        (np.array([0.3, 0.1, 0.25, 0.2, 0.15]), "cat 0.3 · dog 0.25 · frog 0.2 · deer 0.15"),
    ],
)
def test_mixed_caption_names_the_four_largest(target, caption):
    assert mixed_caption(target, CLASSES) == caption


def test_mixed_caption_of_a_single_class():
    assert mixed_caption(np.array([1.0]), ["only"]) == "only"


def test_saved_picture_is_a_png_of_the_same_pixels(tmp_path):
    sheet = grid(np.zeros((1, 8, 8, 1), np.uint8), ["0"])
    save(tmp_path / "samples.png", sheet)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "samples.png")), sheet)


def test_rows_are_as_high_as_their_captions_and_carry_titles():
    images = np.zeros((4, 32, 32, 3), np.uint8)
    plain = grid(images, [""] * 4, columns=2)
    higher = grid(images, ["a\nb\nc", "", "", ""], columns=2)
    assert higher.shape[0] == plain.shape[0] + 3 * 16
    assert np.array_equal(higher[-104:], plain[-104:]), "the second row has not grown"
    titled = grid(images, [""] * 4, columns=2, titles=["first", "second"])
    assert titled.shape[0] == plain.shape[0] and titled.shape[1] > plain.shape[1]
    assert (titled[:, : titled.shape[1] - plain.shape[1]] < 128).any()


def test_every_part_of_a_caption_is_kept_where_parts_fit():
    """ShearX 0.10 and Posterize 5 do not fit side by side under 96 pixels: they stand below each other."""
    images = np.zeros((1, 32, 32, 3), np.uint8)
    assert np.array_equal(grid(images, ["ShearX 0.10 · Posterize 5"]), grid(images, ["ShearX 0.10\nPosterize 5"]))
    assert np.array_equal(grid(images, ["a · b"]), grid(images, ["a · b\n"])[:-16]), "short parts share a line"


def test_captions_are_broken_between_words_before_anything_is_cut():
    images = np.zeros((1, 28, 28, 3), np.uint8)
    assert np.array_equal(grid(images, ["tabby cat, not a dog"]), grid(images, ["tabby cat,\nnot a dog"]))


def test_words_that_share_their_beginning_stay_apart():
    images = np.zeros((1, 28, 28, 3), np.uint8)
    names = [f"the_same_long_beginning_{end}" for end in ("one", "two")]
    assert not np.array_equal(*(grid(images, [name]) for name in names))


def test_titles_may_have_several_lines():
    images = np.zeros((1, 32, 32, 3), np.uint8)
    assert grid(images, [""], titles=["mixed\nwith"]).shape == grid(images, [""], titles=["mixed"]).shape

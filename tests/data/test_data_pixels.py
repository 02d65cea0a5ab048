"""How pictures of every mode become 8 bits: one range for a set, a background behind transparency, upright, whole."""

import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from deeptrain.data.decode import EXTENSIONS, FORMATS, Decoder
from deeptrain.data.image_folder import ImageFolder
from deeptrain.data.pixels import to_8_bit

TWELVE = np.linspace(100, 4000, 64).reshape(8, 8)  # values of 12 bits


def save(path, array, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(path, **how)


def folder(root, make, each=3, **how):
    """Write two classes; make(index) returns (ending, array or image)."""
    for label, name in enumerate(("cat", "dog")):
        for index in range(each):
            ending, content = make(label * each + index)
            save(root / name / f"{index}.{ending}", content, **how)
    return root


def pixels(root, **settings):
    """Return all pictures of train and val by file name, and the notes."""
    dataset = ImageFolder(root=str(root), val_fraction=0.4, **settings).load()
    found = {}
    for part in (dataset.train, dataset.val):
        found |= dict(zip(map(str, part.files), np.asarray(part.images), strict=True))
    return [found[name] for name in sorted(found)], dataset


def deep_png(kind, channels, value):
    """Return a PNG of 16 bits a channel, which Pillow itself cannot write."""
    row = b"\0" + struct.pack(">H", value) * channels * 8

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", 8, 8, 16, kind, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row * 8)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# --- the range of a data set -----------------------------------------------------------------------------------------

KINDS = {
    "I;16 PNG": ("png", np.uint16),
    "I;16 TIFF": ("tif", np.uint16),
    "I;16B TIFF": ("tif", ">u2"),
    "I;16 JPEG 2000": ("jp2", np.uint16),
    "I PGM": ("pgm", np.uint16),
    "I TIFF": ("tif", np.int32),
    "F TIFF": ("tif", np.float32),
}


@pytest.mark.parametrize("kind", KINDS)
def test_twelve_bits_keep_their_levels_by_one_range_of_the_set(tmp_path, kind):
    ending, dtype = KINDS[kind]
    folder(tmp_path, lambda index: (ending, (TWELVE / (index + 1)).round().astype(dtype)))
    images, dataset = pixels(tmp_path, channels=1)
    low, high = round(100 / 6), 4000
    for index, image in enumerate(images):
        expected = ((TWELVE / (index + 1)).round() - low) / (high - low) * 255
        assert np.abs(image[..., 0] - expected).max() <= 0.51, "not each by its own range"
    notes = [note for note in dataset.notes if note.startswith(f"range {low} to {high}: ")]
    assert len(notes) == 1 and "6 pictures" in notes[0] and dataset.split["range"] == [low, high]


@pytest.mark.parametrize(("low", "high"), [(0.25, 0.5), (-1000, 3000), (0, 1e6), (1e-9, 2e-9), (-3, -1)])
def test_floats_may_lie_anywhere(tmp_path, low, high):
    values = np.linspace(low, high, 64, dtype=np.float32).reshape(8, 8)
    images, _ = pixels(folder(tmp_path, lambda index: ("tif", values)))
    assert images[0].min() == 0 and images[0].max() == 255 and len(np.unique(images[0])) == 64


def test_what_is_not_finite_does_not_count(tmp_path):
    values = TWELVE.astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    images, dataset = pixels(folder(tmp_path, lambda index: ("tif", values)))
    assert (images[0][0, :3] == 0).all() and images[0].max() == 255
    assert dataset.split["range"][1] == 4000


@pytest.mark.parametrize("value", [0, 1000])
def test_a_set_of_one_value_is_read(tmp_path, value):
    images, _ = pixels(folder(tmp_path, lambda index: ("png", np.full((8, 8), value, np.uint16))))
    assert not np.any(images)


def test_a_range_of_your_own_holds_in_each_split(tmp_path):
    for part in ("train", "val"):
        folder(tmp_path / part, lambda index: ("png", TWELVE.astype(np.uint16)))
    dataset = ImageFolder(root=str(tmp_path), range=[0, 2000]).load()
    expected = (TWELVE.astype(np.uint16) / 2000 * 255).clip(0, 255).round()
    for part in (dataset.train, dataset.val):
        assert np.array_equal(np.asarray(part.images)[0, ..., 0], expected)


def test_val_and_test_are_read_by_the_range_of_train(tmp_path):
    for part, factor in (("train", 1), ("val", 0.5), ("test", 0.25)):
        folder(tmp_path / part, lambda index, f=factor: ("tif", (TWELVE * f).astype(np.float32)))
    source = ImageFolder(root=str(tmp_path))
    for part, factor in ((source.load().val, 0.5), (source.test(), 0.25)):
        expected = ((TWELVE * factor - 100) / 3900 * 255).clip(0, 255)
        assert np.abs(np.asarray(part.images)[0, ..., 0] - expected).max() <= 0.51


def test_integers_and_floats_have_ranges_of_their_own_and_8_bits_stay(tmp_path):
    plain = np.arange(64, dtype=np.uint8).reshape(8, 8)
    kinds = [("png", TWELVE.astype(np.uint16)), ("tif", (TWELVE / 4000).astype(np.float32)), ("bmp", plain)]
    images, dataset = pixels(folder(tmp_path, lambda index: kinds[index % 3]))
    assert all(image.max() == 255 for image in (images[0], images[1])) and np.array_equal(images[2][..., 0], plain)
    assert sum(note.startswith("range ") for note in dataset.notes) == 2


def test_a_few_hot_pixels_are_said_to_decide(tmp_path):
    values = np.tile(TWELVE.astype(np.uint16), (8, 8))
    values[0, 0] = 65535
    note = next(note for note in pixels(folder(tmp_path, lambda index: ("png", values)))[1].notes if "range" in note)
    assert note.startswith("range 100 to 65535") and note.endswith("data.range=[100,4000], which keeps more")


def test_a_deep_picture_in_val_alone_is_read_by_its_full_range_or_named(tmp_path):
    plain = np.zeros((8, 8), np.uint8)
    folder(tmp_path / "train", lambda index: ("png", plain))
    folder(tmp_path / "val", lambda index: ("png", np.full((8, 8), 200 * 257, np.uint16)))
    assert np.asarray(ImageFolder(root=str(tmp_path)).load().val.images).max() == 200
    save(tmp_path / "val" / "cat" / "0.tif", TWELVE.astype(np.float32))
    with pytest.raises(ValueError, match=r"0\.tif: has values from 100 to 4000.* write data\.range=\[100,4000\];"):
        ImageFolder(root=str(tmp_path)).load()


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_colour_of_16_bits_of_which_pillow_keeps_8_is_said(tmp_path, kind, channels):
    folder(tmp_path, lambda index: ("png", np.zeros((8, 8), np.uint8)))
    (tmp_path / "cat" / "0.png").write_bytes(deep_png(kind, channels, 65535))
    assert any("16 bits a colour are read as 8" in note for note in pixels(tmp_path)[1].notes)


def test_eight_bits_are_opened_as_often_as_before_and_keep_their_key(tmp_path, monkeypatch):
    from deeptrain.data import survey

    folder(tmp_path, lambda index: ("png", np.zeros((8, 8, 3), np.uint8)))
    monkeypatch.setattr(survey, "measure_ranges", None)
    source = ImageFolder(root=str(tmp_path))
    decoder = source._choose_decoder(None)[0]
    assert decoder == Decoder(8, 8, 1)
    assert decoder.cache_key == {"height": 8, "width": 8, "channels": 1, "short_side": None, "drawn": None}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"range": [5]}, "range=[5]: must be auto, or the lowest and the highest value, as [0,4095]"),
        ({"range": [9, 3]}, "range=[9, 3]: must be auto"),
        ({"range": "full"}, "range=full: choose from auto"),
        ({"background": [1, 2]}, "background=[1, 2]: must be white, or red, green and blue"),
        ({"background": [1, 2, 300]}, "background=[1, 2, 300]: every item must be >= 0 and <= 255"),
        ({"resize": "stretch"}, "resize=stretch: choose from crop, pad, squash"),
    ],
)
def test_mistakes_in_the_settings_are_one_line(tmp_path, settings, words):
    with pytest.raises(ValueError) as error:
        ImageFolder(root=str(tmp_path), **settings)
    assert str(error.value).startswith(words)


def test_a_range_without_deep_pictures_is_said_to_have_no_effect(tmp_path):
    folder(tmp_path, lambda index: ("png", np.full((8, 8), 7, np.uint8)))
    images, dataset = pixels(tmp_path, range=[0, 4095])
    assert np.all(images[0] == 7) and any("data.range has no effect" in note for note in dataset.notes)


# --- transparency ----------------------------------------------------------------------------------------------------


def half_clear(mode):
    """Return a black picture whose right half is transparent, in this mode."""
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[:, 4:] = 0
    image = Image.fromarray(np.dstack([np.zeros((8, 8, 3), np.uint8), alpha]))
    if mode == "RGB with a key colour":
        return Image.fromarray(np.where(alpha[..., None] > 0, 0, 9).repeat(3, 2).astype(np.uint8)), (9, 9, 9)
    if mode == "L with a key colour":
        return Image.fromarray(np.where(alpha > 0, 0, 9).astype(np.uint8)), 9
    if mode == "P with a key colour":
        image = Image.fromarray(np.where(alpha > 0, 0, 1).astype(np.uint8), "L").convert("P")
        image.putpalette([0] * 768)
        return image, 1
    return image.convert(mode), None


MODES = ["RGBA", "LA", "RGB with a key colour", "L with a key colour", "P with a key colour"]


@pytest.mark.parametrize("mode", MODES)
def test_transparent_pixels_show_the_background(tmp_path, mode):
    image, key = half_clear(mode)
    how = {} if key is None else {"transparency": key}
    images, dataset = pixels(folder(tmp_path, lambda index: ("png", image), **how))
    assert (images[0][:, :4] == 0).all() and (images[0][:, 4:] == 255).all()
    assert any(note.startswith("background white: ") for note in dataset.notes)
    images, _ = pixels(tmp_path, background=[10, 200, 30])
    assert (images[0][:, 4:] == (10, 200, 30)).all(), "a coloured background gives three channels"
    images, _ = pixels(tmp_path, background=[0, 0, 0])
    assert not np.any(images)


def test_premultiplied_alpha_shows_the_background():
    for mode, through in (("RGBa", "RGBA"), ("La", "LA")):
        image = half_clear("RGBA")[0].convert(through).convert(mode)
        assert np.asarray(to_8_bit(image, 1))[0].tolist() == [0] * 4 + [255] * 4, mode


def test_half_transparent_pixels_are_mixed(tmp_path):
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    assert abs(int(np.asarray(to_8_bit(image, 3))[0, 0, 0]) - 127) <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_opaque_pictures_keep_pixels_and_key(tmp_path, mode):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).convert(mode)
    images, dataset = pixels(folder(tmp_path, lambda index: ("png", image)), channels=3)
    assert np.array_equal(images[0], np.asarray(image.convert("RGB"))) and dataset.notes == []
    assert set(ImageFolder(root=str(tmp_path), channels=3)._choose_decoder(None)[0].cache_key) == {
        *("height", "width", "channels", "short_side", "drawn")
    }


# --- upright, and whole ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif", "avif"])
@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_the_size_is_that_of_the_picture_as_it_is_seen(tmp_path, ending, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    values = np.random.default_rng(0).integers(0, 256, (16, 32, 3), np.uint8)
    folder(tmp_path, lambda index: (ending, values), exif=exif.tobytes())
    dataset = pixels(tmp_path)[1]
    assert dataset.image_shape == ((3, 32, 16) if turn in (6, 8) else (3, 16, 32))


def wide(index):
    values = np.full((16, 48 + index % 4), 100, np.uint8)
    values[:, :8], values[:, -8:] = 0, 255
    return "png", values


def test_wide_pictures_lose_their_ends_with_a_word_and_can_be_kept_whole(tmp_path):
    images, dataset = pixels(folder(tmp_path, wide))
    assert images[0].shape == (16, 16, 1) and (images[0] == 100).all()
    assert any("6 of the 6 pictures looked at lose more than a third; data.resize=pad" in n for n in dataset.warnings)
    for resize in ("pad", "squash"):
        images, dataset = pixels(tmp_path, resize=resize)
        assert images[0].shape == (16, 48, 1) and not any("lose more" in note for note in dataset.notes)
        assert (images[0][8, :6] == 0).all() and (images[0][8, -6:] == 255).all()


def test_pictures_of_three_to_two_are_cropped_without_a_word(tmp_path):
    images = folder(tmp_path, lambda index: ("png", np.zeros((20 + 2 * (index % 2), 30 + 3 * (index % 2)), np.uint8)))
    assert not any("lose more" in note for note in pixels(images)[1].notes)


def test_padding_has_the_background_and_squashing_fills_the_square(tmp_path):
    save(tmp_path / "a.png", np.full((8, 24, 3), 100, np.uint8))
    padded = Decoder(24, 24, 3, resize="pad", background=(1, 2, 3)).decode_center(tmp_path / "a.png")
    assert (padded[:8] == (1, 2, 3)).all() and (padded[8:16] == 100).all() and (padded[16:] == (1, 2, 3)).all()
    assert (Decoder(24, 24, 3, resize="pad").decode_center(tmp_path / "a.png")[0] == 255).all()
    assert (Decoder(24, 24, 3, resize="squash").decode_center(tmp_path / "a.png") == 100).all()


@pytest.mark.parametrize("resize", ["pad", "squash"])
@pytest.mark.parametrize("size", [(400, 20), (20, 400), (1, 3000), (64, 64)])
def test_large_windows_are_drawn_from_the_whole_picture(tmp_path, resize, size):
    save(tmp_path / "a.png", np.full((size[1], size[0], 3), 100, np.uint8))
    decoder = Decoder(56, 56, 3, 64, (64, 120), resize=resize)
    drawn = [decoder.decode_random(tmp_path / "a.png", np.random.default_rng(seed), flip=True) for seed in range(9)]
    for image in (*drawn, decoder.decode_center(tmp_path / "a.png")):
        assert image.shape == (56, 56, 3) and (resize == "pad" or (image == 100).all())


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(90, 120), (160, 130)])
def test_a_random_window_is_what_pillow_makes_of_whole_pixels(size, mode, interpolation):
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)
    picture, channels = Image.fromarray(noise).convert(mode), 3 if mode == "RGB" else 1
    decoder = Decoder(64, 64, channels, short_side_range=(64, 64), interpolation=interpolation)
    short, x, y = min(size), *window_at(0)
    window = decoder.decode_random(None, np.random.default_rng(0), stored=picture)
    left, top = (
        min(round(int(at * (round(side * 64 / short) - 63)) * short / 64), side - short)
        for at, side in ((x, size[0]), (y, size[1]))
    )
    box = left, top, left + short, top + short
    expected = np.asarray(picture.crop(box).resize((64, 64), decoder.resampling)).reshape(64, 64, channels)
    assert np.abs(window.astype(int) - expected).max() <= 1 and window.flags.c_contiguous
    mirrored = [decoder.decode_random(None, np.random.default_rng(seed), True, picture) for seed in range(20)]
    straight = [decoder.decode_random(None, np.random.default_rng(seed), False, picture) for seed in range(20)]
    turned = [np.array_equal(one, other[:, ::-1]) for one, other in zip(mirrored, straight, strict=True)]
    assert 0 < sum(turned) < 20


def window_at(seed):
    """Return where decode_random puts its window, as fractions of the room that there is."""
    rng = np.random.default_rng(seed)
    rng.integers(64, 65)
    return rng.random(3)[:2]


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (3, 500)])
def test_windows_of_tiny_pictures_hold_a_pixel(size):
    picture = Image.new("RGB", size, (10, 200, 30))
    decoder = Decoder(224, 224, 3, short_side_range=(256, 480))
    for seed in range(50):
        window = decoder.decode_random(None, np.random.default_rng(seed), stored=picture)
        assert window.shape == (224, 224, 3) and (window == (10, 200, 30)).all()


# --- endings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["jfif", "jp2", "avif"])
def test_these_are_pictures_too(tmp_path, ending):
    if f".{ending}" not in EXTENSIONS:
        pytest.skip("this Pillow does not read it")
    how = {"format": "JPEG"} if ending == "jfif" else {}
    images, _ = pixels(folder(tmp_path, lambda index: (ending, np.full((16, 16, 3), 90, np.uint8)), **how))
    assert len(images) == 6 and np.abs(np.asarray(images).astype(int) - 90).max() <= 2


def test_every_format_that_is_opened_is_known_to_pillow():
    Image.init()
    assert set(FORMATS) <= set(Image.OPEN)


def test_heic_is_named_with_the_package_that_reads_it(tmp_path):
    folder(tmp_path, lambda index: ("png", np.zeros((8, 8), np.uint8)))
    heic = tmp_path / "dog" / "1.heic"
    heic.write_bytes(b"\0\0\0\x18ftypheic")
    assert any("pillow-heif" in note for note in pixels(tmp_path)[1].notes)
    with pytest.raises(ValueError, match="pillow-heif"):
        Decoder(8, 8, 3).decode_center(heic)
    for path in (tmp_path / "dog").glob("*.png"):
        path.unlink()
    with pytest.raises(ValueError, match="pillow-heif"):
        ImageFolder(root=str(tmp_path))


def test_an_evaluation_reads_other_files_by_the_range_of_the_run(tmp_path):
    from deeptrain.inference.restore import _with_range

    folder(tmp_path, lambda index: ("png", TWELVE.astype(np.uint16)))
    ends = json.loads(json.dumps(pixels(tmp_path)[1].split))["range"]
    assert _with_range({"range": "auto"}, ends) == {"range": [100.0, 4000.0]}
    assert _with_range({"range": [1, 2]}, ends) == {"range": [1, 2]}
    for strange in (None, "auto", [1.0], [10**400, 1.0], {"a": 1}):
        assert _with_range({"range": "auto"}, strange) == {"range": "auto"}
    one, two = (ImageFolder(root=str(tmp_path), range=value)._choose_decoder(None)[0] for value in ("auto", ends))
    assert one == two, "the cache entry is the same"

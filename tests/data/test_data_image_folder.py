"""Folders of pictures: which part each plays, which size they get, and one line for each thing that can be wrong."""

import os

import numpy as np
import pytest
from PIL import Image

from deeptrain.data.decode import Decoder, decode_all
from deeptrain.data.image_files import choose_decoder
from deeptrain.data.image_folder import ImageFolder
from deeptrain.model.published import InputRecipe


def picture(path, size=(8, 8), colour=(200, 30, 90), mode="RGB", seed=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, colour)
    if seed is not None:
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
        image = Image.fromarray(pixels)
    image.convert(mode).save(path)


def tree(root, *parts, classes=("cat", "dog"), each=10, **options):
    for part in parts:
        for label, name in enumerate(classes):
            for index in range(each):
                picture(root / part / name / f"{index}.png", seed=len(part) * 1000 + label * 100 + index, **options)
    return root


def load(root, **settings):
    return ImageFolder(root=str(root), **settings).load()


def refusal(root, **settings):
    with pytest.raises(ValueError) as error:
        ImageFolder(root=str(root), **settings)
    message = str(error.value)
    assert message.startswith(f"root={root}: ") and "\n" not in message
    return message.removeprefix(f"root={root}: ")


# --- layouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "sizes", "words"),
    [
        (["train", "val", "test"], (20, 20), "train 20 (train/), val 20 (val/), test 20 (test/) kept shut"),
        (["train", "validation"], (20, 20), "train 20 (train/), val 20 (validation/), no test split"),
        (["Train", "Valid"], (20, 20), "train 20 (Train/), val 20 (Valid/), no test split"),
        (
            ["train", "test"],
            (18, 2),
            "train 18 (train/), val 2 (10 % of train/, stratified), test 20 (test/) kept shut",
        ),
        (["train"], (18, 2), "train 18 (train/), val 2 (10 % of train/, stratified), no test split"),
        (["."], (18, 2), "train 18, val 2 (10 % of train, stratified), no test split"),
    ],
)
def test_each_sensible_layout_says_which_folder_plays_which_part(tmp_path, parts, sizes, words):
    dataset = load(tree(tmp_path, *parts))
    assert (len(dataset.train), len(dataset.val)) == sizes
    assert dataset.summary == f"image_folder: 2 classes, 3x8x8, {words}"
    assert dataset.classes == ["cat", "dog"]


def test_images_files_and_labels_belong_together(tmp_path):
    dataset = load(tree(tmp_path, "train"))
    for part in (dataset.train, dataset.val):
        for image, file, label in zip(np.asarray(part.images), part.files, part.labels, strict=True):
            assert np.array_equal(image, np.asarray(Image.open(file)))
            assert file.parent.name == dataset.classes[label]
    assert not set(dataset.train.files) & set(dataset.val.files)


def test_test_plays_neither_train_nor_val_and_is_not_opened(tmp_path):
    tree(tmp_path, "train", "test")
    for file in (tmp_path / "test").rglob("*.png"):
        file.write_bytes(b"garbage")
    source = ImageFolder(root=str(tmp_path))
    dataset = source.load()
    assert not any("test" in file.parts[len(tmp_path.parts) :] for file in dataset.train.files + dataset.val.files)
    with pytest.raises(ValueError, match=r"test/cat/0\.png: not a readable picture"):
        source.test()


def test_test_has_the_size_channels_and_class_table_of_train(tmp_path):
    tree(tmp_path, "train", mode="L", classes=("a", "b", "c"))
    tree(tmp_path, "test", size=(20, 12), classes=("c", "a"), each=3)
    test = ImageFolder(root=str(tmp_path)).test()
    assert test.shape == (1, 8, 8) and test.labels.tolist() == [0] * 3 + [2] * 3


def test_a_class_may_be_absent_from_val_and_stays_in_the_table(tmp_path):
    tree(tmp_path, "train", classes=("a", "b", "c"))
    tree(tmp_path, "val", classes=("c",))
    assert set(load(tmp_path).val.labels.tolist()) == {2}


def test_no_test_folder_no_test_split(tmp_path):
    with pytest.raises(ValueError, match="has no test/ folder"):
        ImageFolder(root=str(tree(tmp_path, "train", "val"))).test()


def test_what_is_no_picture_is_ignored(tmp_path):
    tree(tmp_path, "train")
    picture(tmp_path / "train" / ".ipynb_checkpoints" / "0.png")
    picture(tmp_path / "train" / "cat" / ".hidden.png")
    picture(tmp_path / "train" / "cat" / "UPPER.JPEG")
    (tmp_path / "train" / "cat" / "Thumbs.db").write_bytes(b"")
    (tmp_path / "train" / "readme.txt").write_text("")
    (tmp_path / "raw").mkdir()
    dataset = load(tmp_path)
    assert len(dataset.train) + len(dataset.val) == 21 and dataset.classes == ["cat", "dog"]
    assert dataset.notes == [f"{tmp_path}/raw is no split with class folders, and is left alone"]


def test_links_are_followed_but_not_in_circles(tmp_path):
    tree(tmp_path / "elsewhere", ".")
    (tmp_path / "root").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "elsewhere" / "cat" / "deep").mkdir()
    picture(tmp_path / "elsewhere" / "cat" / "deep" / "in.png")
    (tmp_path / "elsewhere" / "cat" / "deep" / "loop").symlink_to(tmp_path / "elsewhere" / "cat")
    dataset = load(tmp_path / "root")
    assert len(dataset.train) + len(dataset.val) == 21


def test_a_class_may_be_called_train(tmp_path):
    assert load(tree(tmp_path, ".", classes=("car", "train"))).classes == ["car", "train"]


# --- mistakes --------------------------------------------------------------------------------------------------------


def test_a_missing_root_names_what_exists_and_what_lies_there(tmp_path):
    tree(tmp_path, "pets")
    words = refusal(tmp_path / "pest" / "small")
    assert words == f"does not exist; {tmp_path} does, and holds pets/"
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "file").startswith("is no folder; ")


def test_a_class_folder_without_pictures_is_named(tmp_path):
    tree(tmp_path, "train")
    (tmp_path / "train" / "emu").mkdir()
    assert refusal(tmp_path).startswith("class folder train/emu has no pictures (it holds nothing; pictures end in jpg")


@pytest.mark.parametrize("part", ["val", "test"])
def test_an_unknown_class_is_named(tmp_path, part):
    tree(tmp_path, "train")
    tree(tmp_path, part, classes=("cat", "Dog"))
    assert refusal(tmp_path) == f"{part}/Dog is no class of train (cat, dog); rename or remove it"


def test_no_class_folders_says_what_was_found_and_expected(tmp_path):
    for index in range(9):
        picture(tmp_path / f"{index}.png")
    words = refusal(tmp_path)
    assert "no class folders" in words and "0.png" in words and "and 3 more" in words
    assert words.endswith("expected <class>/<picture>, or train/, val/ and test/ with class folders inside")


def test_one_class_is_refused_with_the_folder_that_was_meant(tmp_path):
    tree(tmp_path / "pets", "train", "test")
    assert f"did you mean data.root={tmp_path}/pets?" in refusal(tmp_path)


def test_test_without_train_is_refused(tmp_path):
    assert refusal(tree(tmp_path, "test", "val")).startswith("has val/ and test/ but no train/; expected")


def test_two_folders_for_one_part_are_refused(tmp_path):
    assert refusal(tree(tmp_path, "train", "val", "valid")).startswith("has val/ and valid/, which mean the same")


@pytest.mark.parametrize("beside", [["train/1.png", "train/2.png"], ["cat/1.png", "dog/1.png"]])
def test_loose_test_pictures_do_not_become_a_class_called_test(tmp_path, beside):
    for name in (*beside, "test/1.png"):
        picture(tmp_path / name)
    assert "has no class folders" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\xff\xd8\xff\xe0 not a jpeg"])
def test_an_unreadable_picture_is_one_line_that_names_it(tmp_path, content):
    tree(tmp_path, ".", each=300, size=(1, 1))
    bad = tmp_path / "dog" / "123.png"
    bad.write_bytes(content)
    with pytest.raises(ValueError) as error:
        load(tmp_path)
    assert str(error.value).startswith(f"{bad}: not a readable picture (") and "\n" not in str(error.value)


@pytest.mark.parametrize("loader", ["auto", "stream"])
def test_all_unreadable_pictures_are_named_at_once(tmp_path, loader):
    """A header, a cut-off file and one in val, although the first of them ends the start."""
    tree(tmp_path, "train", "val", size=(40, 40))
    broken = [tmp_path / name for name in ("train/cat/1.png", "train/dog/5.png", "val/dog/2.png")]
    broken[0].write_bytes(b"no picture")
    for path in broken[1:]:
        path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ValueError) as error:
        load(tmp_path, loader=loader)
    lines = str(error.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(path) for path in broken]
    assert lines[-1].endswith(f"check_data.py {tmp_path} checks all")


def test_of_many_unreadable_pictures_the_first_are_named(tmp_path, monkeypatch):
    tree(tmp_path, ".", each=30)
    for path in tmp_path.glob("cat/*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"\nand 20 more pictures cannot be read; ") as error:
        load(tmp_path)
    assert len(str(error.value).splitlines()) == 11
    monkeypatch.setattr("deeptrain.data.image_files.SEARCH_SECONDS", -1)
    with pytest.raises(ValueError, match=r"cat/0.png: not .*; 0 of 60 pictures were looked at; python"):
        load(tmp_path)


def test_a_cut_off_picture_is_named(tmp_path):
    tree(tmp_path, ".", size=(40, 40))
    bad = tmp_path / "cat" / "5.png"
    bad.write_bytes(bad.read_bytes()[:-400])
    with pytest.raises(ValueError, match=r"cat/5\.png: not a readable picture"):
        load(tmp_path)


# --- size and channels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "image_size", "expected", "said"),
    [
        ([(32, 32)] * 9, None, Decoder(32, 32, 3), []),
        ([(40, 24)] * 9, None, Decoder(24, 40, 3), []),
        ([(128, 128)] * 9, None, Decoder(128, 128, 3), []),
        ([(64, 80), (70, 75), (90, 71)], None, Decoder(64, 64, 3), ["image size 64: "]),
        ([(6, 7), (5, 9)], None, Decoder(5, 5, 3), ["image size 5: "]),
        (
            [(500, 375), (400, 300)],
            None,
            Decoder(224, 224, 3, 256, (256, 480)),
            ["image size 224: ", "large pictures: "],
        ),
        ([(129, 129)] * 9, None, Decoder(224, 224, 3, 256, (256, 480)), ["image size 224: ", "large pictures: "]),
        ([(500, 375)], 448, Decoder(448, 448, 3, 512, (512, 960)), ["large pictures: "]),
        ([(500, 375)], 112, Decoder(112, 112, 3), []),
        ([(32, 32)] * 9, 16, Decoder(16, 16, 3), []),
    ],
)
def test_the_size_follows_the_pictures_or_the_setting(sizes, image_size, expected, said):
    decoder, notes = choose_decoder(sizes, False, image_size, None, None, "auto")
    assert decoder == expected and len(notes) == len(said)
    assert all(note.startswith(start) for note, start in zip(notes, said, strict=True))


def test_resident_large_pictures_keep_one_size():
    decoder, notes = choose_decoder([(500, 375)], False, None, None, None, "resident")
    assert decoder == Decoder(224, 224, 3, 256) and "resized once" in notes[-1]


@pytest.mark.parametrize(
    ("image_size", "expected"),
    [(None, (224, 236, (256, 480))), (448, (448, 472, (512, 960))), (112, (112, None, None))],
)
@pytest.mark.parametrize("side", [32, 500])
def test_published_weights_decide_on_size_and_interpolation(side, image_size, expected):
    recipe = InputRecipe([0.5] * 3, [0.5] * 3, 224, 236, "bicubic")
    decoder, notes = choose_decoder([(side, side)], False, image_size, recipe, None, "auto")
    size, short, drawn = expected
    assert decoder == Decoder(size, size, 3, short, drawn, interpolation="bicubic")
    assert "the weights know pictures of 224, resized by bicubic" in notes[0]


def test_a_decoder_saved_before_there_were_interpolations_is_bilinear():
    decoder = Decoder(8, 8, 3, 10)
    state = {name: value for name, value in decoder.state_dict().items() if name != "interpolation"}
    assert Decoder.from_state(state) == decoder
    bicubic = Decoder(8, 8, 3, interpolation="bicubic")
    assert Decoder.from_state(bicubic.state_dict()) == bicubic and bicubic.cache_key != Decoder(8, 8, 3).cache_key


def test_grey_pictures_have_one_channel_unless_asked(tmp_path):
    tree(tmp_path / "l", ".", mode="L")
    tree(tmp_path / "mixed", ".")
    for folder in (tmp_path / "l", tmp_path / "rgb"):
        for name in ("cat", "dog"):
            for index in range(5):  # grey, but stored in colour
                picture(folder / name / f"g{index}.jpg", colour=(index * 50,) * 3)
    grey = load(tmp_path / "l")
    assert grey.image_shape == (1, 8, 8) and "all grey" in grey.notes[0]
    assert load(tmp_path / "rgb").image_shape == (1, 8, 8)
    assert load(tmp_path / "rgb", channels=3).image_shape == (3, 8, 8)
    assert load(tmp_path / "mixed").image_shape == (3, 8, 8)
    assert load(tmp_path / "mixed", channels=1).image_shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("cmyk.jpg", Image.new("RGB", (8, 8), (250, 10, 10)).convert("CMYK"), (250, 10, 10)),
        ("palette.png", Image.new("RGB", (8, 8), (0, 0, 255)).convert("P"), (0, 0, 255)),
        ("deep.png", Image.fromarray(np.full((8, 8), 200 * 257, np.uint16)), (200, 200, 200)),
        ("dark.png", Image.fromarray(np.full((8, 8), 3 * 257, np.uint16)), (3, 3, 3)),
        ("float.tif", Image.fromarray(np.full((8, 8), 0.5, np.float32)), (128, 128, 128)),
        ("alpha.png", Image.new("RGBA", (8, 8), (9, 8, 7, 255)), (9, 8, 7)),
        ("bits.png", Image.new("1", (8, 8), 1), (255, 255, 255)),
        ("still.gif", Image.new("RGB", (8, 8), (255, 0, 0)), (255, 0, 0)),
        ("plain.ppm", Image.new("RGB", (8, 8), (1, 2, 3)), (1, 2, 3)),
    ],
)
def test_every_kind_of_file_becomes_bytes_of_colour(tmp_path, name, image, expected):
    image.save(tmp_path / name)
    pixels = Decoder(8, 8, 3).decode_center(tmp_path / name)
    assert pixels.shape == (8, 8, 3) and pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - expected).max() <= 3
    grey = Decoder(8, 8, 1).decode_center(tmp_path / name)
    assert grey.shape == (8, 8, 1)


def test_a_photo_taken_sideways_is_turned_upright(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[0] = 255  # a white line on top
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert (Decoder(8, 8, 3).decode_center(tmp_path / "a.png")[:, 7] == 255).all()


def test_the_fixed_window_is_the_centre_of_the_resized_picture(tmp_path):
    picture(tmp_path / "a.png", size=(300, 200), seed=1)
    image = Image.open(tmp_path / "a.png")
    resized = image.resize((96, 64), Image.Resampling.BILINEAR).crop((20, 4, 76, 60))
    pixels = Decoder(56, 56, 3, 64).decode_center(tmp_path / "a.png")
    assert np.abs(pixels.astype(int) - np.asarray(resized)).max() <= 1
    whole = Decoder(20, 30, 3).decode_center(tmp_path / "a.png")  # a window of the picture's own proportions
    assert np.abs(whole.astype(int) - np.asarray(image.resize((30, 20), Image.Resampling.BILINEAR))).max() <= 1


def test_small_pictures_of_the_right_size_are_not_touched(tmp_path):
    picture(tmp_path / "a.png", size=(31, 17), seed=2)
    assert np.array_equal(
        Decoder(17, 31, 3).decode_center(tmp_path / "a.png"), np.asarray(Image.open(tmp_path / "a.png"))
    )


def test_the_drawn_window_lies_inside_and_follows_its_generator(tmp_path):
    gradient = np.tile(np.linspace(10, 240, 300).astype(np.uint8)[None, :, None], (200, 1, 3))
    Image.fromarray(gradient).save(tmp_path / "a.png")
    decoder = Decoder(56, 56, 3, 64, (64, 120))
    windows = [decoder.decode_random(tmp_path / "a.png", np.random.default_rng(seed)) for seed in range(40)]
    again = decoder.decode_random(tmp_path / "a.png", np.random.default_rng(7))
    assert np.array_equal(windows[7], again) and all(window.min() >= 10 for window in windows)
    spans = [float(window[0, -1, 0]) - float(window[0, 0, 0]) for window in windows]
    full = (240 - 10) * 56 / 300  # colours that 56 of 300 columns span, at the scale of the whole
    assert all(full * 200 / 120 * 0.9 < span < full * 200 / 64 * 1.1 for span in spans)
    flipped = [decoder.decode_random(tmp_path / "a.png", np.random.default_rng(seed), flip=True) for seed in range(40)]
    turned = [not np.array_equal(one, two) for one, two in zip(windows, flipped, strict=True)]
    assert 8 < sum(turned) < 32
    assert all(np.array_equal(a[:, ::-1], b) for a, b, t in zip(windows, flipped, turned, strict=True) if t)


def test_decoding_in_threads_keeps_the_order(tmp_path):
    for index in range(150):
        picture(tmp_path / f"{index}.png", size=(1, 1), colour=(index, 0, 0))
    files = [tmp_path / f"{index}.png" for index in range(150)]
    pixels = np.concatenate(list(decode_all(Decoder(1, 1, 3), files, size=4)))
    assert pixels[:, 0, 0, 0].tolist() == list(range(150))


def test_large_pictures_are_streamed_and_measured_on_some(tmp_path):
    source = ImageFolder(root=str(tree(tmp_path, "train", size=(140, 150))), image_size=None)
    dataset = source.load()
    assert dataset.train.images is None and dataset.train.decoder is not None
    assert dataset.image_shape == (3, 224, 224) and dataset.mean.shape == (3,)
    assert np.abs(dataset.mean - 127.5).max() < 3
    again = ImageFolder(root=str(tmp_path)).load()
    assert np.array_equal(again.mean, dataset.mean) and again.fingerprint == dataset.fingerprint
    resident = load(tmp_path, loader="resident", image_size=160)
    assert resident.train.shape == (3, 160, 160) and resident.train.images is not None


def test_a_changed_picture_is_decoded_again(tmp_path):
    tree(tmp_path, ".")
    before = load(tmp_path)
    picture(tmp_path / "cat" / "3.png", seed=77)
    os.utime(tmp_path / "cat" / "3.png", (1, 1))  # even if it looks older
    after = load(tmp_path)
    assert before.fingerprint != after.fingerprint
    assert before.split == after.split


def test_the_same_pictures_elsewhere_have_the_same_fingerprint(tmp_path):
    for root in ("one", "two"):
        tree(tmp_path / root, ".", size=(9, 9))
    assert load(tmp_path / "one").fingerprint == load(tmp_path / "two").fingerprint
    streamed = [load(tmp_path / root, loader="stream") for root in ("one", "two")]
    assert streamed[0].fingerprint == streamed[1].fingerprint


def test_the_default_folder_that_is_not_there_is_named_as_such(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError, match=r"root=data: is the default, and does not exist here; write data\.root=FOLDER"
    ):
        ImageFolder()

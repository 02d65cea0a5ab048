"""Splits are not taken for classes: data sets as they are handed around, and what is said of each folder."""

import pytest
from PIL import Image

from deeptrain.analysis.check_data import check
from deeptrain.data.dataset import _held_out
from deeptrain.data.decode import Decoder
from deeptrain.data.folder_layout import natural_order, read_layout
from deeptrain.data.image_folder import ImageFolder
from deeptrain.data.split_folders import split_part


def build(root, text):
    """Make a picture for each path; a word with / at its end is an empty folder, {a,b} are several."""
    for word in text.split():
        before, brace, rest = word.partition("{")
        names, _, after = rest.partition("}")
        for path in [before + name + after for name in names.split(",")] if brace else [word]:
            target = root / path.replace("+", " ")
            if path.endswith("/"):
                target.mkdir(parents=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (len(path), 0, 0)).save(target)
    return root


def splits(root):
    return {part: split.label.rstrip("/") for part, split in read_layout(root).splits.items()}


def refusal(root):
    """Return the line that a run ends in; check_data must end in the same."""
    with pytest.raises(ValueError) as error:
        read_layout(root)
    with pytest.raises(ValueError) as checked:
        check(root)
    assert str(checked.value) == str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value).replace(str(root), "ROOT")


SPLITS = {
    "Kaggle cats and dogs": (
        "training_set/training_set/{cats,dogs}/1.jpg test_set/test_set/{cats,dogs}/1.jpg",
        {"train": "training_set/training_set", "test": "test_set/test_set"},
    ),
    "the same, unpacked": (
        "training_set/{cats,dogs}/1.jpg test_set/{cats,dogs}/1.jpg single_prediction/1.jpg",
        {"train": "training_set", "test": "test_set"},
    ),
    "Intel": (
        "seg_train/seg_train/{sea,street}/1.jpg seg_test/seg_test/{sea,street}/1.jpg seg_pred/seg_pred/1.jpg",
        {"train": "seg_train/seg_train", "test": "seg_test/seg_test"},
    ),
    "chest X-ray": (
        "{train,val,test}/NORMAL/1.jpg {train,val,test}/PNEUMONIA/1.jpg chest_xray/train/{NORMAL,PNEUMONIA}/1.jpg",
        {"train": "train", "val": "val", "test": "test"},
    ),
    "fruits-360": (
        "Training/{Apple,Kiwi}/1.jpg Test/{Apple,Kiwi}/1.jpg test-multiple_fruits/1.jpg papers/",
        {"train": "Training", "test": "Test"},
    ),
    "traffic signs": ("Train/{0,1}/1.png Test/1.png Meta/1.png", {"train": "Train"}),
    "hymenoptera": ("Train/{ants,bees}/1.jpg Val/{ants,bees}/1.jpg", {"train": "Train", "val": "Val"}),
    "valid": (
        "{train,valid,test}/a/1.jpg {train,valid,test}/b/1.jpg",
        {"train": "train", "val": "valid", "test": "test"},
    ),
    "dev": ("train/{a,b}/1.jpg dev/{a,b}/1.jpg", {"train": "train", "val": "dev"}),
    "words apart": ("Train+Set/{a,b}/1.jpg Eval-Data/a/1.jpg", {"train": "Train Set", "val": "Eval-Data"}),
    "words together": ("TrainImages/{a,b}/1.jpg testset/{a,b}/1.jpg", {"train": "TrainImages", "test": "testset"}),
    "affixed": (
        "cats_train/{old,young}/1.jpg cats_validation/{old,young}/1.jpg",
        {"train": "cats_train", "val": "cats_validation"},
    ),
    "images inside": (
        "train/images/{a,b}/1.jpg test/images/{a,b}/1.jpg",
        {"train": "train/images", "test": "test/images"},
    ),
    "tiny-imagenet": ("train/{n1,n2}/images/1.jpg val/images/1.jpg", {"train": "train"}),
    "an older copy": ("train/{a,b}/1.jpg train_old/{a,b}/1.jpg test/{a,b}/1.jpg", {"train": "train", "test": "test"}),
}


@pytest.mark.parametrize("name", SPLITS)
def test_splits_play_their_part(tmp_path, name):
    text, expected = SPLITS[name]
    root = build(tmp_path / "root", text)
    assert splits(root) == expected
    assert check(root).layout.classes == read_layout(root).classes
    notes = "\n".join(read_layout(root).notes)
    for part, place in expected.items():
        assert place.lower() == part or f"{part} is {place}/" in notes, "which folder plays it is said"


CLASSES = {
    "flowers": ("{daisy,rose,tulip}/1.jpg", ["daisy", "rose", "tulip"]),
    "vehicles": ("{bus,car,train}/1.jpg", ["bus", "car", "train"]),
    "laboratory": ("{beaker,flask,test_tube}/1.jpg test_tube/glass/2.jpg", ["beaker", "flask", "test_tube"]),
    "a place": ("{bus_stop,train_station}/1.jpg train_station/{day,night}/1.jpg", ["bus_stop", "train_station"]),
    "images in classes": ("{bus,test_tube,train_station}/images/1.jpg", ["bus", "test_tube", "train_station"]),
    "kinds of classes": ("cat/{siamese,other}/1.jpg dog/{poodle,other}/1.jpg", ["cat", "dog"]),
    "contest": ("{contest,latest,trainer}/1.jpg", ["contest", "latest", "trainer"]),
}


@pytest.mark.parametrize("name", CLASSES)
def test_classes_stay_classes(tmp_path, name):
    text, expected = CLASSES[name]
    root = build(tmp_path / "root", text)
    assert splits(root) == {"train": ""} and read_layout(root).classes == expected


REFUSED = {
    "splits of classes": (
        "cats/{train,test}/1.jpg dogs/{train,test}/1.jpg",
        "splits lie above the classes; rename them",
    ),
    "classes by split": (
        "cats_train/1.jpg cats_test/1.jpg dogs_train/1.jpg dogs_test/1.jpg",
        "cats_test/ and cats_train/ hold pictures of one class; rename them test/cats/ and train/cats/",
    ),
    "PlantVillage": (
        "{color,grayscale}/apple/1.jpg {color,grayscale}/corn/1.jpg",
        "color/ and grayscale/ hold folders of the same names (apple/, corn/), as splits do; rename them train/, val/",
    ),
    "too high": (
        "dataset/train/{a,b}/1.jpg dataset/test/{a,b}/1.jpg code/1.png",
        "did you mean data.root=ROOT/dataset?",
    ),
    "far too high": ("one/two/train/{a,b}/1.jpg one/two/test/{a,b}/1.jpg", "did you mean data.root=ROOT/one/two?"),
    "a split or a vehicle": (
        "train/{diesel,steam}/1.jpg bus/1.jpg car/1.jpg",
        "train/ holds diesel/, steam/, so it may be a split, or a class beside bus/ and car/; rename it if it is",
    ),
    "vehicles of kinds": (
        "train/{diesel,steam}/1.jpg bus/{city,coach}/1.jpg",
        "may be a split, or a class beside bus/",
    ),
    "train not in a folder": ("{cat,dog}/1.jpg test/{cat,dog}/1.jpg", "or move cat/ and dog/ into train/"),
    "two of one part": ("train/{a,b}/1.jpg dev/{a,b}/1.jpg valid/{a,b}/1.jpg", "dev/ and valid/, which mean the same"),
    "pictures in splits": ("training_set/1.jpg test_set/1.jpg", "test_set/ has no class folders (it holds 1.jpg)"),
    "test pictures beside classes": ("{cat,dog}/1.jpg test_set/1.jpg", "test_set/ has no class folders"),
    "no train": ("seg_test/{a,b}/1.jpg", "has seg_test/ but no train/"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_ambiguous_is_refused_with_what_to_do(tmp_path, name):
    text, words = REFUSED[name]
    assert words in refusal(build(tmp_path / "root", text))


@pytest.mark.parametrize("inner", ["train", "test", "seg_train/seg_train"])
def test_one_level_too_deep_says_what_to_type(tmp_path, inner):
    build(tmp_path / "P", "{train,test}/cat/1.jpg {train,test}/dog/1.jpg seg_train/seg_train/{cat,dog}/1.jpg")
    assert refusal(tmp_path / "P" / inner).endswith(f"with the same class folders; type data.root={tmp_path}/P")


def test_train_alone_or_beside_other_classes_is_a_root(tmp_path):
    build(tmp_path, "train/{cat,dog}/1.jpg test/{sea,street}/1.jpg other/{cat,dog}/1.jpg")
    assert splits(tmp_path / "train") == {"train": ""}


def test_what_is_said_of_a_folder_is_true(tmp_path):
    build(
        tmp_path / "P",
        "train/{cat,dog}/1.jpg test/{cat,dog}/1.jpg extra/{cat,dog}/1.jpg train_2/{cat,dog}/1.jpg raw/1.jpg",
    )
    assert [note.replace(f"{tmp_path}/P/", "") for note in read_layout(tmp_path / "P").notes] == [
        "extra is left alone: its name is not that of a split (train, val, test)",
        "raw is no split with class folders, and is left alone",
        "train_2 is left alone: train is train/",
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Training Set", ("train", ())),
        ("TRAIN_DATA", ("train", ())),
        ("ValidationImages", ("val", ())),
        ("my-test-2", ("test", ("my", "2"))),
        ("train_test_split", (None, ())),
        ("trainer", (None, ("trainer",))),
        ("🐱", (None, ("🐱",))),
    ],
)
def test_the_part_that_a_name_says(name, expected):
    assert split_part(name) == expected


def test_numbers_count_by_value_and_words_as_before():
    assert sorted(["10", "2", "class 11", "class 3", "1", "01"], key=natural_order) == [
        "01", "1", "2", "10", "class 3", "class 11",
    ]  # fmt: skip
    words = ["b", "B", "a b", "a", "é", "ab", "_", "a-b", "Zebra", "n", "ß"]
    assert sorted(words, key=natural_order) == sorted(words)
    digits = [f"n{number:08}" for number in (2, 10, 1443537)]
    assert sorted(digits, key=natural_order) == sorted(digits)


def test_pictures_and_labels_follow_the_order_of_the_classes(tmp_path):
    layout = read_layout(build(tmp_path / "P", "{1,2,10}/1.jpg"))
    assert layout.classes == ["1", "2", "10"]
    assert layout.splits["train"].names == ["1/1.jpg", "2/1.jpg", "10/1.jpg"]
    assert layout.splits["train"].labels.tolist() == [0, 1, 2]


def test_an_evaluation_keeps_the_order_that_its_run_has_learned(tmp_path):
    root = build(tmp_path / "P", "train/{1,2,10}/1.jpg test/{2,10}/1.jpg")
    layout = read_layout(root, learned_classes=["1", "10", "2"])
    assert layout.classes == ["1", "10", "2"] and layout.splits["train"].labels.tolist() == [0, 1, 2]
    assert layout.splits["test"].names == ["10/1.jpg", "2/1.jpg"] and layout.splits["test"].labels.tolist() == [1, 2]
    assert read_layout(root, learned_classes=["1", "2", "3"]).classes == ["1", "2", "10"], (
        "other classes are not hidden"
    )


def test_an_evaluation_takes_test_without_train(tmp_path):
    root = build(tmp_path / "P", "Test_Set/{cat,dog}/1.jpg")
    source = ImageFolder(root=str(root), learned_classes=["ant", "cat", "dog"], input_shape=[3, 8, 8])
    assert source.load().classes == ["ant", "cat", "dog"] and source.load().image_shape == (3, 8, 8)
    assert source.test().labels.tolist() == [1, 2]
    large = ImageFolder(root=str(root), learned_classes=["cat", "dog"], input_shape=[1, 224, 224], loader="stream")
    assert large.test().decoder == Decoder(224, 224, 1, 256, (256, 480))
    with pytest.raises(ValueError, match=r"Test_Set/dog is no class of train \(cat, emu\)"):
        ImageFolder(root=str(root), learned_classes=["cat", "emu"], input_shape=[3, 8, 8])


def test_an_evaluation_takes_class_folders_as_test_when_told_so(tmp_path):
    """Bare ones, of some of the classes; of a folder with splits it says which to type."""
    learned = {"learned_classes": ["ant", "cat", "dog"], "input_shape": [3, 8, 8]}
    root = build(tmp_path / "P", "{cat,dog}/1.jpg")
    source = ImageFolder(root=str(root), **learned, all_is_test=True)
    assert source.test().labels.tolist() == [1, 2] and source.load().classes == ["ant", "cat", "dog"]
    one = build(tmp_path / "Q", "dog/{1,2}.jpg")
    assert ImageFolder(root=str(one), **learned, all_is_test=True).test().labels.tolist() == [2, 2]
    split = build(tmp_path / "R", "train/{ant,cat,dog}/1.jpg test/{ant,cat,dog}/1.jpg")
    with pytest.raises(ValueError, match=r"has train/ and test/; split=all .*, as in data.root=.*/test$"):
        ImageFolder(root=str(split), **learned, all_is_test=True)
    assert len(ImageFolder(root=str(split / "test"), **learned, all_is_test=True).test()) == 3
    for bare in (root, one):
        with pytest.raises(ValueError, match=r"has no test/ folder; add split=val .* split=all"):
            ImageFolder(root=str(bare), **learned).test()


def test_the_share_that_was_held_out_is_said():
    assert _held_out(0.1, 18, 2, "train") == "10 % of train, stratified"
    assert _held_out(0.1, 40, 40, "train") == "50 % of train, stratified, not 10 %: a class gives one and keeps one"

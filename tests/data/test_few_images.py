"""train_images, validate.images and overfit: which images are used, and that no others are read."""

import numpy as np
import pytest
from PIL import Image

from deeptrain.data import image_files
from deeptrain.data.image_folder import ImageFolder
from deeptrain.data.synthetic import Synthetic


def tree(root, *parts, each):
    """Make folders of two classes with `each` pictures."""
    for number, part in enumerate(parts):
        for label, name in enumerate(("cat", "dog")):
            (root / part / name).mkdir(parents=True)
            for index in range(each):
                pixels = np.random.default_rng((number, label, index)).integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{index}.png")
    return root


@pytest.fixture
def decoded(monkeypatch):
    """The names of the files that are decoded."""
    names = []

    def decode_all(decoder, files, decode=image_files.decode_all):
        names.extend(files)
        return decode(decoder, files)

    monkeypatch.setattr(image_files, "decode_all", decode_all)
    return names


@pytest.mark.parametrize("parts", [["train"], ["train", "val"], ["train", "val", "test"]])
def test_only_the_files_that_are_used_are_decoded(tmp_path, decoded, parts):
    source = ImageFolder(root=str(tree(tmp_path, *parts, each=30)), train_images=8, val_images=4)
    dataset = source.load()
    assert len(decoded) == 12 and (len(dataset.train), len(dataset.val)) == (8, 4)
    assert np.bincount(dataset.train.labels).tolist() == [4, 4]
    assert not set(dataset.train.files) & set(dataset.val.files)
    assert "train 8 of" in dataset.summary and "val 4 of" in dataset.summary


def test_the_same_files_are_chosen_from_decoded_and_from_streamed_pictures(tmp_path):
    root = str(tree(tmp_path, "train", each=30))
    few, streamed = (
        ImageFolder(root=root, train_images=6, val_images=2, loader=loader).load() for loader in ("auto", "stream")
    )
    assert few.train.files == streamed.train.files and few.val.files == streamed.val.files
    assert np.allclose(few.mean, streamed.mean) and few.split == streamed.split


def test_the_held_out_images_stay_those_of_the_whole_set(tmp_path):
    root = str(tree(tmp_path, "train", each=30))
    whole, few = ImageFolder(root=root).load(), ImageFolder(root=root, train_images=6, val_images=2).load()
    assert whole.split == few.split
    assert set(few.train.files) < set(whole.train.files) and set(few.val.files) < set(whole.val.files)


@pytest.mark.parametrize("parts", [["train"], ["train", "val"]])
def test_val_can_be_what_is_trained_on(tmp_path, decoded, parts):
    root = str(tree(tmp_path, *parts, each=30))
    dataset = ImageFolder(root=root, train_images=6, val_images="train").load()
    assert dataset.train.files == dataset.val.files and len(decoded) == 6
    assert "val the same images" in dataset.summary and dataset.split["source"] == "the training images themselves"


def test_arrays_are_chosen_alike():
    dataset = Synthetic(size=200, train_images=30, val_images=7).load()
    assert np.bincount(dataset.train.labels).tolist() == [3] * 10 and len(dataset.val) == 7
    same = Synthetic(size=200, train_images=30, val_images="train").load()
    assert np.array_equal(np.asarray(same.val.images), np.asarray(dataset.train.images))


def test_more_than_there_are_is_refused_and_classes_without_images_are_said():
    with pytest.raises(ValueError, match="train_images=300: must be at most 180"):
        Synthetic(size=200, train_images=300).load()
    notes = Synthetic(size=200, train_images=4).load().notes
    assert notes == ["train_images=4: 6 of 10 classes have no training image"]

"""Images of val and test that are trained on are told, with both names; a few doubles of a large set are not."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from deeptrain.build import open_setup
from deeptrain.config.compose import compose_run
from deeptrain.data.array_source import ArraySource
from deeptrain.data.dataset import Dataset, Samples
from deeptrain.data.gates import Gates
from deeptrain.data.image_folder import ImageFolder
from deeptrain.data.leaks import describe_leaks, shared_images
from deeptrain.data.npz_file import NPZFile
from deeptrain.data.synthetic import Synthetic


def write_pictures(root, *parts, each=5):
    """Make folders of two classes with `each` pictures of noise; no two are the same."""
    for part in parts:
        for name in ("cats", "dogs"):
            (root / part / name).mkdir(parents=True)
            for index in range(each):
                rng = np.random.default_rng((*f"{part}{name}".encode(), index))
                pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{index}.png")
    return root


def leaks_of(source, cache_dir=None):
    return describe_leaks(source, source.load(cache_dir))


def noise(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 1), np.uint8)


def link_folder(train, other):
    other.symlink_to(train)


def link_files(train, other):
    for path in train.rglob("*.png"):
        (other / path.parent.name).mkdir(parents=True, exist_ok=True)
        os.link(path, other / path.parent.name / path.name)


@pytest.mark.parametrize("loader", ["resident", "stream"])
@pytest.mark.parametrize("double", [link_folder, link_files, shutil.copytree])
def test_val_that_is_train(tmp_path, loader, double):
    write_pictures(tmp_path, "train")
    double(tmp_path / "train", tmp_path / "val")
    (line,) = leaks_of(ImageFolder(root=str(tmp_path), loader=loader))
    assert line.startswith("10 of 10 images of val are in train too (val/cats/0.png is train/cats/0.png), ")
    assert line.endswith(f"check_data.py {tmp_path} --all lists all")


@pytest.mark.parametrize("loader", ["resident", "stream"])
def test_a_copy_under_another_name_and_class(tmp_path, loader):
    write_pictures(tmp_path, "train", "val")
    assert not leaks_of(ImageFolder(root=str(tmp_path), loader=loader))
    shutil.copy(tmp_path / "train/cats/3.png", tmp_path / "val/dogs/other.png")
    (line,) = leaks_of(ImageFolder(root=str(tmp_path), loader=loader))
    assert "1 of 11 images of val are in train too, 1 of them under another class" in line
    assert "val/dogs/other.png is train/cats/3.png" in line


def test_pictures_that_are_there_twice_before_val_is_held_out(tmp_path):
    write_pictures(tmp_path, "train")
    for name in ("cats", "dogs"):
        shutil.copytree(tmp_path / "train" / name, tmp_path / "train" / name / "again")
    (line,) = leaks_of(ImageFolder(root=str(tmp_path / "train"), val_fraction=0.3))
    assert "of 6 images of val are in train too" in line


@pytest.mark.parametrize("double", [link_folder, link_files])
def test_linked_test_pictures_are_told_without_being_read(tmp_path, double, monkeypatch):
    write_pictures(tmp_path, "train", "val")
    double(tmp_path / "train", tmp_path / "test")
    monkeypatch.setattr(ImageFolder, "test", lambda *_: pytest.fail("test was opened"))
    (line,) = leaks_of(ImageFolder(root=str(tmp_path)))
    assert line.startswith("10 of 10 images of test are in train too (test/cats/0.png is train/cats/0.png), ")


def test_arrays_with_the_same_images(tmp_path):
    images = noise(30)
    arrays = {"train_images": images[:20], "val_images": np.concatenate([images[5:7], images[20:]])}
    np.savez(tmp_path / "data.npz", **arrays, train_labels=np.arange(20) % 2, val_labels=np.arange(12) % 2)
    (line,) = leaks_of(NPZFile(file=str(tmp_path / "data.npz")), tmp_path / "cache")
    assert "2 of 12 images of val are in train too, 2 of them under another class (image 0 is image 5 of train" in line


def test_images_held_out_are_named_by_their_number_in_the_source():
    class Doubled(ArraySource):
        name = "doubled"

        def class_names(self):
            return ["a", "b"]

        def read_split(self, split):
            return np.concatenate([noise(50), noise(50)]), np.arange(100) // 50 % 2

    source = Doubled()
    (line,) = leaks_of(source)
    dataset = source.load()
    train, val = shared_images(dataset.train, dataset.val)[0]
    rows = dataset.train.images.rows[train], dataset.val.images.rows[val]
    assert rows[0] % 50 == rows[1] % 50 and f"image {rows[1]} is image {rows[0]} of train, counted from 0" in line


def test_samples_of_a_source_that_gives_no_keys():
    train, val = Samples(noise(20), None, np.zeros(20, int)), Samples(noise(5), None, np.zeros(5, int))
    assert shared_images(train, val) == [(index, index) for index in range(5)]
    assert shared_images(train, Samples(noise(5, seed=1), None, np.zeros(5, int))) == []
    assert shared_images(Samples(None, [], np.zeros(0, int)), val) == []


def test_other_images_with_the_same_sums_are_no_leak():
    """A picture and its mirror image have the same sums, and black and white ones often have."""
    images = np.where(noise(200) > 127, 255, 0).astype(np.uint8)
    labels = np.zeros(200, int)
    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    assert shared_images(Samples(images, None, labels), Samples(mirrored, None, labels)) == []


def test_large_files_that_differ_between_the_sampled_pieces_are_no_leak(tmp_path):
    for part in ("train", "val"):
        for index, name in enumerate(("cats", "dogs")):
            pixels = np.zeros((300, 300, 3), np.uint8)
            pixels[20, :, index] = 100 if part == "train" else 200
            (tmp_path / part / name).mkdir(parents=True)
            Image.fromarray(pixels).save(tmp_path / part / name / "0.bmp")
    dataset = ImageFolder(root=str(tmp_path), loader="stream").load()
    assert len(np.unique(np.concatenate([dataset.train.keys, dataset.val.keys]))) == 1
    assert shared_images(dataset.train, dataset.val) == []


@pytest.mark.parametrize(("doubles", "is_told"), [(1, False), (2, True)])
def test_fewer_than_one_in_a_hundred_are_not_told(doubles, is_told):
    images, source = noise(400), Synthetic()
    val = np.concatenate([images[:doubles], images[200 : 400 - doubles]])
    samples = Samples(images[:200], None, np.zeros(200, int)), Samples(val, None, np.zeros(200, int))
    dataset = Dataset("", ["a"], (1, 8, 8), *samples, np.zeros(1), np.ones(1), "", "", {})
    assert bool(describe_leaks(source, dataset)) is is_told


def test_sets_whose_val_is_train_on_purpose():
    assert not leaks_of(Gates())
    assert not leaks_of(Synthetic(size=50, val_images="train"))
    assert not leaks_of(Synthetic(size=50))


def test_a_run_tells_it(tmp_path):
    write_pictures(tmp_path, "train")
    link_folder(tmp_path / "train", tmp_path / "val")
    words = ["data=image_folder", f"data.root={tmp_path}", "model=fcn", f"cache_dir={tmp_path / 'cache'}"]
    assert any("10 of 10 images of val are in train too" in line for line in open_setup(compose_run(words)).warnings)

"""k-fold cross-validation: every kind of data holds out each of its training images once, and opens no test file."""

import numpy as np
import pytest
from PIL import Image

from deeptrain.data.csv_file import CSVFile
from deeptrain.data.digits import Digits
from deeptrain.data.gates import Gates
from deeptrain.data.image_folder import ImageFolder
from deeptrain.data.npz_file import NPZFile
from deeptrain.data.synthetic import Synthetic

FOLDS, IMAGES = 3, 20


def pictures(root, part=""):
    for index in range(IMAGES):
        path = root / part / ("cat", "dog")[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(path)
    return root


def folder(root, **settings):
    pictures(root, "train")
    (root / "test" / "cat").mkdir(parents=True)
    (root / "test" / "cat" / "0.png").write_bytes(b"not to be opened")
    return ImageFolder(root=str(root), **settings)


def listed(root, **settings):
    files = sorted(pictures(root).glob("*/*.png"))
    lines = [f"{file.relative_to(root)},{file.parent.name}" for file in files]
    (root / "labels.csv").write_text("\n".join(["file,label", *lines]))
    return CSVFile(file=str(root / "labels.csv"), **settings)


def arrays(root, **settings):
    images = np.repeat(np.arange(IMAGES, dtype=np.uint8), 64).reshape(IMAGES, 8, 8)
    np.savez(root / "data.npz", train_images=images, train_labels=np.arange(IMAGES) % 2)
    return NPZFile(file=str(root / "data.npz"), **settings)


KINDS = {
    "digits": lambda root, **settings: Digits(**settings),
    "synthetic": lambda root, **settings: Synthetic(size=60, **settings),
    "npz": arrays,
    "csv": listed,
    "folder, resident": folder,
    "folder, streamed": lambda root, **settings: folder(root, loader="stream", **settings),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_training_image_is_held_out_once(tmp_path, kind):
    held, whole = [], None
    for fold in range(FOLDS):
        (root := tmp_path / str(fold)).mkdir()
        dataset = KINDS[kind](root, folds=FOLDS, fold=fold).load()
        whole = len(dataset.train) + len(dataset.val) if whole is None else whole
        assert len(dataset.train) + len(dataset.val) == whole and len(dataset.val) == len(dataset.split["val"])
        held += dataset.split["val"]
        assert f"fold {fold} of {FOLDS} of train" in dataset.summary and "from 0, stratified" in dataset.summary
        assert dataset.split["folds"] == FOLDS and dataset.split["fold"] == fold
    assert sorted(held) == list(range(whole or 0))


def test_streamed_pictures_have_the_statistics_of_their_own_fold(tmp_path):
    """They are kept in the cache, under the fold."""
    source = folder(tmp_path, loader="stream", folds=2, fold=0)
    first = source.load()
    source.fold = 1
    assert not np.array_equal(first.mean, source.load().mean)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: Gates(folds=2, fold=0), "validation images of their own"),
        (lambda root: Digits(folds=200, fold=0), "the smallest class has 139 images.*write folds=139"),
        (lambda root: arrays(root, folds=11, fold=0), "has 10 images"),
        (lambda root: Digits(folds=3, fold=3), "must be from 0 to 2"),
        (lambda root: Digits(folds=3), "fold=None: must be from 0 to 2"),
        (lambda root: Digits(folds=3, fold=0, val_images="train"), "leave out one"),
    ],
)
def test_where_there_are_no_such_folds_a_line_says_what_then(tmp_path, make, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path).load()


def test_without_folds_nothing_is_held_out_otherwise():
    assert "folds" not in Digits().load().split

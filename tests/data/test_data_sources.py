"""The built-in sources: what they hold, what they say, what they refuse, and what starting them imports."""

import gzip
import hashlib
import pickle  # the format of the CIFAR files
import subprocess
import sys

import numpy as np
import pytest

from deeptrain.data import torchvision_sets
from deeptrain.data.digits import Digits, read_digits
from deeptrain.data.synthetic import Synthetic
from deeptrain.data.torchvision_sets import SPECS, TorchvisionSet, read_idx

MNIST_FILES = SPECS["mnist"].train + SPECS["mnist"].test


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def write_mnist(root, train=100, test=20):
    rng = np.random.default_rng(0)
    for (images, labels), count in zip((MNIST_FILES[:2], MNIST_FILES[2:]), (train, test), strict=True):
        (root / images).parent.mkdir(parents=True, exist_ok=True)
        (root / images).write_bytes(idx(rng.integers(0, 256, (count, 28, 28))))
        (root / labels).write_bytes(idx(np.arange(count) % 10))
    return root


def test_digits_are_scikit_learns_in_three_parts_without_overlap():
    from sklearn.datasets import load_digits

    images, labels = read_digits()
    reference = load_digits()
    assert np.array_equal(images[..., 0], (reference.images * 255 / 16).round())
    assert np.array_equal(labels, reference.target)

    dataset, test = Digits().load(), Digits().test()
    parts = [np.asarray(part.images).reshape(len(part), -1) for part in (dataset.train, dataset.val, test)]
    assert [len(part) for part in parts] == [1150, 288, 359]
    together = np.concatenate(parts)
    assert sorted(map(bytes, together)) == sorted(map(bytes, images.reshape(1797, -1)))
    assert dataset.image_shape == (1, 8, 8) and dataset.classes == list("0123456789")
    assert dataset.summary == (
        "digits: 10 classes, 1x8x8, train 1,150, val 288 (20 % of train, stratified), test 359 kept shut"
    )


def test_the_split_seed_moves_validation_but_not_test():
    one, two = Digits(split_seed=1), Digits(split_seed=2)
    assert one.load().split["val"] != two.load().split["val"]
    assert np.array_equal(one.test().images, two.test().images)
    assert one.load().split == Digits(split_seed=1).load().split


def test_statistics_are_those_of_train_alone():
    dataset = Synthetic(shape=[3, 9, 7], size=300).load()
    train = np.asarray(dataset.train.images, np.float64)
    np.testing.assert_allclose(dataset.mean, train.mean((0, 1, 2)))
    np.testing.assert_allclose(dataset.std, train.std((0, 1, 2)))


def test_given_statistics_are_scaled_to_bytes():
    dataset = Digits(mean=[0.5], std=[0.25]).load()
    assert dataset.mean == 127.5 and dataset.std == 63.75
    half = Digits(mean=[0.5]).load()
    assert half.mean == 127.5 and np.array_equal(half.std, Digits().load().std)
    with pytest.raises(ValueError, match=r"^mean=\[0.5, 0.5, 0.5\]: must have one value for each of 1 channels"):
        Digits(mean=[0.5, 0.5, 0.5]).load()


@pytest.mark.parametrize("shape", [[1, 8, 8], [3, 5, 11], [3, 32, 32]])
def test_synthetic_has_any_shape_and_its_patterns_carry_over_to_test(shape):
    source = Synthetic(shape=shape, num_classes=7, size=350)
    dataset, test = source.load(), source.test()
    assert dataset.image_shape == tuple(shape) and len(dataset.classes) == 7
    train = np.asarray(dataset.train.images, np.float64).reshape(len(dataset.train), -1)
    centres = np.stack([train[dataset.train.labels == label].mean(0) for label in range(7)])
    distances = ((np.asarray(test.images, np.float64).reshape(len(test), 1, -1) - centres) ** 2).sum(2)
    assert (distances.argmin(1) == test.labels).mean() > 0.9


def test_settings_without_effect_say_so():
    assert Digits(root="x").load().notes == [
        "data.root has no effect: digits come with scikit-learn; data=image_folder reads your own pictures"
    ]
    assert Digits().load().notes == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Digits(val_fraction=0.0), "val_fraction=0.0: must be > 0 and < 1"),
        (lambda: Digits(loader="residnt"), "loader=residnt: did you mean resident?"),
        (lambda: Digits(crop_padding=-1), "crop_padding=-1: must be >= 0"),
        (lambda: Synthetic(shape=[2, 8, 8]), "shape=[2, 8, 8]: must be [channels,height,width]"),
        (lambda: Synthetic(size=10), "size=10: must be at least 20"),
    ],
)
def test_wrong_settings_are_refused_with_what_is_allowed(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value).startswith(message)


# --- sets in torchvision's layout ------------------------------------------------------------------------------------


def test_mnist_is_read_as_torchvision_lays_it_out(tmp_path):
    source = TorchvisionSet("mnist", root=str(write_mnist(tmp_path)))
    dataset, test = source.load(), source.test()
    images = read_idx(tmp_path / MNIST_FILES[0])
    held = dataset.split["val"]
    assert np.array_equal(np.asarray(dataset.val.images)[..., 0], images[held])
    assert np.array_equal(np.asarray(dataset.train.images)[..., 0], np.delete(images, held, 0))
    assert len(test) == 20 and dataset.image_shape == (1, 28, 28)


def test_training_does_not_open_the_test_files(tmp_path):
    write_mnist(tmp_path)
    for name in MNIST_FILES[2:]:
        (tmp_path / name).write_bytes(b"garbage")
    source = TorchvisionSet("mnist", root=str(tmp_path))
    assert len(source.load().train) == 90
    with pytest.raises(ValueError, match="damaged, or not an IDX file"):
        source.test()


@pytest.mark.parametrize("damage", [b"", b"\0\0", b"\0\0\x08\x01\0\0\0\x05abc", b"\0\0\x0d\x01\0\0\0\x01a"])
def test_a_damaged_idx_file_is_named(tmp_path, damage):
    (tmp_path / "file").write_bytes(damage)
    with pytest.raises(ValueError, match="file: damaged"):
        read_idx(tmp_path / "file")


def test_a_changed_file_is_read_again(tmp_path):
    source = TorchvisionSet("mnist", root=str(write_mnist(tmp_path)))
    before = source.load()
    write_mnist(tmp_path, train=80)
    assert (len(before.train), len(source.load().train)) == (90, 70)
    assert before.fingerprint != source.load().fingerprint


def test_a_missing_set_says_what_lies_there_and_what_to_type(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(ValueError) as error:
        TorchvisionSet("cifar10", root=str(tmp_path / "deep" / "down"))
    message = str(error.value)
    assert message.startswith(f"root={tmp_path}/deep/down: no CIFAR10 here") and "\n" not in message
    assert f"{tmp_path} does, and holds photos/" in message and message.endswith("data.download=true fetches it")
    assert not (tmp_path / "deep").exists()

    write_mnist(tmp_path)
    with pytest.raises(ValueError, match=f"did you mean data.root={tmp_path}"):
        TorchvisionSet("mnist", root=str(tmp_path / "MNIST"))

    (tmp_path / "pictures" / "train").mkdir(parents=True)
    with pytest.raises(ValueError, match="folders of pictures are read with data=image_folder"):
        TorchvisionSet("cifar10", root=str(tmp_path / "pictures"))


def fake_torchvision(monkeypatch, calls, failure=None):
    def reader(root, train, download):
        calls.append(root)
        if failure:
            raise failure
        write_mnist(root)
        (root / "MNIST" / "raw" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b""))

    monkeypatch.setattr(torchvision_sets, "_torchvision", lambda name: reader)


def test_a_download_arrives_whole_and_is_not_repeated(tmp_path, monkeypatch):
    calls = []
    fake_torchvision(monkeypatch, calls)
    root = tmp_path / "new" / "data"
    assert len(TorchvisionSet("mnist", root=str(root), download=True).load().train) == 90
    assert {path.parent for path in calls} == {root} and all(path.name.startswith(".download-") for path in calls)
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*ubyte*")) == sorted(MNIST_FILES)
    assert [path.name for path in root.iterdir()] == ["MNIST"]
    TorchvisionSet("mnist", root=str(root), download=True).test()
    assert len(calls) == 2


def test_a_failed_download_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    fake_torchvision(monkeypatch, [], OSError("<urlopen error no route>"))
    with pytest.raises(ValueError, match=r"^download=true: MNIST could not be fetched into .*no route"):
        TorchvisionSet("mnist", root=str(tmp_path / "not" / "there"), download=True).load()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_download_left_is_removed_by_the_next(tmp_path, monkeypatch):
    """But not what another user is fetching into the same folder, with a cache and so a lock of their own."""
    calls, theirs = [], tmp_path / ".download-of-another-user"
    fake_torchvision(monkeypatch, calls, KeyboardInterrupt())
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(torchvision_sets.shutil, "rmtree", lambda *_, **__: None)
        TorchvisionSet("mnist", root=str(tmp_path), download=True).load()
    theirs.mkdir()
    assert calls[0].is_dir()
    fake_torchvision(monkeypatch, calls)
    TorchvisionSet("mnist", root=str(tmp_path), download=True).load()
    assert sorted(path.name for path in tmp_path.iterdir()) == [theirs.name, "MNIST"]


def write_cifar(root, monkeypatch):
    """A small CIFAR-10 in torchvision's files, with garbage where the test batch belongs."""
    from torchvision import datasets

    rng = np.random.default_rng(0)
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    images = rng.integers(0, 256, (5, 20, 3072), np.uint8)
    contents = {f"data_batch_{i + 1}": {"data": images[i], "labels": [*range(10)] * 2} for i in range(5)}
    contents["batches.meta"] = {"label_names": list(SPECS["cifar10"].classes)}
    for name, content in contents.items():
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "test_batch").write_bytes(b"garbage")
    sums = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in contents}
    train = [[name, sums[name]] for name in contents if name != "batches.meta"]
    meta = {**datasets.CIFAR10.meta, "md5": sums["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "train_list", train)
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return images.reshape(100, 3, 32, 32).transpose(0, 2, 3, 1)


def test_cifar_is_read_by_torchvision_once_and_its_test_batch_is_not(tmp_path, monkeypatch):
    images = write_cifar(tmp_path / "data", monkeypatch)
    source = TorchvisionSet("cifar10", root=str(tmp_path / "data"))
    dataset = source.load(tmp_path / "cache")
    assert np.array_equal(np.asarray(dataset.val.images), images[dataset.split["val"]])
    assert np.bincount(dataset.val.labels).tolist() == [1] * 10
    with pytest.raises(ValueError, match=r"^root=.*: CIFAR10 cannot be read"):
        source.test(tmp_path / "cache")

    monkeypatch.setattr(torchvision_sets, "_torchvision", None)  # the second start must not need it
    again = source.load(tmp_path / "cache")
    assert again.fingerprint == dataset.fingerprint and np.array_equal(again.mean, dataset.mean)


def test_svhn_comes_out_upright_and_in_colour(tmp_path, monkeypatch):
    from scipy.io import savemat
    from torchvision import datasets

    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    labels = np.arange(40) % 10
    file = tmp_path / "train_32x32.mat"
    savemat(file, {"X": images.transpose(1, 2, 3, 0), "y": np.where(labels, labels, 10)[:, None]})
    known = {"train": ["", file.name, hashlib.md5(file.read_bytes()).hexdigest()]}
    monkeypatch.setattr(datasets.SVHN, "split_list", known)
    dataset = TorchvisionSet("svhn", root=str(tmp_path)).load()
    held = dataset.split["val"]
    assert np.array_equal(np.asarray(dataset.val.images), images[held])
    assert np.array_equal(dataset.val.labels, labels[held])


def test_class_tables_are_as_long_as_the_sets_say():
    assert [len(known.classes) for known in SPECS.values()] == [10, 10, 10, 10, 100, 10]
    assert list(SPECS["cifar100"].classes) == sorted(set(SPECS["cifar100"].classes))


# --- start-up --------------------------------------------------------------------------------------------------------

START = """
import sys
from deeptrain.data.{module} import {kind}
dataset = {kind}({arguments}).load({cache!r})
heavy = {{"torch", "torchvision", "sklearn", "scipy", "PIL"}} & set(sys.modules)
print(len(dataset.train), sorted(heavy))
"""


def start(module, kind, arguments, cache):
    code = START.format(module=module, kind=kind, arguments=arguments, cache=str(cache))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_a_first_start_on_digits_and_mnist_imports_no_heavy_library(tmp_path):
    assert start("digits", "Digits", "", tmp_path) == "1150 []"
    root = write_mnist(tmp_path / "data")
    assert start("torchvision_sets", "TorchvisionSet", f"'mnist', root={str(root)!r}", tmp_path / "c") == "90 []"


def test_a_second_start_imports_neither_torchvision_nor_pil(tmp_path, monkeypatch):
    from PIL import Image

    write_cifar(tmp_path / "data", monkeypatch)
    TorchvisionSet("cifar10", root=str(tmp_path / "data")).load(tmp_path / "cache")
    arguments = f"'cifar10', root={str(tmp_path / 'data')!r}"
    assert start("torchvision_sets", "TorchvisionSet", arguments, tmp_path / "cache") == "90 []"

    for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"):
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(tmp_path / "pets" / name)
    arguments = f"root={str(tmp_path / 'pets')!r}"
    assert start("image_folder", "ImageFolder", arguments, tmp_path / "cache") == "2 ['PIL']"
    assert start("image_folder", "ImageFolder", arguments, tmp_path / "cache") == "2 []"


def test_nothing_is_written_into_the_data_folder(tmp_path):
    root = write_mnist(tmp_path / "data")
    before = sorted(root.rglob("*"))
    for path in (root, *before):
        path.chmod(0o555 if path.is_dir() else 0o444)
    source = TorchvisionSet("mnist", root=str(root))
    source.load(tmp_path / "cache")
    source.test(tmp_path / "cache")
    assert sorted(root.rglob("*")) == before

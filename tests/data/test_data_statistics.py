"""What is measured on train where a part asks for it: the colours' covariance and the whitening of images."""

import numpy as np
import pytest
import torch
from PIL import Image

from deeptrain import build
from deeptrain.aug import whitening
from deeptrain.config.compose import compose_run
from deeptrain.data import statistics
from deeptrain.data.image_folder import ImageFolder
from deeptrain.data.synthetic import Synthetic
from deeptrain.errors import UsageError
from deeptrain.inference.evaluate import evaluate_run
from deeptrain.run.launch import main as start
from deeptrain.training import checkpoint

TINY = ["data=synthetic", "data.shape=[3,8,8]", "data.size=400", "model=fcn", "model.hidden=[8]"]


def pictures(root, count=12, size=40):
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.random.default_rng(label * 100 + index).integers(0, 256, (size, size, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    return root


@pytest.mark.parametrize("shape", [[3, 6, 5], [1, 8, 8]])
def test_covariance_is_that_of_trains_pixels(shape):
    dataset = Synthetic(shape=shape, size=300).load()
    pixels = np.asarray(dataset.train.images).reshape(-1, shape[0]).astype(float)
    found = statistics.covariance(dataset)
    np.testing.assert_allclose(found, np.atleast_2d(np.cov(pixels.T, bias=True)), rtol=1e-9)
    np.testing.assert_allclose(np.sqrt(np.diag(found)), dataset.std, rtol=1e-9)


def test_a_large_set_is_measured_on_a_spread(monkeypatch):
    monkeypatch.setattr(statistics, "COVARIANCE_IMAGES", 50)
    dataset = Synthetic(size=400).load()
    pixels = np.asarray(dataset.train.evenly_spaced(50).images).reshape(-1, 3).astype(float)
    np.testing.assert_allclose(statistics.covariance(dataset), np.cov(pixels.T, bias=True), rtol=1e-9)


def test_pictures_that_are_streamed_are_decoded_once(tmp_path, monkeypatch):
    dataset = ImageFolder(root=str(pictures(tmp_path / "root")), loader="stream").load(tmp_path / "cache")
    assert dataset.train.images is None
    found = statistics.covariance(dataset, tmp_path / "cache")
    pixels = np.stack([np.asarray(Image.open(file)) for file in dataset.train.files]).reshape(-1, 3).astype(float)
    np.testing.assert_allclose(found, np.cov(pixels.T, bias=True), rtol=1e-9)
    monkeypatch.setattr(statistics, "decode_all", None)
    np.testing.assert_array_equal(statistics.covariance(dataset, tmp_path / "cache"), found)


def test_covariance_is_computed_only_if_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(statistics, "covariance", lambda *rest: asked.append(rest) or np.eye(3))
    build.open_setup(compose_run([*TINY, "aug=[cutout,mixup]"]))
    assert not asked
    setup = build.open_setup(compose_run([*TINY, "aug=pca_jitter", "aug.pca_jitter.probability=0.5"]))
    assert len(asked) == 1
    (applied,) = setup.pipeline.augmentations
    assert applied.probability == 0.5 and np.array_equal(np.abs(applied.augmentation.colours), np.eye(3))


@pytest.mark.parametrize("kind", ["pca", "zca"])
def test_whitening_makes_train_white(kind):
    setup = build.open_setup(compose_run([*TINY, f"data.whiten={kind}", "data.whiten_eps=1e-6"]))
    images = torch.from_numpy(np.asarray(setup.dataset.train.images)).permute(0, 3, 1, 2)
    values = setup.pipeline.evaluate(images).flatten(1).double()
    assert len(images) < whitening.FIT_IMAGES
    torch.testing.assert_close(values.T @ values / len(values), torch.eye(192).double(), rtol=0, atol=0.02)
    assert build.open_setup(compose_run(TINY)).pipeline.whitening is None


def test_what_takes_long_is_kept_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(whitening, "MAX_UNCACHED_VALUES", 10)
    words = [*TINY, "data.whiten=zca", f"cache_dir={tmp_path}"]
    first = build.open_setup(compose_run(words)).pipeline.whitening
    other = build.open_setup(compose_run([*words, "data.whiten_eps=0.5"])).pipeline.whitening
    monkeypatch.setattr(whitening.Whitening, "fit", None)
    again = build.open_setup(compose_run(words)).pipeline.whitening
    assert torch.equal(first.weight, again.weight) and torch.equal(first.bias, again.bias)
    assert not torch.equal(first.weight, other.weight)
    assert len(list(tmp_path.glob("measured-*/entry.json"))) == 2


def test_too_many_values_are_refused_in_a_line():
    with pytest.raises(UsageError) as error:
        build.open_setup(compose_run([*TINY, "data.shape=[3,40,40]", "data.whiten=pca"]))
    (line,) = error.value.lines
    assert line.startswith("data.whiten=pca: an image has 4,800 values, each computed from all; more than 4,096 are")


@pytest.mark.parametrize("word", ["data.whiten=zac", "data.whiten_eps=0"])
def test_mistakes_are_named(word):
    with pytest.raises(UsageError, match=rf"^{word}: "):
        compose_run([*TINY, word])


@pytest.mark.parametrize("kind", ["pca", "zca"])
def test_evaluation_gives_the_bits_of_training(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    words = [*TINY, f"data.whiten={kind}", "epochs=2", "dir=run", "loggers=none", "device=cpu"]
    assert start(words) == 0
    state = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt")
    found = evaluate_run(compose_run(words), tmp_path / "run" / "checkpoints" / "last.pt", "val").metrics
    assert found["loss"] == state["progress"]["metrics"]["loss/val"]
    assert found["accuracy"] == state["progress"]["metrics"]["accuracy/val"]

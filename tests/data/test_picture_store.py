"""Whole pictures in the cache: windows with the bits of the files, whatever the workers, the sizes and the disk do."""

import pickle
import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch
from PIL import Image

from deeptrain.data import picture_store
from deeptrain.data.image_folder import ImageFolder
from deeptrain.data.loader import make_loader

SMALL, LARGE = (300, 170), (900, 700)  # of the large one a JPEG is decoded at a half for some short sides


def write_pictures(root, *sizes, mode="RGB", each=3):
    rng = np.random.default_rng(0)
    for number, size in enumerate(sizes):
        for index in range(each):
            path = root / f"class{number}" / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = rng.integers(0, 256, (12, 16, 3), np.uint8)
            Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path)


def load(root, cache, **settings):
    """Return a folder's loaders of train and val, and its lines; large pictures have windows of 160 pixels."""
    settings = {"root": str(root), "image_size": 160, "cache": cache, "val_fraction": 0.34, **settings}
    source = ImageFolder(**settings)
    dataset = source.load(root.parent / "cache")
    options = {"batch_size": 2, "device": torch.device("cpu"), "workers": 0}
    return (
        make_loader(source, dataset.train, train=True, **options),
        make_loader(source, dataset.val, **options),
        [note for note in dataset.notes if "cache" in note],
    )


def pixels(loader, epoch=1):
    return torch.cat([images for images, _ in loader.epoch(epoch)])


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_auto_keeps_the_bits_of_pictures_of_all_sizes(tmp_path, mode, resize):
    write_pictures(tmp_path / "data", SMALL, LARGE, mode=mode)
    train, val, _ = load(tmp_path / "data", "none", resize=resize)
    kept, kept_val, lines = load(tmp_path / "data", "auto", resize=resize)
    assert kept.dataset.store.exact.sum() == 2 and len(kept.dataset.store.exact) == 4
    assert torch.equal(pixels(kept), pixels(train)) and torch.equal(pixels(kept_val), pixels(val))
    assert lines == ["cache: 3 of 6 pictures in 598 KiB, bits as from files; windows are cut from them"] or mode == "L"


def test_resized_pictures_are_close_to_the_files_and_what_is_measured_is_the_same(tmp_path):
    write_pictures(tmp_path / "data", LARGE, (1000, 640))
    train, val, _ = load(tmp_path / "data", "none")
    kept, kept_val, lines = load(tmp_path / "data", "resized")
    assert (kept.dataset.store.sizes.min(1) == 343).all() and "the large ones at a short side of 343" in lines[0]
    difference = (pixels(kept).float() - pixels(train).float()).abs()
    assert 0 < difference.mean() < 2  # of 255
    assert torch.equal(pixels(kept_val), pixels(val))


def test_the_cache_is_read_instead_of_the_files_and_made_again_when_a_file_changes(tmp_path):
    write_pictures(tmp_path / "data", SMALL, SMALL)
    first = pixels(load(tmp_path / "data", "auto")[0])
    train = load(tmp_path / "data", "auto")[0]
    shutil.move(tmp_path / "data", tmp_path / "elsewhere")
    assert torch.equal(pixels(train), first)
    shutil.move(tmp_path / "elsewhere", tmp_path / "data")
    for path in (tmp_path / "data/class0").iterdir():
        Image.new("RGB", SMALL).save(path)
    assert not torch.equal(pixels(load(tmp_path / "data", "auto")[0]), first)
    assert len(list((tmp_path / "cache").glob("pictures-*[0-9a-f]"))) == 2


def test_a_damaged_cache_is_made_again(tmp_path):
    write_pictures(tmp_path / "data", SMALL, SMALL)
    first = pixels(load(tmp_path / "data", "auto")[0])
    (file,) = (tmp_path / "cache").glob("pictures-*/pixels")
    content = bytearray(file.read_bytes())
    content[1000] ^= 255
    file.write_bytes(content)
    assert torch.equal(pixels(load(tmp_path / "data", "auto")[0]), first)


def test_a_full_disk_is_one_line_and_the_files_are_read(tmp_path, monkeypatch, caplog):
    write_pictures(tmp_path / "data", SMALL, SMALL)
    usage = namedtuple("usage", "free")(1000)
    monkeypatch.setattr(picture_store.shutil, "disk_usage", lambda folder: usage)
    train, _, lines = load(tmp_path / "data", "resized")
    monkeypatch.undo()
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "cannot keep decoded images there: 1.17 MiB are needed, 1000 bytes are free" in line and lines == []
    assert not list((tmp_path / "cache").glob("*pictures-*/"))
    assert torch.equal(pixels(train), pixels(load(tmp_path / "data", "none")[0]))


def test_many_pictures_are_kept_only_if_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(picture_store, "AUTO_BYTES", 10**6)
    write_pictures(tmp_path / "data", SMALL, SMALL)
    train, _, lines = load(tmp_path / "data", "auto")
    assert train.dataset.store is None
    assert lines == ["pictures are decoded anew in every epoch; data.cache=resized keeps them, resized, on disk"]
    assert load(tmp_path / "data", "resized")[0].dataset.store is not None


def test_a_setting_without_effect_says_so(tmp_path):
    write_pictures(tmp_path / "data", SMALL, SMALL)
    _, _, lines = load(tmp_path / "data", "resized", loader="resident")
    assert lines == ["data.cache=resized has no effect: it keeps pictures from which random windows are cut"]


def test_a_process_that_is_not_forked_maps_the_pictures_too(tmp_path):
    write_pictures(tmp_path / "data", SMALL, SMALL, each=6)
    store = load(tmp_path / "data", "auto")[0].dataset.store
    sent = pickle.dumps(store)
    assert len(sent) < 5000 < store.pixels.size
    assert np.array_equal(np.asarray(pickle.loads(sent).get(3)), np.asarray(store.get(3)))


def test_a_split_of_which_no_picture_is_kept_reads_its_files(tmp_path):
    """The survey looks at train; val may hold pictures of other sizes."""
    write_pictures(tmp_path / "data" / "train", SMALL, SMALL)
    write_pictures(tmp_path / "data" / "val", LARGE, LARGE)
    kept, val, _ = load(tmp_path / "data", "auto")
    assert kept.dataset.store.exact.all()
    assert torch.equal(pixels(val), pixels(load(tmp_path / "data", "none")[1]))
    assert torch.equal(pixels(val), pixels(load(tmp_path / "data", "auto")[1])), "a later start finds the empty folder"

"""The loaders: the same bits whatever brings them, every image once, crops and flips as a slow reference makes them."""

from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from deeptrain.data import loader as loader_module
from deeptrain.data.crop_flip import DeviceCrops, HostCrops, sample_epoch
from deeptrain.data.dataset import LazyRows, Samples
from deeptrain.data.decode import Decoder
from deeptrain.data.image_folder import ImageFolder
from deeptrain.data.loader import ResidentLoader, StreamLoader, make_loader

CPU = torch.device("cpu")
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")


def some(count=37, height=10, width=12, channels=3):
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (count, height, width, channels), np.uint8)  # no zeros: those are padding
    return Samples(images, None, rng.integers(0, 5, count))


def collect(loader, epoch=0, first_step=0):
    return [(images.cpu(), labels.cpu()) for images, labels in loader.epoch(epoch, first_step)]


def same(one, two):
    return len(one) == len(two) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("padding", "flip"), [(0, False), (0, True), (3, False), (2, True)])
def test_crops_and_flips_equal_slow_slicing(device, channels, padding, flip):
    samples = some(channels=channels)
    resident = ResidentLoader(samples, 8, device, seed=5, train=True, crop_padding=padding, flip=flip)
    images = torch.cat([images for images, _ in collect(resident, epoch=3)])
    labels = torch.cat([labels for _, labels in collect(resident, epoch=3)])
    draws = sample_epoch(5, 3, 37, padding, flip)
    padded = np.pad(samples.images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    for at, index in enumerate(draws.order):
        down, across = draws.top[at], draws.left[at]
        window = padded[index, down : down + 10, across : across + 12]
        window = window[:, ::-1] if draws.flips[at] else window
        assert np.array_equal(images[at].permute(1, 2, 0), window)
        assert labels[at] == samples.labels[index]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_gather_for_other_devices_makes_the_same_windows(device, channels):
    padded = np.random.default_rng(0).integers(0, 256, (20, 14, 15, channels), np.uint8)
    draws, labels = sample_epoch(0, 1, 20, 2, True), np.arange(20)
    host = HostCrops(draws, padded, 10, 11)
    uploaded = DeviceCrops(draws, labels, torch.from_numpy(padded).to(device), 10, 11)
    for part in (slice(0, 8), slice(8, 20)):
        assert np.array_equal(uploaded.crop_batch(part).cpu(), host.crop_batch(part))
        assert np.array_equal(uploaded.labels[part].cpu(), draws.order[part])


def test_batches_are_bytes_stored_channels_last_on_the_device(device):
    for train in (False, True):
        for kind in (ResidentLoader, StreamLoader):
            images, labels = next(iter(kind(some(), 8, device, 0, train, 2, True).epoch(0)))
            assert images.dtype == torch.uint8 and images.shape == (8, 3, 10, 12)
            assert images.is_contiguous(memory_format=torch.channels_last)
            assert labels.dtype == torch.int64 and images.device.type == labels.device.type == device.type


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_streaming_gives_the_bits_of_the_resident_set(device, workers):
    samples = some()
    arguments = {"seed": 1, "train": True, "crop_padding": 2, "flip": True}
    resident = ResidentLoader(samples, 8, device, **arguments)
    stream = StreamLoader(samples, 8, device, **arguments, workers=workers)
    for epoch in (0, 1, 7):
        assert same(collect(resident, epoch), collect(stream, epoch))
    for first_step in (1, 3, 4, 5):
        expected = collect(resident, 2)[first_step:]
        assert same(expected, collect(resident, 2, first_step)) and same(expected, collect(stream, 2, first_step))


@pytest.mark.parametrize("setting", ["auto", "resident", "stream"])
def test_a_few_batches_need_no_copy_of_the_set_on_the_device(setting, device):
    source, samples = SimpleNamespace(loader=setting, augment=True, crop_padding=2, flip=True), some()
    first, streamed = (
        make_loader(source, samples, batch_size=8, device=device, seed=1, train=True, stream=stream)
        for stream in (False, True)
    )
    assert isinstance(streamed, StreamLoader) and same(collect(first, 1), collect(streamed, 1))


def test_an_abandoned_epoch_leaves_no_trace_in_the_next():
    stream = StreamLoader(some(), 4, CPU, 0, True, 2, True, workers=2)
    expected = collect(stream, 1)
    list(islice(stream.epoch(0), 2))
    assert same(expected, collect(stream, 1))


def test_every_epoch_holds_each_image_once_in_a_new_order():
    images = np.arange(100, dtype=np.uint8).reshape(100, 1, 1, 1)
    resident = ResidentLoader(Samples(images, None, np.arange(100)), 7, CPU, seed=0, train=True)
    orders = [torch.cat([labels for _, labels in resident.epoch(epoch)]).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    pixels = torch.cat([images for images, _ in resident.epoch(0)]).flatten().tolist()
    assert pixels == orders[0]
    other = ResidentLoader(Samples(images, None, np.arange(100)), 7, CPU, seed=1, train=True)
    assert torch.cat([labels for _, labels in other.epoch(0)]).tolist() != orders[0]


def test_flips_are_fair_coins_independent_of_their_neighbours():
    flips = np.concatenate([sample_epoch(0, epoch, 10_000, 4, True).flips for epoch in range(10)])
    count, signs = len(flips), 2.0 * flips - 1
    assert abs(signs.mean()) < 4 / count**0.5
    for distance in (1, 2, 64):
        assert abs((signs[distance:] * signs[:-distance]).mean()) < 4 / count**0.5


def test_crops_are_uniform_and_independent_of_flips():
    draws = [sample_epoch(0, epoch, 9_000, 4, True) for epoch in range(10)]
    down, across = (np.concatenate([getattr(draw, name) for draw in draws]) for name in ("top", "left"))
    flips = np.concatenate([draw.flips for draw in draws])
    counts = np.bincount(down * 9 + across, minlength=81)
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 80 + 4 * (2 * 80) ** 0.5  # chi squared
    assert abs(np.corrcoef(flips, across)[0, 1]) < 4 / len(flips) ** 0.5


def test_the_same_image_is_drawn_anew_each_epoch():
    resident = ResidentLoader(some(), 37, CPU, seed=0, train=True, crop_padding=2, flip=True)
    draws = [sample_epoch(0, epoch, 37, 2, True) for epoch in (0, 1)]
    assert not np.array_equal(draws[0].top, draws[1].top) and not np.array_equal(draws[0].flips, draws[1].flips)
    assert not same(collect(resident, 0), collect(resident, 1)) and same(collect(resident, 1), collect(resident, 1))


def test_evaluation_is_the_samples_as_they_are(device):
    samples = some()
    source = SimpleNamespace(loader="auto", augment=True, crop_padding=4, flip=True)
    for setting in ("resident", "stream"):
        source.loader = setting
        loader = make_loader(source, samples, batch_size=10, device=device, seed=3)
        batches = collect(loader, epoch=9)
        assert [len(labels) for _, labels in batches] == [10, 10, 10, 7] and loader.num_images == 37
        assert np.array_equal(torch.cat([images for images, _ in batches]).permute(0, 2, 3, 1), samples.images)
        assert np.array_equal(torch.cat([labels for _, labels in batches]), samples.labels)


@pytest.mark.parametrize(
    ("count", "batch_size", "train", "sizes"),
    [
        (21, 10, True, [10, 10]),
        (21, 10, False, [10, 10, 1]),
        (22, 10, True, [10, 10, 2]),
        (20, 10, True, [10, 10]),
        (1, 1, True, [1]),
        (3, 1, True, [1, 1, 1]),
        (1, 10, False, [1]),
    ],
)
def test_a_last_training_batch_of_one_image_is_dropped(count, batch_size, train, sizes):
    for kind in (ResidentLoader, StreamLoader):
        loader = kind(some(count), batch_size, CPU, 0, train)
        assert [len(labels) for _, labels in loader.epoch(0)] == sizes
        assert len(loader) == len(sizes) and loader.num_images == sum(sizes)


def test_a_batch_larger_than_the_set_is_refused():
    source = SimpleNamespace(loader="auto", augment=True, crop_padding=0, flip=False)
    with pytest.raises(ValueError, match=r"^batch_size=38: must be at most 37, the number of training images$"):
        make_loader(source, some(), batch_size=38, device=CPU, train=True)


def test_auto_keeps_on_the_device_what_fits(device, monkeypatch):
    source = SimpleNamespace(loader="auto", augment=True, crop_padding=0, flip=False)
    assert isinstance(make_loader(source, some(), batch_size=8, device=device), ResidentLoader)
    monkeypatch.setattr(loader_module, "free_memory", lambda swap=False: 37 * 10 * 12 * 3 * 4 - 1)
    assert isinstance(make_loader(source, some(), batch_size=8, device=CPU), StreamLoader)
    source.loader = "resident"
    assert isinstance(make_loader(source, some(), batch_size=8, device=CPU), ResidentLoader)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({}, "data.loader=resident: needs 13 KiB of memory, 9.77 KiB are free; write data.loader=stream"),
        ({"image_size": None, "loader": "auto"}, "batch_size=8: needs 14.1 KiB of memory, 9.77 KiB are free; take a"),
    ],
)
def test_images_and_batches_larger_than_memory_are_refused_before_they_are_copied(monkeypatch, facts, message):
    source = SimpleNamespace(**{"loader": "resident", "augment": True, "crop_padding": 0, "flip": False, **facts})
    monkeypatch.setattr(loader_module, "free_memory", lambda swap=False: 10_000)
    with pytest.raises(ValueError) as error:
        make_loader(source, some(), batch_size=8 if "image_size" in facts else 1, device=CPU)
    assert str(error.value).startswith(message)
    assert str(error.value).endswith("data.image_size") == ("image_size" in facts)


def test_loading_draws_nothing_from_torchs_own_generator():
    before = torch.get_rng_state()
    for workers in (0, 2):
        collect(StreamLoader(some(), 8, CPU, 0, True, workers=workers))
    collect(ResidentLoader(some(), 8, CPU, 0, True, 2, True))
    assert torch.equal(before, torch.get_rng_state())


def test_a_part_of_a_stored_set_stays_on_disk(tmp_path):
    np.save(tmp_path / "images.npy", some().images)
    stored = Samples(np.load(tmp_path / "images.npy", mmap_mode="r"), None, some().labels)
    rows = np.array([5, 3, 30, 8])
    part = stored.select(rows).select(np.array([2, 0]))
    assert isinstance(part.images, LazyRows) and part.images.store is stored.images
    assert np.array_equal(np.asarray(part.images), some().images[[30, 5]]) and part.images.shape == (2, 10, 12, 3)
    assert part.labels.tolist() == some().labels[[30, 5]].tolist()
    for kind in (ResidentLoader, StreamLoader):
        (images, _), *rest = collect(kind(part, 4, CPU))
        assert not rest and np.array_equal(images.permute(0, 2, 3, 1), some().images[[30, 5]])


def test_a_slice_spread_over_a_sorted_set_has_every_class():
    samples = Samples(np.zeros((100, 1, 1, 1), np.uint8), None, np.repeat(np.arange(10), 10))
    assert np.bincount(samples.evenly_spaced(20).labels).tolist() == [2] * 10
    assert len(samples.evenly_spaced(1000)) == 100


# --- from files ------------------------------------------------------------------------------------------------------


def photos(root, count=11, size=(150, 140)):
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (size[1], size[0], 3), np.uint8)
        path = root / ("cat", "dog")[index % 2] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_large_pictures_have_the_same_bits_for_any_number_of_workers(tmp_path, workers):
    files = sorted(photos(tmp_path).rglob("*.png"))
    samples = Samples(None, files, np.arange(11), Decoder(130, 130, 3, 148, (148, 280)))
    stream = StreamLoader(samples, 3, CPU, 4, True, 0, True, workers)
    for epoch in (0, 1):
        batches = collect(stream, epoch)
        order = np.concatenate([labels for _, labels in batches])
        images = np.concatenate([images.permute(0, 2, 3, 1) for images, _ in batches])
        assert sorted(order) == list(range(11))
        for index, image in zip(order, images, strict=True):
            rng = loader_module.generator(4, "sample", epoch, int(index))
            assert np.array_equal(image, samples.decoder.decode_random(files[index], rng, flip=True))
    assert same(batches[2:], collect(stream, 1, first_step=2))


def test_large_pictures_are_evaluated_at_the_centre(tmp_path):
    files = sorted(photos(tmp_path).rglob("*.png"))
    decoder = Decoder(130, 130, 3, 148, (148, 280))
    batches = collect(StreamLoader(Samples(None, files, np.arange(11), decoder), 4, CPU, workers=2))
    images = np.concatenate([images.permute(0, 2, 3, 1) for images, _ in batches])
    assert np.array_equal(images, np.stack([decoder.decode_center(file) for file in files]))


def test_small_pictures_streamed_from_files_equal_the_decoded_set(tmp_path):
    root = str(photos(tmp_path, count=40, size=(9, 7)))
    sources = [ImageFolder(root=root, loader=setting, crop_padding=2) for setting in ("resident", "stream")]
    parts = [source.load() for source in sources]
    assert parts[0].train.images is not None and parts[1].train.images is None
    loaders = [
        make_loader(source, part.train, batch_size=5, device=CPU, seed=2, workers=2, train=True)
        for source, part in zip(sources, parts, strict=True)
    ]
    assert [type(loader) for loader in loaders] == [ResidentLoader, StreamLoader]
    assert same(collect(loaders[0], 1), collect(loaders[1], 1))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_picture_surfaces_as_one_line(tmp_path, workers):
    files = sorted(photos(tmp_path).rglob("*.png"))
    files[4].write_bytes(b"garbage")
    stream = StreamLoader(Samples(None, files, np.arange(11), Decoder(32, 32, 3)), 3, CPU, 0, True, workers=workers)
    with pytest.raises(ValueError) as error:
        collect(stream)
    assert str(error.value).startswith(f"{files[4]}: not a readable picture") and "\n" not in str(error.value)
    assert "check_data.py DIR lists all such pictures" in str(error.value)


def test_files_that_were_not_decoded_cannot_be_resident(tmp_path):
    samples = Samples(None, sorted(photos(tmp_path).rglob("*.png")), np.arange(11), Decoder(32, 32, 3))
    source = SimpleNamespace(loader="resident", augment=True, crop_padding=0, flip=False)
    with pytest.raises(ValueError, match=r"^loader=resident: "):
        make_loader(source, samples, batch_size=2, device=CPU)
    source.loader = "auto"
    assert isinstance(make_loader(source, samples, batch_size=2, device=CPU), StreamLoader)


@pytest.mark.parametrize(("count", "min_batch", "sizes"), [(33, 2, [16, 16]), (35, 2, [16, 16, 3]), (35, 4, [16, 16])])
def test_a_last_batch_of_too_few_images_is_left_out(count, min_batch, sizes):
    """With two processes min_batch is 4, so that each has two images."""
    samples = some(count)
    assert ResidentLoader(samples, 16, CPU, train=True, min_batch=min_batch).sizes == sizes
    assert StreamLoader(samples, 16, CPU, train=True, min_batch=min_batch).sizes == sizes
    assert sum(ResidentLoader(samples, 16, CPU).sizes) == count, "an evaluation leaves out nothing"


def test_without_augmentation_training_sees_the_images_as_they_are():
    samples = some()
    settings = {"loader": "resident", "crop_padding": 2, "flip": True}
    plain, augmented = SimpleNamespace(augment=False, **settings), SimpleNamespace(augment=True, **settings)
    for source, same_images in ((plain, True), (augmented, False)):
        loader = make_loader(source, samples, batch_size=8, device=CPU, train=True)
        images = np.concatenate([batch.permute(0, 2, 3, 1).numpy() for batch, _ in loader.epoch(0)])
        wanted = samples.images[sample_epoch(0, 0, 37, 0, False).order]
        assert np.array_equal(images, wanted) == same_images


def test_without_augmentation_large_pictures_train_as_they_are_evaluated(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        for number in range(3):
            pixels = np.random.default_rng(number).integers(0, 256, (300, 340, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    source = ImageFolder(root=str(tmp_path), val_fraction=0.4, augment=False)
    dataset = source.load(tmp_path / "cache")
    assert not any("short side drawn" in note for note in dataset.notes)
    trained = make_loader(source, dataset.train, batch_size=4, device=CPU, train=True)
    plain = make_loader(source, dataset.train, batch_size=4, device=CPU)
    order = np.concatenate([trained.indices(0, step) for step in range(len(trained))])
    images, wanted = (torch.cat([batch for batch, _ in loader.epoch(0)]) for loader in (trained, plain))
    assert torch.equal(images, wanted[order])

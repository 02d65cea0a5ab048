"""One way from a file to an answer: predict has the logits of evaluate, bit for bit, for every kind of data."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import deeptrain
from deeptrain.commands.cli import train
from deeptrain.commands.evaluate import evaluate
from deeptrain.config.compose import compose_run
from deeptrain.inference.evaluate import answer

TINY = ["model=fcn", "model.hidden=[8]", "epochs=1", "loggers=none", "device=cpu", "threads=1", "dir=run"]
ORIENTATION = 0x0112


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def colour(rng: np.random.Generator, index: int) -> Image.Image:
    """Return small pictures of several proportions."""
    return Image.fromarray(rng.integers(0, 256, (12 + index % 3, 15, 3), dtype=np.uint8))


def transparent(rng: np.random.Generator, index: int) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (12, 12, 4), dtype=np.uint8), "RGBA")


def deep(rng: np.random.Generator, index: int) -> Image.Image:
    """Return pictures of 12 bits."""
    return Image.fromarray(rng.integers(0, 4096, (12, 12), dtype=np.uint16))


def photograph(rng: np.random.Generator, index: int) -> Image.Image:
    """Return large pictures, grey, in CMYK or in colour, some lying."""
    coarse = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((320, 400) if index % 2 else (600, 450))
    return picture.convert(("RGB", "L", "CMYK")[index % 3])


def write(folder: Path, picture: Callable, suffix: str, count: int = 4) -> None:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            exif = Image.Exif()
            exif[ORIENTATION] = 6 if index == 1 else 1
            picture(rng, index).save(folder / name / f"{index}{suffix}", exif=exif)


def evaluated(split: str, *words: str) -> tuple[torch.Tensor, list[np.ndarray]]:
    """Return the logits of an evaluation, and the decoded images where there are some."""
    answers = answer(compose_run([*TINY, *words]), Path("run/checkpoints/best.pt"), split)
    images = answers.dataset.val.images
    return answers.logits, [] if images is None else list(np.asarray(images))


@pytest.mark.parametrize(
    ("picture", "suffix", "words"),
    [
        (colour, ".png", ["data.resize=crop"]),
        (colour, ".jpg", ["data.resize=pad", "data.background=[9,99,199]"]),
        (colour, ".png", ["data.resize=squash", "data.subtract_image_mean=true"]),
        (colour, ".png", ["data.whiten=zca", "precision=bf16"]),
        (transparent, ".png", ["data.background=[0,0,0]"]),
        (deep, ".png", ["data.range=auto"]),
        (deep, ".tif", ["data.range=[100,3000]"]),
        (photograph, ".jpg", ["data.image_size=144"]),
        (photograph, ".jpg", ["data.image_size=144", "data.resize=pad", "data.loader=resident"]),
        (photograph, ".jpg", ["data.image_size=16", "data.channels=1", "data.loader=stream"]),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else None,
)
def test_pictures_in_folders(picture, suffix, words):
    for split in ("train", "test"):
        write(Path("data") / split, picture, suffix)
    words = ["data=image_folder", "workers=0", *words]
    assert train([*TINY, *words]) == 0
    logits, _ = evaluated("test", *words)
    Path("data/train").rename("gone")  # neither the training pictures nor the cache decide
    Path("cache").rename("no_cache")
    assert torch.equal(deeptrain.load("run").logits("data/test"), logits)
    assert torch.equal(evaluated("test", *words)[0], logits), "an evaluation of test/ alone reads it as the run did"


def test_pictures_in_a_list():
    write(Path("pictures"), colour, ".png", 6)
    files = sorted(Path("pictures").rglob("*.png"))
    rows = [f"{path},{path.parent.name},{'val' if path.stem in '01' else 'train'}" for path in files]
    Path("labels.csv").write_text("\n".join(rows))
    assert train([*TINY, "data=csv"]) == 0
    logits, images = evaluated("val", "data=csv")
    network = deeptrain.load("run")
    assert torch.equal(network.logits([path for path in files if path.stem in "01"]), logits)
    assert torch.equal(network.logits(images), logits), "its decoded pixels too"


def idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes())


def digits() -> list[str]:
    return ["data=digits"]


def mnist() -> list[str]:
    rng = np.random.default_rng(0)
    for part in ("train", "t10k"):
        idx(Path(f"data/MNIST/raw/{part}-images-idx3-ubyte"), rng.integers(0, 256, (40, 28, 28)))
        idx(Path(f"data/MNIST/raw/{part}-labels-idx1-ubyte"), np.arange(40) % 10)
    return ["data=mnist"]


def npz() -> list[str]:
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 9, 7), dtype=np.uint8)
    np.savez("data.npz", images=images, labels=np.arange(40) % 2)
    return ["data=npz"]


def gates() -> list[str]:
    return ["data=gates"]


def torchvision() -> list[str]:
    write(Path("data"), photograph, ".jpg", 6)
    return ["data=torchvision", "data.dataset=ImageFolder", "data.image_size=40"]


@pytest.mark.parametrize("data", [digits, mnist, npz, gates])
def test_arrays_and_their_files(data):
    words = data()
    assert train([*TINY, *words]) == 0
    logits, images = evaluated("val", *words)
    network = deeptrain.load("run")
    for number, array in enumerate(images):
        Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array).save(f"{number:04}.png")
    files = sorted(Path().glob("*.png"))
    tensors = [torch.from_numpy(array).permute(2, 0, 1) for array in images]
    for pictures in (files, images, tensors, [Image.open(path) for path in files]):
        assert torch.equal(network.logits(pictures), logits)


@pytest.mark.slow
def test_files_of_a_set_of_torchvision():
    """They are cropped as the set is: in full detail, also where the file is large."""
    words = torchvision()
    assert train([*TINY, *words]) == 0
    answers = answer(compose_run([*TINY, *words]), Path("run/checkpoints/best.pt"), "val")
    files = sorted(Path("data").rglob("*.jpg"))
    held_out = [files[index] for index in answers.dataset.split["val"]]
    assert torch.equal(deeptrain.load("run").logits(held_out), answers.logits)


def test_a_run_from_before_checkpoints_kept_how_pictures_are_read():
    from deeptrain.training import checkpoint

    write(Path("data"), photograph, ".jpg")
    words = ["data=image_folder", "data.image_size=24", "data.resize=squash"]
    assert train([*TINY, *words]) == 0
    path = Path("run/checkpoints/best.pt")
    files, new = sorted(Path("data").rglob("*.jpg")), deeptrain.load("run")
    state = checkpoint.load(path)
    checkpoint.save(path, {key: value for key, value in state.items() if key not in ("decoder", "subtract_image_mean")})
    assert torch.equal(deeptrain.load("run").logits(files), new.logits(files))
    Path("data").rename("moved")
    with pytest.raises(ValueError, match=r"data.root=data.*needs its pictures"):
        deeptrain.load("run")
    moved = [Path("moved", *path.parts[1:]) for path in files]
    assert torch.equal(deeptrain.load("run", ["data.root=moved"]).logits(moved), new.logits(moved))


def test_a_test_of_another_size_is_refused(capsys):
    """A network that pools over the image would answer all the same."""
    images, labels = np.zeros((40, 6, 6), np.uint8), np.arange(40) % 2
    np.savez("data.npz", images=images, labels=labels, test_images=images[:, :4], test_labels=labels)
    words = [word for word in TINY if not word.startswith("model")]
    assert train(["data=npz", "data.file=data.npz", "model=rnn", *words]) == 0
    assert evaluate(["run"]) == 2
    assert "trained on images of 1x6x6, the data has 1x4x6" in capsys.readouterr().err

"""Averaging at test time: the views are those of the papers, and the average is that by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from deeptrain.aug.pipeline import Pipeline, RandomApply
from deeptrain.commands.cli import train
from deeptrain.commands.evaluate import evaluate
from deeptrain.commands.predict import predict
from deeptrain.data.decode import Decoder
from deeptrain.errors import UsageError
from deeptrain.inference.predictor import Predictor
from deeptrain.inference.views import (
    ALL_SCALES,
    Picture,
    Recipe,
    Views,
    as_logits,
    as_shares,
    average,
    check,
    ten_crops,
)
from deeptrain.runtime.device import Runtime

RNG = np.random.default_rng(0)


def network(decoder: Decoder, *layers: nn.Module, loss: str = "CrossEntropy") -> Predictor:
    torch.manual_seed(0)
    size = decoder.height * decoder.width * decoder.channels
    model = nn.Sequential(nn.Flatten(), *layers, nn.Linear(size, 3)).eval()
    return Predictor(model, Pipeline([], [128.0] * 3, [64.0] * 3), decoder, ["cat", "dog", "fish"], Runtime(), loss)


def pictures(decoder: Decoder, count: int = 5) -> list[Picture]:
    shape = count, decoder.height, decoder.width, decoder.channels
    return [Picture(pixels) for pixels in RNG.integers(0, 256, shape, dtype=np.uint8)]


@pytest.mark.parametrize("size", [(8, 8), (9, 8), (13, 20), (32, 47), (37, 37), (91, 91)])
def test_ten_crops_have_the_coordinates_of_torchvision(size):
    from torchvision.transforms.v2 import functional

    image = torch.from_numpy(RNG.integers(0, 256, (3, *size), dtype=np.uint8))
    expected = sorted(crop.numpy().tobytes() for crop in functional.ten_crop(image, [8, 8]))
    windows = ten_crops(8, 8, *size)
    sides = {False: image, True: image.flip(-1)}
    crops = {place: sides[place[2]][:, place[0] : place[0] + 8, place[1] : place[1] + 8] for place in windows}
    found = sorted(crops[place].numpy().tobytes() for place, count in windows.items() for _ in range(count))
    assert found == expected


def test_the_lectures_fifty_views_are_forty_two_passes():
    decoder = Decoder(56, 56, 3)
    ((pixels, ids, weights),) = Views("multi_scale").of(pictures(decoder, 1), decoder, 0)
    assert len(pixels) == 42 and not ids.any() and weights.sum() == pytest.approx(1)
    assert sorted({round(56 * scale) for scale in ALL_SCALES}) == [56, 64, 96, 120, 160]


def test_ten_crops_of_a_file_come_from_its_full_detail(tmp_path):
    decoder, path = Decoder(28, 28, 3), tmp_path / "large.png"
    Image.fromarray(RNG.integers(0, 256, (64, 80, 3), dtype=np.uint8)).save(path)
    ((pixels, _, weights),) = Views("ten_crop").of([Picture(decoder.decode_center(path), path)], decoder, 0)
    whole = np.asarray(Image.open(path).resize((40, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(pixels[0], whole[:28, :28])
    np.testing.assert_array_equal(pixels[8], whole[:, ::-1][-28:, -28:])
    assert len(pixels) == 10 and weights.tolist() == pytest.approx([0.1] * 10)


def by_hand(one: Predictor, views: list[np.ndarray], weights: list[float]) -> torch.Tensor:
    logits = [torch.from_numpy(one.forward(np.ascontiguousarray(view))).double() for view in views]
    return sum(weight * each.softmax(1) for weight, each in zip(weights, logits, strict=True)).log().float()


def test_flip_and_shift_are_the_averages_by_hand():
    decoder = Decoder(6, 7, 3)
    one, given = network(decoder), pictures(decoder)
    images = np.stack([picture.pixels for picture in given])
    expected = by_hand(one, [images, images[:, :, ::-1]], [0.5, 0.5])
    torch.testing.assert_close(average(one, Views("flip"), given)[0], expected)
    rows, columns = (np.where(np.arange(size + 2) == 0, 1, np.where(np.arange(size + 2) == size + 1, size - 2,
                     np.arange(size + 2) - 1)) for size in (6, 7))  # fmt: skip
    padded = images[:, rows][:, :, columns]
    moved = [padded[:, :-2, :-2], padded[:, 2:, 2:]]
    views = [images, images[:, :, ::-1], *(view for one in moved for view in (one, one[:, :, ::-1]))]
    expected = by_hand(one, views, [0.25, 0.25, *[0.125] * 4])
    logits, seen = average(one, Views("shift"), given)
    torch.testing.assert_close(logits, expected)
    assert seen == 6 * len(given)


def test_draws_of_training_repeat_and_are_keyed_by_seed_and_picture():
    decoder = Decoder(8, 8, 3)
    one, given = network(decoder), pictures(decoder)
    darker = RandomApply(lambda images, targets, rng: (images // 2, targets), probability=0.5)

    def answers(seed: int = 0, first: int = 0) -> torch.Tensor:
        return average(one, Views("train", Recipe(2, True, [darker], seed), draws=4), given, first)[0]

    assert torch.equal(answers(), answers())
    assert not torch.equal(answers(), answers(seed=1)) and not torch.equal(answers(), answers(first=5))
    plain = average(one, Views("train", Recipe(), draws=3), given)[0].softmax(1)
    single = torch.from_numpy(one.forward(np.stack([picture.pixels for picture in given]))).softmax(1)
    torch.testing.assert_close(plain, single)


def test_dropout_draws_and_norms_keep_their_statistics():
    decoder = Decoder(4, 4, 3)
    one, given = network(decoder, nn.BatchNorm1d(48), nn.Dropout(0.5)), pictures(decoder)
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    first = average(one, Views("dropout", draws=5), given)[0]
    assert torch.equal(first, average(one, Views("dropout", draws=5), given)[0])
    assert all(torch.equal(value, before[name]) for name, value in one.model.state_dict().items())
    assert not any(module.training for module in one.model.modules())
    with pytest.raises(UsageError, match="draws nothing at random"):
        average(network(decoder), Views("dropout"), given)


@pytest.mark.parametrize("loss", ["CrossEntropy", "BCE", "Hinge"])
def test_the_logits_of_an_average_give_its_probabilities(loss):
    logits = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(as_shares(as_logits(as_shares(logits, loss), loss), loss), as_shares(logits, loss))


def test_views_that_cannot_be_right_are_refused_and_doubtful_ones_warned_of():
    small, large = network(Decoder(32, 32, 3)), network(Decoder(96, 96, 3))
    with pytest.raises(UsageError, match="mirrored 2 is no 2"):
        check(Views("flip"), small, characters=True)
    assert "tta=shift" in check(Views("multi_scale"), small, False)[0]
    assert check(Views("multi_scale"), large, False) == check(Views("train"), small, True) == []


# --- the commands ---


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("views")
    for shade, name in ((90, "cat"), (160, "dog")):
        (home / "data" / name).mkdir(parents=True)
        for index in range(30):
            noise = RNG.normal(shade, 60, (8, 8, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(home / "data" / name / f"{index}.png")
    words = [
        "model=fcn",
        "model.hidden=[8]",
        "model.dropout=0.2",
        "epochs=2",
        "loggers=none",
        "device=cpu",
        "threads=1",
    ]
    data = ["data=image_folder", f"data.root={home / 'data'}", "data.val_fraction=0.5", "aug=color_jitter"]
    assert train([*words, *data, f"dir={home / 'run'}"]) == 0
    return home


def test_a_table_on_val_has_gains_and_prices_and_predict_averages_alike(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert evaluate(["run", "split=val", "tta=all", "tta.draws=2"]) == 0
    said = capsys.readouterr().out
    rows = dict(line.split(None, 1) for line in said.splitlines()[:12] if line and not line.startswith("warning"))
    assert [rows[name].split()[0] for name in ("flip", "shift", "train", "dropout")] == ["2", "6", "2", "2"]
    assert rows["ten_crop"].split()[0] == "10" and "tta=multi_scale: the input has 8 px" in said
    assert evaluate(["run", "split=val", "tta=flip", "csv=out.csv"]) == 0
    table = {line.split(",")[0]: line.split(",") for line in Path("out.csv").read_text().splitlines()[1:]}
    capsys.readouterr()
    assert predict(["run", *table, "tta=flip", "format=json"]) == 0
    for line in capsys.readouterr().out.splitlines():
        row = json.loads(line)
        assert row["label"] == table[row["file"]][2]
        assert row["probability"] == pytest.approx(float(table[row["file"]][3]), abs=1e-6)


def test_predict_draws_the_augmentation_of_the_run(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert predict(["run", "data/cat", "tta=train", "tta.draws=3", "format=json"]) == 0
    first = capsys.readouterr().out
    assert predict(["run", "data/cat", "tta=train", "tta.draws=3", "format=json"]) == 0
    assert len(first.splitlines()) == 30 and capsys.readouterr().out == first
    assert predict(["run", "data/cat", "format=json"]) == 0
    assert capsys.readouterr().out != first


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["run", "tta=all"], "tta=all: chooses, which is for val"),
        (["run", "run", "tta=flip"], "name one run"),
        (["run", "tta=filp"], "did you mean flip?"),
        (["run", "split=val", "tta=train", "tta.draws=0"], "tta.draws=0: must be >= 1"),
    ],
    ids="+".join,
)
def test_a_mistake_is_one_line(folder, monkeypatch, capsys, words, part):
    monkeypatch.chdir(folder)
    assert evaluate(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert part in line

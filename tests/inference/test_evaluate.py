"""The command evaluate: probabilities with intervals, a temperature from val alone, classes by name, paired runs."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import deeptrain
from deeptrain.commands.cli import train
from deeptrain.commands.evaluate import evaluate
from deeptrain.commands.predict import predict
from deeptrain.inference import scores
from deeptrain.run import calibration

CLASSES = ["cat", "dog", "fish"]
TINY = ["model=fcn", "model.hidden=[8]", "epochs=2", "loggers=none", "device=cpu", "threads=1", "data=image_folder"]


def pictures(folder: Path, names: list[str], count: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for name in names:
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.clip(rng.normal(60 + 40 * (len(name) + name.count("o")), 90, (8, 8, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index}.png")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder with pictures that overlap, and two runs that have learned them."""
    home = tmp_path_factory.mktemp("evaluate")
    pictures(home / "data" / "train", CLASSES, 80)
    pictures(home / "data" / "test", CLASSES, 10, seed=1)
    for seed in (0, 1):
        words = [f"data.root={home / 'data'}", "data.val_fraction=0.5", f"seed={seed}", f"dir={home / f'run{seed}'}"]
        assert train([*TINY, *words]) == 0
    return home


@pytest.fixture(autouse=True)
def in_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


def shown(capsys, *words: str) -> str:
    assert evaluate(list(words)) == 0
    return capsys.readouterr().out


def read_rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(name).read_text().splitlines()))


def mistake(capsys, *words: str) -> str:
    """Return the one line of a mistake."""
    assert evaluate(list(words)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_val_fits_a_temperature_which_predict_and_other_splits_use(capsys):
    Path("run0/calibration.json").unlink(missing_ok=True)
    before = deeptrain.load("run0").predict("data/test/cat")
    assert "at temperature" not in shown(capsys, "run0")
    text = shown(capsys, "run0", "split=val")
    fitted = json.loads(Path("run0/calibration.json").read_text())
    assert fitted["split"] == "val" and fitted["images"] == 120 and fitted["nll_after"] <= fitted["nll_before"]
    assert f"at temperature {fitted['temperature']:.3g}" in text
    assert "at temperature" in shown(capsys, "run0")
    network = deeptrain.load("run0")
    after = network.predict("data/test/cat")
    for one, other in zip(before, after, strict=True):
        expected = (torch.tensor(one.logits).double() / fitted["temperature"]).softmax(0)
        np.testing.assert_allclose(other.probabilities, expected, atol=1e-12)
        assert other.label == one.label and other.at_least(0.3) == one.at_least(0.3), "sets go without temperature"
    assert predict(["run0", "data/test/cat", "format=json", "temperature=1"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["probability"] for row in rows] == [one.probability for one in before]


def test_a_temperature_of_other_weights_is_not_used(capsys):
    shown(capsys, "run0", "split=val")
    assert calibration.load(Path("run0"), "other") is None
    path = Path("run1/calibration.json")
    path.write_bytes(Path("run0/calibration.json").read_bytes())
    assert deeptrain.load("run1").calibration is None
    path.unlink()


def test_the_table_and_the_pictures(drawn_figures, capsys):
    Path("run1/calibration.json").unlink(missing_ok=True)
    text = shown(capsys, "run1", "csv=out.csv")
    rows = read_rows("out.csv")
    assert len(rows) == 30 and all(Path(row["file"]).parent.name == row["true"] for row in rows)
    for row in rows:
        shares = {name: float(row[name]) for name in CLASSES}
        assert (
            sum(shares.values()) == pytest.approx(1) and max(shares, key=lambda name: shares[name]) == row["predicted"]
        )
        assert float(row["loss"]) == pytest.approx(-np.log(shares[row["true"]]))
    wrong = sorted((row for row in rows if row["true"] != row["predicted"]), key=lambda row: -float(row["loss"]))
    assert text.index("largest loss") < text.index(wrong[0]["file"]) < text.index("most confident mistakes")
    nll = np.mean([float(row["loss"]) for row in rows])
    entry = json.loads(Path("run1/evaluation.json").read_text())[-1]["scores"]["by_temperature"]["1"]
    assert entry["nll"]["value"] == pytest.approx(nll) and entry["nll"]["low"] < nll < entry["nll"]["high"]
    for name in ("confusion", "reliability", "mistakes"):
        assert Image.open(f"run1/{name}-test.png").size[0] > 300


def test_classes_are_matched_by_name(capsys, tmp_path):
    """Folders in another order, or without a class, have the answers of the whole; an unknown class is named."""
    shown(capsys, "run1", "csv=whole.csv")
    whole = {row["file"]: row["predicted"] for row in read_rows("whole.csv")}
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        for name in ("fish", "cat"):
            (tmp_path / part / name).symlink_to(Path("data").resolve() / part / name)
    shown(capsys, "run1", f"data.root={tmp_path}", "csv=some.csv")
    some = read_rows("some.csv")
    assert {row["true"] for row in some} == {"cat", "fish"} and len(some) == 20
    for row in some:
        name = str(Path("data/test").resolve() / Path(*Path(row["file"]).parts[-2:]))
        assert row["predicted"] == next(said for file, said in whole.items() if Path(file).resolve() == Path(name))
    pictures(tmp_path / "train", ["fihs"], 2)
    assert "not learned the class fihs; did you mean fish?" in mistake(capsys, "run1", f"data.root={tmp_path}")


def test_runs_are_compared_image_by_image(capsys):
    text = shown(capsys, "run0", "run1")
    shown(capsys, "run0", "split=val", "csv=0.csv"), shown(capsys, "run1", "split=val", "csv=1.csv")
    right = [[row["true"] == row["predicted"] for row in read_rows(f"{n}.csv")] for n in (0, 1)]
    gained = sum(b and not a for a, b in zip(*right, strict=True))
    assert f"right in {gained} images where the first is not" in text and "McNemar" in text
    same = shown(capsys, "run0", "run0")
    assert "accuracy +0.00 (95 % interval +0.00 to +0.00)" in same and "p = 1," in same


def test_other_images_are_not_compared(capsys, tmp_path):
    words = ["data.root=data", "data.val_fraction=0.5", "data.split_seed=7", f"dir={tmp_path / 'other'}"]
    assert train([*TINY, *words]) == 0
    capsys.readouterr()
    assert "val has other images" in mistake(capsys, "run0", str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["run0", "run1", "split=test"], "split=test: a comparison chooses"),
        (["run0", "run1", "csv=out.csv"], "csv: holds the answers of one run"),
        (["run0", "split=tset"], "did you mean test?"),
        (["run0", "csv=nowhere/out.csv"], "csv=nowhere/out.csv: cannot be written"),
        (["split=val"], "name the run first"),
        (["run0", "split=all"], "add data.root=DIR"),
        (["run0", "run9"], "run=run9: there is no such run"),
    ],
    ids="+".join,
)
def test_a_mistake_is_one_line(capsys, words, part):
    assert part in mistake(capsys, *words)


# --- what probabilities are ---


def test_a_loss_of_scores_has_probabilities_at_a_temperature_only():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(300, 3, generator=generator)
    labels = torch.multinomial((2 * logits).softmax(1), 1, generator=generator)[:, 0]
    assert scores.measure(logits, labels, "Hinge").by_temperature == {}
    fitted = scores.calibrate(logits, labels, "Hinge", "digest")
    assert fitted.temperature == pytest.approx(0.5, rel=0.2)
    assert list(scores.measure(logits, labels, "Hinge", fitted).by_temperature) == [fitted.temperature]
    assert "gives no probabilities" in calibration.describe("MSE", None)[0]
    assert calibration.describe("BCE", None) == []

"""answers.npz: the answers of final and best weights are those that were measured, to the same bytes after a stop."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from deeptrain.run import answers
from deeptrain.run.launch import main as start

TINY = ["data=synthetic", "data.shape=[3,8,8]", "data.size=80", "batch_size=16", "validate.clean_images=0"]
SMALL = [*TINY, "model=resnet", "model.widths=[4]", "model.blocks=[1]", "loggers=none", "schedule=constant", "epochs=3"]
CASES = {
    "batch norms that are measured": [],
    "ema": ["average=ema"],
    "swa": ["average=swa", "average.start=0.5"],
    "early stopping": ["early_stop.patience=1", "epochs=12", "optimizer.lr=0.1"],
    "overfit": ["overfit=20"],
    "hinge": ["loss=hinge", "monitor=loss/val"],
}


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_answers_are_those_that_the_run_has_measured(case):
    assert start([*SMALL, *CASES[case], "dir=run"]) == 0
    found, result = answers.load(Path("run")), json.loads(Path("run/result.json").read_text())
    assert found is not None
    right = {weights: (found.predicted[weights] == found.labels).mean() for weights in ("final", "best")}
    losses = {weights: found.losses[weights].astype(float).mean() for weights in ("final", "best")}
    assert right["final"] == pytest.approx(result["final"]["accuracy/val"], abs=1e-6)
    assert losses["final"] == pytest.approx(result["final"]["loss/val"], rel=2e-3)
    best = losses if result["monitor"] == "loss/val" else right
    assert best["best"] == pytest.approx(result["best"], rel=2e-3)
    assert result["final_weights"] == ("average" if "average" in " ".join(CASES[case]) else "raw")


@pytest.mark.slow
def test_a_stopped_run_comes_to_the_same_bytes():
    words = [*SMALL, "average=ema"]
    start([*words, "dir=whole"])
    start([*words, "limit_steps=9", "schedule=constant", "dir=stopped"])
    start(["resume=stopped", "limit_steps=null"])
    whole = Path("whole/answers.npz").read_bytes()
    assert Path("stopped/answers.npz").read_bytes() == whole
    for name in ("result.json", "card.html", "answers.npz"):  # killed while it was drawing
        Path("whole", name).unlink()
    start(["resume=whole"])
    assert Path("whole/answers.npz").read_bytes() == whole


def example(**changes) -> answers.Answers:
    predicted = {"final": np.array([0, 1, 1], np.uint8), "best": np.array([0, 1, 0], np.uint8)}
    losses = {weights: np.array([0.5, 1, 2], np.float16) for weights in predicted}
    values = {"classes": ["a", "b"], "data": "12345678", "images": "00", "predicted": predicted, "losses": losses}
    return answers.Answers(np.array([0, 1, 1], np.uint8), **(values | changes))


def test_saved_and_loaded(tmp_path):
    answers.save(tmp_path, example())
    found = answers.load(tmp_path)
    assert found is not None and found.classes == ["a", "b"] and list(found.predicted) == ["final", "best"]
    assert found.predicted["best"].tolist() == [0, 1, 0] and found.losses["final"].dtype == np.float16


@pytest.mark.parametrize(
    "content", [b"", b"no archive", b"PK\5\6" + bytes(18)], ids=["empty", "text", "an empty archive"]
)
def test_what_is_no_answers_is_none(tmp_path, content):
    assert answers.load(tmp_path) is None
    (tmp_path / answers.NAME).write_bytes(content)
    assert answers.load(tmp_path) is None


def test_what_misleads_is_none(tmp_path):
    for wrong in (example(classes=["a"]), example(predicted={"final": np.zeros(2, np.uint8)})):
        answers.save(tmp_path, wrong)
        assert answers.load(tmp_path) is None
    np.savez(tmp_path / answers.NAME, labels=np.array([{}]))  # pickled
    assert answers.load(tmp_path) is None


def test_a_header_that_promises_a_terabyte_is_none(tmp_path):
    header = {"descr": "<u8", "fortran_order": False, "shape": (2**37,)}
    with zipfile.ZipFile(tmp_path / answers.NAME, "w") as archive, archive.open("labels.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, header)
    assert answers.load(tmp_path) is None

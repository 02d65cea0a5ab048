"""What the terminal says at the end."""

import numpy as np
import pytest

from deeptrain.commands.cli import train
from deeptrain.commands.evaluate import evaluate
from deeptrain.training.validation import Validator


def write_sides(path, images=200):
    """Write noise with a bright column on the left or on the right: the classes are mirror images."""
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 40, (images, 8, 8), np.uint8), np.arange(images) % 2
    pixels[np.arange(images), :, np.where(labels, 6, 1)] = 255
    np.savez(path, images=pixels, labels=labels)


@pytest.mark.slow
@pytest.mark.parametrize(("flip", "epochs", "is_said"), [("true", 3, True), ("false", 3, False), ("true", 2, False)])
def test_classes_that_are_mirror_images_are_named_as_a_reason_for_guessing(tmp_path, capsys, flip, epochs, is_said):
    write_sides(tmp_path / "sides.npz")
    words = ["data=npz", f"data.file={tmp_path / 'sides.npz'}", f"data.flip={flip}", "model=fcn", "model.hidden=[16]"]
    words += [f"epochs={epochs}", "optimizer.lr=0.01", "device=cpu", "threads=1", "loggers=none"]
    assert train([*words, f"cache_dir={tmp_path / 'cache'}", f"dir={tmp_path / 'run'}"]) == 0
    shown = capsys.readouterr().out
    assert ("guesses" in shown and "try data.flip=false" in shown) is is_said


def test_a_run_that_failed_in_its_last_validation_is_to_go_on(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["data=gates", "model=fcn", "model.hidden=[4]", "epochs=1", "device=cpu", "threads=1", "loggers=none"]
    with monkeypatch.context() as patch:
        patch.setattr(Validator, "measure", lambda *_: 1 / 0)
        assert train([*words, "dir=run"]) == 1
    shown = capsys.readouterr().out
    assert "go on" in shown and "resume=run" in shown and "train longer" not in shown
    assert train(["resume=run"]) == 0
    assert "train longer" in capsys.readouterr().out


def test_the_end_names_an_evaluation_that_the_data_allow(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_sides("sides.npz", 40)
    tiny = ["model=fcn", "model.hidden=[4]", "epochs=1", "device=cpu", "threads=1", "loggers=none"]
    for data, split in ((["data=npz", "data.file=sides.npz"], ["split=val"]), (["data=gates"], [])):
        assert train([*data, *tiny, f"dir={data[0]}"]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("evaluate ")]
        assert line.split()[-1 - len(split) :] == [data[0], *split]
        assert evaluate([data[0], *split]) == 0

"""overfit=N: what it turns off, what it says, and that the network learns the images by heart."""

import json

import pytest

from deeptrain.commands.cli import train
from deeptrain.config.checks import check
from deeptrain.config.compose import compose_run
from deeptrain.errors import UsageError


def test_what_keeps_a_network_from_learning_by_heart_is_turned_off():
    words = ["model=vgg", "aug=[cutout,mixup]", "loss.label_smoothing=0.1", "penalty=l1", "average=ema", "sam=0.05"]
    run = compose_run([*words, "max_norm=3", "data.flip=true", "overfit=50"])
    assert run.parts["aug"] == run.parts["penalty"] == run.parts["gradient"] == run.parts["average"] == {}
    assert run.parts["model"]["dropout"] == run.parts["optimizer"]["weight_decay"] == 0
    assert run.parts["data"]["train_images"] == 50
    assert not run.parts["data"]["flip"] and run.parts["data"]["augment"] is False
    assert check(run) == []  # turned_off names data.flip=true already
    assert run.settings.max_norm is None and run.settings.sam is None
    assert {"aug=cutout", "aug=mixup", "penalty=l1", "average=ema", "model.dropout=0.5", "sam=0.05"} <= set(
        run.turned_off
    )
    assert run.choices["aug"] == "none" and run.values["model.dropout"] == 0


def test_without_it_nothing_changes():
    run = compose_run(["model=vgg", "aug=mixup"])
    assert run.parts["model"]["dropout"] == 0.5 and run.turned_off == []


@pytest.mark.parametrize("value", ["0", "-5", "many"])
def test_a_wrong_number_is_refused(value):
    with pytest.raises(UsageError, match=f"overfit={value}: must be .*>= 1"):
        compose_run([f"overfit={value}"])


@pytest.mark.slow
def test_fifty_digits_are_learned_by_heart(tmp_path, capsys):
    words = ["model=fcn", "aug=cutout", "loggers=none", "threads=1", f"dir={tmp_path / 'run'}"]
    assert train([*words, "overfit=50", "epochs=20"]) == 0
    shown = capsys.readouterr().out
    assert "aug=cutout" in shown and "50 of 50 images learned by heart" in shown
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["metrics"]["accuracy/val"] == 1

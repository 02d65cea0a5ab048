"""A run keeps the defaults that it was started with, when they are others today."""

import json

import pytest
import yaml

from deeptrain.commands.cli import train
from deeptrain.commands.evaluate import evaluate
from deeptrain.run import defaults

pytestmark = pytest.mark.slow

WORDS = ["data=synthetic", "data.shape=[1,8,8]", "data.size=200", "model=fcn", "model.hidden=[8]", "optimizer=sgd"]


def forget(folder, *keys):
    """Make a folder of a version in which these words were the defaults: they are in its config.yaml alone."""
    path = folder / "overrides.yaml"
    words = [word for word in yaml.safe_load(path.read_text()) if word.partition("=")[0] not in keys]
    path.write_text(yaml.safe_dump(words))


@pytest.fixture
def folder(tmp_path):
    words = [*WORDS, "optimizer.nesterov=false", "loss.label_smoothing=0.2", "threads=1", "loggers=none"]
    assert train([*words, "epochs=1", f"dir={tmp_path / 'run'}"]) == 0
    return tmp_path / "run"


def test_options_and_values_are_those_of_its_configuration(folder):
    keys = ["optimizer", "optimizer.nesterov", "loss.label_smoothing", "model.hidden", "threads"]
    forget(folder, *keys)
    found = dict(word.split("=") for word in defaults.load_overrides(folder, []))
    assert [found.get(key) for key in keys] == ["sgd", "false", "0.2", "[8]", None], (
        "threads: where it runs is of today"
    )
    assert evaluate([str(folder), "split=val"]) == 0
    assert train([f"resume={folder}", "epochs=2"]) == 0
    assert json.loads((folder / "result.json").read_text())["epochs"] == 2


def test_a_residual_network_keeps_the_stem_that_it_had(tmp_path):
    """auto was the default, and at 48 px has another stem than today's."""
    run = tmp_path / "run"
    words = ["data=synthetic", "data.shape=[1,48,48]", "data.size=60", "model=preact_resnet", "model.depth=20"]
    words += ["model.blocks=[1]", "model.widths=[4]", "threads=1", "loggers=none", "epochs=1"]
    assert train([*words, "model.stem=auto", f"dir={run}"]) == 0
    forget(run, "model.stem")
    assert "model.stem=auto" in defaults.load_overrides(run, [])
    assert train([f"resume={run}", "epochs=2"]) == 0
    assert evaluate([str(run), "split=val"]) == 0


def test_what_is_typed_now_wins_and_nothing_is_added_where_nothing_changed(folder):
    before = yaml.safe_load((folder / "overrides.yaml").read_text())
    assert set(defaults.load_overrides(folder, [])) <= set(before)
    forget(folder, "loss.label_smoothing")
    assert not any("smoothing" in word for word in defaults.load_overrides(folder, ["loss.label_smoothing=0"]))

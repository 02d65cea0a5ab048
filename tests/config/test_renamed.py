"""Names of 0.3.0 in an option of one's own, and in a saved configuration."""

from importlib import import_module

import pytest

from deeptrain.config.compose import compose_run
from deeptrain.config.renamed import MODULES, update_targets


def test_an_own_option_may_name_an_old_module(tmp_path):
    (tmp_path / "aug").mkdir()
    (tmp_path / "aug" / "mine.yaml").write_text("# my crop\nmine:\n  _target_: deeptrain.aug.crop.Crop\n  padding: 2\n")
    run = compose_run([f"--config-dir={tmp_path}", "aug=mine", "aug.mine.padding=3"])
    assert run.parts["aug"]["mine"]["_target_"] == "deeptrain.aug.random_crop.Crop"


@pytest.mark.parametrize("module", MODULES.values())
def test_every_new_module_exists(module):
    assert import_module(module)


def test_other_targets_stay():
    tree = {"aug": {"flip": {"_target_": "deeptrain.aug.flip.Flip"}}, "model": {"_target_": "mine.Net"}, "seed": 1}
    before = repr(tree)
    update_targets(tree)
    assert repr(tree) == before

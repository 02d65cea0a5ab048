"""Old names: every row of the table still works, and says its new name once."""

from importlib import import_module
from pathlib import Path

import pytest
import yaml

from deeptrain.commands.cli import train
from deeptrain.commands.explain import explain
from deeptrain.config import renamed
from deeptrain.config.compose import compose_run, compose_sweep
from deeptrain.config.options import options
from deeptrain.errors import UsageError
from deeptrain.run import saved

CROP = "aug=crop: is now aug=random_crop (the old name works until 0.5)"


def note(old: str, new: str) -> str:
    return f"{old}: is now {new} (the old name works until 0.5)"


@pytest.mark.parametrize(("row", "new"), renamed.OPTIONS.items())
def test_every_old_option_composes_to_its_new_one(row, new):
    group, old = row
    assert new in options(group) and old not in options(group)
    run, plain = compose_run([f"{group}={old}"]), compose_run([f"{group}={new}"])
    assert run.overrides == [f"{group}={new}"] and run.yaml == plain.yaml
    assert run.renamed == [note(f"{group}={old}", f"{group}={new}")] and plain.renamed == []


@pytest.mark.parametrize(
    ("old", "new", "notes"),
    [
        ("aug=[crop,mixup]", "aug=[random_crop,mixup]", 1),
        ("aug=none,[crop],crop", "aug=none,[random_crop],random_crop", 1),
        ("aug=choice(crop,gray)", "aug=choice(random_crop,random_grayscale)", 2),
        ("aug=[random_crop,scale_crop]", "aug=[random_crop,random_resized_crop]", 1),
        ("~aug.crop", "~aug.random_crop", 1),
        ("++aug.blur.sigma=[1,2]", "++aug.gaussian_blur.sigma=[1,2]", 1),
        ("average.norm_images=7", "average.bn_images=7", 1),
        ("data.crop_padding=0", "data.crop_padding=0", 0),
        ("data.root=crop", "data.root=crop", 0),
        ("aug.mixup.alpha=crop", "aug.mixup.alpha=crop", 0),
        ("-x", "-x", 0),
    ],
)
def test_words(old, new, notes):
    word, said = renamed.translate_word(old)
    assert (word, len(said)) == (new, notes)


def test_the_words_of_a_sweep_are_translated():
    jobs, keys = compose_sweep(["aug=none,[crop]", "seed=0,1"])
    assert keys == ["aug", "seed"] and ["aug=[random_crop]", "seed=1"] in jobs


def test_old_names_in_files_of_ones_own(tmp_path):
    experiment = "# @package _global_\n# x\ndefaults:\n  - override /aug: [crop]\n  - override /average: swa\n"
    experiment += "aug:\n  crop:\n    padding: 2\naverage:\n  norm_images: 5\n"
    option = "# mine\nmine:\n  _target_: deeptrain.aug.gray.Gray\n  probability: 0.5\n"
    for name, text in {"experiment/x": experiment, "aug/mine": option, "experiment/new": experiment}.items():
        file = tmp_path / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    run = compose_run([f"--config-dir={tmp_path}", "experiment=x"])
    assert run.parts["aug"]["random_crop"]["padding"] == 2 and run.parts["average"]["bn_images"] == 5
    assert CROP in run.renamed and note("average.norm_images", "average.bn_images") in run.renamed
    run = compose_run([f"--config-dir={tmp_path}", "aug=mine"])
    assert run.parts["aug"]["mine"]["_target_"] == "deeptrain.aug.random_grayscale.Gray"


def test_an_option_of_ones_own_with_an_old_name_keeps_it(tmp_path):
    (tmp_path / "aug").mkdir()
    (tmp_path / "aug" / "crop.yaml").write_text("# mine\ncrop:\n  _target_: deeptrain.aug.cutout.Cutout\n  size: 2\n")
    run = compose_run([f"--config-dir={tmp_path}", "aug=crop", "aug.crop.size=4"])
    assert list(run.parts["aug"]) == ["crop"] and run.renamed == []


def test_a_saved_configuration_with_old_names_equals_the_new_one():
    run = compose_run(["aug=[crop,blur]", "average=swa"])
    old = run.yaml.replace("bn_images", "norm_images").replace("random_crop.Crop", "crop.Crop")
    old = old.replace("random_crop:", "crop:").replace("gaussian_blur:", "blur:").replace("gaussian_blur.B", "blur.B")
    assert yaml.safe_load(old) != yaml.safe_load(run.yaml)
    assert saved.parse_config(old, "config.yaml") == saved.parse_config(run.yaml, "config.yaml")
    assert list(saved.parse_config(old, "config.yaml")["aug"]) == ["random_crop", "gaussian_blur"]


def test_a_run_is_repeated_and_resumed_under_old_words(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["data=synthetic", "data.size=60", "data.shape=[1,8,8]", "model=fcn", "model.hidden=[4]", "epochs=1"]
    assert train([*words, "aug=crop", "log.tensorboard=false", "dir=run"]) == 0
    assert capsys.readouterr().out.count(CROP) == 1
    for name in ("overrides.yaml", "config.yaml"):  # as 0.3.0 wrote them
        file = Path("run") / name
        old = file.read_text().replace("aug.random_crop.Crop", "aug.crop.Crop").replace("random_crop", "crop")
        assert old != file.read_text()
        file.write_text(old)
    assert train(["rerun=run", "dir=again"]) == 0
    assert "same bits as" in capsys.readouterr().out
    assert train(["resume=run", "epochs=2"]) == 0
    assert "crop" not in (Path("run") / "changed.json").read_text()


def test_explain_and_cfg_know_old_names(capsys):
    assert explain(["crop"]) == explain(["aug=random_crop"]) == explain(["aug=crop"])
    assert train(["aug=crop", "--cfg", "job"]) == 0
    printed = capsys.readouterr()
    assert printed.err == f"warning: {CROP}\n" and "random_crop:" in printed.out


@pytest.mark.parametrize("module", renamed.MODULES.values())
def test_every_new_module_exists(module):
    assert import_module(module)


def test_a_hostile_configuration_ends_too():
    bomb = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{x: *a{n - 1}, y: *a{n - 1}}}\n" for n in range(1, 60))
    with pytest.raises(
        UsageError, match=r"config\.yaml: is damaged \(anchors, aliases and tags are not read\); move it"
    ):
        saved.parse_config(f"{bomb}aug: &b {{c: *b, d: *a59}}\naverage: [1]\n", "config.yaml")


def test_other_targets_stay():
    tree = {"aug": {"flip": {"_target_": "deeptrain.aug.flip.Flip"}}, "model": {"_target_": "mine.Net"}, "seed": 1}
    before = repr(tree)
    renamed.update_targets(tree)
    assert repr(tree) == before

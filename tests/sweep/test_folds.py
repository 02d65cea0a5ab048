"""folds=k: a sweep over the folds, its words, its order, and what is refused."""

import multiprocessing
import os
from pathlib import Path

import pytest

from deeptrain.commands.cli import train
from deeptrain.errors import UsageError
from deeptrain.sweep import ablation, server
from deeptrain.sweep.plan import is_declared, lay_out

MODEL = ["model=fcn", "epochs=1"]


def test_a_job_says_its_fold_and_its_seed_deals_the_folds():
    plan = lay_out([*MODEL, "aug=none,cutout", "seed=4,7", "folds=3"])
    assert [job.name for job in plan.jobs[:4]] == [
        "aug=none,seed=4,data.fold=0",
        "aug=cutout,seed=4,data.fold=0",
        "aug=none,seed=4,data.fold=1",
        "aug=cutout,seed=4,data.fold=1",
    ], "a sweep that is cut short has measured all settings equally often"
    assert len(plan.jobs) == 12 and plan.jobs[-1].setting == "aug=cutout"
    assert plan.jobs[-1].words[-3:] == ("data.folds=3", "data.fold=2", "data.split_seed=7")
    assert "folds=3" in plan.words, "so that the same command is known again"


def test_folds_alone_make_a_sweep():
    assert is_declared(["folds=5"]) and not is_declared(["data.folds=5", "data.fold=0"])
    plan = lay_out([*MODEL, "folds=5"])
    assert [job.name for job in plan.jobs] == [f"data.fold={fold}" for fold in range(5)]
    assert plan.jobs[0].words == (*MODEL, "data.folds=5", "data.fold=0"), "the default seed deals as the default split"


def test_an_ablation_may_have_folds():
    plan = ablation.lay_out([*MODEL, "over=[cutout,mixup]", "seeds=2", "folds=2"])
    assert len(plan.jobs) == 4 * 2 * 2 and plan.keys == ("ablation", "seed", "data.fold")
    assert plan.jobs[-1].words[-3:] == ("data.folds=2", "data.fold=1", "data.split_seed=1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["folds=1"], "folds=1: must be a whole number from 2 to 1000; write folds=5"),
        (["folds=100000"], "from 2 to 1000"),
        (["folds=2,3"], "must be a whole number"),
        (["folds=3", "data.val_fraction=0.2"], "leave it out, since 1/3 of the images is held out"),
        (["folds=3", "data.fold=1"], "data.folds=3 data.fold=0 holds out a fold alone"),
        (["folds=3", "seed=0,1", "data.split_seed=2"], "each of several seeds deals its own folds"),
    ],
)
def test_what_does_not_go_together_is_one_line(words, message):
    with pytest.raises(UsageError) as error:
        lay_out([*MODEL, *words])
    assert len(error.value.lines) == 1 and message in error.value.lines[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.folds=3"], "says not which fold is held out; write folds=3"),
        (["data.fold=3", "data.folds=3"], "must be a number below data.folds"),
        (["folds=3", "data.fold=0"], "leave out one of them"),
        (["folds=3", "overfit=10"], "holds out no image"),
        (["-m", "folds=3", "data=gates"], "validation images of their own"),
    ],
)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_mistakes_start_nothing(words, message, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(server, "start", lambda: multiprocessing.get_context("fork"))
    assert train([*MODEL, *words]) == 2
    error = capfd.readouterr().err
    assert message in error and error.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_cross_validation_ends_in_one_row_and_goes_on(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(server, "start", lambda: multiprocessing.get_context("fork"))
    words = ["data=synthetic", "data.size=60", "model=fcn", "model.hidden=[8]", "loggers=none", "epochs=5"]
    words += [
        "device=cpu",
        "data.num_classes=2",
        "batch_size=16",
        "validate.clean_images=16",
        "data.loader=stream",
        "workers=1",
    ]
    assert train([*words, "folds=3", "jobs=2", "dir=cv"]) == 0
    said = capfd.readouterr().out
    assert "folds   the training images in 3 parts, each held out once as val; the test images stay shut" in said
    assert "over 3 folds. With other images of the same kind it is" in said and "95 % interval" in said
    assert "val 20 (fold 1 of 3 of train, from 0, stratified)" in Path("cv/data.fold=1/run.log").read_text()
    before = Path("cv/data.fold=0/result.json").read_bytes()
    Path("cv/data.fold=2/result.json").unlink()
    assert train(["resume=cv"]) == 0 and Path("cv/data.fold=0/result.json").read_bytes() == before
    assert train(["resume=cv/data.fold=0", "data.fold=1", "epochs=50"]) == 2
    assert "images held out so far would be trained on" in capfd.readouterr().err

"""From the words of a sweep to its jobs, and sweep.json as the one truth about them."""

import json

import pytest

from deeptrain.config.command_options import split_options
from deeptrain.config.compose import compose_run
from deeptrain.errors import UsageError
from deeptrain.sweep import plan
from deeptrain.sweep.options import Options
from deeptrain.sweep.plan import folder_name, lay_out, load, moved, save, start_words

WORDS = ["model=fcn,vgg", "seed=0,1", "aug=none,[mixup]", "epochs=1"]


def test_seeds_are_outermost_and_all_else_keeps_its_order():
    names = [job.name for job in lay_out(WORDS).jobs]
    settings = [f"model={model},seed={{}},aug={aug}" for model in ("fcn", "vgg") for aug in ("none", "[mixup]")]
    assert names == [name.format(seed) for seed in (0, 1) for name in settings]


def test_names_of_folders():
    assert folder_name("experiment=shelf/mixup,seed=0") == "experiment=shelf_mixup,seed=0"
    assert folder_name("aug=[cutout,mixup],seed=1") == "aug=cutout+mixup,seed=1"
    assert folder_name("aug=[]") == "aug=none"
    assert folder_name("../../x=1") == "_.._x=1", "no name leads out of the sweep, or is hidden"
    assert len(folder_name("x" * 300)) < 200 and folder_name("x" * 300) != folder_name("x" * 299)


def test_experiments_of_the_shelf_make_a_sweep():
    jobs = lay_out(["experiment=shelf/plain,shelf/mixup", "data=synthetic", "limit_steps=2"]).jobs
    assert [job.folder.name for job in jobs] == ["experiment=shelf_plain", "experiment=shelf_mixup"]
    assert [list(compose_run(list(job.words)).parts["aug"]) for job in jobs] == [[], ["mixup"]]


def test_jobs_whose_names_fit_no_folder_get_different_ones():
    jobs = lay_out(["data=image_folder", "data.root=/a:b,/a;b"]).jobs
    assert len({job.folder for job in jobs}) == 2


def test_a_run_is_named_by_the_last_of_two_words():
    jobs = lay_out(["optimizer.lr=0.1", "optimizer.lr=0.01,0.2"]).jobs
    assert [job.name for job in jobs] == ["optimizer.lr=0.01", "optimizer.lr=0.2"]


def test_a_plan_is_read_as_it_was_written(tmp_path):
    made = moved(lay_out(WORDS), tmp_path)
    save(made)
    assert load(tmp_path) == made and plan.is_sweep(tmp_path)


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"words": [], "keys": [], "jobs": [{"folder": "a"}]}', "lead out"]
)
def test_a_damaged_plan_or_one_that_leads_out_of_its_folder_is_refused(tmp_path, content):
    save(moved(lay_out(["seed=0,1"]), tmp_path))
    text = (tmp_path / "sweep.json").read_text()
    (tmp_path / "sweep.json").write_text(text.replace("seed=0", "../seed=0") if content == "lead out" else content)
    with pytest.raises(UsageError, match="is damaged"):
        load(tmp_path)


def test_a_plan_may_be_a_strangers(tmp_path):
    """Words by which it could run code, or send what is measured elsewhere, count only if they are typed."""
    save(moved(lay_out(["seed=0,1", "allow_targets=[os]"]), tmp_path))
    with pytest.raises(UsageError, match=r"allow_targets=\[os\], by which it could run any code"):
        load(tmp_path)
    assert len(load(tmp_path, ["allow_targets=[os]"]).jobs) == 2


def test_a_job_that_has_begun_goes_on_from_its_folder_and_keeps_the_words_that_no_folder_decides(tmp_path):
    job = moved(lay_out(["seed=0,1", "data=cifar10", "data.download=true"]), tmp_path).jobs[0]
    assert start_words(job) == ["seed=0", "data=cifar10", "data.download=true", f"dir='{job.folder}'"]
    job.folder.mkdir()
    (job.folder / "overrides.yaml").write_text(json.dumps(list(job.words)))
    assert start_words(job) == [f"resume='{job.folder}'", "data.download=true"]


def test_options_are_told_from_words():
    found, rest = split_options(["jobs=auto", "seed=0,1", "fail_fast=true", "retry=failed"], Options)
    assert found == Options("auto", True, "failed") and rest == ["seed=0,1"]
    with pytest.raises(UsageError) as error:
        split_options(["jobs=0", "retry=all", "dry_run=maybe"], Options)
    assert [line.partition(":")[0] for line in error.value.lines] == ["jobs=0", "retry=all", "dry_run=maybe"]

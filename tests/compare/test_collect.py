"""Folders to runs and settings: finished or not, of a sweep's plan, of 0.3.0."""

import json
from pathlib import Path

import pytest
from folders import write_run, write_study

from deeptrain.compare import collect, report, settings
from deeptrain.errors import UsageError

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"


def seeds_of(folder):
    return {each.label: [run.seed for run in each.runs] for each in settings.group(collect.collect([folder]))}


def test_runs_that_differ_in_their_seed_are_one_setting(tmp_path):
    write_study(tmp_path, none=[0.9, 0.9], mixup=[0.9])
    assert seeds_of(tmp_path) == {"aug=mixup": ["0"], "aug=none": ["0", "1"]}


def test_the_same_setting_typed_in_another_way(tmp_path):
    write_run(tmp_path / "a", "aug=[mixup]", "threads=1")
    write_run(tmp_path / "b", "aug=mixup", "seed=1", "loggers=none")
    write_run(tmp_path / "c")
    write_run(tmp_path / "d", "seed=1", "aug=none")
    assert list(seeds_of(tmp_path).values()) == [["0", "1"], ["0", "1"]]


def test_settings_are_named_by_what_tells_them_apart(tmp_path):
    write_run(tmp_path / "a", "model=resnet", "epochs=4")
    write_run(tmp_path / "b", "model=resnet", "epochs=4", "aug=mixup")
    write_run(tmp_path / "c", "model=resnet", "epochs=4", "optimizer.lr=0.1")
    assert set(seeds_of(tmp_path)) == {"defaults", "aug=mixup", "optimizer.lr=0.1"}


def test_an_experiment_is_called_by_its_name(tmp_path):
    for name, rate in (("plain", 0.1), ("quick", 0.3)):
        write_run(tmp_path / name, f"experiment=shelf/{name}", f"optimizer.lr={rate}")
        path = tmp_path / name / "overrides.yaml"
        path.write_text(f"[experiment=shelf/{name}, dir={path.parent}]")  # the rate is the experiment's, in config.yaml
    assert set(seeds_of(tmp_path)) == {"shelf/plain", "shelf/quick"}
    with_baseline = report.report([tmp_path], tmp_path, baseline="experiment=shelf/quick")
    assert any(line.startswith("shelf/quick") and "baseline" in line for line in with_baseline)


def test_what_is_not_finished_is_known_as_such(tmp_path):
    write_run(tmp_path / "cut", status=None)
    write_run(tmp_path / "nan", status="failed", reason="inf in step 3")
    (tmp_path / "failures").mkdir()
    (tmp_path / "failures" / "lost.json").write_text(json.dumps({"error": "killed by signal 9"}))
    names = ("cut", "nan", "lost", "later", "../elsewhere")
    jobs = [{"folder": name, "words": ["seed=7"], "swept": {}} for name in names]
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    found = {run.path.name: (run.status, run.reason) for run in collect.collect([tmp_path])}
    assert found == {
        "cut": ("unfinished", ""),
        "nan": ("failed", "inf in step 3"),
        "lost": ("failed", "killed by signal 9"),
        "later": ("waiting", ""),
    }


def test_a_job_that_has_not_begun_belongs_to_the_setting_of_its_words(tmp_path):
    write_study(tmp_path, none=[0.8], mixup=[0.9])
    jobs = [(f"aug={name}", f"seed={seed}") for seed in (0, 1) for name in ("none", "mixup", "cutout")]
    planned = [{"folder": ",".join(words), "words": words, "swept": {}} for words in jobs]
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": planned}))
    assert seeds_of(tmp_path) == {"aug=none": ["0", "1"], "aug=mixup": ["0", "1"], "aug=cutout": ["0", "1"]}


def test_runs_of_0_3_0(tmp_path):
    finished, interrupted = (collect.read_run(FIXTURES / "run_0_3_0" / name) for name in ("finished", "interrupted"))
    assert finished.value("final", "accuracy/val") == pytest.approx(0.10069, abs=1e-4), "that of the average"
    assert finished.value("best", "accuracy/val") == pytest.approx(0.10417, abs=1e-4)
    assert finished.config["optimizer._target_"] and len(finished.rows) == 2
    assert finished.answers is None and interrupted.words
    assert settings.group([finished, interrupted])


@pytest.mark.parametrize("damage", ["result.json", "config.yaml", "overrides.yaml", "metrics.csv", "answers.npz"])
def test_a_damaged_file_is_left_out(tmp_path, damage):
    run = write_run(tmp_path / "run", "aug=mixup")
    (run / damage).write_bytes(b"\x00[{")
    found = collect.read_run(run)
    assert (found.rows, found.answers) != (None, ()) and settings.group([found])


@pytest.mark.parametrize("value", [None, [], {"a": {}}, "x", float("nan"), -1, True], ids=repr)
def test_a_result_of_another_kind_ends_no_report(tmp_path, value):
    write_study(tmp_path, none=[0.8, 0.81], mixup=[0.9, 0.91])
    result = tmp_path / "aug=mixup,seed=1" / "result.json"
    whole = json.loads(result.read_text())
    result.write_text(json.dumps(dict.fromkeys(whole, value) | {"status": "finished"}))
    assert report.report([tmp_path], tmp_path)


def test_a_folder_without_runs_is_answered(tmp_path):
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UsageError, match="name a"):
            collect.collect([folder])

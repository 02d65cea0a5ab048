"""What a sweep says at its end: mean and spread of each setting, the gap, the cost of a step, what failed."""

from pathlib import Path

import pytest

from deeptrain.commands.cli import train
from deeptrain.config.compose import compose_sweep
from deeptrain.sweep.plan import Job, _job, folder_name, summary, time_left, train_val_gap

pytestmark = pytest.mark.slow


def job(setting: str, seed: int, best: float, step_ms: float = 10.0, error: str | None = None) -> Job:
    result = {
        "monitor": "accuracy/val",
        "higher_is_better": True,
        "best": best,
        "seconds": 30.0,
        "train_seconds": step_ms * 400 / 1000,
        "steps": 400,
        "as_percent": True,
        "metrics": {"accuracy/train_clean": 0.9, "accuracy/val": best},
    }
    return Job([], {"experiment": setting, "seed": str(seed)}, Path(setting), None if error else result, error)


def test_the_table_has_mean_spread_gap_and_cost_of_each_setting():
    jobs = [job("shelf/plain", seed, best) for seed, best in enumerate((0.60, 0.62, 0.64))]
    jobs += [job("shelf/mixup", seed, best, step_ms=12.0) for seed, best in enumerate((0.65, 0.65, 0.65))]
    _, head, first, second, *rest = summary(jobs, Path("outputs"))
    assert head.split() == ["setting", "runs", "accuracy/val", "gap", "ms/step", "time"]
    assert first.split() == ["experiment=shelf/mixup", "3", "65.00%", "±", "0.00", "+25.0", "12", "30s"]
    assert second.split() == ["experiment=shelf/plain", "3", "62.00%", "±", "2.00", "+28.0", "10", "30s"]
    assert rest[0] == "best    shelf/mixup"
    assert len({len(line) for line in (head, first, second)}) == 1, "columns are aligned"


def test_a_sweep_says_how_long_it_will_take():
    assert time_left(1, 9, 30.0) == "   about 4m00s left, if all runs take as long as this one"
    assert time_left(3, 9, 60.0) == "   about 2m00s left"
    assert time_left(9, 9, 60.0) == ""


def test_one_run_of_a_setting_has_no_spread_and_failures_are_named():
    lines = summary([job("a", 0, 0.5), job("b", 0, 0.5, error="no such thing")], Path("outputs"))
    assert "±" not in "\n".join(lines)
    assert "failed  b: no such thing" in lines


def test_gap_is_that_of_clean_training_images():
    assert train_val_gap({"accuracy/train": 0.5, "accuracy/train_clean": 0.9, "accuracy/val": 0.6}) == pytest.approx(
        0.3
    )
    assert train_val_gap({"accuracy/train": 0.5, "accuracy/val": 0.6}) == pytest.approx(-0.1)


def test_names_of_folders():
    assert folder_name("experiment=shelf/mixup,seed=0") == "experiment=shelf_mixup,seed=0"
    assert folder_name("aug=[cutout,mixup],seed=1") == "aug=cutout+mixup,seed=1"
    assert folder_name("aug=[]") == "aug=none"


def test_a_run_is_named_by_the_last_of_two_words():
    words, keys = compose_sweep(["optimizer.lr=0.1", "optimizer.lr=0.01,0.2"])
    assert [_job(job, keys, Path("outputs")).name for job in words] == ["optimizer.lr=0.01", "optimizer.lr=0.2"]


def test_experiments_of_the_shelf_sweep(tmp_path, monkeypatch, capsys):
    """With data of another kind in place of the folder; the process of each run is the one of a run alone."""
    monkeypatch.chdir(tmp_path)
    data = ["data=synthetic", "data.size=300", "data.val_fraction=0.2", "limit_steps=2", "loggers=none"]
    small = ["model.blocks=[1,1]", "model.widths=[4,4]", "validate.clean_images=20"]
    assert train(["-m", "experiment=shelf/plain,shelf/mixup", *data, *small]) == 0
    said = capsys.readouterr().out
    assert "experiment=shelf/plain" in said and "ms/step" in said

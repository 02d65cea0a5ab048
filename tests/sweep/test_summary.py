"""What a sweep says at its end: mean and spread of each setting, the gap, the cost of a step, what failed."""

from pathlib import Path
from typing import Any

import pytest

from deeptrain.sweep.plan import Job
from deeptrain.sweep.summary import summary, train_val_gap


def job(setting: str, seed: int) -> Job:
    words = ("-m", "epochs=1", f"experiment={setting}", f"seed={seed}")[1:]
    return Job(Path(f"{setting},{seed}"), words, {"experiment": setting, "seed": str(seed)})


def result(best: float, step_ms: float = 10.0) -> dict[str, Any]:
    return {
        "monitor": "accuracy/val",
        "higher_is_better": True,
        "best": best,
        "seconds": 30.0,
        "train_seconds": step_ms * 400 / 1000,
        "steps": 400,
        "as_percent": True,
        "metrics": {"accuracy/train_clean": 0.9, "accuracy/val": best},
    }


PLAIN, MIXUP = (0.60, 0.62, 0.67), (0.65, 0.65, 0.65)  # the luckiest run is not of the better setting
JOBS = [job(setting, seed) for seed in range(3) for setting in ("shelf/plain", "shelf/mixup")]
RESULTS = {job("shelf/plain", seed).name: result(best) for seed, best in enumerate(PLAIN)}
RESULTS |= {job("shelf/mixup", seed).name: result(best, step_ms=12.0) for seed, best in enumerate(MIXUP)}


def test_the_table_has_mean_spread_gap_and_cost_of_each_setting():
    _, head, first, second, *_ = summary(JOBS, Path("outputs"), RESULTS, {})
    assert head.split() == ["setting", "runs", "accuracy/val", "gap", "ms/step", "time"]
    assert first.split() == ["experiment=shelf/mixup", "3", "65.00%", "±", "0.00", "+25.0", "12", "30s"]
    assert second.split() == ["experiment=shelf/plain", "3", "63.00%", "±", "3.61", "+27.0", "10", "30s"]
    assert len({len(line) for line in (head, first, second)}) == 1, "columns are aligned"


def test_the_best_setting_is_that_of_the_best_mean_and_its_command_repeats_all_its_seeds():
    lines = summary(JOBS, Path("outputs"), RESULTS, {})
    assert "best    experiment=shelf/mixup, the best mean of 3 runs" in lines
    (again,) = [line for line in lines if line.startswith("again")]
    assert again.endswith("train.py -m epochs=1 experiment=shelf/mixup seed=0,1,2")


def test_of_a_loss_the_smallest_mean_is_the_best():
    losses = {name: each | {"higher_is_better": False} for name, each in RESULTS.items()}
    assert "best    experiment=shelf/plain, the best mean of 3 runs" in summary(JOBS, Path("outputs"), losses, {})


def test_one_run_of_a_setting_has_no_spread_and_failures_and_what_is_left_are_named():
    jobs = [job("a", 0), job("b", 0), job("c", 0)]
    lines = summary(jobs, Path("outputs"), {jobs[0].name: result(0.5)}, {jobs[1].name: "no such thing"})
    assert "±" not in "\n".join(lines)
    assert "failed  b,0: no such thing" in lines and "left    1 of 3 runs" in lines
    assert "best    experiment=a, one run" in lines


def test_gap_is_that_of_clean_training_images():
    assert train_val_gap({"accuracy/train": 0.5, "accuracy/train_clean": 0.9, "accuracy/val": 0.6}) == pytest.approx(
        0.3
    )
    assert train_val_gap({"accuracy/train": 0.5, "accuracy/val": 0.6}) == pytest.approx(-0.1)

"""The median rule: against Optuna's, and in a run among its neighbours."""

import json
from pathlib import Path

import numpy as np
import pytest

from deeptrain.commands.cli import train
from deeptrain.run.pruning import MedianRule

EPOCHS = 6
SMALL = ["data=synthetic", "data.size=120", "model=fcn", "model.hidden=[8]", "loggers=none", "device=cpu"]
SMALL += ["batch_size=32", "validate.clean_images=0", "epochs=4", "early_stop.prune=median"]


def make_run(folder: Path, curve, status: str = "finished") -> None:
    folder.mkdir(parents=True)
    rows = [f"{epoch},{epoch},{value!r}" for epoch, value in enumerate(map(float, curve), start=1)]
    (folder / "metrics.csv").write_text("\n".join(["epoch,step,accuracy/val", *rows]) + "\n")
    (folder / "result.json").write_text(json.dumps({"status": status}))


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_it_decides_as_optunas_median_pruner(tmp_path, higher_is_better):
    optuna = pytest.importorskip("optuna")
    rng = np.random.default_rng(0)
    study = optuna.create_study(
        direction="maximize" if higher_is_better else "minimize", pruner=optuna.pruners.MedianPruner()
    )
    pruned = 0
    for number in range(25):
        curve = np.cumsum(rng.normal(0.1, 1, EPOCHS)) + rng.normal()
        rule = MedianRule(tmp_path / f"{number}", "accuracy/val", higher_is_better)
        trial = study.ask()
        for epoch, value in enumerate(curve, start=1):
            trial.report(value, epoch)
            record = (max if higher_is_better else min)(curve[:epoch])
            assert bool(rule(epoch, record)) == trial.should_prune(), (number, epoch)
            if trial.should_prune():
                break
        else:
            epoch += 1
        is_pruned = epoch <= EPOCHS
        pruned += is_pruned
        study.tell(trial, None if is_pruned else curve[-1], state=optuna.trial.TrialState(2 if is_pruned else 1))
        make_run(tmp_path / f"{number}", curve[:epoch], "pruned" if is_pruned else "finished")
    assert 5 < pruned < 20, "both answers were seen"


def test_averaged_weights_count_and_other_files_are_passed_over(tmp_path):
    for number in range(5):
        make_run(tmp_path / f"{number}", [0.5, 0.6])
    (tmp_path / "4" / "metrics.csv").write_text("epoch,step,accuracy/val,accuracy/val_average\n1,1,0.1,0.9\n")
    (tmp_path / "claims").mkdir()
    (tmp_path / "sweep.json").write_text("{}")
    rule = MedianRule(tmp_path / "new", "accuracy/val", True)
    assert sorted(curve[1] for curve in rule.finished_curves()) == [0.5, 0.5, 0.5, 0.5, 0.9]
    assert not rule(1, 0.5) and not rule(3, 0.0), "nobody else was measured there"
    assert rule(2, 0.59) == "accuracy/val 0.59 after epoch 2, where the median of 4 finished runs is 0.6"


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_run_may_be_worse_by_the_margin(tmp_path, higher_is_better):
    sign = 1 if higher_is_better else -1
    for number in range(5):
        make_run(tmp_path / f"{number}", [0.5])
    rule = MedianRule(tmp_path / "new", "accuracy/val", higher_is_better, margin=0.01)
    assert not rule(1, 0.5 - 0.009 * sign) and rule(1, 0.5 - 0.011 * sign)


@pytest.mark.slow
def test_a_run_ends_as_pruned_and_goes_on_by_hand(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number in range(5):
        make_run(tmp_path / "s" / f"{number}", [1.01] * 4)
    assert train([*SMALL, "dir=s/new"]) == 0
    result = json.loads(Path("s/new/result.json").read_text())
    assert (result["status"], result["epochs"], result["final"]) == ("pruned", 1, None)
    assert "where the median of 5 finished runs is 101" in result["reason"]
    assert train(["resume=s/new"]) == 2 and "nothing left to do (accuracy/val" in capsys.readouterr().err
    assert train(["resume=s/new", "early_stop.prune=null"]) == 0
    assert json.loads(Path("s/new/result.json").read_text())["status"] == "finished"

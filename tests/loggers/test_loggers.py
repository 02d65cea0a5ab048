"""The loggers beside TensorBoard, each against what it says it writes: by whole runs, killed ones and resumed ones."""

import csv
import json
from pathlib import Path

import pytest

from deeptrain.commands.cli import train
from deeptrain.loggers.logger import BEST, GAP

RUN = ["data=synthetic", "data.size=200", "model=fcn", "model.hidden=[8]", "threads=1", "batch_size=16", "seed=3"]
RUN += ["log.every_steps=3"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def killed_and_resumed(words, monkeypatch):
    """Train 2 epochs; once more, killed in the second one after it has logged steps that no checkpoint has."""
    from deeptrain.training.trainer import Trainer

    assert train([*RUN, *words, "epochs=2", "dir=whole"]) == 0
    log = Trainer.log

    def kill(self):
        log(self)
        if self.progress.step > 15:
            raise SystemExit("killed")

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Trainer, "log", kill)
        train([*RUN, *words, "epochs=2", "dir=resumed"])
    assert train(["resume=resumed", *(word for word in words if "tracking_uri" in word)]) == 0


def records(folder):
    lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    timed = ("images_per_second", "seconds", "speed/images_per_second")
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


def test_json_lines_hold_every_log_point_and_row_once_also_after_a_kill(tmp_path, monkeypatch):
    killed_and_resumed(["loggers=json_lines"], monkeypatch)
    whole = records("whole")
    assert records("resumed") == whole
    assert [line["step"] for line in whole if line["kind"] == "step"] == list(range(3, 25, 3))
    rows = list(csv.DictReader(Path("whole/metrics.csv").read_text().splitlines()))
    found = [line for line in whole if line["kind"] == "validation"]
    assert [line["step"] for line in found] == [12, 24]
    for row, line in zip(rows, found, strict=True):
        derived = {name for name in line if name == GAP or name.startswith(BEST)}
        assert all(float(row[name]) == line[name] for name in line.keys() - {"kind", "step"} - derived)
        assert line[GAP] == pytest.approx(100 * (line["accuracy/train_clean"] - line["accuracy/val"]))
    assert found[-1]["Best/accuracy"] == max(line["accuracy/val"] for line in found)
    assert not list(tmp_path.glob("whole/events*")), "no other logger was chosen"


def test_several_loggers_go_into_one_list(tmp_path):
    assert train([*RUN, "epochs=1", "loggers=[tensorboard,json_lines]", "dir=run"]) == 0
    assert records("run") and list(tmp_path.glob("run/events*"))


@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_the_same_points_once_also_after_a_kill(tmp_path, monkeypatch):
    tracking = pytest.importorskip("mlflow.tracking")
    uri = (tmp_path / "mlruns").as_uri()
    killed_and_resumed(["loggers=[mlflow,json_lines]", f"loggers.mlflow.tracking_uri={uri}"], monkeypatch)
    client = tracking.MlflowClient(uri)
    experiment = client.get_experiment_by_name("deeptrain")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2 and {run.info.status for run in runs} == {"FINISHED"}
    expected = {}
    for line in records("whole"):
        tags = set(line) - {"kind", "step"}
        if line["kind"] == "validation":  # log points had the rest
            tags = tags & {"epoch", GAP, "Best/accuracy"} | {t for t in tags if t.endswith(("/val", "/train_clean"))}
        for tag in tags:
            expected.setdefault(tag, []).append((line["step"], line[tag]))
    for run in runs:
        for tag, points in expected.items():
            history = client.get_metric_history(run.info.run_id, tag)
            assert sorted((point.step, point.value) for point in history) == points, tag
        assert run.data.params["model"] == "fcn" and run.data.params["seed"] == "3"


def test_a_logger_that_cannot_start_is_one_line_and_leaves_no_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / "conf" / "loggers").mkdir(parents=True)
    (tmp_path / "conf" / "loggers" / "broken.yaml").write_text("# broken\nbroken:\n  _target_: refusing.Broken\n")
    (tmp_path / "refusing.py").write_text(
        "class Broken:\n    def __init__(self):\n        raise RuntimeError('no server\\nand more')\n"
    )
    assert train([*RUN, "--config-dir", "conf", "loggers=broken", "dir=run"]) == 2
    line = "error: loggers=broken: cannot start (RuntimeError: no server); leave it out, or mend that\n"
    assert capsys.readouterr().err == line and not (tmp_path / "run").exists()


def test_a_logger_without_its_package_is_refused_before_the_folder_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("deeptrain.build.measures.find_spec", lambda name: None)
    assert train([*RUN, "loggers=wandb", "dir=run"]) == 2
    line = "error: loggers=wandb: needs the package wandb; pip install 'deeptrain[wandb]'"
    assert line in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_wandb_offline_keeps_a_run_and_goes_on_in_it(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert train([*RUN, "epochs=1", "loggers=wandb", "loggers.wandb.mode=offline", "dir=run"]) == 0
    first = json.loads((tmp_path / "run" / "wandb.json").read_text())["run_id"]
    assert train(["resume=run", "epochs=2"]) == 0
    assert json.loads((tmp_path / "run" / "wandb.json").read_text())["run_id"] == first
    assert len(list((tmp_path / "run" / "wandb").glob("offline-run-*"))) == 2

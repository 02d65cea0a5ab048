"""One entry in the table of metrics appears in training, validation, every log, the terminal, the card and evaluate."""

import csv
import json

import pytest

from deeptrain.commands import evaluate
from deeptrain.commands.cli import train
from deeptrain.config.compose import compose_run
from deeptrain.errors import UsageError
from deeptrain.metrics import metric

RUN = ["data=synthetic", "data.size=200", "data.num_classes=4", "model=fcn", "model.hidden=[8]", "threads=1"]
RUN += ["epochs=3", "seed=1"]
OPTIONS = ["ece", "brier", "balanced_accuracy", "macro_f1"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def tags(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload().Tags()["scalars"]


def appears_everywhere(tmp_path, name, capsys):
    head, *rows = csv.reader((tmp_path / "run" / "metrics.csv").read_text().splitlines())
    for split in ("train", "train_clean", "val"):
        assert f"{name}/{split}" in head and f"{name}/{split}" in tags(tmp_path / "run")
    values = [float(row[head.index(f"{name}/val")]) for row in rows]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["metrics"][f"{name}/val"] == values[-1]
    shown = capsys.readouterr().out
    assert f"val {name}" in shown and f"val {name}" in (tmp_path / "run" / "run.log").read_text()
    assert f"<th>{name}</th>" in (tmp_path / "run" / "card.html").read_text()
    assert evaluate.evaluate(["run", "split=val"]) == 0
    assert f"\n{name} " in capsys.readouterr().out
    (entry,) = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    best = rows[[row[0] for row in rows].index(str(result["best_epoch"]))]
    assert entry["metrics"][name] == pytest.approx(float(best[head.index(f"{name}/val")]), rel=1e-5)
    return values, result


def test_an_entry_of_the_table_is_measured_in_every_run(tmp_path, monkeypatch, capsys):
    margin = metric.Metric(lambda p: p.probabilities.amax(1), higher_is_better=True)
    monkeypatch.setitem(metric.METRICS, "confidence", margin)
    assert train([*RUN, "monitor=confidence/val", "dir=run"]) == 0
    values, result = appears_everywhere(tmp_path, "confidence", capsys)
    assert result["monitor"] == "confidence/val" and result["best"] == max(values)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_measured_where_it_is_chosen(tmp_path, name, capsys):
    assert train([*RUN, f"metrics={name}", f"monitor={name}/val", "dir=run"]) == 0
    values, result = appears_everywhere(tmp_path, name, capsys)
    lower_is_better = name in ("ece", "brier")
    assert result["best"] == (min if lower_is_better else max)(values)


def test_metrics_change_nothing_else(tmp_path):
    assert train([*RUN, "dir=plain"]) == 0
    assert train([*RUN, f"metrics=[{','.join(OPTIONS)}]", "dir=more"]) == 0
    plain, more = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("plain", "more"))
    assert plain["weights"] == more["weights"] and plain["metrics"].items() <= more["metrics"].items()


def test_a_resumed_run_may_measure_more(tmp_path):
    assert train([*RUN, "dir=run"]) == 0
    assert train(["resume=run", "epochs=4", "metrics=ece"]) == 0
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines()))
    assert [bool(row["ece/val"]) for row in rows] == [False, False, False, True]
    assert len(rows[-1]["loss/train"]) > 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["monitor=acuracy/val"],
            "monitor=acuracy/val: did you mean accuracy/val? choose from accuracy/val, top5/val,",
        ),
        (["monitor=ece/val"], "monitor=ece/val: is not measured; add metrics=ece"),
        (["metrics=ecee"], "metrics=ecee: no such metrics; did you mean ece? choose from"),
        (["metrics=[ece,ece]"], "metrics=[ece,ece]: write each option once"),
        (["metrics=ece", "metrics.ece.bins=0"], "metrics.ece.bins=0: must be >= 1"),
    ],
)
def test_a_mistake_is_one_line(words, line):
    with pytest.raises(UsageError) as caught:
        compose_run(words)
    assert caught.value.lines[0].startswith(line)

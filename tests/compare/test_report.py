"""Comparisons: what is claimed of which runs, what is not, and the files that say so."""

import csv
import json
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from folders import write_run, write_study
from scipy import stats

from deeptrain.commands.cli import main
from deeptrain.compare import collect, page, report, study, tables, verdict
from deeptrain.errors import UsageError
from deeptrain.report import comparison

BETTER = {"none": [0.80, 0.81, 0.79, 0.80, 0.80], "mixup": [0.90, 0.91, 0.89, 0.90, 0.91]}
ALIKE = {"none": [0.80, 0.82, 0.79], "mixup": [0.81, 0.80, 0.80]}


def compared(folder, **options):
    return study.compare_runs(collect.collect([folder]), **options)


def said(found):
    return " ".join([verdict.headline(found), *verdict.sentences(found)])


def test_what_is_better_is_named_with_its_interval(tmp_path):
    found = compared(write_study(tmp_path, **BETTER))
    assert found.baseline and found.baseline.label == "aug=none" and found.images == 400
    assert verdict.headline(found).startswith("aug=mixup is better than aug=none, by 10.20 points (")
    assert "The best setting of all is aug=mixup." in said(found)
    turned = compared(tmp_path, baseline="aug=mixup")
    assert verdict.headline(turned) == "No setting is better than aug=mixup: the other one is worse."


def test_without_a_difference_nothing_is_equal(tmp_path):
    found = compared(write_study(tmp_path, **ALIKE), smallest=0.1)
    assert "No difference from aug=none is shown. If there is one, it is smaller than" in said(found)
    assert "still possible" in said(found) and "Any of the settings may be the best one." in said(found)
    assert "is excluded for aug=mixup" in said(compared(tmp_path, smallest=50))


def test_answers_widen_the_interval_by_the_luck_of_the_images(tmp_path):
    write_study(tmp_path, **ALIKE)
    both = compared(tmp_path).compared[0].gain
    for path in tmp_path.glob("*/answers.npz"):
        path.unlink()
    found = compared(tmp_path)
    assert both and both.over_images and found.compared[0].gain and not found.compared[0].gain.over_images
    assert "on these validation images" in verdict.scope(found) and not found.classes


def test_one_run_each_is_no_claim(tmp_path):
    found = compared(write_study(tmp_path, none=[0.8], mixup=[0.9]))
    assert "nothing about which is better" in verdict.headline(found) and not found.is_claim
    differences = page.page_of(found, "")
    assert ["aug", "mixup", "none"] in differences.differences and "seed=0,1,2,3,4" in said(found)


def test_a_single_run_among_repeated_ones_is_no_claim(tmp_path):
    found = compared(write_study(tmp_path, **BETTER, cutout=[0.7]))
    assert "aug=cutout has only one seed" in said(found) and "cutout is worse" not in said(found)
    assert "all 1" not in verdict.scope(found)


def test_what_learned_nothing_is_named_apart(tmp_path):
    found = compared(write_study(tmp_path, none=[0.8, 0.8, 0.5], mixup=[0.81, 0.79, 0.8], cutout=[0.5, 0.5]))
    row = next(row for row in found.rows if row.label == "aug=none")
    assert len(row.values) == 2 and [run.seed for run in row.collapsed] == ["2"]
    assert "1 of 3 runs of aug=none" in said(found) and "2 of 2 runs of aug=cutout" in said(found)
    assert all(row.label != "aug=cutout" for row in found.rows)
    write_study(tmp_path / "short", none=[0.8, 0.5], mixup=[0.81, 0.5])
    assert "1 of 2 runs of aug=mixup" in said(compared(tmp_path / "short")), "also where nothing is claimed"


def test_final_weights_count_but_for_early_stopping(tmp_path):
    write_study(tmp_path, **ALIKE)
    assert compared(tmp_path).value == "final" and compared(tmp_path, value="best").rows[0].mean == pytest.approx(0.92)
    for path in tmp_path.glob("*/config.yaml"):
        path.write_text(path.read_text().replace("patience: null", "patience: 3"))
    assert compared(tmp_path).value == "best"


def test_a_lower_loss_is_better(tmp_path):
    for seed, loss in enumerate([0.5, 0.52, 0.49]):
        for aug, less in (("none", 0.0), ("mixup", 0.3)):
            values = {"accuracy/val": 0.8, "loss/val": loss - less}
            more = {"monitor": "loss/val", "higher_is_better": False, "as_percent": False, "final": values}
            write_run(tmp_path / f"{aug}{seed}", f"aug={aug}", f"seed={seed}", keep=False, **more)
    found = compared(tmp_path)
    assert verdict.headline(found).startswith("aug=mixup is better than aug=none, by 0.3000 (")
    assert found.rows[0].label == "aug=mixup"


def test_seeds_that_were_added_are_counted(tmp_path):
    for name, seeds in (("first", (0, 1)), ("second", (2, 3, 4))):
        jobs = []
        for aug in ("none", "mixup"):
            for seed in seeds:
                write_run(tmp_path / name / f"{aug}{seed}", f"aug={aug}", f"seed={seed}", right=0.8 + seed / 100)
                jobs.append({"folder": f"{aug}{seed}", "words": []})
        (tmp_path / name / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    found = compared(tmp_path)
    assert found.looks == 2 and found.level == 0.975 and any("seeds were added" in note for note in found.notes)
    assert compared(tmp_path / "first").looks == 1


def test_changes_that_do_not_add_up(tmp_path):
    for aug, right in (("none", 0.80), ("cutout", 0.84), ("mixup", 0.84), ("[cutout,mixup]", 0.84)):
        for seed in range(4):
            write_run(tmp_path / f"{aug}{seed}", f"aug={aug}", f"seed={seed}", right=right + seed / 400)
    (pair,) = compared(tmp_path).pairs
    assert pair.name == "aug=cutout with aug=mixup" and pair.interval.mean == pytest.approx(-0.04, abs=0.003)


def test_a_baseline_that_is_none_is_answered(tmp_path):
    write_study(tmp_path, **ALIKE)
    with pytest.raises(UsageError, match="did you mean aug=mixup"):
        compared(tmp_path, baseline="aug=mixupp")


class Page(HTMLParser):
    """Collect the tags that would load something, and check that what is opened is closed."""

    VOID = ("meta", "line", "circle", "rect", "polyline", "polygon")

    def __init__(self):
        super().__init__()
        self.open, self.foreign, self.text = [], [], ""

    def handle_starttag(self, tag, attrs):
        self.foreign += [value for name, value in attrs if name in ("src", "href", "data")]
        self.open += [] if tag in self.VOID else [tag]

    def handle_endtag(self, tag):
        assert tag in self.VOID or self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_stands_alone(tmp_path):
    write_study(tmp_path, **BETTER)
    write_run(tmp_path / "bad", "aug=cutout", "note=<script>alert(1)</script>", status="failed", reason="<b>NaN</b>")
    lines = report.report([tmp_path], tmp_path, smallest=1)
    text = (tmp_path / "report.html").read_text()
    parsed = Page()
    parsed.feed(text)
    assert not parsed.open and not parsed.foreign and "alert(1)</script>" not in text
    for part in (
        "is better than",
        "Class by class",
        "<b>NaN</b>",
        "train.py -m aug=mixup seed=0,1,2,3,4",
        "other images",
    ):
        assert part in parsed.text, part
    assert len(text) < 50_000 and any(line.startswith("failed") for line in lines)
    first = [path.read_bytes() for path in sorted(tmp_path.glob("report.*"))]
    report.report([tmp_path], tmp_path, smallest=1)
    assert [path.read_bytes() for path in sorted(tmp_path.glob("report.*"))] == first, "the same runs, the same bytes"
    rows = list(csv.DictReader((tmp_path / "report.csv").open()))
    assert len(rows) == 11 and rows[0]["aug"] == "mixup" and float(rows[0]["accuracy/val final"]) == 0.9
    assert r"aug=mixup & 5 & 90.20\% $\pm$ 0.84" in (tmp_path / "report.tex").read_text()


def test_nothing_finished_is_a_report_too(tmp_path):
    write_run(tmp_path / "cut", status=None)
    lines = report.report([tmp_path], tmp_path)
    assert "No run has come to its end with accuracy/val, so there is nothing to compare yet." in lines
    assert "90.00% after epoch 4" in (tmp_path / "report.html").read_text()


def test_round_numbers():
    assert comparison.round_numbers(-0.7, 1.3) == [-0.5, 0, 0.5, 1]
    assert comparison.thin(list(range(1000)), 10)[0] == 49.5


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path / "study", **ALIKE)
    assert main(["report", "study", "baseline=aug=none", "smallest=0.5", "value=best"]) == 0
    assert (tmp_path / "study" / "report.html").is_file() and "report   study/report.html" in capsys.readouterr().out
    for words in (
        ["nowhere"],
        ["study", "basline=x"],
        ["study", "smallest=-1"],
        ["study", "value=last"],
        ["value=best"],
    ):
        assert main(["report", *words]) == 2
        assert capsys.readouterr().err.startswith("error: ")


def test_it_imports_no_torch(tmp_path):
    write_study(tmp_path, **ALIKE)
    script = f"import sys; from deeptrain.commands.cli import main; main(['report', {str(tmp_path)!r}]); "
    heavy = "heavy = {'torch', 'matplotlib', 'sklearn', 'hydra'} & set(sys.modules); assert not heavy, heavy"
    subprocess.run([sys.executable, "-c", script + heavy], check=True, stdout=subprocess.DEVNULL)


def write_folds(base, seeds=(0, 1), folds=3, **accuracies):
    for aug, right in accuracies.items():
        for seed in seeds:
            for fold in range(folds):
                words = [f"data.folds={folds}", f"data.fold={fold}", f"data.split_seed={seed}"]
                noise = 0.01 * ((7 * seed + 3 * fold) % 5) + 0.005 * (aug != "none") * (fold % 2)
                write_run(base / f"{aug},{seed},{fold}", f"aug={aug}", f"seed={seed}", *words, right=right + noise)
    return base


def test_folds_are_one_row_with_the_corrected_variance(tmp_path):
    found = compared(write_folds(tmp_path, none=0.80, mixup=0.88))
    assert [row.label for row in found.rows] == ["aug=mixup", "aug=none"] and found.folds == 3
    (row,) = found.compared
    gains = np.array(list(row.gains.values()))
    assert len(gains) == 6 and row.gain and not found.images
    assert row.gain.half == pytest.approx(stats.t.ppf(0.975, 5) * np.sqrt(gains.var(ddof=1) * (1 / 6 + 1 / 2)))
    assert "other images of the same kind" in verdict.scope(found) and "Nadeau and Bengio" in str(page._method(found))
    assert page.repeat_command(row).endswith("-m aug=mixup folds=3 seed=0,1")
    rows = list(csv.DictReader(tables.as_csv(found).splitlines()))
    assert [row["fold"] for row in rows[:3]] == ["0", "1", "2"]
    html = comparison.render(page.page_of(found, "folds"))
    assert "dots are folds" in html and "means over the folds, bands reach from the lowest fold" in html
    assert "95 % interval" in tables.terminal(found)[0] and "seed" not in tables.terminal(found)[0]


def test_one_setting_over_folds_has_an_interval_for_other_images(tmp_path):
    found = compared(write_folds(tmp_path, seeds=(0,), folds=5, none=0.80))
    values = np.array(list(found.rows[0].values.values()))
    half = stats.t.ppf(0.975, 4) * np.sqrt(values.var(ddof=1) * (1 / 5 + 1 / 4))
    low, high = (f"{100 * (values.mean() + sign * half):.2f}%" for sign in (-1, 1))
    assert f"over 5 folds. With other images of the same kind it is {low} to {high}" in said(found)


def test_five_folds_are_not_paired_with_five_seeds(tmp_path):
    write_folds(tmp_path / "a", seeds=(0,), folds=5, none=0.8)
    write_study(tmp_path / "b", mixup=[0.9] * 5)
    assert not compared(tmp_path).is_claim

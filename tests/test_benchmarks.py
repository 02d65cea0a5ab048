"""The benchmarks still run, in their shortest form, and say what they should; how fast is not a test's business."""

import dataclasses
import importlib
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
ZOO = ("diagnosis", "zoo", "zoo.history", "zoo.patients", "zoo.report", "zoo.rivals")
MODULES = (
    "timing",
    "ours",
    "step",
    "loader",
    "augment",
    "train",
    "shelf",
    "randomness",
    "find_lr",
    "large_batches",
    "run",
    *ZOO,
)


@pytest.fixture
def load(monkeypatch):
    """Import a benchmark as if it had been started; leave nothing of it behind."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    threads = torch.get_num_threads()
    yield importlib.import_module
    torch.set_num_threads(threads)
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "name, ways",
    [
        ("step", ["bare loop", "bare loop, fused=True", "deeptrain"]),
        ("loader", ["deeptrain", "torchvision v1 on PIL, 2 workers", "torchvision v2 on tensors, 2 workers"]),
        ("augment", ["deeptrain", "torchvision v2 on PIL", "torchvision v2 on PIL, 2 workers"]),
        ("randomness", ["model=fcn data=digits", "model=resnet aug=mixup data=digits"]),
        ("train", ["deeptrain", "by hand: torchvision, 2 workers", "by hand: resident tensors"]),
    ],
)
def test_every_benchmark_prints_its_table(name, ways, load, capsys):
    load(name).main(["--quick"])
    printed = capsys.readouterr().out
    lines = [line.split("|")[1].strip() for line in printed.splitlines() if line.startswith("|")]
    assert set(ways) <= set(lines)
    assert "goal: " in printed


def test_scripts_that_run_one_by_one_fill_one_table(load, monkeypatch, tmp_path):
    run, values = load("run"), {"step": 1.0, "loader": 3.0}
    monkeypatch.setattr(run, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results.json")
    run.PAGE.write_text(f"before\n{run.BEGIN}\nold\n{run.END}\nafter\n")

    def measured(name, words):
        row = {"step": "C5", "loader": "C1b"}.get(name)
        goals = [run.asdict(run.Goal(row, f"{name} {' '.join(words)}", values[name], 2))] if row else []
        return run.Result(goals, "2026-11-27", "2 cores", "torch 2", 0.5) if row else "ValueError: broken"

    monkeypatch.setattr(run, "measured", measured)
    assert run.main(["--only", "step"]) == 1, "below its bar"
    assert run.main(["--only", "loader", "--rounds", "2"]) == 0
    lines = run.PAGE.read_text().splitlines()
    rows = [line for line in lines if line.startswith("| C")]
    assert rows == [
        "| C1b | loader --rounds 2 |  |  | 3 | ≥ 2 |  | must |",
        "| C5 | step  |  |  | 1 | ≥ 2 |  | **no** |",
    ]
    assert lines[0] == "before" and lines[-1] == "after" and "old" not in lines
    assert "- `step`: 2026-11-27, 2 cores; 0.5 minutes." in lines
    assert "| | `benchmarks/augment.py` has not run | | | | | | not measured |" in lines
    before = run.PAGE.read_text()
    assert run.main(["--only", "train"]) == 1, "an error"
    assert run.main(["--only"]) == 0 and run.PAGE.read_text() == before, "the table alone"


def test_the_shelf_is_clocked_beside_what_it_is_added_to(load, capsys):
    load("shelf").main(["--quick", "mixup", "dropout"])
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in capsys.readouterr().out.splitlines()[3:7]]
    assert rows == [["plain", "plain"], ["plain_classifier"] * 2, ["mixup", "plain"], ["dropout", "plain_classifier"]]


def test_large_batches_have_two_budgets(load, monkeypatch, capsys):
    large_batches = load("large_batches")
    monkeypatch.setattr(large_batches, "RECIPES", {"LARS": ["optimizer=lars", "scale_lr=sqrt"]})
    large_batches.main(["--quick"])
    said = capsys.readouterr().out
    assert said.count("| LARS | ") == 4 and "The same epochs, accuracy" in said and "The same steps, accuracy" in said
    assert "| recipe | 64 (17 steps) | 256 (4 steps) |" in said and "noise scale, images: none" in said


def test_the_search_for_the_rate_is_compared_with_a_grid(load, capsys):
    load("find_lr").main(["--quick"])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("digits/fcn/sgd ")
    assert " of the grid's steps | find_lr " in line and "fastai valley" in line


def test_a_patient_of_the_zoo_is_examined_and_its_command_pasted(load, capsys, tmp_path):
    words = ["--quick", "--steps", "1", "--out", str(tmp_path / "known.jsonl"), "zoo"]
    load("diagnosis").main(words)
    said = capsys.readouterr().out
    assert said.startswith("WRONG   1 rate x100: -; twin 0.9"), "step 1 trains nothing, so it is silent"
    assert "open: named 0 of 1" in said and "open: UMLAUT names" in said
    load("diagnosis").main(words)
    assert capsys.readouterr().out == said, "what is known is not measured again"


def test_patients_have_verdicts_that_there_are(load):
    from deeptrain.analysis.verdicts import TITLES

    patients, rivals = load("zoo.patients").PATIENTS, load("zoo.rivals").TOOLS
    means = {name for rules in rivals.values() for _, _, verdicts in rules for name in verdicts}
    assert means | {name for patient in patients for name in patient.accepted} <= TITLES.keys()
    assert len({patient.words for patient in patients}) == len(patients) == 52


def test_the_interval_of_a_share(load):
    """Wilson (1927); the values are statsmodels' proportion_confint."""
    interval = load("zoo.report").interval
    assert interval(9, 10) == pytest.approx((0.5958, 0.9821), abs=2e-4)
    assert interval(0, 20) == pytest.approx((0.0, 0.1611), abs=2e-4)


def test_timing_tells_what_starts_from_what_a_unit_costs(load, monkeypatch):
    """With a clock of our own: 10 seconds to start and 2 a unit, against half of both."""
    timing = load("timing")
    now = np.zeros(2)
    monkeypatch.setattr(timing, "_now", now.copy)

    def way(start, each):
        def prepare(units):
            def work():
                now[:] += start + each * units

            return work

        return timing.Way(prepare, 5, 25)

    timings = timing.measure({"slow": way(10.0, 2.0), "fast": way(5.0, 1.0)}, rounds=3)
    assert timings["slow"].steady.tolist() == [[2.0, 2.0]] * 3
    assert timings["slow"].whole.tolist() == [[2.4, 2.4]] * 3
    assert timing.median(timings["fast"].steady).tolist() == [1.0, 1.0]
    assert timing.times_faster(timings["fast"].steady, timings["slow"].steady).tolist() == [2.0, 2.0]
    assert timing.spread(timings["fast"].steady).tolist() == [0.0, 0.0]


def test_a_way_in_a_process_of_its_own_is_clocked_there(load, tmp_path, monkeypatch):
    timing = load("timing")
    made = "def make(short):\n    return Way(lambda units: lambda: sum(range(units)), short, 3 * short)\n"
    (tmp_path / "summing.py").write_text(f"from timing import Way\n\n\n{made}")
    monkeypatch.syspath_prepend(tmp_path)
    way = timing.Apart(importlib.import_module("summing").make, 10**5)
    sys.modules.pop("summing")
    assert (way.short, way.long) == (10**5, 3 * 10**5)
    assert timing.measure({"summing": way}, rounds=2)["summing"].whole.min() > 0
    assert way.process.exitcode == 0


def test_coverage_of_intervals(monkeypatch, capsys):
    coverage = runpy.run_path(str(BENCHMARKS / "coverage.py"))  # there is a package of this name
    small = coverage["coverage"].__globals__
    monkeypatch.setitem(small, "SEEDS", (3,))
    monkeypatch.setitem(small, "SETTINGS", (2,))
    coverage["coverage"](50)
    coverage["images"](5)
    said = capsys.readouterr().out
    assert said.count("%") > 12 and "lowest: " in said and "seeds only" in said


def test_a_search_is_compared_with_a_grid(monkeypatch, capsys):
    pytest.importorskip("optuna")
    monkeypatch.setattr("deeptrain.search.study.server.call", lambda function, *arguments: function(*arguments))
    threads, tune = torch.get_num_threads(), runpy.run_path(str(BENCHMARKS / "tune.py"))
    settings = tune["repetition"].__globals__
    one = {name: {key: values[1:2] for key, values in axes.items()} for name, axes in settings["GRIDS"].items()}
    monkeypatch.setitem(settings, "GRIDS", one)
    rng = torch.Generator().manual_seed(0)
    task = dataclasses.replace(tune["TASKS"]["mnist"], epochs=2)
    train, val, test = ((torch.randn(500, 1, 20, generator=rng), torch.arange(500) % 10) for _ in range(3))
    data = tune["Data"](task, train, val, test)
    rows = np.array([tune["repetition"](data, index, 3) for index in range(2)])
    assert rows.shape == (2, 8) and (rows[:, :4] < 0.5).all() and (rows[:, 4] == 1).all(), (
        "noise: nothing is pruned yet"
    )
    tune["summary"](rows)
    torch.set_num_threads(threads)
    said = capsys.readouterr().out
    assert "epochs saved 0 % (goal 40 %)" in said or "epochs saved 0% (goal 40 %)" in said

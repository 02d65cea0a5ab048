"""Whole searches: the same trials after a kill, repeats, failures, joining, going on, confirming, exporting."""

import csv
import json
import math
import multiprocessing
import os
import signal
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from deeptrain.commands.cli import train
from deeptrain.commands.tune import tune
from deeptrain.config.axes import Choice, Interval
from deeptrain.search import confirm, launch, study, trials
from deeptrain.search.space import Space
from deeptrain.search.study import Study
from deeptrain.sweep import server
from deeptrain.sweep.ledger import Ledger
from deeptrain.sweep.options import Options
from deeptrain.sweep.plan import Plan, load, save

pytest.importorskip("optuna")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")]

SPACE = Space(
    ("model=fcn",),
    {"optimizer.lr": Interval(1e-4, 1e-1, log=True), "optimizer.weight_decay": Interval(1e-5, 1e-1, log=True)},
)
OWN = {"optimizer.lr": "0.003", "optimizer.weight_decay": "0.05"}
EPOCHS = 5


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path, monkeypatch):
    """Fork from this process, which has imported everything."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(server, "start", lambda: multiprocessing.get_context("fork"))


def stand_in(words: list[str]) -> int:
    """Stand in for a run: a rate of 0.01 is best, one above 0.03 fails, one below 0.001 is pruned."""
    settings = dict(word.split("=", 1) for word in words)
    folder, lr = Path(settings["dir"].strip("'")), float(settings.get("optimizer.lr", 0.003))
    with Path("ran.txt").open("a") as file:
        file.write(f"{folder.name}\n")
    folder.mkdir(exist_ok=True)
    time.sleep(0.05)
    value, is_pruned = 1 - abs(math.log10(lr) + 2) / 4, lr < 0.001
    curve = [value * epoch / EPOCHS for epoch in range(1, 2 if is_pruned else EPOCHS + 1)]
    rows = [f"{epoch},{epoch},{point}" for epoch, point in enumerate(curve, start=1)]
    (folder / "metrics.csv").write_text("\n".join(["epoch,step,accuracy/val", *rows]) + "\n")
    result = {"monitor": "accuracy/val", "higher_is_better": True, "as_percent": True, "seconds": 1.0, "steps": 1}
    status = "failed" if lr > 0.03 else "pruned" if is_pruned else "finished"
    final = {"accuracy/val": value} if status == "finished" else None
    result |= {"status": status, "reason": "the loss is NaN", "best": max(curve), "final": final, "epochs": len(curve)}
    (folder / "overrides.yaml").write_text("[]")
    (folder / "result.json").write_text(json.dumps(result))
    return int(status == "failed")


def begin(space: Space, own: dict[str, str], count: int, base: str = "s", **facts) -> tuple[Study, Plan]:
    """Make the folder of a search, trial 0 in its plan."""
    Path(base).mkdir()
    begun = Study(space, own)
    facts = {"sampler": "gp", "trials": count, "until": None, "confirm": None, "threads": 1} | facts
    plan = Plan(Path(base), ("model=fcn", "seed=7"), tuple(space.axes), (), facts)
    save(plan := Plan(plan.folder, plan.words, plan.keys, (begun.first_job(plan),), facts))
    return begun, plan


def work(begun: Study, base: str = "s", slots: int = 1) -> int:
    return launch.work(begun, load(Path(base)), stand_in, slots, [], Options())


def drawn(base: str) -> list[dict[str, str]]:
    return [job.swept for job in load(Path(base)).jobs]


def test_killed_again_and_again_it_draws_the_same_trials(capfd):
    begun, _ = begin(SPACE, OWN, 12)
    work(begun)
    said = capfd.readouterr().out
    killed, _ = begin(SPACE, OWN, 12, "killed")
    context = multiprocessing.get_context("fork")
    for after in (0.3, 0.7, 0.5):
        process = context.Process(target=work, args=(killed, "killed"))
        process.start()
        process.join(after)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        time.sleep(0.2)
    work(killed, "killed")
    assert drawn("killed") == drawn("s") and len(drawn("s")) == 12
    assert (Path("killed/trials.csv").read_text(), "12/12" in said) == (Path("s/trials.csv").read_text(), True)
    assert drawn("s")[0] == {**OWN, "seed": "7"}
    job = load(Path("s")).jobs[3]
    assert job.words[-2:] == ("early_stop.prune=median", "threads=1") and job.folder.name.startswith("003-")


def test_what_is_said_at_the_end(capfd):
    begun, _ = begin(SPACE, OWN, 22, sampler="random")
    assert work(begun) == 0
    said = capfd.readouterr().out
    known, objective = trials.read(Ledger(load(Path("s"))))
    statuses = [trial.status for trial in known]
    assert {"finished", "pruned", "failed"} == set(statuses)
    assert f"22 trials: {statuses.count('finished')} finished, {statuses.count('pruned')} pruned" in said
    assert ": the loss is NaN" in said and "(your settings)" in said
    best = objective.best_first(known)[0]
    assert f"best     optimizer.lr={best.values['optimizer.lr']} " in said and "so it is flattered" in said
    assert f"again    python train.py model=fcn optimizer.lr={best.values['optimizer.lr']} " in said
    assert "early_stop" not in said.partition("again    ")[2].partition("\n")[0]
    assert "python scripts/tune.py resume=s confirm=5x3" in said
    rows = list(csv.DictReader(Path("s/trials.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == statuses and float(rows[best.number]["accuracy/val"]) == best.value
    used, full = sum(trial.epochs for trial in known if trial.status != "failed"), EPOCHS
    share = 1 - used / (full * sum(status != "failed" for status in statuses))
    assert f"pruning saved {100 * share:.0f} % of the epochs" in said


def test_a_setting_that_is_drawn_again_is_repeated_with_another_seed():
    space = Space((), {"aug": Choice(("none", "[mixup]")), "loss": Choice(("cross_entropy", "focal"))})
    begun, _ = begin(space, {"aug": "none", "loss": "cross_entropy"}, 7, sampler="random")
    work(begun)
    swept = drawn("s")
    assert len({json.dumps(values) for values in swept}) == 7, "no run comes twice"
    settings = [(values["aug"], values["loss"]) for values in swept]
    for number, values in enumerate(swept):
        assert int(values["seed"]) == 7 + settings[:number].count(settings[number])


def test_a_folder_of_a_stranger_decides_nothing(capfd):
    _, plan = begin(SPACE, OWN, 3)
    words = ["model=fcn", "optimizer.lr=log(1e-4,1e-1)"]
    for facts, typed, answer in [
        ({"trials": "many"}, words, "is damaged; start a new search"),
        ({"until": "tomorrow"}, words, "is damaged; start a new search"),
        ({}, [*words, "allow_targets=[os]"], "asks for allow_targets=[os], by which it could run any code"),
    ]:
        save(Plan(plan.folder, tuple(typed), plan.keys, plan.jobs, plan.facts | facts))
        assert tune(["resume=s"]) == 2 and answer in capfd.readouterr().err
    assert not Path("ran.txt").exists()


def test_two_terminals_draw_each_trial_once():
    begun, _ = begin(SPACE, OWN, 10, sampler="random")
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=work, args=(begun, "s", 2)) for _ in "ab"]
    for terminal in both:
        terminal.start()
    for terminal in both:
        terminal.join()
    names = Path("ran.txt").read_text().split()
    assert sorted(names) == sorted(job.folder.name for job in load(Path("s")).jobs) and len(names) == 10


def test_when_the_time_is_over_or_all_fail_no_trial_is_drawn(capfd):
    past = f"{datetime.now() - timedelta(hours=1):{study.CLOCK}}"
    begun, _ = begin(SPACE, OWN, 9, until=past)
    assert work(begun) == 0 and len(drawn("s")) == 1
    high = Space((), {"optimizer.lr": Interval(0.06, 0.1)})
    begun, _ = begin(high, {"optimizer.lr": "0.07"}, 40, "failing")
    work_failing = Study(high, begun.own)
    plan = load(Path("failing"))
    plan.jobs[0].folder.mkdir()
    (plan.jobs[0].folder / "result.json").write_text('{"status": "failed", "reason": "no luck"}')
    assert work(work_failing, "failing") == 1
    assert len(drawn("failing")) == study.HOPELESS and "no trial has come to its end" in capfd.readouterr().out


def test_the_best_are_confirmed_on_seeds_that_chose_none_of_them(capfd):
    begun, _ = begin(SPACE, OWN, 12, sampler="random")
    work(begun)
    plan = load(Path("s"))
    finalists = confirm.make(begun, plan, 2, 3)
    known, objective = trials.read(Ledger(plan))
    best = [trial.values for trial in objective.best_first(known) if trial.number][:2]
    assert [job.swept["seed"] for job in finalists.jobs] == ["8"] * 3 + ["9"] * 3 + ["10"] * 3
    wanted = [OWN, *[values for values in best if values in [t.values for t in objective.best_first(known)[:2]]]]
    assert [{key: job.swept[key] for key in OWN} for job in finalists.jobs[: len(wanted)]] == wanted
    assert not any("early_stop" in word for job in finalists.jobs for word in job.words)
    assert confirm.run(begun, plan, "2x3", stand_in, 2, [], Options()) == 0
    said = capfd.readouterr().out
    assert "seeds that chose none of them" in said and "chosen   among" in said
    (winner,) = (line for line in said.splitlines() if line.startswith("winner"))
    assert all(f"{key}={value}" in winner for key, value in wanted[1].items()) and "with another seed" in winner
    assert confirm.make(begun, plan, 2, 3).folder == Path("s/confirm"), "it goes on there"
    assert confirm.make(begun, plan, 1, 3).folder == Path("s/confirm-2")


def test_what_a_winner_can_be_expected_to_reach_is_not_its_luck():
    """Five equal settings on three seeds: the best mean lies above the truth, the expected value does not."""
    draws = np.random.default_rng(0).normal(size=(4000, 5, 3))
    assert draws.mean(2).max(1).mean() > 0.6
    assert abs(np.mean([confirm.expected(each, True) for each in draws])) < 0.03
    assert abs(np.mean([confirm.expected(each, False) for each in draws])) < 0.03
    clear = np.array([[1.0, 2.0, 3.0], [11.0, 12.0, 16.0]])
    assert (confirm.expected(clear, True), confirm.expected(clear, False)) == (13.0, 2.0)


def test_the_command_from_its_words_to_its_export(capfd):
    import optuna

    words = ["data=synthetic", "data.size=120", "model=fcn", "model.hidden=[8]", "limit_steps=2", "loggers=none"]
    words += ["device=cpu", "batch_size=16", "validate.clean_images=0", "seed=3"]
    space = ["optimizer.lr=log(1e-4,1e-1)", "aug=[],[mixup]"]
    assert tune([*words, *space, "trials=2", "dry_run=true"]) == 0
    said = capfd.readouterr().out
    assert "search  2 trials, sampler=gp" in said and "all 2 without pruning: about" in said
    assert tune([*words, "optimizer.lr=1e-4,1e-1", "trials=2", "dry_run=true"]) == 0
    assert "two values alone; all between them are 'optimizer.lr=log(0.0001,0.1)'" in capfd.readouterr().out
    assert not Path("outputs").exists()

    assert tune([*words, *space, "trials=2", "dir=s"]) == 0
    said = capfd.readouterr().out
    assert "2/2" in said and "warning: aug: what starts slowly may be pruned too soon" in said
    assert tune([*words, *space, "dir=s"]) == 2 and "go on with it" in capfd.readouterr().err
    assert train(["resume=s", "trials=+1"]) == 0
    assert len(drawn("s")) == 3
    assert tune(["resume=s", "trials=2"]) == 2 and "write trials=+2 for so many more" in capfd.readouterr().err
    before = Path("s/sweep.json").read_bytes()
    assert tune(["resume=s", "trials=+5", "dry_run=true"]) == 0 and Path("s/sweep.json").read_bytes() == before
    assert tune(["resume=s", "trial=2"]) == 2
    assert "trial=2: is in s/002-" in (said := capfd.readouterr().err) and "again: python train.py" in said
    assert tune(["resume=s", "trial=9"]) == 2 and "there are trials 0 to 2" in capfd.readouterr().err
    assert tune(["s"]) == 2 and "s: write resume=s" in capfd.readouterr().err
    assert tune(["resume=s", "export=no/s.log"]) == 2 and "folder no does not exist" in capfd.readouterr().err
    assert tune(["resume=s", "export=s.log"]) == 0

    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend("s.log"))
    loaded = optuna.load_study(study_name=None, storage=storage)
    known, _ = trials.read(Ledger(load(Path("s"))))
    assert [trial.value for trial in loaded.trials] == [trial.value for trial in known]
    assert loaded.trials[1].params["optimizer.lr"] == float(known[1].values["optimizer.lr"])
    assert loaded.trials[1].intermediate_values == {int(epoch): value for epoch, value in known[1].curve.items()}


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["optimizer.lr=0.1"], "no setting has a range"),
        (["-m", "optimizer.lr=log(1e-4,1)"], "-m: a search does not read it; leave it out"),
        (["optimizer.lr=log(1e-4,1)", "trials=0"], "trials=0: must be >= 1"),
        (["optimizer.lr=log(1e-4,1)", "trials=+20"], "trials=+20: goes with resume="),
        (["optimizer.lr=log(1e-4,1)", "confirm=5"], "confirm=5: write confirm=5x3"),
        (["optimizer.lr=log(1e-4,1)", "confirm=5x1"], "at least 2"),
        (["optimizer.lr=log(1e-4,1)", "launcher=slurm"], "is for sweeps, as a search draws trial after trial"),
        (["optimizer.lr=log(1e-4,1)", "folds=5"], "here write data.folds=5 data.fold=0"),
        (["optimizer.lr=log(1e-4,1)", "sampler=grid"], "write -m with train.py instead"),
        (["optimizer.lr=log(1e-4,1)", "sampler=cmaes"], "choose from auto, gp, tpe, random"),
        (["optimizer.lr=log(1e-4,1)", "trial=2"], "trial=2: write trials=2 for so many trials"),
        (["optimizer.lr=log(1e-4,1)", "trials=+0"], "trials=+0: write a whole number from 1, as in trials=+20"),
        (["resume="], "resume= names nothing"),
        (["resume=nowhere"], "is no search; name its folder"),
        (["export=x.log"], "needs the folder of a search"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_nothing(words, answer, capfd):
    assert tune(words) == 2
    said = capfd.readouterr().err
    assert answer in said and said.count("\n") == 1
    assert not list(Path().iterdir())

"""Edges, smaller ranges, and settings that do not matter."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from deeptrain.config.axes import Choice, Interval
from deeptrain.search import findings
from deeptrain.search.space import Space
from deeptrain.search.trials import Objective, Trial
from deeptrain.sweep.plan import Job

SPACE = Space((), {"lr": Interval(1e-4, 1e-1, log=True), "decay": Interval(0.0, 1.0), "aug": Choice(("a", "b"))})


def study(count: int, value, seed: int = 0) -> list[Trial]:
    """Return trials at random places, each with the value that a function gives them."""
    rng = np.random.default_rng(seed)
    trials = []
    for number in range(count):
        lr, decay, aug = 10 ** rng.uniform(-4, -1), rng.uniform(), "ab"[rng.integers(2)]
        values = {"lr": f"{lr:.4g}", "decay": f"{decay:.4g}", "aug": aug}
        trials.append(Trial(number, Job(Path(), (), values), values, "finished", value(lr, decay, aug)))
    return trials


def best(trials: list[Trial]) -> list[Trial]:
    return findings.best_trials(trials, Objective())


def test_the_best_at_an_edge_asks_for_a_wider_range():
    trials = study(40, lambda lr, decay, aug: math.log(lr) - 0.01 * decay)
    (found,) = findings.edges(SPACE, best(trials), lambda key, value: True).items()
    assert found == ("lr", ("upper", Interval(1e-4, 1.0, log=True)))
    assert not findings.edges(SPACE, best(trials), lambda key, value: False), "it can be no wider"
    trials = study(40, lambda lr, decay, aug: -decay - 0.01 * abs(math.log10(lr) + 2.5))
    assert findings.edges(SPACE, best(trials), lambda key, value: True) == {"decay": ("lower", Interval(-1.0, 1.0))}


def test_no_edge_where_the_best_is_inside_and_the_range_gets_smaller():
    trials = study(60, lambda lr, decay, aug: -abs(math.log10(lr) + 2) - abs(decay - 0.5))
    assert not findings.edges(SPACE, best(trials), lambda key, value: True)
    smaller = findings.refined(SPACE, best(trials))
    assert smaller["lr"].log and 1e-4 < smaller["lr"].low < 0.01 < smaller["lr"].high < 0.1
    assert 0 < smaller["decay"].low < 0.5 < smaller["decay"].high < 1
    assert "lr" not in findings.refined(SPACE, best(trials), ["lr"])


def test_with_few_trials_nothing_is_said():
    trials = study(19, lambda lr, decay, aug: math.log(lr))
    assert not best(trials) and not findings.did_not_matter(SPACE, trials, Objective(), 0)


def test_what_matters_is_told_from_what_does_not():
    """Of 20 searches in which lr decides alone: lr is never called idle, the two others nearly always."""
    idle = [
        findings.did_not_matter(
            SPACE, study(40, lambda lr, decay, aug: -abs(math.log10(lr) + 2), seed), Objective(), seed
        )
        for seed in range(20)
    ]
    assert not any("lr" in names for names in idle)
    assert sum("decay" in names for names in idle) >= 17 and sum("aug" in names for names in idle) >= 17


def test_a_choice_is_measured_by_its_own_shuffled_values():
    """One of two choices decides in 12 searches."""
    idle = [
        findings.did_not_matter(
            SPACE, study(60, lambda lr, decay, aug: (aug == "b") + decay / 2, seed), Objective(), seed
        )
        for seed in range(12)
    ]
    assert sum("aug" in names for names in idle) <= 1


def test_what_decides_is_seen_after_most_trials_were_drawn_near_the_best():
    rng = np.random.default_rng(0)
    rates = [*(10 ** rng.uniform(-4, -1, 12)), *(10 ** rng.normal(-2.5, 0.02, 28))]
    values = [{"lr": f"{rate:.4g}"} for rate in rates]
    near = [-abs(math.log10(rate) + 2.5) // 0.05 for rate in rates]  # the late ones are equally good
    trials = [
        Trial(number, Job(Path(), (), each), each, "finished", value)
        for number, (each, value) in enumerate(zip(values, near, strict=True))
    ]
    assert not findings.did_not_matter(Space((), {"lr": SPACE.axes["lr"]}), trials, Objective(), 0)


def test_a_setting_of_one_option_is_judged_by_the_trials_that_have_it():
    space = Space((), {"aug": SPACE.axes["aug"], "lr": SPACE.axes["lr"]}, {"lr": ("aug", frozenset("a"))})
    trials = []
    for trial in study(60, lambda lr, decay, aug: math.log(lr)):
        values = {key: trial.values[key] for key in space.axes if space.exists(key, trial.values)}
        trials.append(replace(trial, job=Job(Path(), (), values), values=values))
    assert "lr" not in findings.did_not_matter(space, trials, Objective(), 0)
    assert not findings.did_not_matter(space, [each for each in trials if "lr" not in each.values], Objective(), 0)[1:]

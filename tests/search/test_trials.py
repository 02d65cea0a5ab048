"""What a sampler is told of trials that were pruned, failed, or still run."""

from pathlib import Path

import pytest

from deeptrain.config.axes import Interval
from deeptrain.search.space import Space
from deeptrain.search.trials import Objective, Trial, as_told, settings
from deeptrain.sweep.plan import Job

SPACE = Space((), {"lr": Interval(0.0, 1.0)})


def trial(number: int, lr: float, status: str, value: float | None, *curve: float) -> Trial:
    values = {"lr": f"{lr:g}"}
    points = {float(epoch): point for epoch, point in enumerate(curve, start=1)}
    return Trial(number, Job(Path(), (), values | {"seed": "0"}), values, status, value, points)


def test_what_counts_for_the_next_draw():
    trials = [
        trial(0, 0.1, "finished", 0.9, 0.5, 0.9),
        trial(1, 0.2, "stopped_early", 0.7, 0.3, 0.7),
        trial(2, 0.3, "pruned", None, 0.31),
        trial(3, 0.4, "pruned", None, 0.01, 0.02, 0.03),
        trial(4, 0.5, "failed", None),
        trial(5, 0.6, "open", None),
        trial(6, 2.0, "finished", 0.8, 0.5, 0.8),
    ]
    told = as_told(SPACE, trials, Objective())
    assert [(each.parameters["lr"], each.value) for each in told] == [
        (0.1, 0.9),
        (0.2, 0.7),
        (0.3, 0.7),  # stood nearest to trial 1 after epoch 1
        (0.4, 0.7),  # nobody was measured after epoch 3
        (0.5, 0.7),
        (0.6, None),
    ]
    assert as_told(SPACE, trials[2:5], Objective()) == [], "nothing has finished yet"
    lower = as_told(SPACE, trials, Objective("loss/val", higher_is_better=False))
    assert lower[4].value == 0.9, "of a loss the largest is the worst"


def test_repeats_are_one_setting():
    trials = [trial(0, 0.1, "finished", 0.9), trial(1, 0.1, "finished", 0.7), trial(2, 0.2, "pruned", None)]
    ((values, same),) = settings(trials)
    assert values == {"lr": "0.1"} and [each.value for each in same] == [0.9, 0.7]
    assert Objective().best_first(trials)[0].value == 0.9
    assert Objective(higher_is_better=False).best_first(trials)[0].value == pytest.approx(0.7)

"""A draw is a function of seed, trial and history alone, and lies inside the space."""

import math
import pickle
import subprocess
import sys

import pytest

from deeptrain.config.axes import Choice, Interval
from deeptrain.search.sampler import draw, kind_for
from deeptrain.search.space import Space
from deeptrain.search.trials import Told

pytest.importorskip("optuna")

AXES = {"aug": Choice(("[]", "[mixup]")), "lr": Interval(1e-4, 1e-1, log=True), "depth": Interval(2, 9, whole=True)}
SPACE = Space((), AXES)
CONDITIONAL = Space((), AXES, {"depth": ("aug", frozenset({"[mixup]"}))})


def history(space: Space, count: int, kind: str = "random") -> list[Told]:
    """Return trials whose value is best at lr=0.01."""
    told = []
    for number in range(count):
        parameters = space.parameters(draw(space, told, True, "random", 3, number)) or {}
        told.append(Told(parameters, -abs(math.log10(parameters["lr"]) + 2)))
    return told


@pytest.mark.parametrize(("space", "kind"), [(SPACE, "gp"), (SPACE, "tpe"), (CONDITIONAL, "tpe"), (SPACE, "random")])
def test_equal_histories_give_equal_draws(space, kind):
    told = history(space, 11)
    told.append(Told(told[-1].parameters, None))  # runs
    first = draw(space, told, True, kind, 0, 12)
    assert first == draw(space, list(told), True, kind, 0, 12)
    assert space.parameters(first) is not None, "inside"
    assert first != draw(space, told, True, kind, 1, 12) or kind == "gp"
    assert draw(space, told, True, "random", 0, 12) != draw(space, told, True, "random", 0, 12, 1), "drawn again"


def test_another_process_draws_the_same():
    told = history(SPACE, 10)
    script = (
        "import pickle, sys; from deeptrain.search.sampler import draw_alone; "
        "print(draw_alone(*pickle.load(sys.stdin.buffer)))"
    )
    arguments = pickle.dumps((SPACE, told, True, "gp", 0, 10))
    said = subprocess.run([sys.executable, "-c", script], input=arguments, capture_output=True, check=True)
    assert said.stdout.decode().strip() == str(draw(SPACE, told, True, "gp", 0, 10))


@pytest.mark.parametrize("kind", ["gp", "tpe"])
def test_a_sampler_learns_where_the_values_are_good(kind):
    told = history(SPACE, 20)
    rates = [float(draw(SPACE, told, True, kind, seed, 20)["lr"]) for seed in range(5)]
    assert sum(abs(math.log10(rate) + 2) < 0.75 for rate in rates) >= 4, rates


def test_a_setting_that_does_not_exist_is_not_drawn():
    drawn = [draw(CONDITIONAL, [], True, "random", 0, number) for number in range(12)]
    assert {"depth" in values for values in drawn} == {True, False}
    assert all(("depth" in values) == (values["aug"] == "[mixup]") for values in drawn)


def test_a_gaussian_process_unless_it_is_bad_at_the_space():
    long = Space((), {"aug": Choice(tuple("abcdef"))})
    assert [kind_for(SPACE, 40), kind_for(CONDITIONAL, 40), kind_for(long, 40), kind_for(SPACE, 200)] == [
        "gp",
        "tpe",
        "tpe",
        "tpe",
    ]

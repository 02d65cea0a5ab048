"""Schedules against the lecture's formulas, at fixed points, and as pure functions under a warm-up."""

import math

import pytest

from deeptrain import schedule

FACTORIES = ["constant", "step", "cosine", "linear", "inverse_sqrt", "one_cycle"]
POINTS = [k / 1000 for k in range(1001)]


def build(name: str, **settings):
    return getattr(schedule, name)(epochs=settings.pop("epochs", 90), **settings)


def test_cosine_and_linear_follow_the_lecture():
    total = 90
    cosine, linear = build("cosine", epochs=total), build("linear", epochs=total)
    for t in range(total + 1):
        assert cosine(t / total) == pytest.approx(0.5 * (1 + math.cos(math.pi * t / total)), abs=1e-12)
        assert linear(t / total) == pytest.approx(1 - t / total, abs=1e-12)


def test_inverse_sqrt_counts_epochs_from_one():
    factor = build("inverse_sqrt", epochs=100)
    assert factor(0) == factor(0.005) == factor(0.01) == 1
    for t in range(1, 101):
        assert factor(t / 100) == pytest.approx(1 / math.sqrt(t))


@pytest.mark.parametrize(
    "milestones", [[30, 60, 90], [1 / 3, 2 / 3, 1.0], [0.333333, 0.666667, 1.0], [1 / 3, 60, 1.0]], ids=str
)
@pytest.mark.parametrize("steps_an_epoch", [1, 7, 391])
def test_step_drops_tenfold_at_the_first_update_of_its_epoch(milestones, steps_an_epoch):
    factor, total = build("step", milestones=milestones), 90 * steps_an_epoch
    for epoch, before in ((30, 1.0), (60, 0.1), (90, 0.01)):
        first = epoch * steps_an_epoch
        assert factor((first - 1) / total) == pytest.approx(before)
        assert factor(first / total) == pytest.approx(before / 10)


def test_step_tells_the_last_epoch_from_the_whole_run():
    assert build("step", epochs=4, milestones=[1], gamma=0.5)(0.25) == 0.5  # epoch 1 of 4
    assert build("step", epochs=4, milestones=[1.0], gamma=0.5)(0.25) == 1  # all of the run


def test_one_cycle_rises_to_its_peak_and_falls_to_nothing():
    factor = build("one_cycle", peak=0.4, start=0.1)
    assert [factor(p) for p in (0, 0.2, 0.4, 0.7, 1)] == pytest.approx([0.1, 0.55, 1, 0.5, 0])


@pytest.mark.parametrize("name", ["cosine", "linear", "one_cycle"])
def test_floor_is_where_it_ends(name):
    factor = build(name, floor=0.25)
    assert factor(1) == pytest.approx(0.25)
    assert max(map(factor, POINTS)) == pytest.approx(1)


@pytest.mark.parametrize("name", FACTORIES)
def test_a_factor_is_a_pure_function_between_zero_and_one(name):
    factor = build(name, warmup=5)
    forward = [factor(p) for p in POINTS]
    assert forward == [factor(p) for p in reversed(POINTS)][::-1]
    assert all(0 <= value <= 1 for value in forward)


@pytest.mark.parametrize("warmup", [9, 0.1])
@pytest.mark.parametrize("name", FACTORIES)
def test_warmup_multiplies_the_formula_by_a_line(name, warmup):
    plain, warmed = build(name), build(name, warmup=warmup)
    assert warmed(0) == pytest.approx(0.01 * plain(0))
    assert warmed(0.05) == pytest.approx(0.505 * plain(0.05))
    for progress in (p for p in POINTS if p >= 0.1):
        assert warmed(progress) == pytest.approx(plain(progress), rel=1e-12)
    assert warmed(0.1 - 1e-9) == pytest.approx(warmed(0.1), abs=1e-6), "no jump at the end"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("cosine", {"epochs": 3, "warmup": 5}, "warmup=5: must be shorter than the run (epochs=3)"),
        ("linear", {"epochs": 3, "warmup": 3}, "warmup=3: must be shorter than the run (epochs=3)"),
        ("constant", {"warmup": 1.5}, "warmup=1.5: must be"),
        ("step", {"epochs": 50, "milestones": [30, 60]}, "milestones=[30, 60]: 60 lies beyond the run (epochs=50)"),
        ("step", {"milestones": [60, 30]}, "milestones=[60, 30]: must ascend; 30 is not after the one before it"),
        ("step", {"milestones": [45, 0.5]}, "milestones=[45, 0.5]: must ascend; 0.5 is not after the one before it"),
        ("step", {"milestones": [1.5]}, "milestones=[1.5]: every item must be"),
        ("one_cycle", {"peak": 0.0}, "peak=0.0: must be > 0 and < 1"),
        ("one_cycle", {"peak": 1.0}, "peak=1.0: must be > 0 and < 1"),
        ("cosine", {"floor": -0.1}, "floor=-0.1: must be >= 0 and <= 1"),
    ],
)
def test_mistakes_are_named(name, settings, message):
    with pytest.raises(ValueError) as error:
        build(name, **settings)
    assert str(error.value).startswith(message)


def test_cycles_are_cosines_that_start_again():
    cyclic, cosine = build("cyclic", cycles=5, floor=0.1), build("cosine", floor=0.1)
    for step in range(1000):
        assert cyclic(step / 1000) == pytest.approx(cosine(step % 200 / 200), abs=1e-5)
    assert cyclic(1.0) == pytest.approx(0.1)

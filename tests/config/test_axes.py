"""Ranges and choices: what is typed, by our words and by Hydra's, and what is answered to mistakes."""

import pytest

from deeptrain.config.axes import Choice, Interval, as_whole, read_axis, split_axes
from deeptrain.errors import UsageError

WARMUP = "schedule.warmup"


@pytest.mark.parametrize(
    ("word", "axis"),
    [
        ("a=log(1e-4,1e-1)", Interval(1e-4, 1e-1, log=True)),
        ("a=log(1e-4, 1e-1)", Interval(1e-4, 1e-1, log=True)),
        ("a=tag(log, interval(1e-4,1e-1))", Interval(1e-4, 1e-1, log=True)),
        ("a=interval(0,0.5)", Interval(0, 0.5)),
        ("a=range(2,9)", Interval(2, 8, whole=True)),
        ("a=tag(int,log,interval(1,100))", Interval(1, 100, log=True, whole=True)),
        ("aug=[],[cutout],[mixup]", Choice(("[]", "[cutout]", "[mixup]"))),
        ("a=choice(1,2,3)", Choice(("1", "2", "3"))),
        ("a=range(0,1,0.5)", Choice(("0.0", "0.5"))),
        ("model.hidden=[64],[64,32]", Choice(("[64]", "[64,32]"))),
        ("aug=[cutout,mixup]", None),
        ("a=3", None),
        ("dir='log(1,2)'", None),
    ],
)
def test_what_a_word_varies_over(word, axis):
    assert read_axis(word) == axis


@pytest.mark.parametrize("axis", [Interval(1e-4, 1e-1, log=True), Interval(0, 0.5), Interval(2, 8, whole=True)])
def test_a_range_is_written_as_it_is_read(axis):
    assert read_axis(f"a={axis}") == axis


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("a=log(1e-1,1e-4)", "the lower end comes first; write 'a=log(0.0001,0.1)'"),
        ("a=log(0,1)", "a log range starts above 0; write 'a=log(0.001,1)', or 'a=interval(0,1)'"),
        ("a=log(-1,0)", "a log range starts above 0"),
        ("a=range(9,2)", "the lower end comes first, as in 'a=range(2,9)'"),
        ("a=range(2,2)", "has no number"),
        ("a=interval(2,2)", "is a single value; write a=2"),
        ("a=uniform(0,1)", "uniform() is unknown; write 'a=interval(low,high)'"),
        ("a=loguniform(1,2)", "write 'a=log(low,high)'"),
        ("a=log(1)", "write 'a=log(low,high)', with two numbers"),
        ("a=log(x,y)", "write 'a=log(low,high)', with two numbers"),
        ("a=log(1e-4,1e-1),3", "a range stands alone"),
        ("a=1,1", "must be different values"),
    ],
)
def test_mistakes_are_answered(word, answer):
    with pytest.raises(UsageError) as error:
        split_axes(["b=1", word])
    assert answer in str(error.value) and str(error.value).startswith(f"{word}: ")


def test_whole_numbers_where_the_setting_takes_no_others():
    whole = Interval(2, 8)
    assert as_whole(whole, lambda number: float(number).is_integer()) == Interval(2, 8, whole=True)
    assert as_whole(whole, lambda number: True) == whole
    assert as_whole(Interval(0, 5), lambda number: number <= 1 or isinstance(number, int)).whole
    assert as_whole(Interval(0, 0.5), lambda number: False) == Interval(0, 0.5)

"""The space of a search: what exists under which option, the user's own values, and what a newcomer gets wrong."""

import pytest

from deeptrain.config.axes import Choice, Interval
from deeptrain.errors import UsageError
from deeptrain.search.space import Space, read, written


def test_the_users_own_values_and_the_words_of_a_trial():
    space, own = read(["model=fcn", "optimizer.lr=log(1e-4,1e-1)", "aug=[],[cutout],[cutout,mixup]", "epochs=3"])
    assert list(space.axes) == ["aug", "optimizer.lr"] and space.fixed == ("model=fcn", "epochs=3")
    assert own == {"aug": "[]", "optimizer.lr": "0.003"}
    assert space.words(own) == ["model=fcn", "epochs=3", "aug=[]", "optimizer.lr=0.003"]
    assert space.parameters(own) == {"aug": "[]", "optimizer.lr": 0.003}
    assert space.parameters(own | {"optimizer.lr": "0.5"}) is None, "outside its range"
    assert not space.is_conditional and space.size is None
    assert read(["model=fcn", "model.dropout=interval(0,0.5)"])[1] == {"model.dropout": "0"}, "as 0.0 is drawn"


def test_a_setting_of_some_options_exists_only_with_them():
    space, own = read(["aug=none,[mixup]", "aug.mixup.alpha=interval(0.1,1)", "schedule.warmup=interval(1,5)"])
    assert space.under == {"aug.mixup.alpha": ("aug", frozenset({"[mixup]"}))}
    assert space.axes["schedule.warmup"] == Interval(1, 5, whole=True), "2.5 epochs of warmup are refused"
    assert own == {"aug": "none", "schedule.warmup": "0.1"}
    assert space.exists("aug.mixup.alpha", {"aug": "[mixup]"}) and not space.exists("aug.mixup.alpha", {"aug": "none"})
    assert space.parameters({"aug": "none", "schedule.warmup": "3"}) == {"aug": "none", "schedule.warmup": 3}
    assert space.probes("aug.mixup.alpha")[0] == {"aug": "[mixup]", "aug.mixup.alpha": "0.1"}


@pytest.mark.parametrize(
    ("values", "meant"),
    [("1e-4,1e-1", "log(0.0001,0.1)"), ("0.5,0.1", "interval(0.1,0.5)"), ("0,0.3", "interval(0,0.3)")]
    + [(values, "None") for values in ("16,28", "0.1,0.1", "0.1,0.2,0.3", "[],[mixup]", "none,0.1")],
)
def test_two_numbers_may_be_meant_as_a_range(values, meant):
    assert str(Choice(tuple(values.split(","))).between()) == meant


def test_a_finite_space_is_counted():
    space = Space((), {"a": Choice(("x", "y", "z")), "b": Interval(2, 5, whole=True)})
    assert space.size == 12


@pytest.mark.parametrize("number", [0.0123456, 1e-4, 0.1, 0.09999999])
def test_a_number_is_written_in_four_digits_inside_its_range(number):
    axis = Interval(1e-4, 0.1, log=True)
    value = float(written(number, axis))
    assert axis.low <= value <= axis.high and value == pytest.approx(number, rel=1e-3)
    assert written(3.0, Interval(2, 5, whole=True)) == "3"
    assert Interval(1 / 3, 1).low <= float(written(1 / 3, Interval(1 / 3, 1)))


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ([], "no setting has a range; write for example"),
        (["aug=[cutout,mixup]"], "is one list: for a choice write 'aug=[cutout],[mixup]'"),
        (["optimzer.lr=log(1e-4,1e-1)"], "write optimizer.lr=log(0.0001,0.1)"),
        (["model.dropout=interval(0,0.5)"], "a setting of model=alexnet"),
        (["model=fcn", "model.dropout=interval(0,1)"], "model.dropout=1: must be >= 0 and < 1"),
        (["aug=cutuot,none"], "did you mean cutout?"),
        (["optimizer.lr=log(1e-4,1e-1)", "seed=0,1"], "a search has one seed"),
        (["optimizer.lr=log(1e-4,1e-1)", "threads=1,2"], "cannot be searched"),
        (["optimizer.lr=log(1e-4,1)", "optimizer.lr=log(1e-4,1e-1)"], "has a range already"),
        (["optimizer.lr=log(1e-4,1e-1)", "epochs=-1"], "epochs=-1: must be >= 1"),
    ],
)
def test_mistakes_are_answered_once(words, answer):
    with pytest.raises(UsageError) as error:
        read(words)
    assert answer in str(error.value) and len(error.value.lines) == 1

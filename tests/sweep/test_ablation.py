"""The jobs of an ablation: each set of methods once, with the words that add them."""

import pytest

from deeptrain.config.compose import compose_run
from deeptrain.errors import UsageError
from deeptrain.sweep.ablation import USUAL, lay_out, subsets, word_of

METHODS = {"a": "aug=a", "b": "aug=b", "c": "c=1"}


def test_none_each_all_and_all_but_one():
    assert {label: "".join(chosen) for label, chosen in subsets(METHODS).items()} == {
        "none": "",
        "a": "a",
        "b": "b",
        "c": "c",
        "all": "abc",
        "all but a": "bc",
        "all but b": "ac",
        "all but c": "ab",
    }


def test_no_set_of_methods_comes_twice():
    """Of two, all but one is each; of three, all but one is a pair."""
    two = dict(list(METHODS.items())[:2])
    assert list(subsets(two)) == ["none", "a", "b", "all"]
    assert list(subsets(two, pairs=True)) == ["none", "a", "b", "a+b"]
    assert list(subsets(METHODS, pairs=True)) == ["none", "a", "b", "c", "a+b", "a+c", "b+c", "all"]
    four = METHODS | {"d": "d=1"}
    assert len(subsets(four)) == 10 and len(subsets(four, pairs=True)) == 16


def test_words_add_augmentations_to_those_of_all_runs_and_seeds_are_outermost():
    plan = lay_out(["model=fcn", "aug=flip", "over=[cutout,label_smoothing,model.dropout=0.3]", "seeds=2"])
    first, *_, last = plan.jobs
    assert first.words == ("model=fcn", "aug=[flip]", "seed=0") and first.setting == "ablation=none"
    assert [job.swept["seed"] for job in plan.jobs] == ["0"] * 8 + ["1"] * 8
    assert last.setting == "ablation=all but model.dropout=0.3"
    assert last.words == ("model=fcn", "aug=[flip,cutout]", "loss.label_smoothing=0.1", "seed=1")
    everything = next(job for job in plan.jobs if job.setting == "ablation=all")
    settings = compose_run(list(everything.words))
    assert list(settings.parts["aug"]) == ["flip", "cutout"] and settings.parts["model"]["dropout"] == 0.3


def test_seeds_are_a_number_or_a_list():
    over = "over=[cutout,mixup]"
    assert len({job.swept["seed"] for job in lay_out([over]).jobs}) == 5
    assert [job.swept["seed"] for job in lay_out([over, "seeds=[7,3]"]).jobs][::4] == ["7", "3"]


@pytest.mark.parametrize("method", USUAL)
def test_every_usual_value_is_one_that_some_run_takes(method):
    models = ("fcn", "resnet", "vgg")
    assert any(composes([f"model={model}", "data=digits", word_of(method)]) for model in models)


def composes(words: list[str]) -> bool:
    try:
        return bool(compose_run(words))
    except UsageError:
        return False


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["over=cutout"], "must be a list of at least two methods"),
        ([], "must be a list of at least two methods"),
        (["over=[cutout,cutout]"], "must be a list of at least two methods"),
        (["over=[cutuot,mixup]"], "did you mean cutout?"),
        (["over=[l1,l2]"], "two methods set penalty"),
        (["over=[cutout,mixup]", "seeds=0"], "seeds=0: must be >= 1"),
        (["over=[cutout,mixup]", "pairs=yes"], "must be true or false"),
        (["over=[cutout,mixup]", "seed=3"], "write seeds=5"),
    ],
)
def test_mistakes_are_answered(words, answer):
    with pytest.raises(UsageError) as error:
        lay_out(words)
    assert answer in str(error.value)

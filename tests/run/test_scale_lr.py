"""scale_lr: the rate for the batch that a step really takes; what the head of a run says of large batches."""

import pytest

from deeptrain import build
from deeptrain.config import checks
from deeptrain.config.compose import compose_run
from deeptrain.config.settings import RunConfig
from deeptrain.errors import UsageError
from deeptrain.optimizer import batch_factor
from deeptrain.run import found_rate, summary

WORDS = ["data=synthetic", "data.shape=[1,8,8]", "data.size=400", "device=cpu", "model=fcn", "loggers=none"]


def setup_of(*words) -> build.Setup:
    return build.open_setup(compose_run([*WORDS, *words]))


def rates(*words):
    return [group["lr"] for group in build.trainer(setup_of(*words)).optimizer.param_groups]


@pytest.mark.parametrize(
    ("rule", "batch_size", "factor"),
    [("none", 1024, 1), ("linear", 1024, 8), ("linear", 64, 0.5), ("sqrt", 512, 2), ("sqrt", 32, 0.5)],
)
def test_the_factor_is_that_of_the_rule(rule, batch_size, factor):
    assert batch_factor(rule, batch_size, 128) == factor


@pytest.mark.parametrize("accumulate", [1, 4])
def test_every_group_is_scaled_by_the_whole_batch(accumulate):
    words = ["optimizer=muon", "batch_size=128", f"accumulate={accumulate}"]
    scaled = rates(*words, "scale_lr=linear", "base_batch=32")
    assert scaled == [4 * rate for rate in rates(*words)] and len(set(scaled)) == 2


def test_a_batch_has_no_more_images_than_there_are():
    setup = setup_of("optimizer=sgd", "batch_size=100000", "scale_lr=linear")
    assert setup.rate_factor == len(setup.dataset.train) / 128 < 4


def test_the_head_says_the_product_and_the_pieces():
    words = ["optimizer=lars", "scale_lr=sqrt", "batch_size=128", "base_batch=32", "accumulate=4", "model.norm=batch"]
    setup = setup_of(*words)
    trainer = build.trainer(setup)
    lines = [*summary._scaled_rate(setup), *summary._trust_ratios(trainer), *summary._ghost_norms(trainer, setup)]
    assert [line.split(None, 1)[1] for line in lines] == [
        "10 x √(128/32) = 20 (scale_lr=sqrt), after schedule.warmup=0.1",
        "3 have a trust ratio of their own; 7 norms and biases have none, and do not decay",
        "batch norm sees 32 images at once, not 128 (accumulate=4)",
    ]
    plain = setup_of("optimizer=sgd")
    trainer = build.trainer(plain)
    assert not [*summary._scaled_rate(plain), *summary._trust_ratios(trainer), *summary._ghost_norms(trainer, plain)]


def test_a_searched_rate_is_not_scaled():
    run: RunConfig = compose_run(["optimizer.lr=auto", "scale_lr=linear"])
    with pytest.raises(UsageError, match=r"lr=auto: is searched with this batch size; leave out scale_lr=linear"):
        found_rate.check(run)


@pytest.mark.parametrize(
    "words",
    [["batch_size=300"], ["batch_size=200", "schedule.warmup=0"], ["batch_size=300", "schedule=one_cycle"]],
)
def test_a_rate_that_rises_or_hardly_grows_is_not_warned_of(words):
    assert not [line for line in checks.check(compose_run(["scale_lr=linear", *words])) if "scale_lr" in line]

"""Plan and Progress, without a model: how far a run is, what is due when, which validation is the best."""

import math

import pytest

from deeptrain.metrics.metric import METRICS
from deeptrain.metrics.per_class import macro_f1
from deeptrain.training.progress import Plan, Progress


def steps(plan: Plan, progress: Progress, count: int) -> None:
    for _ in range(count):
        progress.advance(32, plan.steps_per_epoch)


def test_epochs_and_fraction_follow_the_steps():
    plan, progress = Plan(epochs=4, steps_per_epoch=10), Progress()
    assert plan.fraction(progress) == 0 and plan.epochs_done(progress) == 0
    steps(plan, progress, 13)
    assert (progress.epoch, progress.step_in_epoch, progress.step, progress.images) == (1, 3, 13, 13 * 32)
    assert plan.fraction(progress) == 13 / 40 and plan.epochs_done(progress) == 1.3
    steps(plan, progress, 27)
    assert plan.fraction(progress) == 1 and plan.outcome(progress) == ("finished", "4 epochs done")


def test_the_fraction_follows_whatever_ends_the_run_first():
    progress = Progress(step=5, train_seconds=30.0)
    assert Plan(epochs=1, steps_per_epoch=100).fraction(progress) == 0.05
    assert Plan(epochs=1, steps_per_epoch=100, limit_steps=10).fraction(progress) == 0.5
    assert Plan(epochs=1, steps_per_epoch=100, max_seconds=40).fraction(progress) == 0.75
    assert Plan(epochs=1, steps_per_epoch=100, max_seconds=20).fraction(progress) == 1


@pytest.mark.parametrize(
    ("limit", "progress", "outcome"),
    [
        ({}, Progress(epoch=1), ("finished", "1 epoch done")),
        ({"limit_steps": 7}, Progress(step=7), ("finished", "limit_steps=7 reached")),
        ({"limit_steps": 7}, Progress(step=6), None),
        ({"max_seconds": 2.5}, Progress(train_seconds=2.5), ("finished", "max_seconds=2.5 reached")),
        ({"patience": 2}, Progress(since_best=2), ("stopped_early", "accuracy/val no better for 2 validations")),
        ({"patience": 2}, Progress(since_best=1), None),
    ],
)
def test_a_run_ends_for_one_reason(limit, progress, outcome):
    assert Plan(epochs=1, steps_per_epoch=100, **limit).outcome(progress) == outcome


def test_validations_are_due_at_epochs_at_steps_and_at_the_end():
    plan, progress = Plan(epochs=4, steps_per_epoch=5, validate_every_epochs=2, validate_every_steps=4), Progress()
    due = []
    for step in range(1, 21):
        steps(plan, progress, 1)
        if plan.validation_is_due(progress):
            due.append(step)
    assert due == [4, 8, 10, 12, 16, 20]


def test_saves_are_due_by_steps_and_by_the_clock():
    assert Plan(save_every_steps=3).save_is_due(Progress(step=6))
    assert not Plan(save_every_steps=3).save_is_due(Progress(step=7))
    plan = Plan(save_every_minutes=1)
    plan.saved_at = 10.0
    assert plan.save_is_due(Progress(train_seconds=70.1)) and not plan.save_is_due(Progress(train_seconds=69.9))


@pytest.mark.parametrize(("monitor", "sign"), [("accuracy/val", 1), ("loss/val", -1)])
def test_the_best_is_the_first_of_the_best(monitor, sign):
    plan, progress = Plan(monitor=monitor, higher_is_better=sign == 1, min_delta=0.15), Progress()
    found = [plan.update_best(progress, {monitor: sign * value}) for value in (0.5, 0.7, 0.7, 0.75, math.nan)]
    assert found == ["raw", "raw", None, "raw", None]
    assert progress.best == sign * 0.75 and progress.since_best == 3, "0.05 is less than min_delta"


def test_averaged_weights_compete():
    plan, progress = Plan(), Progress()
    assert plan.update_best(progress, {"accuracy/val": 0.5, "accuracy/val_average": 0.6}) == "average"
    assert plan.update_best(progress, {"accuracy/val": 0.7, "accuracy/val_average": 0.6}) == "raw"


def test_time_left_is_in_proportion():
    plan = Plan(epochs=1, steps_per_epoch=100)
    assert plan.seconds_left(Progress(step=25, train_seconds=10.0)) == pytest.approx(30.0)


def test_a_plan_knows_which_way_its_metric_is_better():
    assert Plan(monitor="loss/val").bind(7, METRICS) == Plan(
        monitor="loss/val", steps_per_epoch=7, higher_is_better=False
    )
    assert Plan().bind(1, METRICS).higher_is_better
    with pytest.raises(ValueError, match=r"^monitor=f1/val: must be one of loss/val, accuracy/val, top5/val$"):
        Plan(monitor="f1/val").bind(1, METRICS)


def test_small_gains_add_up_to_one_that_counts():
    """As in Keras and Lightning: a gain is measured over the last one that counted, not over the last best."""
    plan, progress = Plan(min_delta=0.15), Progress()
    seen = []
    for value in (0.5, 0.6, 0.7, 0.75, 0.8):
        plan.update_best(progress, {"accuracy/val": value})
        seen.append((progress.since_best, progress.best))
    assert seen == [(0, 0.5), (1, 0.6), (0, 0.7), (1, 0.75), (2, 0.8)]
    old = Progress(best=0.5, since_best=1)  # of a checkpoint without a reference
    plan.update_best(old, {"accuracy/val": 0.6})
    assert (old.since_best, old.reference) == (2, 0.5)


def decide(validations, **plan):
    """Return which validations, each a value and a loss, were the best when they were made."""
    decisive, progress = Plan(**plan), Progress()
    name = decisive.monitor
    rows = [{name: value, "loss/val": loss} for value, loss in validations]
    return [number for number, row in enumerate(rows) if decisive.update_best(progress, row)], progress


@pytest.mark.parametrize(
    ("validations", "best"),
    [
        ([(0.80, 0.78), (0.85, 42.0)], [0]),  # one of 20 images is noise: the loss decides
        ([(0.80, 42.0), (0.75, 0.78)], [0, 1]),
        ([(0.60, 0.5), (0.95, 0.9)], [0, 1]),  # seven images are not
        ([(0.95, 0.5), (0.80, 0.4)], [0]),
        ([(0.80, 0.5), (0.80, 0.5), (0.80, 0.4)], [0, 2]),  # of the same loss the first
        ([(1.0, 0.3), (0.95, 0.2), (0.90, 0.1)], [0, 1]),  # a share of 1 has a noise of one image
        ([(0.80, 0.5), (0.75, 0.4), (0.70, 0.3), (0.65, 0.2)], [0, 1]),  # measured from the record, not from the best
    ],
)
def test_within_the_noise_of_the_images_the_lower_loss_is_better(validations, best):
    assert decide(validations, is_share=True, val_images=20)[0] == best


def test_images_that_are_trained_on_have_no_noise():
    assert decide([(0.80, 0.78), (0.85, 42.0)], is_share=True, val_images=20, val_is_sample=False)[0] == [0, 1]


def test_noise_is_one_standard_error():
    """Of 10,000 images at 90 % it is 30 images."""
    for images, best in ((29, [0]), (31, [0, 1])):
        assert decide([(0.9 - images / 10_000, 0.3), (0.9, 0.4)], is_share=True, val_images=10_000)[0] == best


def test_a_metric_without_known_noise_is_decided_by_the_loss_only_if_it_is_equal():
    assert decide([(0.80, 0.4), (0.81, 0.9), (0.81, 0.5)], monitor="macro_f1/val")[0] == [0, 1, 2]
    validations = [(0.5, 0.5), (0.4, 0.4), (0.4, 0.4)]
    assert decide(validations, monitor="loss/val", higher_is_better=False)[0] == [0, 1]


def test_patience_counts_gains_of_the_monitor_whatever_is_the_best():
    best, progress = decide([(0.80, 0.5), (0.85, 42.0), (0.80, 0.4)], is_share=True, val_images=20)
    assert best == [0, 2] and progress.since_best == 1
    assert (progress.best, progress.best_loss, progress.record) == (0.80, 0.4, 0.85)


def test_a_best_of_unknown_loss_gives_way_to_a_higher_value():
    plan = Plan(is_share=True, val_images=20)
    old = Progress(best=0.80)  # of a checkpoint of 0.3.0
    assert plan.update_best(old, {"accuracy/val": 0.80, "loss/val": 0.1}) is None
    assert plan.update_best(old, {"accuracy/val": 0.85, "loss/val": 0.5}) == "raw" and old.best_loss == 0.5


def test_shares_of_the_images_are_known_from_their_metric():
    metrics = {**METRICS, "macro_f1": macro_f1(3)}
    shares = {name: Plan(monitor=f"{name}/val").bind(1, metrics, 20).is_share for name in metrics}
    assert shares == {"loss": False, "accuracy": True, "top5": True, "macro_f1": False}

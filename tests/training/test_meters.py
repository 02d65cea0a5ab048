"""TrainMeter and Stopwatch, without a model or a loop."""

import math

import pytest
import torch

from deeptrain.runtime.world import World
from deeptrain.training.meters import Stopwatch, TrainMeter
from deeptrain.training.nonfinite import NonFiniteError

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]])


class TwoRanks(World):
    """As if another rank had the same numbers."""

    def all_reduce_sum(self, values):
        return [2 * value for value in values]


def outputs(loss: float, labels: list[int]) -> list:
    return [(torch.tensor(loss), LOGITS[: len(labels)], torch.tensor(labels))]


def test_means_weigh_images():
    meter = TrainMeter()
    meter.update(outputs(1.0, [0, 0]))
    meter.update(outputs(4.0, [0]))
    assert meter.has_batches
    means = meter.compute()
    assert means["loss"] == pytest.approx(2.0) and means["accuracy"] == pytest.approx(2 / 3)
    assert not meter.has_batches and meter.images == 3


def test_the_epochs_means_are_those_of_all_its_images():
    meter = TrainMeter()
    for loss, labels in ((1.0, [0, 2]), (4.0, [1])):
        meter.update(outputs(loss, labels))
        meter.compute()
    assert meter.epoch_means()["loss/train"] == pytest.approx(2.0)
    meter.start_epoch()
    assert meter.epoch_means() == {}


def test_a_loss_that_is_not_finite_is_refused_or_in_fp16_left_out():
    meter = TrainMeter()
    meter.update(outputs(math.nan, [0]))
    with pytest.raises(NonFiniteError, match="the loss is nan"):
        meter.compute()
    meter = TrainMeter(skip_nonfinite=True)
    meter.update(outputs(math.inf, [0]))
    meter.update(outputs(1.0, [0]))
    assert meter.compute()["loss"] == 1.0


def test_no_batches_no_means():
    assert TrainMeter().compute() == {}


def test_penalties_are_read_at_log_points_only():
    meter = TrainMeter()
    meter.penalty_terms = {"l1": torch.tensor(0.5), "l2": torch.tensor(0.25)}
    assert meter.penalties == {}
    meter.update(outputs(1.0, [0]))
    meter.compute()
    assert meter.penalties == {"loss/penalty": 0.75, "penalty/l1": 0.5, "penalty/l2": 0.25}


def test_a_meter_goes_on_from_its_state():
    meter, again = TrainMeter(), TrainMeter()
    meter.update(outputs(1.0, [0, 0]))
    again.load_state_dict(meter.state_dict())
    for each in (meter, again):
        each.update(outputs(4.0, [0]))
    assert meter.compute() == again.compute()


def test_several_ranks_sum_their_images():
    meter = TrainMeter(world=TwoRanks())
    meter.update(outputs(1.0, [0, 0]))
    assert meter.compute()["loss"] == pytest.approx(1.0) and meter.images == 4


def test_a_stopwatch_tells_training_from_waiting(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("deeptrain.training.meters.perf_counter", lambda: now[0])
    watch = Stopwatch()
    now[0] = 2.0
    watch.batch_arrived()
    now[0] = 5.0
    assert watch.waited == 2.0 and watch.lap() == 5.0
    now[0] = 9.0
    watch.restart()
    now[0] = 10.0
    assert watch.lap() == 1.0

"""The search for a learning rate: it finds one, stops where training diverges, and leaves everything as it was."""

import math
import random
from copy import deepcopy

import numpy as np
import pytest
import torch

from deeptrain import build_trainer, compose
from deeptrain.analysis import find_lr as room
from deeptrain.analysis.find_lr import (
    Race,
    RateSearch,
    choose,
    find_lr,
    has_diverged,
    on_ladder,
    promised,
    read_test,
    rung,
    smooth,
)
from deeptrain.analysis.short_runs import ShortRuns, preserved

SMALL = ["data=synthetic", "model=fcn", "model.hidden=[16]", "limit_steps=20", "batch_size=32"]
LADDER = np.geomspace(1e-7, 10, 100)


def values(state: object, path: str = "") -> dict[str, object]:
    """Return all values of nested dicts and lists, tensors as lists of numbers."""
    parts = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list | tuple) else None
    if parts is None:
        return {path: state.tolist() if isinstance(state, torch.Tensor) else state}
    return {name: value for key, part in parts for name, value in values(part, f"{path}.{key}").items()}


def trainer(*words: str):
    return build_trainer(compose([*SMALL, *words]))


@pytest.fixture
def brief(monkeypatch):
    """Make the test and the races short."""
    monkeypatch.setattr(room, "LEAST", 4)
    monkeypatch.setattr(room, "STEPS", 25)


# --- pure functions ---


def test_smoothing_is_a_centred_mean():
    losses = np.arange(20.0) ** 2
    assert smooth(losses)[10] == pytest.approx(losses[6:15].mean())
    assert smooth(losses)[0] == pytest.approx(losses[:5].mean())


def test_the_fall_has_no_lag():
    """A sigmoid has fallen 0.8 of its way ln(4) widths behind its middle, whatever the smoothing."""
    losses = 2.3 - 1.5 / (1 + np.exp(-(np.arange(100) - 60) / 5))
    fallen, diverges = read_test(LADDER, losses)
    assert fallen == pytest.approx(LADDER[67], rel=0.3)
    assert diverges is None


@pytest.mark.parametrize("seed", range(20))
def test_noise_hides_no_fall(seed):
    """With dropout a loss jumps by more than it falls from one rate to the next."""
    losses = 2.3 - 0.4 / (1 + np.exp(-(np.arange(100) - 70) / 4)) + np.random.default_rng(seed).normal(0, 0.1, 100)
    fallen, _ = read_test(LADDER, losses)
    assert fallen > LADDER[64]


@pytest.mark.parametrize(
    ("last", "diverged"),
    [([math.inf], True), ([math.nan], True), ([9, 9, 9], True), ([1, 9, 9], False), ([3, 3, 3], False)],
)
def test_divergence_is_four_times_the_least_loss_or_not_finite(last, diverged):
    assert has_diverged(np.array([2.0] * 20 + [1.0] * 20 + last)) == diverged


def test_noise_near_zero_does_not_diverge():
    assert not has_diverged(np.array([2.0] * 20 + [0.001] * 20 + [0.02] * 3))


def test_a_flat_test_gives_a_tenth_of_the_last_rate():
    assert read_test(LADDER, np.append(np.linspace(2.3, 2.4, 99), math.nan)) == (pytest.approx(1.0), pytest.approx(10))


@pytest.mark.parametrize(("rate", "near"), [(0.0028, 0.003), (0.0012, 0.001), (0.6, 1.0), (0.02, 0.03), (3e-7, 3e-7)])
def test_rates_are_those_one_types(rate, near):
    assert on_ladder(rate) == near


def test_the_ladder_has_two_rungs_a_decade():
    assert [rung(0.01, steps) for steps in (-2, -1, 0, 1, 2)] == [0.001, 0.003, 0.01, 0.03, 0.1]


def test_of_rates_that_are_equal_the_lowest_is_chosen():
    noise = 2 + 0.1 * np.random.default_rng(0).normal(size=50)
    race = Race(24, {0.003: noise + 0.1, 0.01: noise, 0.03: noise + np.tile([0.09, -0.1], 25), 0.1: noise + 1})
    assert race.best == 0.03 and race.equals() == [0.01, 0.03]
    assert choose([race], 24, math.inf) == 0.01


def test_a_rate_that_promises_less_loss_beyond_its_noise_is_chosen():
    """A rate whose loss falls faster from one length to the next overtakes the other one in a longer run."""

    def races(noise: float) -> list[Race]:
        rng, laws = np.random.default_rng(0), {0.01: (11.5, 0.5), 0.03: (4, 0.3)}
        losses = {n: {rate: factor * n**-power for rate, (factor, power) in laws.items()} for n in (24, 96)}
        scored = {
            n: {rate: loss * (1 + noise * (rng.random(50) - 0.5)) for rate, loss in each.items()}
            for n, each in losses.items()
        }
        return [Race(n, scores) for n, scores in scored.items()]

    sure, unsure = races(0.0), races(0.9)
    assert sure[-1].best == unsure[-1].best == 0.03
    assert promised(sure, 0.01, 400) == pytest.approx(11.5 * 400**-0.5)
    assert choose(sure, 96, math.inf) == choose(unsure, 400, math.inf) == 0.03
    assert choose(sure, 400, math.inf) == choose(sure, 400, 0.04) == 0.01


def test_a_promise_close_to_divergence_is_not_taken():
    """A loss that falls faster at the higher rate, and the lower is as good so far."""
    blocks = np.random.default_rng(0).random(50)
    races = [Race(24, {0.01: blocks + 2, 0.03: blocks + 3}), Race(96, {0.01: blocks + 1, 0.03: blocks + 1})]
    assert choose(races, 400, math.inf) == 0.03 and choose(races, 400, 0.05) == 0.01


def test_a_rate_that_loses_the_longer_race_is_not_as_good():
    races = [Race(24, dict.fromkeys((0.001, 0.003, 0.01), np.ones(5)))]
    races += [Race(96, {0.003: np.full(5, 0.3), 0.01: np.full(5, 0.7)})]
    seen = np.array([1e-3]), np.array([2.3]), 1e-3, None
    assert RateSearch(0.003, *seen, races, np.ones(5), 100, 400).span == (0.001, 0.003)


def test_a_run_that_diverged_equals_none():
    race = Race(24, {0.01: np.ones(5), 0.1: np.full(5, math.inf)})
    assert race.equals() == [0.01]


# --- searches ---


@pytest.mark.parametrize("words", [["optimizer=adamw"], ["optimizer=muon", "average=ema"], ["optimizer=lbfgs"]])
def test_everything_is_as_before(words, brief):
    """Weights, buffers, optimizer, progress and all generators, to the bit; the next step too."""
    own, other = (trainer(*words, "model.norm=batch", "model.dropout=0.1", "limit_steps=3") for _ in range(2))
    torch.manual_seed(3), np.random.seed(3), random.seed(3)  # noqa: NPY002
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    before = deepcopy(own.state_dict())
    find_lr(own)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert random.getstate() == states[2]
    assert values(own.state_dict()) == values(before)
    assert all(parameter.grad is None for parameter in own.model.parameters())
    own.fit(), other.fit()
    torch.testing.assert_close(own.model.state_dict(), other.model.state_dict(), rtol=0, atol=0)


def test_a_trainer_between_two_steps_is_as_before_too(brief):
    own, other = (trainer("optimizer=sgd") for _ in range(2))
    for each in (own, other):
        images, labels = next(iter(each.train_loader.epoch(0, 0)))
        each.model.train()
        each.train_step(images, labels)
    with preserved(own) as start:
        list(ShortRuns(own, start).losses([0.1] * 3, lambda progress: 1.0))
    assert values(own.optimizer.state_dict()) == values(other.optimizer.state_dict())


def test_an_error_restores_the_trainer(brief):
    own = trainer()
    before = deepcopy(own.model.state_dict())

    def stop(text: str) -> None:
        if "race" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_lr(own, report=stop)
    torch.testing.assert_close(own.model.state_dict(), before, rtol=0, atol=0)


def test_short_runs_see_the_same_batches_from_the_same_weights():
    own = trainer("model.dropout=0.2")
    with preserved(own) as start:
        runs = ShortRuns(own, start)
        first, second = (list(runs.losses([rate] * 3, lambda progress: 1.0)) for rate in (0.001, 0.001))
        assert first == second
        assert next(runs.losses([0.1] * 3, lambda progress: 1.0)) == first[0]


def test_a_test_ends_where_training_diverges(brief):
    search = find_lr(trainer("optimizer=sgd", "loss=mse", "model.hidden=[]"))
    assert search.diverges == search.rates[-1] < room.HIGHEST
    assert not math.isfinite(search.losses[-1]) or search.losses[-1] > 4 * search.losses.min()
    assert max(max(race.scores) for race in search.races) < search.diverges
    assert search.lr is None or search.lr < search.diverges


def test_each_group_keeps_its_own_rate():
    own = trainer("optimizer=muon")
    with preserved(own) as start:
        runs = ShortRuns(own, start)
        next(runs.losses([0.5], lambda progress: 1.0))
        rates = [group["initial_lr"] for group in own.optimizer.param_groups]
        assert rates[0] == 0.5  # and the others in proportion, without rates_of
        assert rates[1] / rates[0] == pytest.approx(0.003 / 0.02)


def test_labels_without_meaning_give_no_rate(brief):
    """Images of noise: nothing to learn that the clean slices would show."""
    own = trainer()
    for loader in (own.train_loader, own.validator.loader, own.validator.clean_loader):
        loader.images = torch.zeros_like(loader.images)
    search = find_lr(own)
    assert search.lr is None
    assert search.summary()["lr"] is None

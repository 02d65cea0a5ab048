"""Verdicts are pure functions of measurements: each row of the decision table, and silence where nothing is wrong."""

import math
from dataclasses import replace

import pytest

from deeptrain.analysis.diagnosis.judge_memory import Attempt, Memory, Signal, read_memory
from deeptrain.analysis.diagnosis.judge_rates import Rates, read_rates
from deeptrain.analysis.diagnosis.judge_start import Start, read_start
from deeptrain.analysis.diagnosis.judgements import how_sure
from deeptrain.analysis.verdicts import TITLES

SOUND = Start(1000, 10, 256, 0.0, (), None, 2.31, 2.303, False, False, False, False, (0.0, 1.0))
KNOWS, KNOWS_NOT = Attempt(1.0, 1.0, 0.01, 300), Attempt(0.1, 0.1, 2.3, 600)
MEMORISED = Memory(64, KNOWS, 0.01)
FAILED = Memory(64, KNOWS_NOT, 0.01)
GOOD = Rates(0.01, 0.03, (0.01, 0.03), 100, 0.5, 2.303, own_loss=0.55, own_errors=1.0, guess_errors=40.0)


def test_a_sound_set_up_has_no_verdict():
    for reading in (read_start(SOUND), read_memory(MEMORISED), read_rates(GOOD)):
        assert not reading.verdicts
        assert reading.excluded


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"classes": 1}, "one_class"),
        ({"different": 1}, "equal_images"),
        ({"contradictions": 0.05}, "contradictions"),
        ({"bad_layer": "stem"}, "not_finite"),
        ({"upside_down": True}, "loss_upside_down"),
        ({"batch_mixed": True}, "batch_mixed"),
        ({"loss_mixed": True}, "loss_mixed"),
        ({"probabilities": True}, "probabilities"),
        ({"missing": ("a", "b"), "parameters": 2}, "not_trained"),
        ({"unused": ("a", "b"), "parameters": 2}, "not_trained"),
    ],
)
def test_faults_of_the_start(change, name):
    reading = read_start(replace(SOUND, **change))
    assert [(verdict.name, verdict.kind) for verdict in reading.verdicts] == [(name, "fault")]
    assert not reading.excluded, "what else there may be was not looked at"


def test_random_weights_that_are_frozen_are_advice():
    (verdict,) = read_start(replace(SOUND, frozen=("layers.0.weight",), parameters=4)).verdicts
    assert (verdict.name, verdict.kind) == ("not_trained", "advice") and "layers.0.weight" in verdict.evidence


def test_a_network_without_activations_is_a_straight_line():
    (verdict,) = read_start(replace(SOUND, linear=True)).verdicts
    assert (verdict.name, verdict.kind, verdict.confidence) == ("linear", "advice", "certain")


def test_a_high_momentum_is_a_rate_that_is_too_high():
    cure = replace(KNOWS, change="optimizer.momentum=0.9")
    (verdict,) = read_memory(replace(FAILED, others=(cure,))).verdicts
    assert (verdict.name, verdict.override) == ("rate_too_high", "optimizer.momentum=0.9")


def test_a_batch_norm_that_sees_few_images_is_named():
    cure = replace(KNOWS, change="batch_size=32")
    (verdict,) = read_memory(replace(FAILED, others=(cure,))).verdicts
    assert (verdict.name, verdict.override) == ("modes_differ", "batch_size=32")


def test_some_parameters_without_a_step_are_advice():
    (verdict,) = read_start(replace(SOUND, missing=("a",), parameters=2)).verdicts
    assert (verdict.name, verdict.kind, verdict.override) == ("not_trained", "advice", "")


@pytest.mark.parametrize("change", [{"loss": 10.0}, {"scale": (0.0, 80.0)}, {"scale": (5.0, 1.0)}])
def test_an_unusual_start_alone_is_no_fault(change):
    (verdict,) = read_start(replace(SOUND, **change)).verdicts
    assert verdict.kind == "remark"


@pytest.mark.parametrize(
    "change", [{"contradictions": 0.005}, {"loss": math.nan}, {"loss": 3.0}, {"scale": (-0.4, 1.2)}]
)
def test_what_is_seen_in_healthy_runs_is_not_told(change):
    assert not read_start(replace(SOUND, **change)).verdicts


@pytest.mark.parametrize(
    ("rate", "found", "name"),
    [(1.0, 0.01, "rate_too_high"), (1e-6, 0.01, "rate_too_low")],
)
def test_another_rate_that_memorises_is_the_cause(rate, found, name):
    memory = replace(FAILED, rate=rate, found=found, at_found=KNOWS, for_run=0.003)
    (verdict,) = read_memory(memory).verdicts
    assert (verdict.name, verdict.confidence, verdict.override) == (name, "likely", "optimizer.lr=0.003")


def test_a_rate_that_memorises_and_fails_in_the_run_is_not_the_cause():
    cure = replace(KNOWS, change="clip_norm=null")
    memory = replace(FAILED, rate=0.01, found=3000.0, at_found=KNOWS, for_run=3000.0, for_run_learns=False)
    assert [verdict.confidence for verdict in read_memory(memory).verdicts] == ["possible"]
    (verdict,) = read_memory(replace(memory, others=(cure,))).verdicts
    assert (verdict.name, verdict.override) == ("clipped", "clip_norm=null")


def test_a_run_that_learns_all_the_same_has_no_fault():
    reading = read_memory(replace(FAILED, found=0.01, at_found=KNOWS, run_learns=True))
    assert [verdict.kind for verdict in reading.verdicts] == ["remark"]


def test_a_rate_that_is_searched_is_not_blamed():
    assert not read_memory(replace(FAILED, rate=None, found=0.01, at_found=KNOWS)).verdicts


def test_a_change_that_memorises_is_the_remedy_and_the_rest_is_excluded():
    first, cure = replace(KNOWS_NOT, change="model.norm=batch"), replace(KNOWS, change="clip_norm=null")
    reading = read_memory(replace(FAILED, found=0.01, at_found=KNOWS_NOT, others=(first, cure)))
    assert reading.verdicts[0].override == "clip_norm=null"
    assert reading.excluded == ["the rate", "model.norm=batch"]


@pytest.mark.parametrize(
    ("signal", "change", "name"),
    [
        (Signal(1.0, 1e-4, 9), "model.norm=batch", "signal_dies"),
        (Signal(1.0, 1e4, 9), "model.initialization=kaiming model.init_std=null", "signal_explodes"),
        (Signal(1.0, 0.8, 9, "layers.3", 0.9), "model.initialization=kaiming model.init_std=null", "dead_units"),
        (Signal(1.0, 0.8, 9), "model.norm=batch", "remedied"),
        (Signal(1.0, 1e-4, 9), "clip_norm=null", "clipped"),  # what helps has nothing to do with the signal
    ],
)
def test_a_cause_is_named_where_the_layers_show_it_and_its_cure_helps(signal, change, name):
    cure = replace(KNOWS, change=change)
    (verdict,) = read_memory(replace(FAILED, others=(cure,), signal=signal)).verdicts
    assert (verdict.name, verdict.override) == (name, change)


def test_a_signal_is_the_geometric_mean_of_its_layers():
    assert Signal(2.0, 2.0 * 3.0**4, 5).growth == pytest.approx(3.0)
    assert Signal(2.0, 0.0, 5).growth == 0.0
    assert Signal(math.nan, 1.0, 5).growth == Signal(1.0, 5.0, 1).growth == 1.0


def test_outputs_that_ignore_their_images_are_named():
    silent = Signal(1.0, 1.0, 3, ignores_input=True)
    (verdict,) = read_memory(replace(FAILED, others=(KNOWS_NOT,), signal=silent)).verdicts
    assert (verdict.name, verdict.confidence) == ("ignores_input", "likely")


def test_modes_that_differ_are_named():
    own, cure = Attempt(0.2, 1.0, 0.01, 300), replace(KNOWS, change="model.norm=group")
    (verdict,) = read_memory(Memory(64, own, 0.01, others=(cure,))).verdicts
    assert (verdict.name, verdict.confidence, verdict.override) == ("modes_differ", "likely", "model.norm=group")
    (verdict,) = read_memory(Memory(64, own, 0.01, others=(KNOWS_NOT,))).verdicts
    assert (verdict.name, verdict.confidence, verdict.override) == ("modes_differ", "likely", "")


def test_a_network_that_knows_its_images_in_evaluation_has_memorised_them():
    """In training mode a dropout of one's own may answer at random."""
    assert not read_memory(Memory(64, Attempt(1.0, 0.7, 0.5, 300), 0.01)).verdicts


def test_changes_are_named_as_the_user_makes_them():
    first, cure = replace(KNOWS_NOT, change="model.norm=batch"), replace(KNOWS, change="clip_norm=null")
    reading = read_memory(replace(FAILED, others=(first, cure)), lambda change: f"<{change}>")
    assert "with <clip_norm=null>" in reading.verdicts[0].evidence
    assert reading.verdicts[0].override == "clip_norm=null" and reading.excluded == ["<model.norm=batch>"]


def test_nothing_that_helps_is_only_possible():
    (verdict,) = read_memory(replace(FAILED, at_found=KNOWS_NOT, others=(KNOWS_NOT,))).verdicts
    assert (verdict.name, verdict.confidence, verdict.override) == ("cannot_memorise", "possible", "")


def test_a_frozen_network_need_not_memorise():
    assert not read_memory(replace(FAILED, is_frozen=True)).failed


NORM = ("model.norm=batch", 1.80)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"own": 1.0, "own_loss": 2.31, "own_errors": 50, "guess_errors": 0}, ("rate_too_high", "fault")),
        (
            {"own": 1.0, "own_loss": math.inf, "own_errors": math.inf, "guess_errors": -math.inf},
            ("rate_too_high", "fault"),
        ),
        ({"own": 1e-6, "own_loss": 2.30, "own_errors": 50, "guess_errors": 1}, ("rate_too_low", "fault")),
        ({"own": 1.0, "own_loss": 1.0, "own_errors": 50, "guess_errors": 20}, ("better_rate", "advice")),
        ({"own": 0.005, "own_loss": 1.0, "own_errors": 50, "guess_errors": 20}, ("better_rate", "remark")),
        ({"found": None, "span": None, "loss": 2.3}, ("no_signal", "advice")),
        (
            {"found": None, "span": None, "loss": 2.3, "changes": (("model.dropout=0.0", 0.3),)},
            ("regularized", "fault"),
        ),
        ({"loss": 2.25, "changes": (("model.dropout=0.0", 0.3),)}, ("regularized", "fault")),
        ({"found": None, "loss": 2.3, "changes": (("model.norm=batch", 0.3),)}, ("start_too_bad", "fault")),
        ({"found": None, "loss": 2.3, "changes": (("data.mean=null data.std=null", 0.3),)}, ("input_scale", "fault")),
        ({"found": None, "loss": 2.3, "changes": (("loss.class_weights=auto", 0.3),)}, ("imbalance", "fault")),
        ({"found": None, "loss": 2.3, "changes": (("data.mean=null", 1.86), NORM)}, ("input_scale", "fault")),
        ({"found": None, "loss": 2.3, "changes": (("data.mean=null", 2.1), NORM)}, ("start_too_bad", "fault")),
        ({"loss": 2.28, "val_errors": 0.5, "by_heart": (1.0, 1.05)}, ("labels_are_noise", "fault")),
    ],
)
def test_rates(change, expected):
    (verdict,) = read_rates(replace(GOOD, **change)).verdicts
    assert (verdict.name, verdict.kind) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"own": 1.0, "own_errors": 4.0},  # within the noise
        {"own": 0.02, "own_errors": 9.0},  # within the range
        {"own": None},
        {"loss": 2.0, "changes": (("model.dropout=0.0", 1.9), ("aug=none", math.inf))},  # a hard task
        {"loss": 2.28, "val_errors": 9.0, "by_heart": (1.0, 1.05)},  # few images of each class
        {"loss": 2.28, "val_errors": 0.5, "by_heart": (0.8, 1.05)},
        {"loss": 2.28, "val_errors": 0.5, "by_heart": (2.3, 2.3)},  # not learned by heart either
    ],
)
def test_rates_that_are_as_good_are_not_told(change):
    assert not read_rates(replace(GOOD, **change)).verdicts


@pytest.mark.parametrize(
    ("errors", "specific", "rivalled", "sure"),
    [
        (9.0, True, False, "certain"),
        (4.0, True, False, "likely"),
        (1.0, True, False, "possible"),
        (9.0, False, False, "likely"),
        (9.0, True, True, "likely"),
        (9.0, False, True, "possible"),
        (4.0, False, False, "possible"),
    ],
)
def test_each_doubt_takes_a_level_away(errors, specific, rivalled, sure):
    assert how_sure(errors, specific, rivalled) == sure


def test_every_sentence_has_a_title_and_a_number():
    readings = [read_start(replace(SOUND, classes=1)), read_memory(FAILED), read_rates(replace(GOOD, found=None))]
    for verdict in (verdict for reading in readings for verdict in reading.verdicts):
        assert verdict.sentence.startswith(TITLES[verdict.name])
        assert any(letter.isdigit() for letter in verdict.evidence)

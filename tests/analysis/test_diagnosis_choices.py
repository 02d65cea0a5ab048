"""What a diagnosis chooses and tells: pure functions of trials, tests and speeds; and the file that keeps them."""

import json
import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deeptrain.analysis.diagnosis.advice import Test as Tried
from deeptrain.analysis.diagnosis.advice import read_curves, read_tests, settle
from deeptrain.analysis.diagnosis.advice import test_remedies as try_remedies
from deeptrain.analysis.diagnosis.budget import FEWEST, PLANNED, SHORTEST, SPARE, Speed, plan_lengths, seconds_of
from deeptrain.analysis.diagnosis.controls import Controls
from deeptrain.analysis.diagnosis.grid import Grid, Refined, choose_learned, decays, read_refined, take_refinement
from deeptrain.analysis.diagnosis.judgements import Reading
from deeptrain.analysis.diagnosis.labels import Surest, measure_surest, read_labels
from deeptrain.analysis.diagnosis.ledger import Ledger
from deeptrain.analysis.diagnosis.outcome import Diagnosis, Step
from deeptrain.analysis.diagnosis.subject import ComposedRun
from deeptrain.analysis.diagnosis.trial import Trial, Trials, choose, errors_ahead
from deeptrain.analysis.run_record import Record
from deeptrain.analysis.verdicts import Verdict
from deeptrain.config.compose import compose_run

RNG = np.random.default_rng(0)


def trial(right: int, loss: float = 0.5, of: int = 1000, **facts) -> Trial:
    """Make a trial that has the last `right` images of val right."""
    known = {"rate": 0.01, "decay": 0.0, "change": "", "steps": 100, "fitted": 0.95} | facts
    return Trial(right=(np.arange(of) >= of - right).astype(float), losses=np.full(of // 25, loss), **known)


# --- which trial ---


def test_of_the_best_within_the_noise_the_lowest_loss_is_chosen():
    best, close, far = trial(901, 0.9), trial(900, 0.3), trial(800, 0.1)
    assert errors_ahead(best, close) == pytest.approx(1.0, abs=0.01), "one image in 1,000: one error"
    assert choose([best, close, far]) is close
    assert choose([best, close, far], own=best) is close, "what was typed has a worse loss beyond the noise"
    same = replace(best, losses=close.losses)
    assert choose([same, close, far], own=same) is same, "what was typed stays where nothing is better"
    assert choose([best, close, far], own=far) is close


def test_paired_errors_are_those_of_the_images_on_which_two_differ():
    one, other = (trial(0) for _ in range(2))
    object.__setattr__(one, "right", (RNG.random(1000) < 0.9).astype(float))
    object.__setattr__(other, "right", (RNG.random(1000) < 0.8).astype(float))
    difference = one.right - other.right
    expected = difference.mean() / (difference.std(ddof=1) / math.sqrt(1000))
    assert errors_ahead(one, other) == pytest.approx(expected)


def test_where_val_is_not_learned_the_best_fit_is_chosen():
    """Of an inverted val nothing can be chosen: a rate that has learned nothing has the lowest loss."""
    idle, fitted = trial(110, loss=2.3, fitted=0.1), trial(80, loss=6.2, fitted=1.0)
    assert choose([idle, fitted]) is idle
    assert choose_learned([idle, fitted], fitted, 0.1) is fitted
    learned = trial(200, loss=2.0, fitted=0.2)
    assert choose_learned([learned, fitted], fitted, 0.1) is learned


def test_decays_of_a_grid():
    assert decays(None, 0.05) == [None], "an optimizer without decay"
    assert decays(1.0, 0.05) == [0.0, 0.005, 0.05, 1.0]
    assert decays(0.05, 0.05) == [0.0, 0.005, 0.05]


@pytest.mark.parametrize(("rate", "rates"), [(0.01, [0.01, 0.0056, 0.018]), (0.1, [0.01, 0.0056, 0.018, 0.1])])
def test_the_run_as_typed_is_refined_once(rate, rates):
    subject = SimpleNamespace(is_rate_open=False, rate=rate, decay=0.0)
    best = {0.01: 950}
    made = SimpleNamespace(
        subject=subject, part=1.0, whole=lambda rate, decay: trial(best.get(rate, 900), rate=rate, decay=decay)
    )
    found = take_refinement(made, Grid((), trial(900)), math.inf, 0.1)  # type: ignore[arg-type]
    assert [each.rate for each in found.trials] == rates
    assert found.chosen.rate == 0.01 and (found.chosen is found.own) == (rate == 0.01)


@pytest.mark.parametrize(("right", "confidence"), [(903, None), (915, "possible"), (990, "likely")])
def test_another_setting_is_advised_only_beyond_the_noise(right, confidence):
    own, better = trial(900, rate=0.1), trial(right, rate=0.01)
    verdicts = read_refined(Refined((own, better), own, better)).verdicts
    assert [verdict.confidence for verdict in verdicts] == ([confidence] if confidence else [])
    assert [verdict.override for verdict in verdicts] == (["optimizer.lr=0.01"] if confidence else [])


def test_a_lower_loss_at_the_same_accuracy_is_a_remark():
    own = replace(trial(900, rate=0.1), losses=np.linspace(0.5, 0.6, 40))
    better = replace(own, rate=0.01, losses=np.linspace(0.3, 0.5, 40))
    (verdict,) = read_refined(Refined((own, better), own, better)).verdicts
    assert (verdict.name, verdict.kind, verdict.override) == ("better_settings", "remark", "")


def test_an_open_rate_is_not_compared():
    assert not read_refined(Refined((trial(900),), None, trial(900))).verdicts


# --- remedies that were tried ---

LONGER = Verdict("train_longer", "advice", "likely", "val still rises", "epochs=60")


@pytest.mark.parametrize(
    ("gain", "errors", "loss_errors", "confidence"),
    [
        (0.05, 6, 0, "certain"),
        (0.03, 3.5, 0, "likely"),
        (0.01, 1.5, 4, "possible"),
        (0.01, 1.5, 1, None),
        (-0.02, -4, 9, None),
    ],
)
def test_only_a_remedy_that_helped_is_told(gain, errors, loss_errors, confidence):
    reading = read_tests([Tried(LONGER, gain, errors, loss_errors)])
    assert [verdict.confidence for verdict in reading.verdicts] == ([confidence] if confidence else [])
    assert bool(reading.excluded) == (confidence is None)
    assert all(("within the noise" in cause) == (gain > 0) for cause in reading.excluded)


class Written:
    """Notes which trials are asked for."""

    beside = Trials.beside

    def __init__(self, made: dict[str, Trial] | None = None):
        self.asked, self.made = [], made or {}

    def whole(self, rate, decay, change):
        self.asked.append((rate, decay, change))
        return self.made.get(change, trial(950))


@pytest.mark.parametrize(
    ("right", "at_chosen", "tried", "kept"),
    [(900, 950, 2, "own"), (900, 980, 2, "chosen"), (700, 950, 1, "chosen")],
)
def test_a_longer_run_keeps_its_own_rate_where_that_is_as_good(right, at_chosen, tried, kept):
    """The best rate of a short run may be too high for a long one, so both are tried."""
    chosen, own = trial(905, rate=0.2, decay=0.0), trial(right, rate=0.05, decay=0.0)
    ways = {"own": "epochs=60 optimizer.lr=0.05 optimizer.weight_decay=0", "chosen": "epochs=60"}
    written = Written({ways["own"]: trial(950), ways["chosen"]: trial(at_chosen)})
    (test,) = try_remedies(written, chosen, [LONGER], own)  # type: ignore[arg-type]
    assert [change for *_, change in written.asked] == list(ways.values())[-tried:]
    assert test.override == ways[kept], "what was tried is what is typed"


def test_another_start_is_tried_at_ones_own_rate():
    """What step 5 has chosen suits the start that was typed: a network without a norm wants a low rate."""
    chosen, own, written = trial(905, rate=0.001, decay=0.0), trial(700, rate=0.05, decay=0.0), Written()
    start = Verdict("unusual_start", "advice", "likely", "another was typed", "model.norm=batch")
    (tried,) = try_remedies(written, chosen, [start], own)  # type: ignore[arg-type]
    assert written.asked == [(0.05, 0.0, tried.override)]
    assert tried.override == "model.norm=batch optimizer.lr=0.05 optimizer.weight_decay=0"


@pytest.mark.parametrize(("loss", "count"), [(0.5, 2), (0.2, 1)])
def test_a_better_start_is_settled_before_anything_else(loss, count):
    """One error by accuracy, many by loss: the other remedies are tried by the diagnosis that is typed next."""
    start = Verdict("unusual_start", "advice", "likely", "another was typed", "model.norm=batch")
    losses = loss + 0.01 * RNG.random(40)
    better = replace(trial(706), losses=losses)
    written = Written({"model.norm=batch": better, "epochs=60": trial(900)})
    tests = try_remedies(written, trial(700), [start, LONGER])  # type: ignore[arg-type]
    assert len(tests) == count and len(written.asked) == count


SCALE = Verdict("input_scale", "advice", "likely", "mean 9", "data.mean=null")
SHIFTS = Verdict("regularized", "advice", "", "a straight line does better", "data.augment=false")


@pytest.mark.parametrize(
    ("both", "told"),
    [
        (930, [("input_scale", "certain"), ("regularized", "likely")]),  # each adds to the other
        (880, [("input_scale", "likely")]),  # shifts alone do as well, and add nothing
    ],
)
def test_remedies_that_help_are_tried_together(both, told):
    """The symptom that names its cause comes first, though the other gains more; what adds nothing is not told."""
    made = {"data.mean=null": trial(870), "data.augment=false": trial(880)}
    made["data.mean=null data.augment=false"] = replace(trial(both), right=_also_wrong(both, made["data.mean=null"]))
    reading = read_tests(try_remedies(Written(made), trial(700), [SHIFTS, SCALE]))  # type: ignore[arg-type]
    assert [(verdict.name, verdict.confidence) for verdict in reading.verdicts] == told
    assert len(reading.excluded) == 2 - len(told)
    assert not any("within the noise" in cause for cause in reading.excluded), "alone each of them helps"


def _also_wrong(right: int, other: Trial) -> np.ndarray:
    """Return so many right images; where they are few, others are wrong than before."""
    return trial(right).right if right > 900 else np.roll(other.right, 65)


def test_a_remedy_that_could_not_be_tried_is_excluded_with_its_reason():
    reading = read_tests([Tried(LONGER, 0.0, -math.inf, reason="epochs=60: no")])
    assert not reading.verdicts and reading.excluded == ["epochs=60 (not tried: epochs=60: no)"]


# --- what to type next ---


class Typed:
    is_rate_open = False

    def command(self, name, changes):
        return " ".join([name, *changes])


def next_command(*verdicts: Verdict, settings: tuple[str, ...] = ("optimizer.lr=0.01",)) -> str:
    steps = [Step(number, "", None, Reading()) for number in range(1, 8)]
    steps[-1].reading = Reading(list(verdicts))
    return Diagnosis(Typed(), steps, list(settings)).command  # type: ignore[arg-type]


def test_the_command_changes_only_what_was_told():
    assert next_command() == "seeds", "settings that are as good are not told, so they are not typed"
    likely, possible = LONGER, replace(LONGER, confidence="possible", override="aug=mixup")
    assert next_command(likely, possible) == "train optimizer.lr=0.01 epochs=60"
    assert next_command(possible) == "train optimizer.lr=0.01 aug=mixup"
    assert next_command(Verdict("better_settings", "remark", "", "loss")) == "train optimizer.lr=0.01"


def test_a_rate_that_an_advice_was_tried_at_is_typed_with_it():
    """Not the rate that was chosen for a run of the old length."""
    longer = replace(LONGER, override="epochs=60 optimizer.lr=0.05")
    assert next_command(longer) == "train optimizer.lr=0.05 epochs=60"


def test_the_surest_advice_is_told_first():
    likely, certain = LONGER, Verdict("underfitted", "advice", "certain", "train 49 %", "model.hidden=[32]")
    remark = Verdict("healthy", "remark", "", "val 99 %")
    found = Diagnosis(Typed(), [Step(6, "", None, Reading([remark, likely, certain]))])  # type: ignore[arg-type]
    assert found.verdicts == [certain, likely, remark]


def test_a_reading_of_runs_that_were_cut_says_so():
    steps = [Step(number, "", None, Reading()) for number in range(1, 8)]
    whole, cut = Diagnosis(Typed(), steps), Diagnosis(Typed(), steps, cut="163 of 2,160")  # type: ignore[arg-type]
    assert whole.reading == ["nothing is wrong in steps 1 to 7"]
    assert cut.reading[0].startswith(f"{whole.reading[0]}; its runs took 163 of 2,160 steps, so the end of a whole run")


def test_another_start_is_diagnosed_anew():
    """Rate and decay were chosen for the start that was typed."""
    start = Verdict("unusual_start", "advice", "certain", "another was typed", "model.norm=batch optimizer.lr=0.1")
    assert next_command(start) == "diagnose optimizer.lr=0.1 model.norm=batch"
    possible = replace(start, confidence="possible")
    assert next_command(LONGER, possible) == "train optimizer.lr=0.01 epochs=60", "it is not among what is typed"


def test_advice_that_no_setting_follows_from_ends_without_a_command():
    assert next_command(Verdict("leak", "advice", "certain", "3 images")) == ""
    assert next_command(Verdict("leak", "advice", "certain", "3 images"), LONGER, settings=()) == "train epochs=60"


# --- curves beside controls ---


@dataclass
class Regularized:
    starts: tuple[str, ...] = ()

    def regularizers(self):
        return ["model.dropout=0.0"]

    def usual_starts(self):
        return list(self.starts)


def judge(
    own: Trial, linear: Trial, told: float = 0.5, is_whole: bool = True, rows=(), largest_class: float = 0.1, starts=()
):
    record = Record(rows, {"epochs": 2}, 1000, 1000, 10, {"status": "finished"}, largest_class=largest_class)
    subject, controls = Regularized(starts), Controls(linear.right, told, 2000)
    return read_curves(own, record, controls, subject, is_whole)  # type: ignore[arg-type]


def test_a_network_as_good_as_a_straight_line_has_no_fault():
    assert not judge(trial(900), trial(905)).reading.verdicts


def test_a_network_below_a_straight_line_has_each_regularizer_tested():
    curves = judge(trial(700, steps=900), trial(900))
    assert [verdict.name for verdict in curves.reading.verdicts] == ["below_linear"]
    assert [verdict.override for verdict in curves.suspicions] == ["model.dropout=0.0"]


@pytest.mark.parametrize(
    ("linear", "facts", "names"),
    [
        (700, {"fitted": 0.8}, ["train_longer"]),
        (700, {"fitted": 0.98}, []),  # little is left to learn
        (900, {"fitted": 0.98}, ["train_longer", "regularized"]),
        (700, {"fitted": 0.8, "steps": 900}, []),
        (900, {"fitted": 0.8, "steps": 900}, ["regularized"]),
    ],
)
def test_a_run_of_few_steps_is_made_longer_where_something_is_left_to_learn(linear, facts, names):
    curves = judge(trial(700, **facts), trial(linear), rows=[{"step": 100.0}])
    assert [verdict.name for verdict in curves.suspicions] == names
    assert all(verdict.override == "epochs=10" for verdict in curves.suspicions if verdict.name == "train_longer")


@pytest.mark.parametrize(
    ("errors", "reason", "kind", "said"),
    [
        (1.0, "", "remark", "aug=mixup does not help, more images may"),
        (-math.inf, "aug=mixup: a trainer from Python has no such setting", "remark", "no remedy could be tried"),
        (4.0, "", "advice", "with aug=mixup"),
    ],
)
def test_overfitting_stays_a_remark_where_no_remedy_helps(errors, reason, kind, said):
    seen = Verdict("overfitted", "advice", "likely", "train is 10 ± 2 points ahead of val", "aug=mixup")
    (verdict,) = read_tests([Tried(seen, 0.02, errors, reason=reason)]).verdicts
    assert (verdict.kind, verdict.override) == (kind, "aug=mixup" if kind == "advice" else "")
    assert said in verdict.evidence


def test_a_symptom_is_a_remark_once_its_cause_was_mended():
    curves = judge(trial(700, steps=900), trial(900))
    settle(curves, Reading([]))
    assert curves.reading.verdicts[0].kind == "advice"
    settle(curves, Reading([Verdict("regularized", "advice", "certain", "seen", "model.dropout=0.0")]))
    assert curves.reading.verdicts[0].kind == "remark"


@pytest.mark.parametrize(("linear", "excluded"), [(900, []), (705, ["a straight line that does as well"])])
def test_a_part_of_a_run_is_not_judged_by_a_straight_line(linear, excluded):
    """Nor is it excluded that the line does better."""
    reading = judge(trial(700, steps=900), trial(linear), is_whole=False).reading
    assert not reading.verdicts and reading.excluded == excluded


@pytest.mark.parametrize(("largest", "names"), [(0.1, []), (0.5, []), (0.6, ["imbalance"])])
def test_weights_of_the_classes_are_tried_where_one_has_most_images(largest, names):
    suspicions = judge(trial(900, steps=900), trial(900), largest_class=largest).suspicions
    assert [(v.name, v.override) for v in suspicions] == [(name, "loss.class_weights=auto") for name in names]


@pytest.mark.parametrize("is_whole", [True, False])
def test_the_usual_start_is_tried_where_another_was_asked_for(is_whole):
    suspicions = judge(trial(900, steps=900), trial(700), is_whole=is_whole, starts=["model.norm=batch"]).suspicions
    assert [(v.name, v.override) for v in suspicions] == [("unusual_start", "model.norm=batch")]


@pytest.mark.parametrize(
    ("words", "starts"),
    [
        (["model=resnet"], []),
        (["model=resnet", "model.norm=none"], ["model.norm=batch"]),
        (["model=fcn"], []),  # it has no norm, and none was asked for
        (["model=fcn", "model.norm=batch"], []),
        (
            ["model=vgg", "model.initialization=normal", "model.init_std=1"],
            ["model.initialization=kaiming model.init_std=null"],
        ),
    ],
)
def test_the_usual_start_of_a_run(words, starts):
    assert ComposedRun(compose_run(["data=digits", *words])).usual_starts() == starts


# --- wrong labels ---


def answers(hardness: float, wrong: float, classes: int = 10, count: int = 2000) -> tuple[torch.Tensor, torch.Tensor]:
    """Make logits of a network that is right as often as it is sure, and labels of which a part is drawn anew."""
    rng = torch.Generator().manual_seed(0)
    true = torch.randint(0, classes, (count,), generator=rng)
    logits = torch.randn(count, classes, generator=rng) * hardness
    logits[torch.arange(count), true] += 6 * torch.rand(count, generator=rng)
    drawn = torch.randint(0, classes, (count,), generator=rng)
    return logits, torch.where(torch.rand(count, generator=rng) < wrong, drawn, true)


@pytest.mark.parametrize("hardness", [0.5, 1.0, 2.0])
def test_labels_are_not_blamed_for_a_hard_task(hardness):
    surest = measure_surest(*answers(hardness, 0.0))
    assert surest.images == 500
    assert read_labels(surest, 10, 0.1, 2000) is None


@pytest.mark.parametrize("wrong", [0.3, 0.5])
def test_labels_that_are_wrong_where_it_is_surest_are_named(wrong):
    surest = measure_surest(*answers(0.5, wrong))
    assert surest.wrong == pytest.approx(0.9 * wrong, abs=0.06), "a tenth of the drawn labels is right"
    assert surest.rank == pytest.approx(0.5, abs=0.06)
    verdict = read_labels(surest, 10, 0.1, 2000)
    assert verdict is not None and (verdict.name, verdict.confidence) == ("labels_are_wrong", "likely")


def test_two_classes_that_are_mixed_up_are_no_wrong_labels():
    logits, labels = answers(0.5, 0.0)
    mixed = torch.where(labels < 2, 1 - labels, labels)
    mixed = torch.where(torch.arange(len(labels)) % 2 == 0, mixed, labels)
    assert read_labels(measure_surest(logits, mixed), 10, 0.1, 2000) is None


def test_a_weak_network_on_photos_is_no_wrong_labels():
    """Measured with FCNs on 3,000 photos of CIFAR-10: they err as much where they are surest."""
    for wrong, of_all, rank in ((0.531, 0.681, 0.244), (0.547, 0.691, 0.282), (0.552, 0.691, 0.3)):
        assert read_labels(Surest(375, wrong, of_all, rank), 10, 0.1, 1500) is None


def test_labels_are_not_judged_where_val_is_not_learned():
    assert read_labels(measure_surest(*answers(0.5, 1.0)), 10, 0.1, 2000) is None


def test_a_run_that_was_cut_short_is_not_compared_with_a_straight_line():
    assert not judge(trial(700), trial(900), is_whole=False).reading.verdicts


@pytest.mark.parametrize(("right", "told", "names"), [(105, 0.95, ["split_differs"]), (105, 0.6, []), (600, 0.95, [])])
def test_another_kind_of_val_is_a_fault_only_where_val_is_not_learned(right, told, names):
    found = judge(trial(right), trial(100), told).reading.verdicts
    assert [verdict.name for verdict in found if verdict.kind == "fault"] == names


# --- time ---


def test_without_need_nothing_is_made_shorter():
    assert plan_lengths(Speed(1e-4, 1e-3), 400, None, 7).planned == 400
    assert plan_lengths(Speed(1e-4, 1e-3), 40000, 1e9, 7).planned == PLANNED


@pytest.mark.parametrize("budget", [30.0, 300.0, 3000.0])
@pytest.mark.parametrize("step", [1e-3, 1e-2, 0.1])
def test_what_is_planned_fits_into_its_budget(budget, step):
    speed = Speed(step, 2 * step)
    found = plan_lengths(speed, 40000, budget, 7)
    assert found.seconds <= budget
    one_more = sum(seconds_of(number, FEWEST, speed, 40000) for number in range(1, min(found.last + 1, 7) + 1))
    assert found.last == 7 or one_more > SPARE * budget, "steps are left out only where the shortest runs do not fit"


def test_on_its_own_it_takes_as_long_as_the_run_and_leaves_nothing_out():
    long = plan_lengths(Speed(0.1, 0.2), 4000, None, 7)
    assert long.last == 7 and SHORTEST < long.seconds <= 400
    assert plan_lengths(Speed(60.0, 100.0), 4000, None, 7).last == 7
    busy = plan_lengths(Speed(0.1, 0.2, share=0.25), 4000, None, 7)
    assert busy == long, "other programs do not change what is measured"
    assert plan_lengths(Speed(0.1, 0.2, share=0.25), 4000, 1000.0, 7) == plan_lengths(Speed(0.1, 0.2), 4000, 250.0, 7)


# --- the file ---


def test_measurements_come_back_bit_for_bit(tmp_path):
    value = replace(trial(3, of=50), rows=[{"loss/val": 0.1 + 0.2}], blank=math.nan, rate=None)
    measured = {"trial": value, "pair": (1.0, math.inf), "dict": {0.1: np.array([1 / 3, math.inf])}, "none": None}
    first = Ledger(tmp_path / "it.json", (Trial,), {"words": ["a=1"]})
    for name, item in measured.items():
        first.once(name, lambda item=item: item)
    again = Ledger.read(tmp_path / "it.json", json.loads((tmp_path / "it.json").read_text()), (Trial,))
    assert again.facts == {"words": ["a=1"]}
    found = {name: again.once(name, lambda: pytest.fail("it is known")) for name in measured}
    assert np.array_equal(found["trial"].right, value.right) and found["trial"].rows == value.rows
    assert math.isnan(found["trial"].blank) and found["trial"].rate is None
    assert found["pair"] == (1.0, math.inf) and found["none"] is None
    assert found["dict"][0.1].tolist() == [1 / 3, math.inf]

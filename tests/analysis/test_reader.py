"""The reader names what curves of a known shape show, and is silent where they show nothing."""

import math
from dataclasses import replace

import numpy as np
import pytest

from deeptrain.analysis.reader import lines, read
from deeptrain.analysis.run_record import Record

CONFIG = {
    "epochs": 20,
    "optimizer": {"_target_": "deeptrain.optimizer.adamw", "lr": 0.003, "weight_decay": 0.05},
    "schedule": {"_target_": "deeptrain.schedule.cosine", "warmup": 0.1},
    "loss": {"_target_": "deeptrain.loss.CrossEntropy", "label_smoothing": 0.0},
    "model": {"hidden": [64], "dropout": 0.0, "norm": "none", "initialization": "kaiming"},
    "validate": {"clean_images": 2000},
    "aug": {},
}
FINISHED = {"status": "finished", "initial_loss": {"train": 2.32, "equal_logits": math.log(10)}}


def cosine(progress):
    return (1 + math.cos(math.pi * progress)) / 2


def record(loss, train, val, *, count=20, factor=cosine, images=1000, result=FINISHED, **settings):
    """Make a run from curves, each a function of progress in (0, 1]."""
    rate = {**CONFIG["optimizer"], **settings.get("optimizer", {})}["lr"]
    rows = []
    for epoch in range(1, count + 1):
        t = epoch / count
        own = loss(t)
        row = {"epoch": epoch, "step": 50 * epoch, "loss/train": own, "loss/train_clean": own, "loss/val": own * 1.02}
        row |= {"accuracy/train": train(t), "accuracy/train_clean": train(t), "accuracy/val": val(t)}
        rows.append(row | {"rate/lr": rate * factor(t)})
    config = {
        **CONFIG,
        **{
            key: {**CONFIG[key], **value} if isinstance(value, dict) and key in CONFIG else value
            for key, value in settings.items()
        },
    }
    return Record(rows, config, train=2000, val=images, num_classes=10, result=result)


def names(run):
    return [finding.name for finding in read(run)]


def learns(end):
    return lambda t: 0.1 + (end - 0.1) * min(1, 3 * t)


def falling(end):
    return lambda t: end + (2.3 - end) * math.exp(-5 * t)


def guessing(t):
    return 0.1


HEALTHY = {"loss": falling(0.05), "train": learns(0.99), "val": learns(0.98)}


def test_a_healthy_run_is_healthy_and_says_what_its_images_can_show():
    (finding,) = read(record(**HEALTHY))
    assert finding.name == "healthy" and not finding.override
    assert "val 98.0 ± 0.5 %" in finding.evidence and "1,000 validation images" in finding.evidence


def test_a_run_that_is_not_over_is_not_judged_by_its_end():
    assert names(record(falling(0.5), learns(0.8), learns(0.8), result={})) == []
    assert names(record(falling(0.5), learns(0.8), learns(0.8))) == ["train_longer"]


@pytest.mark.parametrize(
    "expected, override, run",
    [
        ("rate_too_high", "optimizer.lr=0.003", {"loss": lambda t: 4 - t, "optimizer": {"lr": 0.3}}),
        ("rate_too_low", "optimizer.lr=0.003", {"loss": lambda t: 2.3 - 0.01 * t, "optimizer": {"lr": 3e-6}}),
        ("flat_from_start", "model.norm=batch", {"loss": lambda t: 2.303}),
        (
            "flat_from_start",
            "model.initialization=kaiming",
            {"loss": lambda t: 2.303, "model": {"initialization": "normal"}},
        ),
        ("too_much_regularization", "model.dropout=0.2", {"loss": lambda t: 2.303, "model": {"dropout": 0.95}}),
        (
            "too_much_regularization",
            "optimizer.weight_decay=0.05",
            {"loss": lambda t: 2.303, "optimizer": {"weight_decay": 50}},
        ),
        ("clipped", "clip_norm=null", {"loss": lambda t: 2.303, "clip_norm": 1e-4}),
    ],
)
def test_a_run_that_only_guesses_has_one_fault(expected, override, run):
    (finding,) = read(record(train=guessing, val=guessing, **run))
    assert (finding.name, finding.kind, finding.override) == (expected, "fault", override)


@pytest.mark.parametrize(
    "expected, override, run",
    [
        ("overfitted", "aug=mixup", {"loss": falling(0.01), "train": learns(1.0), "val": learns(0.8)}),
        (
            "overfitted",
            "loss.label_smoothing=0.1",
            {"loss": falling(0.01), "train": learns(1.0), "val": learns(0.8), "aug": {"mixup": {}}},
        ),
        (
            "overfitted",
            "data.train_images=null",
            {"loss": falling(0.01), "train": learns(1.0), "val": learns(0.8), "data": {"train_images": 200}},
        ),
        (
            "underfitted",
            "'model.hidden=[128]'",
            {"loss": lambda t: 1.2, "train": learns(0.6), "val": learns(0.6), "factor": lambda t: 0.9},
        ),
        (
            "underfitted",
            "'model.hidden=[32]'",
            {"loss": falling(1.2), "train": learns(0.6), "val": learns(0.6), "model": {"hidden": [1]}},
        ),
        ("train_longer", "epochs=40", {"loss": falling(0.5), "train": learns(0.85), "val": learns(0.85)}),
        (
            "decayed_too_early",
            "schedule=cosine",
            {
                "loss": falling(0.5),
                "train": learns(0.85),
                "val": learns(0.85),
                "factor": lambda t: 1 if t < 0.2 else 0.01,
            },
        ),
        (
            "warmup_too_long",
            "schedule.warmup=0.1",
            {"loss": falling(0.5), "train": learns(0.85), "val": learns(0.85), "schedule": {"warmup": 0.9}},
        ),
        (
            "plateau",
            "schedule=cosine",
            {"loss": lambda t: 0.3, "train": learns(0.98), "val": learns(0.98), "factor": lambda t: 1},
        ),
        (
            "noisy_late",
            "schedule=cosine",
            {
                "loss": lambda t: 0.3 + 0.1 * (-1) ** round(20 * t),
                "train": learns(0.98),
                "val": learns(0.98),
                "factor": lambda t: 1,
            },
        ),
    ],
)
def test_advice_comes_with_the_override_to_try(expected, override, run):
    finding = read(record(**run))[0]
    assert (finding.name, finding.kind, finding.override) == (expected, "advice", override)


def sampled(ratio, norm):
    return [
        {"step": 200 * i, "vitals/ratio_median": ratio, "vitals/gradient_norm": norm, "rate/lr": 1} for i in (1, 2, 3)
    ]


def test_vital_signs_tell_what_the_rate_alone_does_not():
    """Of an optimizer of one's own no usual rate is known."""
    own = {"_target_": "mine.Optimizer", "lr": 7.0}
    slow = record(lambda t: 2.3 - 0.1 * t, learns(0.3), learns(0.3), optimizer=own)
    fast = record(lambda t: 2.0, learns(0.3), learns(0.3), optimizer=own)
    assert [v.name for v in read(replace(slow, steps=sampled(1e-6, 1)))] == ["rate_too_low"]
    assert [v.name for v in read(replace(fast, steps=sampled(0.5, 1)))] == ["rate_too_high"]
    assert "rate_too_low" not in [v.name for v in read(replace(slow, steps=sampled(1e-3, 1)))]
    clipped = record(lambda t: 2.0, learns(0.3), learns(0.3), clip_norm=0.02)
    assert [v.name for v in read(replace(clipped, steps=sampled(1e-3, 3.0)))] == ["clipped"]
    assert "clipped" not in [v.name for v in read(replace(clipped, steps=sampled(1e-3, 0.1)))]


def test_a_gap_within_its_error_is_none():
    """20 of 25 val images are 5 ± 8 points behind, 800 of 1,000 are 5 ± 1."""
    curves = {"loss": falling(0.05), "train": learns(0.99), "val": learns(0.92)}
    assert names(record(**curves, images=25)) != ["overfitted"] and names(record(**curves)) == ["overfitted"]


def test_noise_about_a_healthy_end_is_no_advice():
    rng = np.random.default_rng(0)
    for _ in range(50):
        run = record(falling(0.05), learns(0.98), lambda t: rng.binomial(288, 0.98) / 288, images=288)
        assert names(run) == ["healthy"]


def test_train_at_heart_and_val_at_guessing_is_about_the_labels():
    assert names(record(falling(0.01), learns(1.0), guessing)) == ["no_transfer"]
    few = record(falling(0.3), learns(0.73), lambda t: 8 / 12, images=12)
    assert "no_transfer" not in names(few)


def test_divergence_is_seen_while_the_run_goes_on():
    late = record(lambda t: 0.2 if t < 0.7 else 3.0, learns(0.9), lambda t: 0.9 if t < 0.7 else 0.1, result={})
    (finding,) = read(late)
    assert finding.name == "diverged" and finding.override == "optimizer.lr=0.001"


def test_a_failed_run_without_a_row_is_read_too():
    reason = (
        "the output of layers.4 is not finite in step 29 (epoch 1; training images 1, 2): the learning rate is too high"
    )
    (finding,) = read(Record([], CONFIG, result={"status": "failed", "reason": reason}))
    assert finding.name == "became_not_finite" and "layers.4 is not finite in step 29;" in finding.sentence
    assert read(Record([], CONFIG, result={"status": "failed", "reason": "out of memory"})) == []


def test_training_accuracy_below_val_is_explained_only_where_something_makes_training_harder():
    run = record(falling(0.05), learns(0.99), learns(0.98), model={"dropout": 0.5})
    for row in run.rows:
        row["accuracy/train"] = 0.6
    assert names(run) == ["healthy", "harder_in_training"]
    plain = record(falling(0.05), learns(0.99), learns(0.98))
    for row in plain.rows:
        row["accuracy/train"] = 0.6
    assert names(plain) == ["healthy"]


def test_a_loss_that_rises_while_accuracy_stays_is_overconfidence():
    run = record(falling(0.01), learns(0.97), learns(0.95))
    for row in run.rows:
        row["loss/val"] = 0.3 + 0.02 * row["epoch"]
    assert names(run) == ["healthy", "overconfident"]


def test_overfit_on_purpose_is_not_judged():
    assert names(record(falling(0.01), learns(1.0), learns(1.0), overfit=64)) == []


def test_at_most_three_lines_and_never_certain():
    findings = read(record(falling(0.01), learns(1.0), learns(0.8), model={"dropout": 0.5}))
    said = lines(findings * 3, lambda override: f"python train.py {override}")
    assert len(said) == 3 and said[1] == "try  python train.py aug=mixup"
    assert all(finding.confidence != "certain" for finding in findings)


def test_what_a_run_lacks_is_not_missed():
    assert read(Record([], {})) == []
    assert read(Record([{"epoch": 1, "step": 500, "loss/val": 2.0}], {}, result={"status": "finished"})) == []

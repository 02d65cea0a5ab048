"""Metrics against scikit-learn and by hand: weights by batch size, soft targets, ties, few classes, many batches."""

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    balanced_accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)
from torch.nn import functional

from deeptrain.metrics import calibration, per_class, running_metrics
from deeptrain.metrics.confusion import confusion_of
from deeptrain.metrics.metric import METRICS, Metric
from deeptrain.metrics.running_metrics import RunningMetrics, label_rank


def batches(device, sizes, classes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for size in sizes:
        logits = torch.randn(size, classes, generator=generator)
        labels = torch.randint(classes, (size,), generator=generator)
        yield functional.cross_entropy(logits, labels).to(device), logits.to(device), labels.to(device)


@pytest.mark.parametrize("held", [1, 500, running_metrics.MAX_LOGITS])
@pytest.mark.parametrize("classes", [7, 100])
def test_means_are_over_images_whatever_the_batches(device, monkeypatch, held, classes):
    """`held` decides only when batches are reduced on the device: after each, in between, or all at the end."""
    monkeypatch.setattr(running_metrics, "MAX_LOGITS", held)
    running, sizes = RunningMetrics(), [32, 32, 5, 1]
    for batch in batches(device, sizes, classes):
        running.update(*batch)
    _, logits, labels = (list(column) for column in zip(*batches("cpu", sizes, classes), strict=True))
    logits, labels = torch.cat(logits), torch.cat(labels)
    assert running.images == 70
    found = running.compute()
    assert found["loss"] == pytest.approx(functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert found["accuracy"] == pytest.approx((logits.argmax(1) == labels).float().mean().item(), rel=1e-6)
    expected = top_k_accuracy_score(labels, logits, k=5, labels=range(classes))
    assert found["top5"] == pytest.approx(expected, rel=1e-6)


def test_reading_starts_afresh_and_nothing_gives_nothing(device):
    running = RunningMetrics()
    assert running.compute() == {} and running.images == 0
    first, second = batches(device, [8, 8], 10)
    running.update(*first)
    running.compute()
    running.update(*second)
    alone = RunningMetrics()
    alone.update(*second)
    assert running.compute() == alone.compute() and running.compute() == {}


def test_soft_targets_count_against_their_likeliest_class(device):
    hard, soft = RunningMetrics(), RunningMetrics()
    for number, (loss, logits, labels) in enumerate(batches(device, [16, 16, 16], 10)):
        probabilities = 0.6 * functional.one_hot(labels, 10) + 0.4 * functional.one_hot((labels + 1) % 10, 10)
        hard.update(loss, logits, labels)
        soft.update(loss, logits, labels if number == 1 else probabilities)  # both kinds in one reading
    assert hard.compute() == soft.compute()


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_top5_of_five_classes_or_fewer_is_certain(device, classes):
    running = RunningMetrics()
    for batch in batches(device, [16], classes):
        running.update(*batch)
    assert running.compute()["top5"] == 1


def test_ties_rank_as_in_argmax_and_nan_is_never_right(device):
    flat, labels = torch.zeros(10, 10, device=device), torch.arange(10, device=device)
    assert label_rank(flat, labels).tolist() == list(range(10))
    logits = torch.randint(0, 3, (500, 10), generator=torch.Generator().manual_seed(0)).to(device, torch.bfloat16)
    labels = torch.randint(10, (500,), generator=torch.Generator().manual_seed(1)).to(device)
    stable = logits.float().argsort(dim=1, descending=True, stable=True)
    assert torch.equal(label_rank(logits, labels), (stable == labels[:, None]).int().argmax(1).int())
    assert label_rank(torch.full((3, 10), torch.nan, device=device), labels[:3]).tolist() == [10, 10, 10]
    close = torch.tensor([[3e-8, 0.0, 6e-8, -torch.inf], [1.0, 1.0009766, 1.0, 1e-30]], device=device)
    for dtype, expected in ((torch.float32, [1, 2, 0, 4, 1, 0, 2, 3]), (torch.float16, [0, 2, 1, 4, 1, 0, 2, 3])):
        found = [label_rank(close.to(dtype), torch.full((2,), label, device=device)) for label in range(4)]
        assert torch.stack(found, 1).flatten().tolist() == expected, dtype


def test_a_diverged_loss_shows(device):
    running, (batch,) = RunningMetrics(), batches(device, [4], 10)
    running.update(torch.tensor(torch.nan, device=device), *batch[1:])
    assert np.isnan(running.compute()["loss"])


@pytest.mark.parametrize("held", [1, running_metrics.MAX_LOGITS])
def test_where_the_scaler_leaves_steps_out_so_do_the_means(device, monkeypatch, held):
    monkeypatch.setattr(running_metrics, "MAX_LOGITS", held)
    given = list(batches(device, [8, 4, 8], 10))
    running, alone = RunningMetrics(skip_nonfinite=True), RunningMetrics()
    for number, (loss, logits, labels) in enumerate(given):
        running.update(loss if number != 1 else loss * torch.inf, logits, labels)
        if number != 1:
            alone.update(loss, logits, labels)
    sums = running.state_dict()
    assert sums["images"] == 16 and sums["left_out"] == 4 and running.images == 20
    resumed = RunningMetrics(skip_nonfinite=True)
    resumed.load_state_dict(sums)
    assert running.compute() == resumed.compute() == pytest.approx(alone.compute()) and running.compute() == {}
    running.update(torch.tensor(torch.nan, device=device), *given[0][1:])
    assert all(map(np.isnan, running.compute().values())), "nothing is left to go by"


def test_sums_of_older_runs_are_read_and_replace_what_was_added(device):
    running, (batch,) = RunningMetrics(), batches(device, [4], 10)
    running.update(*batch)
    running.load_state_dict({"loss": 2.0, "accuracy": 1.0, "top5": 2.0, "images": 2})
    assert running.compute() == {"loss": 1.0, "accuracy": 0.5, "top5": 1.0}


def test_half_precision_loses_no_counts(device):
    running = RunningMetrics()
    logits, labels = torch.zeros(4099, 6, device=device, dtype=torch.bfloat16), torch.zeros(4099, device=device).long()
    running.update(torch.tensor(0.5, device=device, dtype=torch.bfloat16), logits, labels)
    assert running.compute() == {"loss": 0.5, "accuracy": 1.0, "top5": 1.0}


def test_nothing_holds_the_graph(device):
    running = RunningMetrics()
    logits = torch.randn(4, 10, device=device, requires_grad=True) * 2
    running.update(logits.mean(), logits, torch.arange(4, device=device))
    assert not any(tensor.requires_grad for batch in running._batches for tensor in batch)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("skip_nonfinite", [False, True])
def test_adding_and_reducing_never_wait_for_the_gpu(monkeypatch, skip_nonfinite):
    monkeypatch.setattr(running_metrics, "MAX_LOGITS", 300)
    running, given = RunningMetrics(skip_nonfinite=skip_nonfinite), list(batches("cuda", [16] * 8, 10))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in given:
            running.update(*batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert running.images == 128 and running._reduced


def test_confusion_matrix_and_scores_are_scikit_learns(device):
    generator = np.random.default_rng(0)
    true, said = generator.integers(0, 5, 400), generator.integers(0, 6, 400)  # class 5 never true, 6 never seen
    pairs = [torch.from_numpy(ids).to(device) for ids in (said, true)]
    confusion, matrix = confusion_of(*pairs, 7), confusion_matrix(true, said, labels=range(7))
    np.testing.assert_array_equal(np.nonzero(matrix), (confusion.true, confusion.predicted))
    np.testing.assert_array_equal(matrix[matrix > 0], confusion.counts)
    np.testing.assert_array_equal(confusion.images, matrix.sum(1))
    np.testing.assert_allclose(confusion.shares(7), matrix / np.maximum(matrix.sum(1, keepdims=True), 1))
    wrong = matrix * (1 - np.eye(7, dtype=int))
    for label in range(7):
        taken = confusion.most_taken_for(label)
        assert taken == ((wrong[label].argmax(), wrong[label].max()) if wrong[label].any() else (label, 0))
    expected = precision_recall_fscore_support(true, said, labels=range(7), zero_division=0)
    scores = per_class.per_class(confusion)
    found = [[getattr(score, name) for score in scores] for name in ("precision", "recall", "f1", "images")]
    np.testing.assert_allclose(found, expected)


def cat(column):
    return torch.cat([torch.atleast_1d(value) for value in column])


def measure(metric, device, sizes, classes, soft=False):
    running = RunningMetrics({"loss": METRICS["loss"], "own": metric})
    for loss, logits, labels in batches(device, sizes, classes):
        running.update(loss, logits, functional.one_hot(labels, classes).float() if soft else labels)
    return running.compute()["own"]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("limit", [1, 2**22])
def test_metrics_of_classes_are_scikit_learns(device, monkeypatch, limit, soft):
    monkeypatch.setattr(running_metrics, "MAX_LOGITS", limit)
    sizes = [9, 3, 20]
    _, logits, labels = map(cat, zip(*batches("cpu", sizes, 30), strict=True))
    predicted = logits.argmax(1)
    found = measure(per_class.balanced_accuracy(30), device, sizes, 30, soft)
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert found == pytest.approx(balanced_accuracy_score(labels, predicted), rel=1e-6)
    found = measure(per_class.macro_f1(30), device, sizes, 30, soft)
    assert found == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0), rel=1e-6)
    found = measure(calibration.brier(), device, sizes, 30, soft)
    expected = brier_score_loss(labels, logits.softmax(1), labels=range(30), scale_by_half=False)
    assert found == pytest.approx(expected, rel=1e-5)


def test_expected_calibration_error_is_that_of_the_paper(device):
    """Bins of width 1/15, open below: |accuracy - confidence| of each, weighted by its share of the images."""
    sizes = [400, 300]
    _, logits, labels = map(cat, zip(*batches("cpu", sizes, 3), strict=True))
    confidence, predicted = logits.softmax(1).max(1)
    right, expected = (predicted == labels).float(), 0.0
    for low in np.linspace(0, 1, 16)[:-1]:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            expected += (right[inside].mean() - confidence[inside].mean()).abs().item() * inside.float().mean().item()
    assert measure(calibration.ece(), device, sizes, 3) == pytest.approx(expected, rel=1e-5)


def test_a_metric_that_the_saved_sums_lack_is_left_out_once(device):
    mine = {**METRICS, "top3": Metric(lambda p: p.label_rank < 3, higher_is_better=True)}
    first, second = batches(device, [8, 8], 10)
    before = RunningMetrics()
    before.update(*first)
    running = RunningMetrics(mine)
    running.load_state_dict(before.state_dict())
    running.update(*second)
    assert set(running.compute()) == set(METRICS)
    running.update(*second)
    assert set(running.compute()) == set(mine)


def test_skipped_batches_count_in_no_metric(device):
    mine = {**METRICS, "recall": per_class.balanced_accuracy(4), "brier": calibration.brier()}
    first, second = batches(device, [8, 8], 4)
    running, alone = RunningMetrics(mine, skip_nonfinite=True), RunningMetrics(mine)
    running.update(*first)
    running.update(second[0] * torch.nan, second[1] * torch.nan, second[2])
    alone.update(*first)
    assert running.compute() == pytest.approx(alone.compute())

"""The pictures of a run can be drawn from whatever a run leaves: short, long, diverged, with many classes."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from deeptrain.metrics.confusion import Confusion, confusion_of
from deeptrain.report.figures import draw_confusion, draw_curves, draw_layers, draw_schedule, moving_average

pytestmark = pytest.mark.usefixtures("drawn_figures")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr("deeptrain.report.figures.DPI", 50)


def rows(count, **extra):
    return [
        {"epoch": e, "step": 10 * e, "loss/train": 2 / e, "loss/val": 2.2 / e, "accuracy/val": 1 - 1 / (e + 1)}
        | {"rate/lr": 0.1, **extra}
        for e in range(1, count + 1)
    ]


def counted(matrix):
    true, predicted = np.nonzero(matrix)
    return Confusion(true, predicted, np.asarray(matrix)[true, predicted], len(matrix))


def picture(path):
    image = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert (image < 250).any(), "an empty picture"
    return image


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize(
    "extra", [{}, {"accuracy/train_clean": 0.9, "loss/train_clean": 0.1, "accuracy/val_average": 0.8}]
)
def test_curves_of_short_and_long_runs(tmp_path, count, extra):
    draw_curves(rows(count, **extra), tmp_path / "curves.png", "model=resnet aug=mixup " * 12)
    picture(tmp_path / "curves.png")


def test_curves_are_drawn_for_a_screen(tmp_path, monkeypatch):
    monkeypatch.undo()
    draw_curves(rows(3), tmp_path / "curves.png", "")
    assert 1000 <= picture(tmp_path / "curves.png").shape[1] <= 2000


def test_curves_show_each_metric_in_its_colour(tmp_path):
    few, many = tmp_path / "few.png", tmp_path / "many.png"
    draw_curves(rows(5), few, "")
    draw_curves(rows(5, **{"loss/train_clean": 0.5, "accuracy/train_clean": 0.9}), many, "")
    blue = [(abs(picture(path) - [0, 0x72, 0xB2]).max(-1) < 8).sum() for path in (few, many)]
    assert blue[0] == 0 < blue[1]


def test_curves_of_a_diverged_run_and_of_validations_within_an_epoch(tmp_path):
    broken = [*rows(3), {"epoch": 3, "step": 35, "loss/train": math.nan, "loss/val": math.inf, "rate/lr": 0.1}]
    draw_curves(broken, tmp_path / "curves.png", "diverged")
    picture(tmp_path / "curves.png")
    draw_curves([{"epoch": 1, "step": 1, "rate/lr": 0.1}], tmp_path / "empty.png", "nothing measured")
    picture(tmp_path / "empty.png")


@pytest.mark.parametrize("classes", [1, 10, 130])
def test_confusion_of_few_and_many_classes(tmp_path, classes):
    counts = np.random.default_rng(0).poisson(0.5, (classes, classes)) + np.diag([20] * classes)
    counts[0] = 0  # a class without images
    draw_confusion(counted(counts), [f"class {i}" for i in range(classes)], tmp_path / "confusion.png")
    picture(tmp_path / "confusion.png")


def test_confusion_of_more_classes_than_a_picture_has_pixels(tmp_path):
    """Neighbours share a cell; a row of cells still sums to the part of its classes that have images."""
    classes, rng = 5000, np.random.default_rng(0)
    true, taken = rng.integers(0, classes, (2, 20_000))
    counts = confusion_of(torch.from_numpy(taken), torch.from_numpy(true), classes)
    shares = counts.shares(1000)
    assert shares.shape == (1000, 1000)
    shown = np.isin(np.arange(classes), true).reshape(1000, 5)
    np.testing.assert_allclose(shares.sum(1), shown.mean(1))
    draw_confusion(counts, [str(label) for label in range(classes)], tmp_path / "confusion.png")
    picture(tmp_path / "confusion.png")


def test_names_are_drawn_as_they_are_written(tmp_path):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_confusion(counted(np.eye(3)), ["$a_{", "${b}$ \\frac", "日本"], tmp_path / "confusion.png")
        draw_curves(rows(2), tmp_path / "curves.png", "data.root=${oc.env:HOME} dir=$x\\frac$")


def test_confusion_rows_are_shares_of_their_class(tmp_path):
    names = ["a", "b"]
    draw_confusion(counted(np.array([[8, 2], [1, 1]])), names, tmp_path / "small.png")
    draw_confusion(counted(np.array([[80, 20], [500, 500]])), names, tmp_path / "large.png")
    small, large = picture(tmp_path / "small.png"), picture(tmp_path / "large.png")
    assert np.array_equal(small[100:], large[100:])  # below the title, which counts the images


def test_schedule_draws_the_rate_over_the_run(tmp_path):
    curve = [(30 * i / 100, 0.5 * (1 + math.cos(math.pi * i / 100))) for i in range(101)]
    draw_schedule(curve, tmp_path / "schedule.png", "schedule=cosine", 0.1)
    image = picture(tmp_path / "schedule.png")
    line = (abs(image - [0, 0x72, 0xB2]).max(-1) < 8).nonzero()
    first, last = line[0][line[1] == line[1].min()].mean(), line[0][line[1] == line[1].max()].mean()
    assert first < last  # rows count downwards: the curve falls
    draw_schedule([(0, 1.0), (1, 1.0)], tmp_path / "constant.png", "constant")
    picture(tmp_path / "constant.png")


def test_the_same_run_draws_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        draw_curves(rows(3), tmp_path / name, "run")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_train_curve_begins_before_the_first_step(tmp_path, monkeypatch):
    """At epoch 0 with the initial loss, beside a line at that of equal logits; the other curves begin at epoch 1."""
    shown = []
    monkeypatch.setattr("deeptrain.report.figures.save_figure", lambda figure, path: shown.append(figure.axes[0]))
    rows = [{"epoch": epoch, "step": epoch, "rate/lr": 0.1, **ACCURACIES, **LOSSES} for epoch in (1, 2)]
    draw_curves(rows, tmp_path / "curves.png", "x", 1, {"train": 2.31, "equal_logits": 2.303})
    lines = {line.get_label(): line for line in shown[0].lines}
    assert lines["train, as trained on"].get_xydata()[0].tolist() == [0, 2.31]
    assert list(lines["val"].get_xdata()) == [1, 2]
    assert [2.303, 2.303] in [list(line.get_ydata()) for line in shown[0].lines]
    assert "equal logits: 2.303" in [text.get_text() for text in shown[0].texts]


def test_log_points_are_dots_with_their_mean_and_val_has_its_error(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr("deeptrain.report.figures.save_figure", lambda figure, path: shown.extend(figure.axes))
    rows = [{"epoch": epoch, "step": epoch, "rate/lr": 0.1, **ACCURACIES, **LOSSES} for epoch in (1, 2)]
    steps = [{"epoch": i / 20, "step": i, "loss/train": 1.0 + i % 2, "rate/lr": i} for i in range(40)]
    draw_curves(rows, tmp_path / "curves.png", "x", 1, steps=steps, val_images=100)
    dots, average = shown[0].lines[:2]
    assert dots.get_marker() == "." and list(dots.get_ydata()) == [row["loss/train"] for row in steps]
    assert abs(average.get_ydata()[1:-1] - 1.5).max() < 0.2
    band = shown[1].collections[0].get_paths()[0].vertices[:, 1]
    assert band.max() - 0.5 == pytest.approx(0.05) == 0.5 - band.min(), "half of 100 images: 5 points"
    assert len(shown[2].lines[0].get_ydata()) == 40, "the rate of each log point"


def test_a_moving_average_keeps_lines_and_ends():
    line = np.arange(9.0)
    assert moving_average(line, 5) == pytest.approx(line)
    assert moving_average([0, 0, 9, 0, 0], 3) == pytest.approx([0, 3, 3, 3, 0])
    assert len(moving_average([], 5)) == 0


@pytest.mark.parametrize("layers", [0, 3, 60])
def test_layers_are_drawn_before_and_after(tmp_path, layers):
    def row(step):
        return {"epoch": 0, "step": step} | {
            f"{what}/block.{i}": 0.5 * i for what in ("activation_std", "dead", "gradient") for i in range(layers)
        }

    draw_layers([row(0), row(10)], tmp_path / "layers.png", "x")
    draw_layers([row(0)], tmp_path / "one.png", "x")
    draw_layers([row(0), row(10)], tmp_path / "changed.png", "x", typed=[row(0)])
    exploded = {name: math.inf for name in row(0) if "/" in name} | {"step": 10}
    draw_layers([exploded], tmp_path / "exploded.png", "x", typed=[exploded])
    picture(tmp_path / "layers.png")


ACCURACIES = {f"accuracy/{part}": 0.5 for part in ("train", "train_clean", "val")}
LOSSES = {f"loss/{part}": 1.0 for part in ("train", "train_clean", "val")}

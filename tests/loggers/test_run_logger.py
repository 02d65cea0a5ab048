"""The record of a run: a log that fails is told of once and left out, and never stops a training."""

import io

import numpy as np
import pytest

from deeptrain.loggers.console import Console
from deeptrain.loggers.metrics_csv import MetricsTable
from deeptrain.loggers.run_logger import RunLogger, table_columns
from deeptrain.loggers.tensorboard import TensorBoard
from deeptrain.training.progress import Plan, Progress

MEANS = {"loss": 1.0, "accuracy": 0.5, "top5": 0.9}


@pytest.fixture
def screen():
    return Console(io.StringIO())


def use(record: RunLogger, steps: range) -> None:
    """Log as a training does: points, a validation, a way back, an end."""
    record.start(Plan(epochs=1, steps_per_epoch=10), Progress())
    record.describe({"seed": 0}, np.zeros((4, 4, 3), np.uint8), steps[0])
    for step in steps:
        progress = Progress(step=step, step_in_epoch=step, images=step, train_seconds=float(step))
        record.log_step(progress, MEANS, 0.1, 1.0)
        metrics = {"loss/train": 1.0, "loss/val": 2.0, "accuracy/val": 0.5}
        record.log_validation(progress, metrics, 0.1, False, 0.0)
    record.truncate(steps[-1] - 1)
    record.close()


def open_record(screen, folder):
    columns = table_columns(["loss/train", "loss/val", "accuracy/val"])
    table = MetricsTable(folder / "metrics.csv", columns, screen.warn)
    table.truncate(0)
    return RunLogger(screen, [table, TensorBoard(folder, warn=screen.warn)])


@pytest.mark.parametrize(
    ("kind", "method", "name"),
    [
        (TensorBoard, "scalars", "TensorBoard"),
        (TensorBoard, "image", "TensorBoard"),
        (TensorBoard, "hparams", "TensorBoard"),
        (TensorBoard, "flush", "TensorBoard"),
        (TensorBoard, "close", "TensorBoard"),
        (MetricsTable, "append", "metrics.csv"),
        (MetricsTable, "close", "metrics.csv"),
    ],
)
def test_a_log_that_fails_is_told_of_once_and_left_out(tmp_path, screen, monkeypatch, kind, method, name):
    calls = []

    def fail(self, *_):
        calls.append(self)
        raise RuntimeError("the disk is on fire\nand more")

    record = open_record(screen, tmp_path)
    monkeypatch.setattr(kind, method, fail)
    use(record, range(1, 5))
    said = screen._stream.getvalue()
    assert said.count("the disk is on fire") == 1 and len(calls) == 1 and "and more" not in said
    assert f"warning: {name} cannot be written (RuntimeError: the disk is on fire); the run goes on without it" in said


def test_going_back_on_a_full_disk_stops_nothing(tmp_path, screen, full_disk, monkeypatch):
    record = open_record(screen, tmp_path)
    with full_disk():
        use(record, range(1, 5))
    assert "the run goes on" in screen._stream.getvalue()

    def full(self, rows):
        raise OSError(28, "No space left on device")

    record = open_record(screen, tmp_path)
    monkeypatch.setattr(MetricsTable, "_rewrite", full)
    use(record, range(1, 5))
    assert "metrics.csv cannot be written (OSError: [Errno 28] No space" in screen._stream.getvalue()


def test_one_log_outlives_the_other(tmp_path, screen, monkeypatch):
    monkeypatch.setattr(TensorBoard, "scalars", lambda *_: 1 / 0)
    record = open_record(screen, tmp_path)
    use(record, range(1, 5))
    assert record.table is not None and [row["step"] for row in record.table.rows()] == [1, 2, 3]

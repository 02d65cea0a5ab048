"""metrics.csv: one header, rows that read back as they were, and resumes that leave no trace."""

import math
import os

import numpy as np
import pytest
import torch

from deeptrain.loggers.metrics_csv import MetricsTable

COLUMNS = ["epoch", "step", "loss/val", "seconds", "images_per_second"]


def row(step, **values):
    return {"epoch": step // 10, "step": step, "loss/val": 1 / (step + 1), **values}


def test_rows_read_back_as_they_were_written(tmp_path):
    table = MetricsTable(tmp_path / "metrics.csv", COLUMNS)
    rows = [row(10, seconds=0.1 + 0.2), row(20), {"step": 30, "loss/val": math.inf}, {"step": -1, "loss/val": 1e-300}]
    for entry in rows:
        table.append(entry)
    assert table.rows() == rows
    assert [type(value) for value in table.rows()[0].values()] == [int, int, float, float]


def test_numpy_and_tensor_scalars_are_written_as_numbers(tmp_path):
    table = MetricsTable(tmp_path / "metrics.csv", COLUMNS)
    table.append({"step": np.int64(3), "loss/val": np.float32(0.1), "seconds": torch.tensor(0.5), "epoch": math.nan})
    read = table.rows()[0]
    assert read["step"] == 3 and read["loss/val"] == float(np.float32(0.1)) and read["seconds"] == 0.5
    assert math.isnan(read["epoch"])


def test_an_unknown_column_is_refused_by_name(tmp_path):
    table = MetricsTable(tmp_path / "metrics.csv", COLUMNS)
    with pytest.raises(ValueError, match="loss/vall"):
        table.append({"step": 1, "loss/vall": 0.0})
    assert table.rows() == []


def test_killed_and_resumed_equals_never_killed_byte_for_byte(tmp_path):
    whole, killed = tmp_path / "whole.csv", tmp_path / "killed.csv"
    table = MetricsTable(whole, COLUMNS)
    for step in range(10, 60, 10):
        table.append(row(step))
    table = MetricsTable(killed, COLUMNS)
    for step in range(10, 50, 10):
        table.append(row(step))
    with killed.open("ab") as file:
        file.write(b"5,50,0.0")  # torn by the kill
    table = MetricsTable(killed, COLUMNS)
    table.truncate(step=20)
    for step in range(30, 60, 10):
        table.append(row(step))
    assert killed.read_bytes() == whole.read_bytes()
    assert killed.read_text().count("epoch") == 1
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".csv"] == []


def test_a_table_of_a_torn_header_begins_anew(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,st")
    table = MetricsTable(tmp_path / "metrics.csv", COLUMNS)
    table.append(row(1))
    assert table.rows() == [row(1)]


def test_new_columns_join_the_one_header(tmp_path):
    MetricsTable(tmp_path / "metrics.csv", COLUMNS).append(row(10))
    table = MetricsTable(tmp_path / "metrics.csv", ["epoch", "step", "loss/val_average"])
    table.append({"step": 20, "loss/val_average": 0.5})
    assert table.columns == [*COLUMNS, "loss/val_average"]
    assert table.rows() == [row(10), {"step": 20, "loss/val_average": 0.5}]


def test_a_full_disk_stops_nothing_and_loses_no_row(tmp_path, full_disk):
    warnings = []
    table = MetricsTable(tmp_path / "metrics.csv", COLUMNS, warnings.append)
    table.append(row(10))
    with full_disk():
        table.append(row(20))
    table.append(row(30))
    assert table.rows() == [row(10), row(20), row(30)]
    assert len(warnings) == 1


def test_a_failed_truncation_leaves_the_table_as_it_was(tmp_path, full_disk):
    table = MetricsTable(tmp_path / "metrics.csv", COLUMNS, lambda line: None)
    table.append(row(10))
    table.append(row(20))
    before = table.path.read_bytes()
    with full_disk(), pytest.raises(OSError):
        table.truncate(step=10)
    assert table.path.read_bytes() == before


def test_a_table_that_is_removed_meanwhile_begins_with_its_header_again(tmp_path):
    table = MetricsTable(tmp_path / "metrics.csv", COLUMNS)
    table.append(row(10))
    table.path.unlink()
    table.append(row(20))
    table.append(row(30))
    assert table.rows() == [row(20), row(30)]
    assert MetricsTable(table.path, COLUMNS).rows() == [row(20), row(30)]


def test_a_table_that_is_removed_while_the_disk_is_full_begins_with_its_header_again(tmp_path, full_disk):
    table = MetricsTable(tmp_path / "metrics.csv", COLUMNS, lambda line: None)
    with full_disk():
        table.append(row(10))
        table.path.unlink()
        table.append(row(20))
    table.append(row(30))
    assert table.rows() == [row(10), row(20), row(30)]


def test_rows_that_wait_for_room_are_dropped_with_those_on_disk(tmp_path, full_disk):
    table = MetricsTable(tmp_path / "metrics.csv", COLUMNS, lambda line: None)
    table.append(row(10))
    with full_disk():
        table.append(row(20))
    table.truncate(step=10)
    table.append(row(15))
    assert table.rows() == [row(10), row(15)]


@pytest.mark.parametrize("content", ["10,100,0.5\n11,110,0.4\n", "epoch,loss\n1,2\n", "step,loss\n1,2\n"])
def test_a_table_without_epoch_and_step_is_refused_as_it_is(tmp_path, content):
    path = tmp_path / "metrics.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"metrics\.csv: is not the table of a run .*; move it away"):
        MetricsTable(path, COLUMNS)
    assert path.read_text() == content


def test_a_table_too_large_to_be_one_is_not_read(tmp_path):
    path = tmp_path / "metrics.csv"
    path.touch()
    os.truncate(path, 2**30)
    with pytest.raises(ValueError, match=r"metrics\.csv: is too large to be of a run"):
        MetricsTable(path, COLUMNS)
    assert path.stat().st_size == 2**30

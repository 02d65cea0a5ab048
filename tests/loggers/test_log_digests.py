"""A checkpoint knows the logs: damage is said on resume, what can be read is kept, and a kill draws no word."""

import os
import random
import warnings
from pathlib import Path

import pytest

from deeptrain.loggers.json_lines import JsonLines
from deeptrain.loggers.log_digests import LogDigests, repair
from deeptrain.loggers.metrics_csv import MetricsTable, readable_lines
from deeptrain.loggers.run_logger import RunLogger
from deeptrain.loggers.tensorboard import TensorBoard

COLUMNS = ["epoch", "step", "loss/val"]
STEPS = 6


def row(step: int) -> dict[str, float]:
    return {"epoch": step, "step": step, "loss/val": 1 / (step + 2)}


@pytest.fixture
def logger(tmp_path) -> RunLogger:
    """Return the loggers of a run of a few steps."""
    loggers = [MetricsTable(tmp_path / "metrics.csv", COLUMNS), TensorBoard(tmp_path), JsonLines(tmp_path)]
    logger = RunLogger(loggers=loggers)
    for step in range(1, STEPS + 1):
        for each in loggers:
            each.log_validation(row(step), step)
    return logger


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_that_was_killed_after_its_checkpoint_is_cut_back_to_it_without_a_word(logger, tmp_path):
    logs = logger.flush()
    assert {name.partition(".out")[0] for name in logs} == {"metrics.csv", "events", "log.jsonl"}
    assert logs["metrics.csv"]["lines"] == STEPS + 1
    table = (tmp_path / "metrics.csv").read_bytes()
    for each in logger.loggers:
        each.log_validation(row(STEPS + 1), STEPS + 1)
    with (tmp_path / "metrics.csv").open("ab") as file:
        file.write(b"8,8,0.1\xff")
    assert repair(tmp_path, logs) == []
    assert (tmp_path / "metrics.csv").read_bytes() == table


@pytest.mark.parametrize(
    "logs", [None, {}, {"metrics.csv": 3}, {"../x": {"bytes": 1, "lines": 1, "sha256": ""}}, {3: {}}]
)
def test_what_an_older_or_a_strangers_checkpoint_knows_draws_no_word(logger, tmp_path, logs):
    logger.flush()
    before = files(tmp_path)
    assert repair(tmp_path, logs) == [] and files(tmp_path) == before


def flip(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


DAMAGES = {
    "a bit": lambda content, rng: flip(content, rng.randrange(len(content))),
    "cut": lambda content, rng: content[: rng.randrange(len(content))],
    "zeros": lambda content, rng: content[: (at := rng.randrange(len(content) - 1))] + bytes(len(content) - at),
    "a line less": lambda content, rng: b"".join(
        line for index, line in enumerate(content.splitlines(keepends=True)) if index != 2
    ),
    "no text": lambda content, rng: content[:20] + b"\xff\xfe" + content[22:],
    "empty": lambda content, rng: b"",
    "gone": None,
}


@pytest.mark.parametrize("name", ["metrics.csv", "events", "log.jsonl"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_no_damage_passes_without_a_word(logger, tmp_path, name, damage):
    """The line names the file; the rest of the logs, and the table that comes of it, can be gone on with."""
    logs, rng = logger.flush(), random.Random(0)
    (path,) = tmp_path.glob(f"{name}*")
    whole = path.read_bytes()
    for _ in range(10):
        change = DAMAGES[damage]
        path.unlink() if change is None else path.write_bytes(change(whole, rng))
        (line,) = repair(tmp_path, logs)
        assert str(path) in line and "the run goes on" in line and "\n" not in line
        table = MetricsTable(tmp_path / "metrics.csv", COLUMNS)
        steps = [entry["step"] for entry in table.rows()]
        assert steps == sorted(set(steps)) and (name == "metrics.csv" or len(steps) == STEPS)
        path.write_bytes(whole)
        (tmp_path / "metrics.damaged.csv").unlink(missing_ok=True)


def test_of_a_damaged_table_every_other_row_is_kept_and_the_file_as_it_was(logger, tmp_path):
    logs, path = logger.flush(), tmp_path / "metrics.csv"
    content = path.read_bytes().replace(b"3,3,", b"3,\x00,")
    path.write_bytes(content)
    (line,) = repair(tmp_path, logs)
    assert f"{STEPS - 1} rows can be read, the checkpoint knows {STEPS}" in line
    assert [entry["step"] for entry in MetricsTable(path, COLUMNS).rows()] == [1, 2, 4, 5, 6]
    assert (tmp_path / "metrics.damaged.csv").read_bytes() == content


def test_a_column_that_a_resume_has_added_is_no_damage(logger, tmp_path):
    """An older checkpoint of the run, such as best.pt, knows the table without it."""
    logs, path = logger.flush(), tmp_path / "metrics.csv"
    table = MetricsTable(path, [*COLUMNS, "a", "b"])
    table.append(row(STEPS + 1) | {"a": 1.0})
    assert repair(tmp_path, logs) == []
    assert [entry["step"] for entry in MetricsTable(path, COLUMNS).rows()] == [*range(1, STEPS + 1)]
    path.write_bytes(path.read_bytes().replace(b"2,2,", b"2,3,"))
    assert len(repair(tmp_path, logs)) == 1


def test_only_what_is_new_is_read_and_brought_to_the_disk(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(descriptor) or fsync(descriptor))
    path, digests = tmp_path / "log", LogDigests()
    path.write_bytes(b"one\n")
    assert digests.measure([path, tmp_path / "missing"]) == LogDigests().measure([path])
    synced.clear()
    digests.measure([path])
    assert not synced
    path.write_bytes(b"one\ntwo\n")
    assert digests.measure([path]) == LogDigests().measure([path])
    path.write_bytes(b"1\n")
    assert digests.measure([path]) == LogDigests().measure([path]), "a shorter file is another one"


def test_after_a_rollback_the_table_is_measured_anew(logger, tmp_path):
    logger.flush()
    logger.truncate(2)
    for step in range(3, STEPS + 2):
        logger.table.append(row(step) | {"loss/val": 0.5})
    assert repair(tmp_path, logger.flush()) == []


def test_a_file_that_ends_in_half_a_record_is_not_measured(logger, tmp_path, monkeypatch):
    """On a full disk: the half is cut off later, so that it must not be known."""
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(Path, "open", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        logger.table.append(row(STEPS + 1))
    assert logger.table.files() == []
    logger.table.close()
    assert logger.table.files() == [tmp_path / "metrics.csv"]


def test_damaged_lines_of_the_json_log_are_left_out_with_a_word(tmp_path):
    log = JsonLines(tmp_path)
    for step in range(4):
        log.log_step({"loss": float(step)}, step)
    whole = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join([whole[0], b"\xff\n", b"[]\n", whole[1], whole[3], whole[2][:9]]))
    said = []
    JsonLines(tmp_path, step=2, warn=said.append)
    assert log.path.read_bytes() == whole[0] + whole[1]
    assert said == [f"{log.path}: 2 lines could not be read and were left out"]


@pytest.mark.parametrize("content", [b"", b"\n", b"a,b\n1,2\n", b"epoch,step\n1,x\n1,-1\n1,2.5\n1\n"])
def test_no_row_is_read_out_of_what_is_none(content):
    assert readable_lines(content)[1:] == []

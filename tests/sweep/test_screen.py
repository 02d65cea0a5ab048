"""How far jobs have come, how long the others take, and a block of lines that is redrawn in place."""

import io
from pathlib import Path

from deeptrain.sweep.plan import Job
from deeptrain.sweep.screen import Screen, Standing, describe, seconds_left

A, B, C = (Job(Path(name), (), {"model": name[0], "seed": name[1]}, steps=100) for name in ("a0", "b0", "a1"))


def test_a_standing_is_the_last_row_of_the_table(tmp_path):
    job = Job(tmp_path, (), {"seed": "0"}, steps=40)
    assert Standing.read(job) is None and describe(job, None, 6) == "  seed=0  first epoch"
    rows = "epoch,step,loss/train,accuracy/val,seconds\n1,10,2.5,0.5,3\n2,20,1.5,0.75,6\n"
    (tmp_path / "metrics.csv").write_text(rows)
    assert (standing := Standing.read(job)) == Standing(20, 2, 1.5, 0.75, 6)
    assert describe(job, standing, 6) == "  seed=0  epoch 2  loss 1.500  val 75.00%  6s left"
    (tmp_path / "metrics.csv").write_text(rows + "3,3")
    assert Standing.read(job) is None, "a row that is just being written is no standing"


def test_what_is_left_is_estimated_by_setting_then_by_all_then_by_what_runs():
    assert seconds_left([A, B, C], {}, {}, 1) is None
    half = Standing(50, 1, 1.0, 0.5, 10)
    assert seconds_left([A, B, C], {}, {A.name: half}, 1) == 10 + 20 + 20
    done = {A.name: {"seconds": 10.0}, B.name: {"seconds": 100.0}}
    assert seconds_left([A, B, C], done, {}, 1) == 10, "as its own setting took"
    assert seconds_left([A, B, C], {B.name: {"seconds": 100.0}}, {}, 2) == 100, "as any took, two at a time"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_block_is_replaced_and_lines_pass_above_it(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen(stream := Terminal())
    screen.draw(["one", "two"])
    screen.show("a line")
    screen.draw(["three\x1b[2J"])
    screen.close()
    erase = "\x1b[2A\r\x1b[J"
    assert stream.getvalue() == f"one\ntwo\n{erase}a line\nthree\ufffd[2J\n" + "\x1b[1A\r\x1b[J"


def test_a_pipe_gets_no_block():
    screen = Screen(stream := io.StringIO())
    screen.draw(["one"])
    screen.show("a line")
    screen.close()
    assert stream.getvalue() == "a line\n"

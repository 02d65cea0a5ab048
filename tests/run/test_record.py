"""A run's folder is read as it is: finished, of 0.3.0, still training, torn; the command says it in lines to paste."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deeptrain.commands.read import read
from deeptrain.run import record

ROOT = Path(__file__).resolve().parents[2]
OLD = ROOT / "tests" / "fixtures" / "run_0_3_0" / "finished"


def test_a_run_of_0_3_0_is_read_with_its_numbers_of_images():
    found = record.load(OLD)
    assert (found.train, found.val, found.num_classes, len(found.rows)) == (1150, 288, 10, 2)
    assert found.setting("optimizer.lr") == 0.003 and found.is_over


def test_a_row_that_is_half_written_is_left_out(tmp_path):
    folder = shutil.copytree(OLD, tmp_path / "run")
    (folder / "result.json").unlink()
    table = folder / "metrics.csv"
    table.write_bytes(table.read_bytes()[:-40])
    found = record.load(folder)
    assert len(found.rows) == 1 and not found.is_over and found.val == 288
    assert record.reading(folder) == []


@pytest.mark.parametrize(
    "typed, override, expected",
    [
        (["model=fcn", "optimizer.lr=1", "dir=x"], "optimizer.lr=0.1", "model=fcn optimizer.lr=0.1"),
        (["schedule=step", "schedule.gamma=0.5", "epochs=3"], "schedule=cosine", "epochs=3 schedule=cosine"),
        (
            ["model.initialization=normal", "model.init_std=1"],
            "model.initialization=kaiming",
            "model.initialization=kaiming",
        ),
        (["aug=cutout", "aug.cutout.size=0.3"], "'aug=[cutout,mixup]'", "aug.cutout.size=0.3 'aug=[cutout,mixup]'"),
        (["epochs=3", "epochs=5", "dir=a b"], "seed=1", "epochs=5 seed=1"),
    ],
)
def test_the_command_to_try_repeats_the_run_with_one_setting_changed(typed, override, expected):
    assert record.trial(typed, override).split(" ", 2)[2] == expected


def test_the_command_reads_several_runs_and_refuses_what_is_none(tmp_path, capsys):
    assert read([str(OLD), str(OLD / "metrics.csv")]) == 0
    assert capsys.readouterr().out.count("reading  no diagnosis") == 2
    assert read([str(tmp_path)]) == 2 and "is no run's folder" in capsys.readouterr().err
    assert read([str(tmp_path / "none")]) == 2 and "is not there" in capsys.readouterr().err
    assert read(["--all", str(OLD)]) == 2 and "no such flag" in capsys.readouterr().err


def test_reading_imports_no_torch():
    script = (
        f"import sys; from deeptrain.commands.read import read; assert read([{str(OLD)!r}]) == 0; "
        "assert not {'torch', 'matplotlib', 'pandas', 'hydra'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)

"""A run from a stranger cannot run code, open a socket or write outside its folder, whichever command loads it.

Every hostile file of hostile_files.py goes through every such command in one process (audited.py), under an audit hook
that notes and forbids whatever reaches out. Here is what must have come of each.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import audited
import hostile_files
import pytest

from deeptrain.commands.cli import train
from deeptrain.runtime.resources import ROOT

pytestmark = pytest.mark.slow

MOST_BYTES = 200 * 2**20  # of memory for files of up to 100 MB; most take none worth speaking of


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, Any]:
    place = tmp_path_factory.mktemp("untrusted")
    paths = [str(ROOT / folder) for folder in ("src", "scripts", "tests", "tests/reliability")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "XDG_CACHE_HOME": str(place / "cache")}
    command = [sys.executable, audited.__file__, str(place / "answers.json")]
    subprocess.run(command, check=True, cwd=place, env=environment)
    return json.loads((place / "answers.json").read_text())


def names(*kinds: str) -> Iterator[str]:
    """List the cases of some kinds, without making those that need a checkpoint to start from."""
    lists = {
        "payload": [name for name, _ in hostile_files.payloads()],
        "tensor": [name for name, _ in hostile_files.lying_tensors()],
        "folder": [
            *hostile_files.FOLDERS,
            *hostile_files.READ_BY_RESUME,
            *hostile_files.READ_BY_EVALUATE,
            *hostile_files.READ_BY_RERUN,
            *hostile_files.READ_BY_PREDICT,
        ],
        "harmless": [*hostile_files.HARMLESS, *hostile_files.IGNORED_BY_REPORT, *hostile_files.IGNORED_BY_READ],
    }
    return (name for kind in kinds for name in lists[kind])


def test_the_corpus_is_large_and_every_command_meets_it(found):
    cases = {(case["kind"], case["name"]) for case in found["cases"]}
    assert len(cases) >= 200
    assert {case["command"] for case in found["cases"]} == set(audited.COMMANDS)
    for kind in ("payload", "tensor", "folder", "harmless"):
        assert {name for found_kind, name in cases if found_kind == kind} == set(names(kind))
    for script in (ROOT / "scripts").glob("*.py"):  # a new command that loads a run has to be added here
        assert "folder.find(" not in script.read_text() or script.stem in " ".join(audited.COMMANDS)


def test_the_hook_notices_what_must_not_be(found):
    assert all(found["noticed"]) and len(found["noticed"]) >= 7


def test_nothing_runs_reaches_out_or_writes_outside(found):
    assert not [case for case in found["cases"] if case["seen"] or case["outside"]]


def test_no_secret_of_the_environment_is_shown_or_written(found):
    assert not [case for case in found["cases"] if case["secret"]]


def test_memory_stays_small(found):
    assert not [case for case in found["cases"] if case["bytes"] > MOST_BYTES]


def test_each_is_refused_in_a_line(found):
    wrong = []
    for case in found["cases"]:
        lines = [line for line in case["errors"].splitlines() if not line.startswith("no temperature is ")]  # a note
        refused = case["code"] == 2 and lines and all(line.startswith("error: ") for line in lines)
        carried_out = case["code"] == 0 and not lines
        if not (carried_out if case["kind"] == "harmless" else refused):
            wrong.append(case)
    assert not wrong


def test_no_word_of_theirs_moves_the_cursor_or_fills_the_screen(found):
    assert not [case for case in found["cases"] if case["raw"]]
    assert not [case for case in found["cases"] if any(len(line) > 6000 for line in case["errors"].splitlines())]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a server", "asks for loggers.mlflow.tracking_uri=http://elsewhere, by which it could send what"),
        ("allowed packages", "overrides.yaml: asks for allow_targets=[os], by which it could run any code"),
        ("options of its own", "overrides.yaml: asks for --config-dir="),
        ("a link for the settings", "config.yaml is a link or no file; put the file itself there"),
        ("a pipe for the table", "metrics.csv is a link or no file"),
        ("a hundred thousand words", "overrides.yaml: is too large to be of a run of deeptrain"),
        ("a ragged table", "metrics.csv: is not the table of a run"),
        ("a table of a gigabyte", "metrics.csv: is too large to be of a run of deeptrain"),
        ("a table of five million rows", "metrics.csv: is not the table of a run (more than 2,097,152 cells); move it"),
        ("a table of ten million columns", "metrics.csv: is not the table of a run (a line is too long); move it away"),
        ("settings that double", "config.yaml: is damaged (anchors, aliases and tags are not read); move it away"),
        ("settings that break off", "config.yaml: is damaged (it has no data, model, optimizer); move it away"),
        (
            "yaml of dates",
            "overrides.yaml: is not a list of settings; write the settings of its command into that file",
        ),
        ("a split of lists", "split.json: is damaged; move it away"),
        ("os.system", ".pt: holds more than weights and plain values, so it is not opened"),
        ("progress beyond the end of an epoch", "last.pt: it stopped in step 1000000000 of an epoch"),
        ("momenta stretched", ".pt: holds more than weights and plain values, so it is not opened"),
        ("momenta that share a storage", ".pt: holds more than weights and plain values, so it is not opened"),
        ("an input of negative size", "best.pt: does not say what it was trained on"),
        ("an input of another size", "best.pt: it was trained on images of 3x16x16, the data has 3x8x8; leave the"),
    ],
)
def test_the_line_says_which_file_and_why(found, name, words):
    assert words in next(case["errors"] for case in found["cases"] if case["name"] == name)


def test_what_one_trusts_can_be_repeated(tmp_path, monkeypatch):
    """The words that a folder may not say are taken from the command line."""
    from deeptrain.errors import UsageError
    from deeptrain.run.saved import load_overrides

    (tmp_path / "overrides.yaml").write_text("- allow_targets=[mine]\n- epochs=3\n- cache_dir=store\n")
    with pytest.raises(UsageError, match="add this word"):
        load_overrides(tmp_path)
    assert load_overrides(tmp_path, ["allow_targets=[mine]"]) == ["epochs=3"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store" / "digits-1").mkdir(parents=True)
    (tmp_path / "store" / "digits-1" / "entry.json").write_text("{}")
    assert load_overrides(tmp_path, ["allow_targets=[mine]"]) == ["epochs=3", "cache_dir=store"], "a cache already"


def test_secrets_stay_out_of_every_file(tmp_path, monkeypatch, capfd):
    """Five of them, in settings of all kinds: refused before anything is written, or trained with."""
    for index in range(5):
        monkeypatch.setenv(f"SECRET{index}", f"hunter{index}")
    words = [*audited.TINY, "epochs=1", f"dir={tmp_path}/run", "loggers=tensorboard"]
    for wrong in ("data.rot=${oc.env:SECRET0}", "monitor=${oc.env:SECRET1}", "aug=${oc.env:SECRET2}"):
        assert train([*words, wrong]) == 2 and not (tmp_path / "run").exists()
    sound = ["data.root=${oc.env:SECRET3}", f"cache_dir={tmp_path}/${{oc.env:SECRET4}}"]
    assert train([*words, *sound]) == 0
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(files) > 10 and (tmp_path / "run" / "config.yaml").read_text().count("${oc.env:SECRET") == 2
    assert not [path for path in files if b"hunter" in path.read_bytes()]
    assert "hunter" not in capfd.readouterr().out

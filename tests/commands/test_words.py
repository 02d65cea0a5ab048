"""One reader for the words of all commands."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest

from deeptrain.commands.words import parse
from deeptrain.errors import UsageError
from deeptrain.schema import PositiveInt, Range

USAGE = "python scripts/evaluate.py RUN\nmore"
READ = ("--config-dir", "data", "device")


@dataclass
class Options:
    """Of a command that there is not."""

    top: PositiveInt = 5
    share: Annotated[float, Range(above=0, below=1)] | None = None
    format: Literal["table", "json"] = "table"
    file: str | None = None
    strict: bool = False
    draws: PositiveInt = field(default=16, metadata={"key": "tta.draws"})


def taken(*words):
    return parse(words, Options, USAGE, "testing", READ)


def refused(*words):
    with pytest.raises(UsageError) as error:
        taken(*words)
    return error.value.lines


def test_names_options_and_settings_are_told_apart():
    found = taken(
        "run", "top=3", "device=cpu", "a picture.png", "strict=true", "tta.draws=4", "file=1e3", "-", "share=.5"
    )
    assert found.names == ["run", "a picture.png", "-"] and found.overrides == ["device=cpu"]
    assert found.options == Options(3, 0.5, "table", "1e3", True, 4)


def test_what_exists_is_a_name_and_so_is_what_can_be_no_setting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("aug=none,seed=0").mkdir()
    assert taken("aug=none,seed=0", "runs/seed=1", "run=device=cpu", "data.root=x").names == [
        "aug=none,seed=0",
        "runs/seed=1",
        "device=cpu",
    ]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["run", "top=0"], "top=0: must be >= 1"),
        (["run", "top=2.5"], "top=2.5: must be a whole number"),
        (["run", "top="], "top=: must be a whole number"),
        (["run", "top=["], "top=[: must be a whole number"),
        (["run", "top=2026-01-01"], "must be a whole number"),
        (["run", "strict=perhaps"], "must be true or false"),
        (["run", "tpo=3"], "did you mean top?"),
        (["run", "devcie=cpu"], "did you mean device?"),
        (["run", "epochs=3"], "epochs=3: testing does not read it; it takes data, device"),
        (["run", "~aug"], "testing does not read it"),
        (["run", "--top=3"], "write top=3, without --"),
        (["run", "--tpo"], "--tpo: no such flag; "),
        (["run", "-m"], "-m: testing does not take it"),
        (["run", "--cfg", "job"], "--cfg: testing does not take it"),
        (["device=cpu"], "name the run first: "),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line(words, part):
    (line,) = refused(*words)
    assert part in line


def test_all_wrong_options_are_told_at_once():
    assert len(refused("run", "top=0", "strict=maybe")) == 2

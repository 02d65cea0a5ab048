"""Settings are checked alike on a call and from the source text, and a misspelt one gets the right neighbour."""

import importlib
import textwrap
from typing import Annotated, Literal

import pytest

from deeptrain.config.signatures import read_signature
from deeptrain.schema import (
    DropRate,
    EpochsOrFraction,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Range,
    UnitFloat,
    closest,
    type_error,
    validate_call,
)

Colour = Literal["red", "green", 3]


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (1, PositiveInt),
        (0.1, PositiveFloat),
        (1, PositiveFloat),
        (0, NonNegativeFloat),
        (1, UnitFloat),
        (0.999, DropRate),
        (5, EpochsOrFraction),
        (0.05, EpochsOrFraction),
        (0, EpochsOrFraction),
        ("red", Colour),
        (3, Colour),
        (None, PositiveInt | None),
        ([], list[PositiveInt]),
        ([3, 4], list[PositiveInt] | None),
        (True, bool),
        ("", str),
        (8, Annotated[int, Range(minimum=8)]),
        (object(), object),
    ],
)
def test_allowed(value, annotation):
    assert type_error(value, annotation) is None


@pytest.mark.parametrize(
    ("value", "annotation", "said"),
    [
        (0, PositiveInt, "must be >= 1"),
        (1.0, PositiveInt, "must be a whole number >= 1"),
        (True, PositiveInt, "must be a whole number >= 1"),
        ("ten", PositiveInt, "must be a whole number >= 1"),
        (0, PositiveFloat, "must be > 0"),
        (float("nan"), PositiveFloat, "must be a number > 0"),
        (float("inf"), PositiveFloat, "must be a number > 0"),
        (1, DropRate, "must be >= 0 and < 1"),
        (5.0, EpochsOrFraction, "must be a whole number"),
        (1.5, UnitFloat, "<= 1"),
        ("rde", Colour, "did you mean red? choose from red, green, 3"),
        (3.0, Colour, "choose from red, green, 3"),
        (0, PositiveInt | None, "must be >= 1 or null"),
        ([3, 0], list[PositiveInt], "every item must be >= 1"),
        (3, list[PositiveInt], "must be a list"),
        (1, bool, "must be true or false"),
        ("atuo", PositiveInt | Literal["auto"], "did you mean auto?"),
    ],
)
def test_refused(value, annotation, said):
    assert said in (type_error(value, annotation) or "")


def test_checked_names_argument_and_value():
    @validate_call
    def part(alpha: PositiveFloat = 0.2, *, mode: Literal["a", "b"] = "a", other: object = None):
        return alpha, mode, other

    assert part(0.3, other=part) == (0.3, "a", part)
    with pytest.raises(ValueError, match=r"alpha=-1: must be > 0"):
        part(-1)
    with pytest.raises(ValueError, match=r"mode=c: choose from a, b"):
        part(mode="c")


def test_signature_is_read_from_source_alone(tmp_path, monkeypatch):
    """Aliases are followed through assignments and imports; nothing is executed on the way."""
    package = tmp_path / "outside_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "words.py").write_text('raise RuntimeError("imported")\nTint = Literal["red", "blue"]\n')
    (package / "net.py").write_text(
        textwrap.dedent(
            """
            import torch
            from outside_package.words import Tint
            from deeptrain.schema import PositiveInt, DropRate

            Size = Annotated[int, Range(minimum=8)]

            class Net(torch.nn.Module):
                def __init__(self, input_shape: tuple, depth: PositiveInt = 3, *, drop: DropRate | None = None,
                             tint: Tint, sizes: list[Size] = [8], free=None): ...

            @dataclass
            class Data:
                root: str
                flip: bool = True
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    net = read_signature("outside_package.net.Net")
    assert net is not None
    assert list(net) == ["input_shape", "depth", "drop", "tint", "sizes", "free"]
    assert [name for name, parameter in net.items() if parameter.required] == ["input_shape", "tint"]
    assert type_error(0, net["depth"].annotation) == "must be >= 1"
    assert type_error(None, net["drop"].annotation) is None
    assert type_error(1.5, net["drop"].annotation) is not None
    assert "did you mean blue?" in (type_error("bleu", net["tint"].annotation) or "")
    assert type_error([4], net["sizes"].annotation) == "every item must be >= 8"
    assert type_error(object(), net["free"].annotation) is None
    data = read_signature("outside_package.net.Data")
    assert data is not None and data["root"].required and not data["flip"].required
    assert read_signature("outside_package.net.Absent") is None
    assert read_signature("no_such_package.net.Net") is None


def test_signature_follows_base_classes(tmp_path, monkeypatch):
    package = tmp_path / "outside_bases"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "base.py").write_text(
        textwrap.dedent(
            """
            @dataclass(kw_only=True)
            class Source:
                name: ClassVar[str]
                flip: bool = False
                size: PositiveInt = 3
            """
        )
    )
    (package / "net.py").write_text(
        textwrap.dedent(
            """
            import torch
            from outside_bases.base import Source

            @validate_call
            @dataclass
            class Mine(Source):
                root: str
                flip: bool = True

            class Net:
                def __init__(self, depth: PositiveInt = 3): ...

            class Deeper(Net):
                weight: float

            class Unknown(torch.nn.Module):
                pass
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = read_signature("outside_bases.net.Mine")
    assert mine is not None and set(mine) == {"root", "flip", "size"}
    assert mine["root"].required and not mine["size"].required
    assert type_error(0, mine["size"].annotation) == "must be >= 1"
    deeper = read_signature("outside_bases.net.Deeper")
    assert deeper is not None and list(deeper) == ["depth"]
    assert read_signature("outside_bases.net.Unknown") is None, "only building it can tell"


def test_nearest():
    options = ["adagrad", "adam", "adamw", "rmsprop", "sgd"]
    assert closest("sdg", options) == "sgd"
    assert closest("adamm", options) == "adam"
    assert closest("rmspop", options) == "rmsprop"
    assert closest("lion", options) is None


@pytest.mark.filterwarnings("ignore:deeptrain.schema")
def test_names_of_0_3_0_still_work(tmp_path, monkeypatch):
    """In a component of one's own: imported, and read from its source for the command line."""
    (tmp_path / "old_component.py").write_text(
        "from deeptrain.schema import Count, Rate, checked\n\n\n@checked\n"
        "def make(*, width: Count = 3, drop: Rate = 0.0):\n    return width, drop\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    signature = read_signature("old_component.make")
    assert signature is not None and type_error(0, signature["width"].annotation) == "must be >= 1"
    with pytest.warns(DeprecationWarning, match="Count is now PositiveInt"):
        make = importlib.import_module("old_component").make
    assert make(width=2) == (2, 0.0)
    with pytest.raises(ValueError, match="width=0: must be >= 1"):
        make(width=0)

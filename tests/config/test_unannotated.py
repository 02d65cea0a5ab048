"""A setting without an annotation, in a component of one's own, is checked against its default in the YAML."""

import pytest

from deeptrain.config.compose import compose_run
from deeptrain.errors import UsageError

SOURCE = """
class Bare:
    def __init__(self, input_shape, num_classes, width, rate=0.5, wide=False, kind="a", sizes=(1, 2), free=None):
        pass
"""
YAML = """
# a model without annotations
_target_: bare_of_mine.Bare
width: 32
rate: 0.5
wide: false
kind: a
sizes: [1, 2]
free: null
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("mine")
    (tmp_path / "configs" / "model").mkdir(parents=True)
    (tmp_path / "bare_of_mine.py").write_text(SOURCE)
    (tmp_path / "configs" / "model" / "bare.yaml").write_text(YAML)
    return f"--config-dir={tmp_path / 'configs'}"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("width=3.5", "must be a whole number, as its default 32"),
        ("width=null", "must be a whole number, as its default 32"),
        ("rate=fast", "must be a number, as its default 0.5"),
        ("wide=1", "must be true or false, as its default false"),
        ("kind=3", "must be text, as its default a"),
        ("sizes=3", "must be a list, written [a,b], as its default [1,2]"),
    ],
)
def test_a_value_of_another_type_is_refused(folder, word, message):
    with pytest.raises(UsageError) as error:
        compose_run([folder, "model=bare", f"model.{word}"])
    assert error.value.lines == [f"model.{word}: {message}; to allow other types, annotate {word.partition('=')[0]}"]


@pytest.mark.parametrize("word", ["width=64", "rate=1", "wide=true", "kind=b", "sizes=[3]", "free=3", "free=word"])
def test_a_value_of_the_same_type_is_taken(folder, word):
    compose_run([folder, "model=bare", f"model.{word}"])

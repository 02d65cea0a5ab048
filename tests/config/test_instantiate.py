"""A module of one's own that cannot be imported is named, with the line that raised."""

import pytest

from deeptrain.config.instantiate import locate
from deeptrain.config.signatures import read_signature
from deeptrain.errors import UsageError

BROKEN = {
    "raises": ("import math\nRATE = 1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
    "calls": ("def f():\n    return {}['a']\n\n\nf()\n", "line 2: KeyError: 'a'"),
    "syntax": ("class Net(:\n", "SyntaxError: invalid syntax (broken_syntax.py, line 1)"),
    "bytes": ("\0", "SyntaxError: source code string cannot contain null bytes"),
    "misses": ("import no_such_package_anywhere\n", "No module named 'no_such_package_anywhere'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_module_that_cannot_be_imported_is_named(name, tmp_path, monkeypatch):
    source, reason = BROKEN[name]
    (tmp_path / f"broken_{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    target = f"broken_{name}.Net"
    assert read_signature(target) is None, "only the import can tell"
    with pytest.raises(UsageError) as caught:
        locate("model", target)
    (line,) = caught.value.lines
    assert line.startswith(f"model._target_={target}: cannot be imported (") and reason in line


def test_a_name_that_a_module_lacks_is_met_with_those_it_has():
    with pytest.raises(UsageError, match=r"deeptrain\.loss has no hinged; must be one of.+hinge|did you mean"):
        locate("loss", "deeptrain.loss.hinged")

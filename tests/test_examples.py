"""The notebooks of examples/: each one runs as a script, offline, and is committed without outputs."""

import json
import os
import sys
from pathlib import Path

import forked
import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NAMES = [
    "1_first_run",
    "2_compare_two_regularizers",
    "3_a_method_of_your_own",
    "4_your_own_photos",
    "5_the_lectures_by_the_numbers",
]


def cells(name: str, kind: str) -> list[dict]:
    notebook = json.loads((EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4 and notebook["metadata"]["kernelspec"]["name"] == "python3"
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_these_notebooks_are_there():
    assert sorted(path.stem for path in EXAMPLES.glob("*.ipynb")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_is_committed_without_outputs(name):
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells(name, "code"))


@pytest.mark.parametrize("name", NAMES)
def test_it_begins_with_a_title_and_what_the_reader_learns(name):
    title, paragraph, *_ = "".join(cells(name, "markdown")[0]["source"]).split("\n\n")
    assert title.startswith("# ") and paragraph.startswith("You learn")


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_leaves_nothing_behind(name, tmp_path):
    script, folder, temporary = tmp_path / "script.py", tmp_path / "folder", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    sources = ["".join(cell["source"]) for cell in cells(name, "code")]
    own = f"import subprocess, sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\nimport forked\n"
    sources.insert(0, f"{own}subprocess.run = forked.run_here")
    script.write_text("\n\n".join(sources) + "\n", encoding="utf-8")
    environment = {**os.environ, "MPLBACKEND": "Agg", "TMPDIR": str(temporary)}
    done = forked.run([sys.executable, script], cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    left = [path for path in temporary.iterdir() if not path.name.startswith("torchinductor")]  # torch's own cache
    assert not left and not list(folder.iterdir())

"""A gate for what we ship: nothing in it runs code from a file, and no dependency may be so old that it would."""

import ast
import re
import tomllib
from collections.abc import Iterator

import pytest

from deeptrain.runtime.resources import ROOT

pytestmark = pytest.mark.slow

FOLDERS = ("src", "scripts", "benchmarks")
FILES = sorted([*(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")), ROOT / "train.py"])
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "runpy", "code"}
MODULES |= {"torch.package", "torch.serialization", "torch.jit", "torch.hub"}
NEVER = {"eval", "exec", "__import__", "__builtins__"}  # not even by name, to be called elsewhere
CALLS = re.compile(
    r"(builtins\.)?compile|builtins\..*"
    r"|(?!deeptrain\.config\.instantiate\.).*\binstantiate|hydra\.utils\..*|.*register_new_resolver"
    r"|yaml\.(load|load_all|unsafe_load|unsafe_load_all|full_load|full_load_all)"
    r"|os\.(system|popen|startfile|exec\w+|spawn\w+|posix_spawn\w*)|subprocess\.get(status)?output"
    r"|torch\.(jit|hub|package|serialization)\..*|pandas\.read_pickle|numpy\.lib\.(npyio\..*|format\.read_array)|tempfile\.mktemp"
    r"|.*\.extract(all)?|shutil\.unpack_archive"
    r"|importlib\.__import__|importlib\.util\.(spec_from_file_location|module_from_spec)"
)
NEEDED = {  # a call must have this keyword with this value
    "torch.load": ("weights_only", "True"),
    "numpy.load": ("allow_pickle", "False"),
}
UNPICKLERS = ("pickle_module",)  # keywords that no call may have
ITSELF = "os.execv(sys.executable, [sys.executable, '-X', 'utf8', *sys.orig_argv[1:]])"  # the same command, in UTF-8
BY_NAME = (  # may import by name
    ROOT / "src" / "deeptrain" / "config" / "instantiate.py",  # what a setting names, inside an allow-list
    ROOT / "src" / "deeptrain" / "__init__.py",  # names that stand in the file itself
)


def names_of(tree: ast.Module) -> dict[str, str]:
    """Map what a file calls things to what they are: {"np": "numpy", "load": "torch.load"}."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def offences(source: str, *, builder: bool = False) -> Iterator[str]:
    """Name each import and call in a source text that could run code from a file, or write wherever it says."""
    tree = ast.parse(source)
    names = names_of(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or "", *(f"{node.module}.{module}" for module in modules)]
            yield from (f"line {node.lineno}: import {module}" for module in modules if module in MODULES)
        if isinstance(node, ast.Name) and node.id in NEVER:
            yield f"line {node.lineno}: {node.id}"
        if not isinstance(node, ast.Call) or ast.unparse(node) == ITSELF:
            continue
        first, dot, rest = ast.unparse(node.func).partition(".")
        call = f"{names.get(first, first)}{dot}{rest}"
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        name, value = NEEDED.get(call, ("", ""))
        unknown = None in keywords and (name or call.startswith("subprocess."))  # **options, which may hold anything
        if (
            unknown
            or {*UNPICKLERS} & keywords.keys()
            or CALLS.fullmatch(call)
            or call.split(".")[0] in MODULES
            or keywords.get("shell", "False") != "False"
            or (name and keywords.get(name) != value)
            or (call == "importlib.import_module" and not builder)
        ):
            yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_code_from_a_file(path):
    assert not list(offences(path.read_text("utf-8"), builder=path in BY_NAME))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import dill as safe",
        "def f():\n    import marshal",
        "eval('1')",
        "exec(text)",
        "__import__('os')",
        "compile(text, '', 'exec')",
        "import builtins; builtins.exec(text)",
        "import yaml; yaml.load(text, yaml.SafeLoader)",
        "from yaml import unsafe_load as read; read(text)",
        "from hydra.utils import instantiate; instantiate(node)",
        "import hydra; hydra.utils.instantiate(node)",
        "import hydra.utils as h; h.get_method(name)",
        "from omegaconf import OmegaConf; OmegaConf.register_new_resolver('eval', f)",
        "import subprocess; subprocess.run(words, shell=True)",
        "from subprocess import Popen; Popen(words, shell=flag)",
        "import os; os.system(word)",
        "from os import popen; popen(word)",
        "import torch; torch.load(path)",
        "import torch as t; t.load(path, weights_only=False)",
        "from torch import load; load(path, weights_only=flag)",
        "import torch; torch.jit.load(path)",
        "import torch; torch.hub.load(repo, name)",
        "import numpy as np; np.load(path)",
        "import numpy as np; np.load(path, allow_pickle=True)",
        "import zipfile; zipfile.ZipFile(path).extractall(folder)",
        "from importlib import import_module; import_module(name)",
        "import _pickle",
        "from torch import package",
        "from torch.serialization import load; load(path)",
        "import torch; torch.serialization.load(path)",
        "import torch; torch.serialization.add_safe_globals([os.system])",
        "import torch; torch.load(path, weights_only=True, pickle_module=mine)",
        "import torch; torch.load(path, **options)",
        "run = eval; run(text)",
        "getattr(__builtins__, 'eval')(text)",
        "import builtins; builtins.eval(text)",
        "import importlib; importlib.__import__(name)",
        "import subprocess; subprocess.run(words, **options)",
        "import shutil; shutil.unpack_archive(path)",
        "import tarfile; tarfile.open(path).extract(name)",
        "import numpy as np; np.lib.npyio.load(path)",
    ],
)
def test_the_gate_stops(source):
    assert list(offences(source))


@pytest.mark.parametrize(
    "source",
    [
        "import torch; torch.load(path, map_location='cpu', weights_only=True)",
        "import numpy as np; np.load(path, allow_pickle=False)",
        "import subprocess; subprocess.run(words, shell=False)",
        "import yaml; yaml.safe_load(text)",
        "import re; re.compile(text)",
        "model.eval()",
    ],
)
def test_the_gate_lets_pass(source):
    assert not list(offences(source))


FLOORS = {  # the first versions without the holes known in November 2026
    "torch": (2, 11),  # weights_only could be broken before: CVE-2025-32434, CVE-2026-24747, PYSEC-2026-139
    "hydra-core": (1, 3, 8),  # CVE-2026-68508 and what followed
    "omegaconf": (2, 3, 1),
    "pillow": (12, 3),  # CVE-2026-25990, CVE-2026-55379 and others: pictures that write outside their memory
    "pyyaml": (6,),  # CVE-2020-14343
    "jinja2": (3, 1, 6),  # CVE-2025-27516
}


def test_no_dependency_may_be_so_old_that_it_has_a_known_hole():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    lowest = {}
    for line in declared:
        name, bounds = re.fullmatch(r"([\w-]+)(.*)", line).groups()
        lowest[name.lower()] = tuple(map(int, re.search(r">=([\d.]+)", bounds)[1].split(".")))
    for name, floor in FLOORS.items():
        assert lowest.get(name, ()) >= floor, f"{name} may be {lowest.get(name)}, must be at least {floor}"


def test_continuous_integration_runs_this_gate():
    assert "uv run pytest" in (ROOT / ".ci" / "run").read_text("utf-8")

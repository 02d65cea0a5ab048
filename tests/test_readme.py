"""What the README shows works: every command composes, every example of an extension trains."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import forked
import pytest

from deeptrain.commands import diagnose
from deeptrain.commands.cli import EXAMPLES, split_flags, train
from deeptrain.config.command_options import split_options
from deeptrain.config.compose import compose_run
from deeptrain.search.launch import split as split_search
from deeptrain.search.space import read as read_space
from deeptrain.sweep import ablation, launchers, plan
from deeptrain.sweep.options import Options

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = "\n".join(page.read_text() for page in PAGES)
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if not kind for line in text.splitlines() if line.startswith("python ")]


def code(kind: str, marker: str) -> str:
    (found,) = [text for language, text in BLOCKS if language == kind and marker in text]
    return found


COMPOSED = {
    line.partition("  #")[0]: shlex.split(line, comments=True)[2:] for line in COMMANDS if "--config-dir" not in line
}
SEEDS = {word for words in COMPOSED.values() for word in words if word.startswith("seed=") and "-m" in words}


@pytest.mark.parametrize("command", COMPOSED)
def test_commands_compose(command):
    words = COMPOSED[command]
    if words[0].startswith("explain="):
        assert train(words) == 0
        return
    words = [word for word in words if word != "--all"]  # of preview.py
    if words == ["--help"] or "RUN" in words or any(word.startswith(("resume=", "outputs/")) for word in words):
        return
    flags, words = split_flags(words)
    if any(word.startswith("over=") for word in words):
        words = [*(word for word in words if not word.startswith("seeds=")), "seeds=1"]
        assert all(compose_run(list(job.words)) for job in ablation.lay_out(split_options(words, Options)[1]).jobs)
    elif any(re.search(r"=(log|interval)\(", word) for word in words):  # of tune.py
        assert read_space(split_search(words)[1])[0].axes
    elif "scripts/diagnose.py" in command:
        compose_run(split_options(words, diagnose.Options)[1])
    elif "multirun" in flags or plan.is_declared(words):
        words = ["seed=0,1" if word in SEEDS else word for word in words]  # each job takes 0.1 s
        options, words = split_options(words, Options)
        assert len(plan.lay_out(launchers.take_out(options.launcher, words)[1]).jobs) > 1
    else:
        compose_run(words)


@pytest.mark.parametrize("seeds", sorted(SEEDS))
def test_seeds_compose(seeds):
    assert len(plan.lay_out([seeds]).jobs) > 1


SHELL = re.compile(r"^(?:python|uv|pip|torchrun|tensorboard|source|deeptrain) .*", re.MULTILINE)
TYPED_PAGES = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md"]
TEXTS = [text for page in TYPED_PAGES for text in re.findall(r"```\n(.*?)```", page.read_text(), flags=re.DOTALL)]
HEADS = [re.sub("^# +", "", path.read_text(), flags=re.MULTILINE) for path in (ROOT / "configs").rglob("*.yaml")]
SHELL_COMMANDS = sorted({line for text in [*TEXTS, *HEADS, EXAMPLES] for line in SHELL.findall(text)})
SPECIAL = re.compile(r"[][()*?{}<>|;~^!$`\"']")  # read by bash or zsh; zsh reads comments too, as words


@pytest.mark.parametrize("command", SHELL_COMMANDS)
def test_a_command_can_be_typed_into_bash_and_zsh(command):
    done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    bare = re.sub(r"'[^']*'|\"[^\"$`!]*\"", "", command)
    assert not SPECIAL.search(bare), "put the word into quotes"


def test_words_behind_a_hash_are_a_comment():
    assert split_flags(["epochs=3", "#", "three", "passes"]) == (set(), ["epochs=3"])


FILES = dict(re.findall(r"`(my/[\w/]+\.\w+)`[^`]*?```\w+\n(.*?)```", README, flags=re.DOTALL))
OWN_COMMANDS = [command for command in COMMANDS if "--config-dir my/configs" in command]
SMALL = ["data.size=100", "epochs=1", "loggers=none", "threads=1"]


@pytest.fixture
def own_folder(tmp_path):
    """The files that docs/extending.md shows, in a folder outside the clone."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "", "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "train.py"), *words]
    return forked.run(command, cwd=folder, env=environment)


def test_every_kind_of_addition_is_shown():
    groups = {Path(name).parts[2] for name in FILES if name.endswith(".yaml")}
    assert groups == {"model", "aug", "schedule", "metrics", "loggers", "gradient", "optimizer", "data"}
    assert len(OWN_COMMANDS) == len(groups)


@pytest.mark.parametrize("command", OWN_COMMANDS)
def test_an_addition_outside_the_clone_trains(own_folder, command):
    words = shlex.split(command)[2:]
    given = {word.partition("=")[0] for word in words}
    defaults = [] if "data" in given else ["data=synthetic"]
    defaults += [] if "model" in given else ["model=fcn"]
    small = [word for word in SMALL if word.partition("=")[0] not in given]
    done = run([*words, *defaults, *small, "dir=run"], own_folder)
    assert done.returncode == 0, done.stderr
    if "loggers" in given:
        assert (own_folder / "run" / "records.txt").read_text().startswith("step ")
    if "metrics" in given:
        assert "top3/val" in (own_folder / "run" / "metrics.csv").read_text().partition("\n")[0]
        assert "monitor" in (own_folder / "run" / "result.json").read_text()


def test_a_mistake_in_an_addition_is_one_line(own_folder):
    wrong = run(["--config-dir", "my/configs", "model=conv", "model.width=0"], own_folder)
    assert wrong.returncode == 2 and wrong.stderr == "error: model.width=0: must be >= 1\n"


def test_a_run_with_additions_resumes_when_the_folder_is_typed_again(own_folder):
    words = ["--config-dir", "my/configs", "model=conv", "aug=brightness", "gradient=asam", "metrics=top3"]
    small = ["data=synthetic", "data.size=100", "loggers=none", "threads=1"]
    assert run([*words, *small, "epochs=2", "dir=whole"], own_folder).returncode == 0
    assert run([*words, *small, "epochs=2", "limit_steps=5", "dir=run"], own_folder).returncode == 0
    refused = run(["resume=run", "limit_steps=null"], own_folder)
    assert refused.returncode == 2 and "if you trust it, add this word" in refused.stderr
    done = run(["resume=run", "limit_steps=null", "--config-dir", "my/configs"], own_folder)
    assert done.returncode == 0, done.stderr
    results = [json.loads((own_folder / name / "result.json").read_text()) for name in ("whole", "run")]
    assert results[0]["steps"] == results[1]["steps"]


def test_ten_lines_train_own_tensors(tmp_path):
    text = code("python", "train, val = tensor_loader(")
    assert len([line for line in text.splitlines() if line.strip()]) <= 10
    done = forked.run([sys.executable, "-c", text], cwd=tmp_path)
    assert "'epoch': 3" in done.stdout and not list(tmp_path.iterdir()), "without a run folder nothing is written"


def test_the_python_example_trains(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    text = code("python", "build_trainer").replace('"epochs=3"', '"epochs=1", "limit_steps=2"')
    (tmp_path / "example.py").write_text(text)
    done = forked.run([sys.executable, "example.py"])
    assert 0 <= float(done.stdout) <= 1

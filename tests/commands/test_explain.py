"""Every method has a card that names only what there is, and the command line shows it at once."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deeptrain.commands.cli import train
from deeptrain.commands.explain import CARDS, KINDS, explain
from deeptrain.config.compose import compose_run
from deeptrain.config.options import groups, options
from deeptrain.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "deeptrain"
NAMES = sorted(path.stem for path in CARDS.glob("*.md"))
METHODS = (  # settings that regularize, wherever they stand
    *(
        "model.dropout",
        "model.drop_connect",
        "model.stochastic_depth",
        "model.pool",
        "model.test_samples",
        "model.norm",
    ),
    *("loss.label_smoothing", "loss.class_weights", "optimizer.weight_decay", "max_norm", "sam", "data.whiten"),
    *("data.flip", "data.crop_padding", "early_stop.patience"),
)


def settings() -> set[str]:
    """Return every dotted key that some option has, and those of every run."""
    found = set(compose_run([]).values)
    for path in (ROOT / "configs").glob("*/*.yaml"):
        group, content = path.parent.name, yaml.safe_load(path.read_text()) or {}
        if group == "aug":
            content = {f"{name}.{key}": None for name, node in content.items() for key in node}
        found |= {f"{group}.{key}" for key in content if group != "experiment"}
    return found


SETTINGS = settings()
OWNERS = {  # the option that has a setting
    "model.pool": "model=vgg",
    "model.hidden": "model=fcn",
    "model.cell": "model=rnn",
    "loss.output": "loss=mse",
    "optimizer.exclude": "optimizer=lamb",
}
GROUPS = {path.name for path in (ROOT / "configs").iterdir()}


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_short_and_says_what_there_is_to_say(name):
    text = (CARDS / f"{name}.md").read_text()
    assert 70 <= len(text.split()) <= 230, "a student reads it in a minute"
    for part in ("**Expect**", "**Range.**", "**It hurts**", "**Paper"):
        assert part in text
    (expected,) = [paragraph for paragraph in text.split("\n\n") if paragraph.startswith("**Expect**")]
    assert "loss" in expected, "what to look for in the curves"
    title, kind = text.splitlines()[0], text.splitlines()[2]
    assert title.startswith("# ") and kind.partition(":")[0] in KINDS
    assert all(len(line) <= 120 for line in text.splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_what_a_card_tells_to_type_exists(name):
    """`group=option` is an option, `group.key` a setting, and a value that it gives is taken."""
    for word in re.findall(r"`([^`]+)`", (CARDS / f"{name}.md").read_text()):
        key, _, value = word.strip("'").partition("=")
        if value and key in GROUPS:
            assert value in options(key), word
        elif "." in key:
            assert key in SETTINGS, word
            owner = key.split(".")
            words = [f"aug={owner[1]}"] if owner[0] == "aug" else []
            words += [option for setting, option in OWNERS.items() if key.startswith(setting)]
            compose_run([*words, word.strip("'")] if value else words)
        else:
            assert any(setting.rpartition(".")[2] == word for setting in SETTINGS), word


@pytest.mark.parametrize("group", ["aug", "penalty", "average", "loss"])
def test_every_option_has_a_card(group):
    assert set(options(group)) - {"none", "off"} <= set(NAMES)


@pytest.mark.parametrize("model", ["rnn", "wide_resnet", "preact_resnet"])
def test_a_model_beyond_the_usual_has_a_card(model):
    assert model in options("model") and model in NAMES


@pytest.mark.parametrize("key", METHODS)
def test_every_regularizing_setting_has_a_card(key):
    assert key in SETTINGS
    assert explain([key]).startswith("\n")


@pytest.mark.parametrize(
    ("name", "title"), [("mixup", "Mixup"), ("aug=mixup", "Mixup"), ("aug.mixup.alpha", "Mixup"), ("MixUp", "Mixup")]
)
def test_a_card_is_found_by_method_option_and_setting(name, title):
    page = explain([name])
    assert page.strip().startswith(title)
    assert "aug.mixup.alpha=0.2" in page, "the default as configs/ has it now"
    assert max(map(len, page.splitlines())) <= 110


@pytest.mark.parametrize(
    ("word", "title"),
    [
        ("test_samples", "Fractional max pooling"),
        ("patience", "Early stopping"),
        ("batch_norm", "Batch norm"),
        ("dropconnect", "DropConnect"),
        ("zca", "Whitening"),
        ("pca", "Whitening"),
        ("model.norm=group", "Batch norm"),
        ("group", "Batch norm"),
        ("layer", "Batch norm"),
        ("elman", "Recurrent"),
        ("lstm", "Recurrent"),
        ("gru", "Recurrent"),
        ("fractional", "Fractional max pooling"),
        ("loss=cross_entropy", "Cross-entropy"),
        ("0.9", None),
    ],
)
def test_a_card_is_found_by_the_last_word_of_a_setting_a_value_or_its_title(word, title):
    if title is None:
        with pytest.raises(UsageError, match="there is no such card"):
            explain([word])
        return
    assert explain([word]).strip().startswith(title)


OPTIONS = [f"{group}={option}" for group in groups() for option in options(group)]


@pytest.mark.parametrize("word", OPTIONS)
def test_every_option_is_explained(word, capsys):
    """By a card, or by what its file says of it and of its settings."""
    assert explain([word]).strip() and explain([word.partition("=")[2]]).strip()
    assert train(["--help", word]) == 0
    page = capsys.readouterr().out
    group, _, option = word.partition("=")
    if option in NAMES:
        return
    text = (ROOT / "configs" / group / f"{option}.yaml").read_text()
    keys = [] if group == "experiment" else re.findall(r"^ *(?!_target_)(\w+): \S", text, re.MULTILINE)
    assert page.strip().startswith(word) and all(f".{key}=" in page for key in keys)


@pytest.mark.parametrize(
    "word", ["batch_size", "epochs=3", "optimizer.lr", "validate.every_epochs", "optimizer.lr=0.1"]
)
def test_a_setting_is_explained(word):
    key = word.partition("=")[0]
    assert f"{key}=" in explain([word])


def test_help_shows_what_stands_beside_it(tmp_path, capsys):
    assert train(["--help", "model=vgg", "aug=[cutout,mixup]"]) == 0
    page = capsys.readouterr().out
    assert "model.early_pool=" in page and "Cutout" in page and "Mixup" in page
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "own.yaml").write_text("# a model of mine\n_target_: own.Own\nwidth: 3  # channels\n")
    assert train(["model=own", "-h", "--config-dir", str(tmp_path)]) == 0
    page = capsys.readouterr().out
    assert "a model of mine" in page and "model.width=3" in page
    assert train(["--help", "model=vg"]) == 2
    assert "did you mean vgg?" in capsys.readouterr().err


def test_all_cards_are_listed(capsys):
    assert train(["explain="]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in NAMES) and all(kind in said for kind in KINDS)


def test_a_mistyped_name_is_answered_with_the_nearest(capsys):
    assert train(["explain=mixpu"]) == 2
    assert "did you mean mixup?" in capsys.readouterr().err
    assert train(["explain=drop_conect"]) == 2
    assert "did you mean drop_connect?" in capsys.readouterr().err
    assert train(["explain=mixup", "epochs=3"]) == 2
    assert "stands alone" in capsys.readouterr().err


def test_a_card_is_shown_without_torch():
    script = (
        "import sys; from deeptrain.commands.cli import train; assert train(['explain=mixup']) == 0; "
        "assert not {'torch', 'torchvision', 'matplotlib', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)


def test_diagnosis_lists_every_verdict_that_is_given():
    from deeptrain.analysis import verdicts

    page = explain(["diagnosis"])
    assert set(verdicts.SIGNS) == set(verdicts.TITLES)
    assert all(name in page and title in page for name, title in verdicts.TITLES.items())
    sources = [path.read_text() for path in (SOURCE / "analysis").rglob("*.py")]
    given = {name for source in sources for name in re.findall(r'Verdict\(\s*"([a-z_]+)"', source)}
    assert given and given <= set(verdicts.TITLES)

"""A run repeated from its folder reaches the same bits, or is told what differs; what a resume may change."""

import json
import random
import shutil
from itertools import zip_longest
from pathlib import Path

import pytest
import torch

from deeptrain.commands.cli import train
from deeptrain.config.compose import known_settings
from deeptrain.config.options import options
from deeptrain.run import artifacts, resume_policy
from deeptrain.runtime import versions
from deeptrain.training import checkpoint

pytestmark = pytest.mark.slow

SMALL = ["data=synthetic", "data.shape=[3,8,8]", "data.size=120", "model=fcn", "model.hidden=[8]", "batch_size=16"]
SMALL += ["epochs=2", "loggers=none", "device=cpu", "threads=1"]
RANDOM = ["aug=[cutout,mixup]", "model.dropout=0.2", "average=ema"]


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(artifacts, "_draw", lambda *_: None)  # most of so short a run's time


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Train the run that every test has a copy of."""
    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        patch.setattr(artifacts, "_draw", lambda *_: None)
        assert train([*SMALL, *RANDOM, "dir=run"]) == 0
    return place / "run"


@pytest.fixture
def original(trained) -> Path:
    return Path(shutil.copytree(trained, "run"))


def last_line(capsys) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def result(folder: Path | str) -> dict:
    return json.loads((Path(folder) / "result.json").read_text())


def alter(folder: Path, **values) -> None:
    """Make a run's result say something else."""
    (folder / "result.json").write_text(json.dumps(result(folder) | values))


# --- repeated ---


def test_a_rerun_reaches_the_same_bits_in_a_new_folder(original, capsys):
    assert train(["rerun=run"]) == 0
    assert last_line(capsys).split(None, 1) == ["rerun", "same bits as run"]
    (again,) = Path("outputs").glob("*/*")
    assert result(again)["weights"] == result(original)["weights"] and result(again)["data"] == result(original)["data"]
    assert result(original)["weights"] == checkpoint.digest(checkpoint.load(original / "checkpoints/last.pt")["model"])
    assert train([f"rerun={again}", "dir=third"]) == 0, "what was repeated can be repeated"
    assert last_line(capsys).endswith(f"same bits as {again}")
    assert train([f"resume={again}", "epochs=3"]) == 0, "and gone on with"


def test_a_rerun_is_given_where_but_not_what(original, capsys):
    assert train(["rerun=run", "dir=again", "epochs=3", "seed=1"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and all("rerun=run repeats a run as it was" in line for line in errors)
    assert train(["rerun=nowhere"]) == 2 and "there is no such run" in capsys.readouterr().err
    assert not Path("again").exists()
    assert train(["rerun=run", "dir=again", "data.loader=stream", "workers=0"]) == 0
    assert last_line(capsys).endswith("same bits as run")


@pytest.mark.parametrize(
    ("then", "says"),
    [
        ({"versions": {"torch": "1.0"}}, "torch 1.0, now "),
        ({"versions": {"source": "0123", "commit": "abc-dirty"}}, "code abc-dirty 0123, now "),
        ({"data": "0123"}, "data 0123, now "),
        ({"machine": {"threads": 64}}, "threads 64, now 1"),
        ({"machine": {"device": "some other GPU"}}, "device some other GPU, now cpu"),
        ({"changed": ["epochs 1, now 2"]}, "differs in settings that were changed when it was resumed"),
        ({}, "differs in nothing that is known"),
    ],
    ids=str,
)
def test_other_bits_are_told_with_what_differs(original, then, says, capsys):
    alter(original, weights="0" * 64, **then)
    assert train(["rerun=run"]) == 1
    said = capsys.readouterr().out
    assert said.splitlines()[-1].startswith("rerun") and "other bits than run" in said.splitlines()[-1]
    assert says in said.splitlines()[-1]
    if then.keys() - {"changed"}:
        assert "warning: not as in run" in said, "told before the first step too"


def test_a_default_that_is_another_now_is_named(original, capsys):
    config = original / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 2", "epochs: 1"))
    alter(original, weights="0" * 64)
    assert train(["rerun=run"]) == 1
    assert "epochs 1, now 2" in last_line(capsys)


def test_a_rerun_of_a_run_that_did_not_finish_is_a_whole_run(original, capsys):
    (original / "result.json").unlink()
    assert train(["rerun=run", "dir=again"]) == 0
    assert last_line(capsys).endswith("run has not finished: there is nothing to compare with")
    assert result("again")["status"] == "finished"


def test_the_digest_is_of_names_shapes_and_bits():
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}
    known = checkpoint.digest(tensors)
    assert known == checkpoint.digest({"b": tensors["b"], "a": tensors["a"].T.contiguous().T}), "however they lie"
    others = [{**tensors, "a": tensors["a"].reshape(3, 2)}, {**tensors, "b": torch.tensor(3.0)}, {"a": tensors["a"]}]
    others += [
        {**tensors, "a": tensors["a"] + torch.tensor(-0.0)},
        {**tensors, "a": torch.nextafter(tensors["a"], tensors["b"] + 1.0)},
    ]
    assert [known == checkpoint.digest(other) for other in others] == [False, False, False, True, False]


def test_the_code_has_a_digest():
    assert versions.versions()["source"] == versions.versions()["source"]


# --- gone on with other settings ---


def every_key() -> set[str]:
    """Collect the settings of every option of every group, one option of each at a time."""
    groups, keys = (*resume_policy.PARTS, *resume_policy.LISTS), set()
    for names in zip_longest(*map(options, groups)):
        words = (f"{group}={name}" for group, name in zip(groups, names, strict=True) if name)
        keys |= known_settings(list(words))
    return keys


def test_every_setting_is_declared():
    keys = every_key()
    assert len(keys) > 150
    tops = {key.partition(".")[0] for key in keys} - {"experiment"}
    assert tops <= {name.partition(".")[0] for name in resume_policy.POLICY}, "a new setting has to be declared there"
    names = set(resume_policy.POLICY)
    assert all(
        any(key == name or key.startswith(f"{name}.") for key in keys | {*resume_policy.LISTS}) for name in names
    )
    assert {resume_policy.policy(key) for key in keys} == {
        resume_policy.ResumePolicy.IGNORED,
        resume_policy.ResumePolicy.ALLOWED,
        resume_policy.ResumePolicy.CONFIRM,
        resume_policy.ResumePolicy.FORBIDDEN,
    }


@pytest.mark.parametrize(
    ("word", "then", "kind"),
    [
        ("model.hidden=[9]", "[8]", resume_policy.ResumePolicy.FORBIDDEN),
        ("model.dropout=0.5", "0.2", resume_policy.ResumePolicy.FORBIDDEN),
        ("data.size=200", "120", resume_policy.ResumePolicy.FORBIDDEN),
        ("optimizer=sgd", "adamw", resume_policy.ResumePolicy.FORBIDDEN),
        ("seed=3", "0", resume_policy.ResumePolicy.CONFIRM),
        ("batch_size=32", "16", resume_policy.ResumePolicy.CONFIRM),
        ("data.val_fraction=0.2", "0.1", resume_policy.ResumePolicy.CONFIRM),
        ("data.split_seed=2", "0", resume_policy.ResumePolicy.CONFIRM),
        ("aug=[mixup,cutout]", "[cutout,mixup]", resume_policy.ResumePolicy.CONFIRM),
        ("aug.mixup.alpha=0.3", "0.2", resume_policy.ResumePolicy.CONFIRM),
        ("loss.label_smoothing=0.1", "0.0", resume_policy.ResumePolicy.CONFIRM),
        ("loss=hinge", "CrossEntropy", resume_policy.ResumePolicy.CONFIRM),
        ("schedule=constant", "cosine", resume_policy.ResumePolicy.CONFIRM),
        ("monitor=loss/val", "accuracy/val", resume_policy.ResumePolicy.CONFIRM),
        ("optimizer.lr=0.1", "", resume_policy.ResumePolicy.ALLOWED),
        ("validate.every_steps=3", "", resume_policy.ResumePolicy.ALLOWED),
        ("accumulate=2", "", resume_policy.ResumePolicy.ALLOWED),
        ("average=none", "", resume_policy.ResumePolicy.ALLOWED),
        ("log.every_steps=3", "", resume_policy.ResumePolicy.IGNORED),
        ("data.loader=stream", "", resume_policy.ResumePolicy.IGNORED),
    ],
)
def test_what_a_resume_may_change(original, word, then, kind, capsys):
    code = train(["resume=run", "epochs=3", word])
    errors = capsys.readouterr().err.splitlines()
    if kind in (resume_policy.ResumePolicy.IGNORED, resume_policy.ResumePolicy.ALLOWED):
        assert code == 0 and not errors
        assert ("epochs 2, now 3" in result(original)["changed"]) and len(result(original)["changed"]) <= 2
        return
    assert code == 2 and len(errors) == 1
    key = word.partition("=")[0]
    assert errors[0].startswith(f"error: {key}=") and "so far" in errors[0], "key, now"
    assert then.lower() in errors[0].lower(), "then"
    assert ("resume_changed=true" in errors[0]) == (kind == resume_policy.ResumePolicy.CONFIRM)
    if kind == resume_policy.ResumePolicy.CONFIRM and not word.startswith("data."):
        assert train(["resume=run", "epochs=3", word, "resume_changed=true"]) == 0
        assert any(line.startswith(f"{key} ") for line in result(original)["changed"])
        assert "resume_changed" not in (original / "overrides.yaml").read_text()


def test_a_change_is_remembered_if_the_run_is_killed_before_it_saves(original, monkeypatch):
    from deeptrain.training.trainer import Trainer

    with monkeypatch.context() as killed, pytest.raises(KeyError):
        killed.setattr(Trainer, "fit", lambda self, step: (_ for _ in ()).throw(KeyError("killed")))
        killed.setenv("DEEPTRAIN_DEBUG", "1")
        train(["resume=run", "epochs=3", "optimizer.lr=0.1"])
    assert train(["resume=run"]) == 0
    said = result(original)["changed"]
    assert any(line.startswith("optimizer.lr ") for line in said) and len(said) == len(set(said)) == 2


def test_a_run_goes_on_with_its_own_images_only(original, capsys):
    path = original / "checkpoints/last.pt"
    state = checkpoint.load(path)
    checkpoint.save(path, state | {"data": "0123"})
    assert train(["resume=run", "epochs=3"]) == 2
    assert "the training images are others: fingerprint 0123, now" in capsys.readouterr().err
    assert train(["resume=run", "epochs=3", "resume_changed=true"]) == 0


def test_all_refusals_come_at_once(original, capsys):
    words = ["seed=3", "model.hidden=[9]", "batch_size=8"]
    random.Random(0).shuffle(words)
    assert train(["resume=run", "epochs=3", *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_a_strangers_settings_are_never_shown_raw():
    assert (
        resume_policy.safe_repr("\x1b[2J")
        == resume_policy.safe_repr(["x"] * 1000)
        == resume_policy.safe_repr({"a": {}})
        == "something else"
    )
    assert not list(resume_policy.diff({"model": 3, "aug": [1], "seed": 0}, {"seed": 0}))

"""Ensembles: the mean by hand, classes by name, a greedy choice on val; soups of a common start alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import deeptrain
from deeptrain.commands.cli import train
from deeptrain.commands.ensemble import ensemble
from deeptrain.commands.evaluate import evaluate
from deeptrain.inference import ensemble as room
from deeptrain.inference.ensemble import Member
from deeptrain.inference.soup import mean

TINY = ["data=synthetic", "data.size=600", "data.num_classes=3", "data.val_fraction=0.3", "epochs=1", "loggers=none"]
TINY += ["device=cpu", "threads=1", "data.shape=[1,8,8]", "validate.clean_images=0"]


def members(seed: int = 0, count: int = 4, images: int = 300) -> tuple[list[Member], torch.Tensor]:
    """Return members whose logits are the truth with noise, the last one's nearly noise alone."""
    generator = torch.Generator().manual_seed(seed)
    truth = 2 * torch.randn(images, 5, generator=generator).double()
    labels = torch.multinomial(truth.softmax(1), 1, generator=generator)[:, 0]
    noise = [2.0] * (count - 1) + [30.0]
    logits = [truth + size * torch.randn(images, 5, generator=generator).double() for size in noise]
    return [Member(str(index), one.softmax(1)) for index, one in enumerate(logits)], labels


def test_a_greedy_choice_is_that_of_trying_all_at_each_step():
    found, labels = members()

    def loss(chosen: list[Member]) -> float:
        shares = torch.stack([one.shares for one in chosen]).mean(0)
        return float(-shares[torch.arange(len(labels)), labels].log().mean())

    expected: list[Member] = []
    while len(expected) < len(found):
        best = min((one for one in found if one not in expected), key=lambda one: loss([*expected, one]))
        if expected and loss([*expected, best]) >= loss(expected):
            break
        expected.append(best)
    chosen = room.choose(found, labels)
    assert chosen == expected and 1 < len(chosen) < 4 and found[-1] not in chosen


def test_an_ensemble_gains_and_is_calibrated_after_averaging():
    found, labels = members()
    found, shares = found[:3], room.mean(found[:3])
    torch.testing.assert_close(shares, torch.stack([one.shares for one in found]).mean(0))
    temperature = room.temperature(shares, labels)
    before, after = room.measure(shares, labels), room.measure(room.at_temperature(shares, temperature), labels)
    assert after.nll < before.nll and after.accuracy == before.accuracy
    assert before.nll < min(room.measure(one.shares, labels).nll for one in found)


def test_disagreement_is_symmetric_and_counts_images():
    found, _ = members()
    differ = room.disagreement(found)
    assert torch.equal(differ, differ.T) and not differ.diagonal().any()
    expected = np.mean([a != b for a, b in zip(found[0].shares.argmax(1), found[1].shares.argmax(1), strict=True)])
    assert float(differ[0, 1]) == pytest.approx(expected)


def test_the_mean_of_weights_keeps_counters():
    one = {"weight": torch.tensor([1.0, 2.0]), "count": torch.tensor(3)}
    other = {"weight": torch.tensor([3.0, 6.0]), "count": torch.tensor(9)}
    found = mean([one, other])
    assert found["weight"].tolist() == [2, 4] and int(found["count"]) == 3


# --- the command ---


def test_snapshots_of_a_cyclic_run_are_its_weights_at_the_end_of_each_part(tmp_path, monkeypatch, capsys):
    from deeptrain.training import checkpoint

    monkeypatch.chdir(tmp_path)
    words = [*TINY, "model=fcn", "model.hidden=[8]", "epochs=4", "schedule=cyclic", "schedule.cycles=2"]
    assert train([*words, "checkpoint.snapshots=2", "dir=run"]) == 0
    first, second, last = (
        checkpoint.load(Path(f"run/checkpoints/{name}.pt")) for name in ("snapshot-1", "snapshot-2", "last")
    )
    assert [one["progress"]["epoch"] for one in (first, second)] == [2, 4] and first["optimizer"] is None
    assert checkpoint.digest(second["model"]) == checkpoint.digest(last["model"]) != checkpoint.digest(first["model"])
    assert ensemble(["run", "snapshots=2"]) == 0
    assert "snapshot-1.pt" in capsys.readouterr().out
    assert ensemble(["run", "snapshots=2", "average=weights", "into=soup"]) == 0, "they have a common start"
    assert ensemble(["run", "snapshots=3"]) == 2
    assert train([*words, "checkpoint.snapshots=3", "dir=other"]) == 2
    assert "needs epochs that it divides" in capsys.readouterr().err


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Return a folder with two runs of different networks, and two that start from the first."""
    home = tmp_path_factory.mktemp("ensemble")
    fcn = ["model=fcn", "model.hidden=[8]"]
    start = [f"init_from={home / 'fcn'}"]
    for name, words in {
        "fcn": fcn,
        "rnn": ["model=rnn", "model.hidden=8", "loss=hinge"],
        "tuned0": [*fcn, *start, "seed=1"],
        "tuned1": [*fcn, *start, "seed=2"],
    }.items():
        assert train([*TINY, *words, f"dir={home / name}"]) == 0
    return home


@pytest.fixture(autouse=True)
def in_folder(request, monkeypatch):
    if "folder" in request.fixturenames:
        monkeypatch.chdir(request.getfixturevalue("folder"))


def test_runs_of_any_network_and_loss_are_averaged(folder, capsys):
    assert ensemble(["fcn", "rnn", "tuned0"]) == 0
    text = capsys.readouterr().out
    assert "3+ tuned0" in text and "points over the best member" in text and "two members differ" in text
    entries = json.loads(Path("rnn/evaluation.json").read_text())
    assert entries[-1]["changed"] == ["ensemble of 3"] and entries[-1]["split"] == "val"
    assert ensemble([".", "top=2", "choose=greedy"]) == 0
    assert "2" in capsys.readouterr().out


def test_a_soup_is_read_as_a_run(folder, capsys):
    assert ensemble(["tuned0", "tuned1", "average=weights", "into=soup"]) == 0
    weights = [deeptrain.load(name).model.state_dict() for name in ("tuned0", "tuned1", "soup")]
    for name, tensor in weights[2].items():
        torch.testing.assert_close(tensor, (weights[0][name] + weights[1][name]) / 2)
    assert evaluate(["soup", "split=val"]) == 0


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["fcn"], "name two or more different runs"),
        (["fcn", "fcn"], "name two or more different runs"),
        (["fcn", "nowhere"], "run=nowhere: there is no such run"),
        (["fcn", "rnn", "split=test", "choose=greedy"], "choose on val first"),
        (["fcn", "rnn", "chose=greedy"], "did you mean choose?"),
        (["fcn", "rnn", "average=weights"], "name a new folder for it, into=DIR"),
        (["fcn", "rnn", "average=weights", "into=x"], "has another network"),
        (["fcn", "tuned0", "average=weights", "into=x"], "did not start from the same weights"),
        (["tuned0", "tuned1", "average=weights", "into=fcn"], "is there already"),
        (["tuned0", "tuned1", "into=x"], "into: gets the network of average=weights"),
    ],
    ids="+".join,
)
def test_a_mistake_is_one_line(folder, capsys, words, part):
    assert ensemble(words) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert part in line and not Path("x").exists()

"""Vital signs are what a second computation says, and change no bit of a run; a resumed run repeats their files."""

import copy
import math
from statistics import fmean, pstdev

import pytest
import torch
from torch import nn

from deeptrain.commands.cli import train
from deeptrain.loggers.metrics_csv import TIME_COLUMNS, MetricsTable
from deeptrain.loggers.run_logger import RunLogger
from deeptrain.training.vitals import Vitals, layer_statistics


class Progress:
    step = step_in_epoch = 0


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def stepped(vitals, model, optimizer, steps, clip_norm=None, norms=None):
    """Take steps on noise, as the trainer does; return what vitals read at the end."""
    progress, images = Progress(), torch.randn(steps, 16, 4)
    vitals.bind(model, list(model.parameters()), clip_norm, "fp32")

    def step(batch, labels):
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        if clip_norm is not None:
            vitals.add_clip_norm(norm := nn.utils.clip_grad_norm_(model.parameters(), clip_norm))
            norms.append(norm.item())
        optimizer.step()

    measured = vitals.sampled(step, progress, lambda *_: None)
    for batch in images:
        measured(batch, batch)
        progress.step += 1
    return vitals.read()


def test_ratio_and_gradient_are_those_of_the_step():
    model = network()
    before = copy.deepcopy(model)
    values = stepped(Vitals(200), model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), steps=1)
    for index in (0, 2):
        weight, old = model[index].weight.detach(), before[index].weight.detach()
        assert values[f"vitals/ratio/{index}"] == pytest.approx(
            ((weight - old).norm() / weight.norm()).item(), rel=1e-5
        )
    whole = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm().item()
    assert values["vitals/gradient_norm"] == pytest.approx(whole, rel=1e-5)
    assert values["vitals/ratio_min"] <= values["vitals/ratio_median"] <= values["vitals/ratio_max"]
    assert "vitals/gradient_noise" not in values, "of one step there is none"


def test_only_due_steps_are_measured(monkeypatch):
    measured, compared, progress = [], [], Progress()
    monkeypatch.setattr(Vitals, "_measure", lambda self, before: measured.append(progress.step + 1))
    monkeypatch.setattr(Vitals, "_add_norm", lambda self, norms: compared.append(progress.step + 1))
    vitals, model = Vitals(200), network()
    vitals.bind(model, list(model.parameters()), None, "fp32")
    step = vitals.sampled(lambda *_: None, progress, lambda *_: None)
    for progress.step in range(1205):
        step(None, None)
    assert measured == [1, 10, 100, 200, 400, 600, 800, 1000, 1200]
    assert compared == [97, 98, 99, 997, 998, 999]


def test_noise_is_the_spread_of_four_gradient_norms_and_clipping_is_counted():
    model, norms = network(), []
    vitals = Vitals(200)
    values = stepped(vitals, model, torch.optim.SGD(model.parameters(), lr=0.0), 100, 1e-6, norms)
    assert values["vitals/clipped"] == 1 and values["vitals/gradient_norm"] == pytest.approx(norms[-1], rel=1e-6)
    assert values["vitals/gradient_noise"] == pytest.approx(pstdev(norms[-4:]) / fmean(norms[-4:]), rel=1e-5)
    assert not {"vitals/ratio_min", "vitals/ratio_max"} & set(values), "a step that changes nothing is missing"


def test_without_vitals_a_step_is_the_step_itself():
    vitals, model = Vitals(), network()
    vitals.bind(model, list(model.parameters()), None, "fp32")
    assert vitals.sampled(print, Progress(), print) is print
    assert vitals.read() == {} and vitals.state_dict() == {} and vitals.tags == vitals.layer_tags == []


def test_what_is_not_read_yet_is_in_the_state():
    model = network()
    one, other = Vitals(200), Vitals(200)
    one.bind(model, list(model.parameters()), None, "fp32")
    stepped(one, model, torch.optim.SGD(model.parameters(), lr=0.1), steps=1)
    one._sample = {"ratio": torch.tensor([0.5, 0.25]), "gradient": torch.ones(4), "norms": torch.tensor([math.nan])}
    other.bind(model, list(model.parameters()), None, "fp32")
    other.load_state_dict(one.state_dict())
    assert other.read() == one.read() != {}
    other.load_state_dict(None)
    assert other.read() == {}


def test_layer_statistics_see_dead_units_and_leave_the_network_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()
    with torch.no_grad():
        model[1].bias[:3] = torch.tensor([-100.0, -100.0, 0.0])
    state, images = copy.deepcopy(model.state_dict()), torch.randn(64, 1, 8, 8)
    found = layer_statistics(model, images)
    assert found["dead/2"] == 0.5 and set(found) == {"activation_std/0", "dead/2", "activation_std/4"}
    assert found["activation_std/0"] == pytest.approx(model[0](images).std().item(), rel=1e-5)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert layer_statistics(model, images) == found, "no hook is left behind"


@pytest.mark.slow
def test_vitals_change_no_bit_and_a_killed_run_that_goes_on_repeats_their_files(tmp_path, monkeypatch):
    """Killed between a sample and the log point that would have read it."""
    words = ["model=fcn", "model.hidden=[8]", "model.norm=batch", "data=synthetic", "data.size=600"]
    words += ["batch_size=16", "clip_norm=1", "device=cpu", "threads=1", "loggers=none", "log.every_steps=7"]
    words += ["limit_steps=110", "checkpoint.every_steps=100"]
    whole, off, killed = (tmp_path / name for name in ("whole", "off", "killed"))
    assert train([*words, f"dir={whole}"]) == 0
    assert train([*words, "log.vitals=false", f"dir={off}"]) == 0
    assert rows(whole) == rows(off) and len(rows(whole)) == 4 and not (off / "layers.csv").exists()
    monkeypatch.setattr(RunLogger, "advance", kill_at(33))
    with pytest.raises(SystemExit):
        train([*words, f"dir={killed}"])
    monkeypatch.undo()
    assert train([f"resume={killed}"]) == 0
    assert all((whole / name).read_bytes() == (killed / name).read_bytes() for name in ("steps.csv", "layers.csv"))
    table = (whole / "steps.csv").read_text().splitlines()
    assert "vitals/ratio_median" in table[0] and table[1].startswith("0,0,")


def kill_at(step_in_epoch):
    """Return what ends the process in the third epoch of 34 steps, at step 101."""
    epochs = []

    def advance(self, step):
        epochs.append(step)
        if step == step_in_epoch and epochs.count(step) == 3:
            raise SystemExit

    return advance


def rows(folder):
    found = MetricsTable(folder / "metrics.csv", ["epoch", "step"]).rows()
    return [{name: value for name, value in row.items() if name not in TIME_COLUMNS} for row in found]

"""The weight averages against their formulas, apart from the live model, and bit for bit through a saved state."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from deeptrain import build
from deeptrain.average import EMA, SWA
from deeptrain.config.compose import compose_run
from deeptrain.training.state import best_state_of


def network(device) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 5)).to(device)


def train_step(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(8, 6, generator=generator).to(next(model.parameters()).device)
    torch.manual_seed(seed)
    model(images).square().mean().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
            parameter.grad = None


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_it_follows_the_formula(device, decay):
    model = network(device)
    average = EMA(model, decay=decay)
    expected = {name: value.clone().double() for name, value in model.state_dict().items()}
    for step in range(1, 9):
        train_step(model, step)
        average.update(step)
        kept = min(decay, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            expected[name] = kept * expected[name] + (1 - kept) * value.double() if value.is_floating_point() else value
    for name, value in average.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name].double(), rtol=1e-5, atol=1e-6)


def test_batch_norm_statistics_are_averaged_and_counters_copied(device):
    model = network(device)
    average = EMA(model, decay=0.9)
    before = model[1].running_mean.clone()
    train_step(model, 1)
    average.update(1)
    torch.testing.assert_close(average.module[1].running_mean, torch.lerp(before, model[1].running_mean, 1 - 2 / 11))
    assert average.module[1].num_batches_tracked == model[1].num_batches_tracked == 1


@pytest.mark.parametrize("kind", [EMA, SWA])
def test_the_module_is_apart_in_evaluation_mode_and_holds_no_graph(device, kind):
    model = network(device)
    average = kind(model)
    train_step(model, 1)
    live = copy.deepcopy(model.state_dict())
    average.update(1, 1.0, True)
    images = torch.randn(2, 6, device=device)
    output = average.module(images)
    assert torch.equal(output, average.module(images)), "no dropout, no moving statistics"
    assert not output.requires_grad
    assert model.training and all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, live[name]) for name, value in model.state_dict().items())
    assert not {v.data_ptr() for v in model.state_dict().values()} & {
        v.data_ptr() for v in average.state_dict().values()
    }


@pytest.mark.parametrize("kind", [EMA, SWA])
def test_it_resumes_bit_for_bit(device, kind):
    def go_on(model, average, steps):
        for step in steps:
            train_step(model, step)
            average.update(step, step / 6, True)

    settings = {"decay": 0.99} if kind is EMA else {"start": 0.3}
    whole = network(device)
    through = kind(whole, **settings)
    go_on(whole, through, range(1, 7))
    first = network(device)
    stopped = kind(first, **settings)
    go_on(first, stopped, range(1, 4))
    saved = copy.deepcopy((first.state_dict(), stopped.state_dict()))
    second = network(device)
    resumed = kind(second, **settings)
    second.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    go_on(second, resumed, range(4, 7))
    for name, value in through.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_its_state_loads_into_the_bare_model(device):
    model = network(device)
    average = EMA(model)
    train_step(model, 1)
    average.update(1)
    model.load_state_dict(average.state_dict())
    images = torch.randn(2, 6, device=device)
    assert torch.equal(model.eval()(images), average.module(images))


def test_tied_weights_stay_tied(device):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).to(device)
    model[1].weight = model[0].weight
    average = EMA(model, decay=0.5)
    with torch.no_grad():
        model[0].weight.fill_(1)
    average.update(100)
    assert average.module[0].weight is average.module[1].weight


def test_a_decay_of_one_is_refused():
    with pytest.raises(ValueError, match=r"decay=1\.0: must be >= 0 and < 1"):
        EMA(nn.Linear(2, 2), decay=1.0)


# --- SWA ---


@pytest.mark.parametrize(("settings", "taken"), [({"start": 0.5}, [4, 6, 8]), ({"every_steps": 3}, [6]), ({}, [6, 8])])
def test_swa_is_the_equal_mean_of_what_it_takes_in(device, settings, taken):
    """Of eight steps in epochs of two: from `start` on, at the ends of epochs or every so many steps."""
    model = network(device)
    average, seen = SWA(model, **settings), []
    for step in range(1, 9):
        assert average.started == bool(seen)
        train_step(model, step)
        average.update(step, step / 8, step % 2 == 0)
        seen += [copy.deepcopy(dict(model.named_parameters()))] if step in taken else []
    for name, value in average.module.named_parameters():
        mean = torch.stack([weights[name].detach() for weights in seen]).double().mean(0)
        torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-6)


def test_swa_measures_batch_norm_anew_as_torch_does(device):
    model = network(device)
    average = SWA(model)
    for step in (1, 2):
        train_step(model, step)
        average.update(step, 1.0, True)
    reference = copy.deepcopy(average.module)
    batches = [torch.randn(16, 6, device=device) for _ in range(4)]
    update_bn(batches, reference)
    average.update_bn_statistics(batches)
    assert not average.module.training
    means = torch.stack([average.module[0](images).mean(0) for images in batches]).mean(0)
    torch.testing.assert_close(average.module[1].running_mean, means)
    for name, value in average.module.state_dict().items():
        assert torch.equal(value, reference.state_dict()[name]), name


def test_swa_measures_batch_norm_on_whole_batches(device):
    """Of a last batch of two images each would weigh eight times as much as the others."""
    whole, short = [torch.randn(16, 6, device=device) for _ in range(3)], torch.randn(2, 6, device=device) + 9
    found, wanted, alone, pair = (SWA(network(device)) for _ in range(4))
    found.update_bn_statistics([*whole, short])
    wanted.update_bn_statistics(whole)
    alone.update_bn_statistics([short])
    update_bn([short], pair.module)
    for one, other in ((found, wanted), (alone, pair)):
        assert torch.equal(one.module[1].running_mean, other.module[1].running_mean)
        assert torch.equal(one.module[1].running_var, other.module[1].running_var)


def test_only_batch_norm_needs_images():
    assert SWA(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))).bn_images == 0
    assert SWA(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), bn_images=77).bn_images == 77
    assert EMA(nn.Linear(2, 2)).bn_images == 0


def test_a_state_of_another_average_is_refused(device):
    ema, swa = EMA(network(device)), SWA(network(device))
    for one, other in ((ema, swa), (swa, ema)):
        with pytest.raises(ValueError, match="averaged its weights in another way"):
            one.load_state_dict(other.state_dict())


# --- in a run ---

RUN = [
    "data=synthetic",
    "data.shape=[3,8,8]",
    "data.size=80",
    "batch_size=16",
    "validate.clean_images=0",
    "model=resnet",
    "model.blocks=[1]",
    "model.widths=[8]",
    "aug=mixup",
    "epochs=4",
]


def trained(*words):
    trainer = build.trainer(build.open_setup(compose_run([*RUN, *words])))
    rows = []
    trainer.logger.log_validation = lambda progress, metrics, *_: rows.append(metrics)  # pyright: ignore
    trainer.fit()
    return trainer, rows


def test_swa_is_evaluated_beside_the_weights_from_its_start_on():
    trainer, rows = trained("average=swa", "average.start=0.5", "average.bn_images=32")
    assert ["accuracy/val_average" in row for row in rows] == [False, True, True, True]
    assert trainer.average.models == 3
    assert trainer.validator.bn_loader.num_images == 32
    again = trainer.validator._evaluate(trainer.average.module, trainer.validator.loader, trainer.stop)
    assert again["loss"] == rows[-1]["loss/val_average"]


def test_measuring_norms_changes_nothing_else():
    """The weights are those of a run without an average, bit for bit."""
    plain, averaged = trained()[0].model.state_dict(), trained("average=swa")[0].model.state_dict()
    assert all(torch.equal(value, averaged[name]) for name, value in plain.items())


def test_the_average_is_kept_as_best_where_it_is_better():
    trainer, _ = trained("average=swa", "average.start=0.5")
    assert trainer.plan.update_best(trainer.progress, {"accuracy/val": 2.0, "accuracy/val_average": 3.0}) == "average"
    best = best_state_of(trainer, "average")["model"]
    assert best.keys() == trainer.model.state_dict().keys(), "it loads into the bare model"
    assert all(torch.equal(value, best[name]) for name, value in trainer.average.module.state_dict().items())
    assert trainer.plan.update_best(trainer.progress, {"accuracy/val": 5.0, "accuracy/val_average": 4.0}) == "raw"


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_an_average_that_begins_on_resume_begins_with_the_weights(kind):
    state = copy.deepcopy(trained()[0].state_dict())
    later = build.trainer(build.open_setup(compose_run([*RUN, f"average={kind}"])))
    later.load_state_dict(state)
    for name, value in later.average.module.state_dict().items():
        assert torch.equal(value, state["model"][name])

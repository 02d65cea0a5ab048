"""LARS and LAMB against the papers' formulas, parameter by parameter, to the bit; what is excluded; zero norms."""

import copy

import pytest
import torch
from torch import nn

from deeptrain import build, optimizer
from deeptrain.config.compose import compose_run
from deeptrain.optimizer import parameter_groups

FACTORIES = {
    "lars": lambda groups, **settings: optimizer.lars(groups, lr=0.5, weight_decay=0.01, **settings),
    "lamb": lambda groups, **settings: optimizer.lamb(groups, lr=0.02, weight_decay=0.1, **settings),
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))


def draw_gradients(model, number):
    generator = torch.Generator().manual_seed(number)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.device)


def lars_by_hand(w, g, number, state, *, adapts, lr=0.5, momentum=0.9, trust=0.001, decay=0.01):
    """You et al., 2017, algorithm 1: the local rate is trust |w| / (|g| + decay |w|), and joins the momentum."""
    decay = decay if adapts else 0.0
    local = trust * w.norm() / (g.norm() + decay * w.norm()) if adapts and w.norm() > 0 and g.norm() > 0 else 1.0
    state["v"] = momentum * state.get("v", torch.zeros_like(w)) + lr * local * (g + decay * w)
    return w - state["v"]


def lamb_by_hand(w, g, number, state, *, adapts, lr=0.02, betas=(0.9, 0.999), eps=1e-6, decay=0.1):
    """You et al., 2020, algorithm 2, with phi the identity."""
    state["m"] = torch.lerp(state.get("m", torch.zeros_like(w)), g, 1 - betas[0])
    state["v"] = betas[1] * state.get("v", torch.zeros_like(w)) + (1 - betas[1]) * g * g
    u = state["m"] / (1 - betas[0] ** number) / ((state["v"] / (1 - betas[1] ** number)).sqrt() + eps)
    u = u + decay * w if adapts else u
    ratio = w.norm() / u.norm() if adapts and w.norm() > 0 and u.norm() > 0 else 1.0
    return w - lr * ratio * u


BY_HAND = {"lars": lars_by_hand, "lamb": lamb_by_hand}


@pytest.mark.parametrize("exclude", ["norms_and_biases", "none"])
@pytest.mark.parametrize("name", FACTORIES)
def test_steps_are_the_papers(device, name, exclude):
    """Float32, five steps. A weight of zeros and a gradient of zeros have the ratio 1."""
    model = network().to(device)
    with torch.no_grad():
        model[4].weight.zero_()
    update, states = FACTORIES[name](parameter_groups(model), exclude=exclude), [{} for _ in model.parameters()]
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    for number in range(1, 6):
        draw_gradients(model, number)
        if number == 1:
            model[0].weight.grad.zero_()
        gradients = [parameter.grad.clone() for parameter in model.parameters()]
        update.step()
        weights = [
            BY_HAND[name](w, g, number, state, adapts=w.ndim > 1 or exclude == "none")
            for w, g, state in zip(weights, gradients, states, strict=True)
        ]
        assert all(map(torch.equal, gradients, (parameter.grad for parameter in model.parameters())))
    for ours, theirs in zip(model.parameters(), weights, strict=True):
        torch.testing.assert_close(ours.detach(), theirs, rtol=2e-7, atol=1e-8)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_step_is_a_share_of_the_weights_whatever_the_gradient(scale):
    """LARS without decay moves a layer by lr x trust_coefficient x |w|; LAMB by lr x |w|."""
    settings = {"lars": {"lr": 2.0, "weight_decay": 0.0}, "lamb": {"lr": 0.002, "weight_decay": 0.0, "eps": 1e-12}}
    for name, chosen in settings.items():
        model = network()
        before = model[0].weight.detach().clone()
        update = getattr(optimizer, name)(parameter_groups(model), **chosen)
        draw_gradients(model, 1)
        for parameter in model.parameters():
            parameter.grad *= scale
        update.step()
        share = (model[0].weight.detach() - before).norm() / before.norm()
        assert share.item() == pytest.approx(0.002, rel=1e-5), name


@pytest.mark.parametrize("name", FACTORIES)
def test_norms_and_biases_are_excluded_unless_asked(name):
    weights, others = FACTORIES[name](parameter_groups(network())).param_groups
    assert [parameter.ndim for parameter in weights["params"]] == [4, 2] and weights["has_trust_ratio"]
    assert {parameter.ndim for parameter in others["params"]} == {1}
    assert not others["has_trust_ratio"] and others["weight_decay"] == 0
    (everything,) = FACTORIES[name](parameter_groups(network()), exclude="none").param_groups
    assert len(everything["params"]) == 6 and everything["has_trust_ratio"] and everything["weight_decay"] > 0


@pytest.mark.parametrize("name", FACTORIES)
def test_a_weight_whose_first_gradient_comes_late_joins_in(name):
    early, late = network(), network()
    one, other = (FACTORIES[name](parameter_groups(model)) for model in (early, late))
    draw_gradients(late, 1)
    late[4].weight.grad = None
    other.step()
    assert torch.equal(late[4].weight, early[4].weight)
    draw_gradients(early, 2)
    draw_gradients(late, 2)
    one.step()
    other.step()
    assert torch.equal(late[4].weight, early[4].weight), "its first step is a first step"


@pytest.mark.parametrize("name", FACTORIES)
def test_a_rate_of_another_group_and_a_checkpoint_are_kept(name):
    model = network()
    update = FACTORIES[name](parameter_groups(model))
    optimizer.scale_rates(update, [(model[0].weight, 0.1)])
    rates = [group["lr"] for group in update.param_groups]
    assert rates[:2] == [rates[0]] * 2 and rates[2] == pytest.approx(rates[0] / 10)
    draw_gradients(model, 1)
    update.step()
    copied = copy.deepcopy(model)
    again = FACTORIES[name](parameter_groups(copied))
    optimizer.scale_rates(again, [(copied[0].weight, 0.1)])
    again.load_state_dict(copy.deepcopy(update.state_dict()))
    for each, step in ((model, update), (copied, again)):
        draw_gradients(each, 2)
        step.step()
    assert all(map(torch.equal, model.parameters(), copied.parameters()))


@pytest.mark.parametrize("name", FACTORIES)
def test_a_run_clips_and_learns(name):
    words = ["data=synthetic", "data.shape=[1,8,8]", "data.size=400", "batch_size=64", "device=cpu", "model=fcn"]
    words += [f"optimizer={name}", "clip_norm=1", "epochs=4", "loggers=none"]
    trainer = build.build_trainer(compose_run(words))
    trainer.fit()
    losses = [row["loss/val"] for row in trainer.history]
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimizer.trust_coefficient=0"], "optimizer.trust_coefficient=0: must be > 0"),
        (["optimizer.exclude=biases"], "optimizer.exclude=biases: choose from norms_and_biases, none"),
    ],
)
def test_mistakes_are_named(words, message):
    with pytest.raises(Exception, match="optimizer") as error:
        compose_run(["optimizer=lars", *words])
    assert message in str(error.value)

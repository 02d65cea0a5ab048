"""Optimizers against their formulas by hand and, fused, against torch's plain ones; groups that decay or do not."""

import copy
from inspect import signature

import pytest
import torch
from torch import nn

from deeptrain import optimizer
from deeptrain.optimizer.muon import orthogonalize
from deeptrain.optimizer.torch_optimizers import build

STEPS = 4
RMSPROP = {"lr": 0.01, "alpha": 0.9, "momentum": 0.0, "centered": False, "weight_decay": 0.01}
GRADIENTS = torch.randn(STEPS, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))


def run(factory, device, **settings):
    """Take STEPS steps on one weight in float64 with the fixed gradients; return where it ends."""
    weight = nn.Parameter(torch.ones(5, 3, dtype=torch.float64, device=device))
    update = factory([{"params": [weight]}], **settings)
    for gradient in GRADIENTS.to(device):
        weight.grad = gradient.clone()
        update.step()
    return weight.detach().cpu()


def by_hand(rule, **settings):
    weight, state = torch.ones(5, 3, dtype=torch.float64), {}
    for number, gradient in enumerate(GRADIENTS, start=1):
        weight = rule(weight, gradient.clone(), number, state, **settings)
    return weight


def sgd(w, g, t, state, lr, momentum, nesterov, weight_decay):
    g = g + weight_decay * w
    state["v"] = momentum * state.get("v", 0) + g
    return w - lr * (g + momentum * state["v"] if nesterov else state["v"])


def adagrad(w, g, t, state, lr, lr_decay, weight_decay):
    g = g + weight_decay * w
    state["s"] = state.get("s", 0) + g**2
    return w - lr / (1 + (t - 1) * lr_decay) * g / (state["s"].sqrt() + 1e-10)


def rmsprop(w, g, t, state, lr, alpha, momentum, centered, weight_decay):
    g = g + weight_decay * w
    state["s"] = alpha * state.get("s", 0) + (1 - alpha) * g**2
    state["m"] = alpha * state.get("m", 0) + (1 - alpha) * g
    spread = state["s"] - state["m"] ** 2 if centered else state["s"]
    state["v"] = momentum * state.get("v", 0) + g / (spread.sqrt() + 1e-8)
    return w - lr * state["v"]


def adam(w, g, t, state, lr, betas, weight_decay):
    g = g + weight_decay * w
    state["m"] = betas[0] * state.get("m", 0) + (1 - betas[0]) * g
    state["v"] = betas[1] * state.get("v", 0) + (1 - betas[1]) * g**2
    return w - lr * state["m"] / (1 - betas[0] ** t) / ((state["v"] / (1 - betas[1] ** t)).sqrt() + 1e-8)


def adamw(w, g, t, state, lr, betas, weight_decay):
    return adam(w, g, t, state, lr, betas, 0) - lr * weight_decay * w


@pytest.mark.parametrize(
    ("factory", "rule", "settings"),
    [
        (optimizer.sgd, sgd, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        (optimizer.sgd, sgd, {"lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.01}),
        (optimizer.sgd, sgd, {"lr": 0.1, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}),
        (optimizer.adagrad, adagrad, {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.01}),
        (optimizer.rmsprop, rmsprop, RMSPROP),
        (optimizer.rmsprop, rmsprop, RMSPROP | {"momentum": 0.5, "centered": True}),
        (optimizer.adam, adam, {"lr": 0.1, "betas": [0.8, 0.95], "weight_decay": 0.1}),
        (optimizer.adamw, adamw, {"lr": 0.1, "betas": [0.8, 0.95], "weight_decay": 0.1}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_steps_follow_the_formula(device, factory, rule, settings):
    torch.testing.assert_close(run(factory, device, **settings), by_hand(rule, **settings))


@pytest.mark.parametrize(
    ("factory", "kind"),
    [
        (optimizer.sgd, torch.optim.SGD),
        (optimizer.adagrad, torch.optim.Adagrad),
        (optimizer.adam, torch.optim.Adam),
        (optimizer.adamw, torch.optim.AdamW),
    ],
)
def test_fused_equals_unfused_on_a_network(device, factory, kind):
    ours = network().to(device)
    reference = copy.deepcopy(ours)
    update = factory(optimizer.parameter_groups(ours))
    settings = {key: update.defaults[key] for key in signature(factory).parameters if key != "parameters"}
    plain = kind(optimizer.parameter_groups(reference), foreach=False, fused=False, **settings)
    for _ in range(3):
        for one, other in zip(ours.parameters(), reference.parameters(), strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        update.step()
        plain.step()
    torch.testing.assert_close(ours.state_dict(), reference.state_dict())


def test_fused_where_torch_says_it_can(device):
    """On a CPU and on CUDA today's torch fuses these; where a kernel is missing, the factory still builds."""
    groups = optimizer.parameter_groups(network().to(device))
    for factory in (optimizer.sgd, optimizer.adam, optimizer.adamw):
        assert factory(copy.deepcopy(groups)).defaults["fused"] is True
    assert not optimizer.rmsprop(groups).defaults.get("fused")


def muon_groups(model, **settings):
    return optimizer.muon(optimizer.parameter_groups(model), **settings)


def test_muon_takes_torchs_steps_on_matrices_and_adamw_on_the_rest(device):
    """A convolution is the matrix (out, in · height · width); the output layer, norms and biases are AdamW's."""
    ours = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 9), nn.Linear(9, 5))
    ours = ours.to(device)
    reference = copy.deepcopy(ours)
    update = muon_groups(ours, lr=0.03, adamw_lr=0.002, weight_decay=0.1)
    hidden = [nn.Parameter(reference[number].weight.detach().flatten(1)) for number in (0, 3)]
    biases = [parameter for parameter in reference.parameters() if parameter.ndim == 1]
    rest = [{"params": [reference[4].weight]}, {"params": biases, "weight_decay": 0.0}]
    theirs = torch.optim.Muon(hidden, lr=0.03, momentum=0.95, weight_decay=0.1)
    adamw = torch.optim.AdamW(rest, lr=0.002, weight_decay=0.1, fused=update.defaults["fused"])
    for _ in range(3):
        for one, other in zip(ours.parameters(), reference.parameters(), strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for matrix, number in zip(hidden, (0, 3), strict=True):
            matrix.grad = reference[number].weight.grad.flatten(1)
        update.step()
        theirs.step()
        adamw.step()
    for matrix, number in zip(hidden, (0, 3), strict=True):
        assert torch.equal(ours[number].weight.flatten(1), matrix)
    ours, reference = dict(ours.named_parameters()), dict(reference.named_parameters())
    assert all(torch.equal(ours[name], reference[name]) for name in ours if name not in ("0.weight", "3.weight"))


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (16, 16)])
def test_an_orthogonalized_matrix_has_singular_values_near_one(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    ours = orthogonalize(matrix, steps=5).float()
    assert torch.linalg.svdvals(ours).sub(1).abs().max() < 0.4
    along = (left.T @ ours @ right.T).diagonal()
    assert along.min() > 0.6, "the singular vectors stay"


def test_a_schedule_and_a_checkpoint_reach_both_parts_of_muon():
    one, other = (muon_groups(network()) for _ in range(2))
    for group in one.param_groups:
        group["initial_lr"] = group["lr"]
    optimizer.set_learning_rate(one, 0.5)
    assert [group["lr"] for group in one.param_groups] == [0.01, 0.0015, 0.0015]
    for group in one.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    one.step()
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    kinds = [set(state) for state in other.state.values()]
    assert kinds == [{"momentum_buffer"}, *[{"step", "exp_avg", "exp_avg_sq"}] * 5]
    assert not optimizer.unreached_optimizers(one)


class Wrapper(torch.optim.Optimizer):
    """An optimizer around others, with its own groups or with theirs."""

    def __init__(self, parameters, *, shares):
        self.inner = torch.optim.SGD(parameters, lr=0.1)
        self.more = {"second": torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)}
        groups = [*self.inner.param_groups, *self.more["second"].param_groups]
        super().__init__(groups if shares else [dict(group) for group in groups], {"lr": 0.1})


@pytest.mark.parametrize(("shares", "unreached"), [(True, []), (False, ["inner", "more"])])
def test_inner_optimizers_with_groups_of_their_own_are_named(shares, unreached):
    assert optimizer.unreached_optimizers(Wrapper([nn.Parameter(torch.ones(2))], shares=shares)) == unreached


def test_a_missing_kernel_falls_back(device):
    class Unfused(torch.optim.SGD):
        def __init__(self, parameters, fused=False, **settings):
            if fused:
                raise RuntimeError("no kernel for this device")
            super().__init__(parameters, **settings)

    built = build(Unfused, optimizer.parameter_groups(network().to(device)), lr=0.1)
    assert not built.defaults["fused"]


def test_norms_and_biases_do_not_decay():
    model = network()
    weights, others = optimizer.parameter_groups(model)
    assert list(map(id, weights["params"])) == [id(model[0].weight), id(model[4].weight)]
    expected = [model[0].bias, model[1].weight, model[1].bias, model[4].bias]
    assert list(map(id, others["params"])) == list(map(id, expected))
    assert "weight_decay" not in weights and others["weight_decay"] == 0


def test_frozen_parameters_and_empty_groups_are_left_out():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False))
    model[0].requires_grad_(False)
    (only,) = optimizer.parameter_groups(model)
    assert [id(parameter) for parameter in only["params"]] == [id(model[1].weight)]


def test_l2_and_decoupled_decay_agree_for_plain_sgd_only():
    """w - lr (g + λ w) = (w - lr g) - lr λ w; Adam divides the L2 term by the gradient's size, AdamW does not."""
    plain = {"momentum": 0.0, "nesterov": False}
    weight = nn.Parameter(torch.full((2, 2), 3.0))
    update = optimizer.sgd([{"params": [weight]}], lr=0.1, weight_decay=0.2, **plain)
    weight.grad = torch.ones(2, 2)
    update.step()
    torch.testing.assert_close(weight.detach(), torch.full((2, 2), 3.0 - 0.1 - 0.1 * 0.2 * 3.0))
    settings = {"lr": 0.1, "betas": [0.9, 0.999], "weight_decay": 0.1}
    assert not torch.allclose(by_hand(adam, **settings), by_hand(adamw, **settings))


@pytest.mark.parametrize(
    ("factory", "settings", "message"),
    [
        (optimizer.sgd, {"momentum": 0.0}, "nesterov=true: needs momentum > 0, or choose nesterov=false"),
        (optimizer.sgd, {"lr": -1}, "lr=-1: must be > 0"),
        (optimizer.sgd, {"momentum": 1.0}, "momentum=1.0: must be >= 0 and < 1"),
        (optimizer.adam, {"betas": [0.9]}, "betas=[0.9]: must be two numbers, as in [0.9,0.999]"),
        (optimizer.adamw, {"betas": [0.9, 1.0]}, "betas=[0.9, 1.0]: every item must be >= 0 and < 1"),
        (optimizer.muon, {"adamw_lr": 0}, "adamw_lr=0: must be > 0"),
        (optimizer.rmsprop, {"weight_decay": -0.1}, "weight_decay=-0.1: must be >= 0"),
    ],
)
def test_mistakes_are_named(factory, settings, message):
    with pytest.raises(ValueError) as error:
        factory(optimizer.parameter_groups(network()), **settings)
    assert str(error.value) == message


def walk(build, gradients, left_out=(), prepare=optimizer.start_momenta):
    """Take a step for each gradient as the trainer does in fp16; return the weights and the scale after each.

    In the steps `left_out` the gradient overflows, so the scaler leaves them out.
    """
    weight = nn.Parameter(torch.linspace(-1, 1, 7))
    update, scaler = build([{"params": [weight]}]), torch.amp.GradScaler("cpu", init_scale=4.0)
    prepare(update)
    passed = []
    for number, gradient in enumerate(gradients):
        scaled = gradient * scaler.scale(torch.ones(()))
        weight.grad = torch.full_like(weight, torch.inf) if number in left_out else scaled
        scaler.step(update)
        scaler.update()
        passed.append(weight.detach().clone())
    return passed


def plain(kind, **settings):
    return lambda groups: kind(groups, lr=0.1, **settings)


UPDATES = {
    "sgd": optimizer.sgd,
    "sgd without nesterov": lambda groups: optimizer.sgd(groups, nesterov=False),
    "sgd without momentum": lambda groups: optimizer.sgd(groups, momentum=0.0, nesterov=False),
    "torch's sgd, fused": plain(torch.optim.SGD, momentum=0.9, fused=True),
    "torch's sgd": plain(torch.optim.SGD, momentum=0.9, dampening=0.5),
    "adam": optimizer.adam,
    "adamw": optimizer.adamw,
    "rmsprop": lambda groups: optimizer.rmsprop(groups, momentum=0.9),
    "adagrad": optimizer.adagrad,
}


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("left_out", [(0,), (0, 1), (1,)])
def test_a_step_that_the_scaler_leaves_out_leaves_no_trace(name, left_out, monkeypatch):
    """In fp16 the first step often overflows. Memory that is not initialized holds NaN here, as it may anywhere."""
    empty_like = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda *args, **options: empty_like(*args, **options).fill_(torch.nan))
    gradients = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    rest = [gradient for number, gradient in enumerate(gradients) if number not in left_out]
    after = [weight for number, weight in enumerate(walk(UPDATES[name], gradients, left_out)) if number not in left_out]
    for one, other in zip(after, walk(UPDATES[name], rest), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("momentum", [0.9, 0.5])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.01])
@pytest.mark.parametrize("fused", [True, False])
def test_momenta_that_start_at_zero_have_the_bits_of_a_first_step(momentum, nesterov, decay, fused):
    def bits(prepare):
        settings = {"momentum": momentum, "nesterov": nesterov, "weight_decay": decay, "fused": fused}
        return [weight.view(torch.int32) for weight in walk(plain(torch.optim.SGD, **settings), gradients, (), prepare)]

    gradients = torch.randn(6, 7, generator=torch.Generator().manual_seed(0))
    gradients[:2, :3] = torch.tensor([0.0, -0.0, 1e-41])
    started, usual = bits(optimizer.start_momenta), bits(lambda update: None)
    assert all(map(torch.equal, started, usual))


def test_a_weight_whose_first_gradient_comes_late_joins_in():
    """Stochastic depth leaves out whole blocks; torch's fused SGD refuses momenta of which only some exist."""
    early, late = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    update = optimizer.sgd([{"params": [early, late]}], lr=0.5, momentum=0.5, nesterov=False, weight_decay=0.0)
    optimizer.start_momenta(update)
    for gradients in ((1.0, None), (1.0, 1.0)):
        for weight, gradient in zip((early, late), gradients, strict=True):
            weight.grad = None if gradient is None else torch.full_like(weight, gradient)
        update.step()
    assert early.tolist() == [1 - 0.5 - 0.75] * 2 and late.tolist() == [0.5] * 2

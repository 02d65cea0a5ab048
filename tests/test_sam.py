"""SAM against its paper's update written out, beside dropout, batch norm, accumulation, penalties and clipping."""

import copy

import pytest
import torch
from torch import nn

from deeptrain import build
from deeptrain.config.compose import compose_run
from deeptrain.errors import UsageError
from deeptrain.gradient import SAM
from deeptrain.run import dry_run
from deeptrain.runtime.random import fold_in

RUN = [
    "data=synthetic",
    "data.shape=[1,4,4]",
    "data.size=80",
    "batch_size=16",
    "validate.clean_images=0",
    "model=fcn",
    "model.hidden=[16]",
    "optimizer=sgd",
    "optimizer.lr=0.1",
    "schedule=constant",
    "limit_steps=6",
]


def built(*words):
    return build.trainer(build.open_setup(compose_run([*RUN, *words])))


def by_hand(trainer, steps=6, rho=0.5, penalty=0.0, clip=None, momentum=0.9, decay=5e-4):
    """Foret et al.'s algorithm 1 over SGD with Nesterov momentum, in plain autograd; return the weights."""
    model = copy.deepcopy(trainer.model)
    parameters = list(model.parameters())
    velocity = [torch.zeros_like(value) for value in parameters]
    batches = [batch for epoch in range(2) for batch in trainer.train_loader.epoch(epoch)]
    model.train()
    for number, (images, labels) in enumerate(batches[:steps]):
        inputs, draws = (
            trainer.pipeline.evaluate(images),
            fold_in(0, "model", *divmod(number, len(trainer.train_loader))),
        )

        def gradient(inputs=inputs, labels=labels, draws=draws):
            torch.manual_seed(draws)
            return torch.autograd.grad(trainer.loss(model(inputs), labels), parameters)

        first = gradient()
        length = torch.sqrt(sum((value**2).sum() for value in first))
        start = copy.deepcopy(model.state_dict())
        with torch.no_grad():
            for value, slope in zip(parameters, first, strict=True):
                value += rho * slope / length
        second = gradient()
        with torch.no_grad():
            for name, value in model.named_parameters():
                value.copy_(start[name])
            for name, value in model.named_buffers():  # of the first pass alone
                value.copy_(start[name])
            second = [g + 2 * penalty * w * (w.ndim > 1) for g, w in zip(second, parameters, strict=True)]
            if clip is not None:
                size = torch.sqrt(sum((value**2).sum() for value in second))
                second = [value * min(1, clip / (size + 1e-6)) for value in second]
            for value, slope, speed in zip(parameters, second, velocity, strict=True):
                slope = slope + decay * value * (value.ndim > 1)
                speed.mul_(momentum).add_(slope)
                value -= 0.1 * (slope + momentum * speed)
    return model.state_dict()


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ([], {}),
        (["model.dropout=0.5"], {}),
        (["accumulate=4"], {}),
        (["penalty=l2", "penalty.strength=0.01"], {"penalty": 0.01}),
        (["clip_norm=0.1"], {"clip": 0.1}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_steps_are_the_papers(words, settings):
    trainer = built("sam=0.5", *words)
    expected = by_hand(trainer, **settings)
    trainer.fit()
    for name, value in trainer.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)


def test_steps_are_the_papers_with_batch_norm_and_stochastic_depth():
    """Running statistics are those of the first pass, once a step; both passes leave out the same branches."""
    words = ["model=resnet", "model.blocks=[1,1]", "model.widths=[4,4]", "model.stochastic_depth=0.5"]
    trainer = build.trainer(build.open_setup(compose_run([w for w in RUN if "model" not in w] + [*words, "sam=0.5"])))
    expected = by_hand(trainer, steps=2)
    trainer.plan.limit_steps = 2
    trainer.fit()
    for name, value in trainer.model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5)


def test_uphill_moves_by_rho_and_comes_back_bit_for_bit(device):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3), nn.BatchNorm1d(3)).to(device)
    model[3].track_running_stats = False
    unused = nn.Parameter(torch.ones(2, device=device))
    images = torch.randn(32, 6, device=device)
    model(images).square().sum().backward()
    parameters, slopes = list(model.parameters()), [value.grad.clone() for value in model.parameters()]
    before = copy.deepcopy(model.state_dict())
    with SAM(model, [*parameters, unused], rho=0.25).perturbed():
        moved = [w.detach() - before[name] for name, w in model.named_parameters()]
        flat, slope = (torch.cat([value.flatten() for value in values]) for values in (moved, slopes))
        assert flat.norm().item() == pytest.approx(0.25, rel=1e-3)
        torch.testing.assert_close(flat, 0.25 * slope / slope.norm(), rtol=1e-3, atol=1e-5)
        assert all(value.grad is None for value in parameters)
        model(images)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert model[1].track_running_stats and not model[3].track_running_stats


def test_it_comes_back_from_an_error_and_a_flat_place_moves_nothing(device):
    model = nn.Linear(3, 2).to(device)
    (0 * model(torch.ones(1, 3, device=device)).sum()).backward()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyboardInterrupt), SAM(model, list(model.parameters()), rho=0.1).perturbed():
        assert torch.equal(model.weight, before["weight"])
        with torch.no_grad():
            model.weight.add_(1)
        raise KeyboardInterrupt
    assert torch.equal(model.weight, before["weight"])


def test_a_batch_is_measured_once():
    """The training means are those of the first pass, at the weights themselves."""
    sam, plain = built("sam=0.5", "limit_steps=1"), built("limit_steps=1")
    for trainer in (sam, plain):
        trainer.fit()
    assert sam.progress.metrics["loss/train"] == plain.progress.metrics["loss/train"]
    assert sam.progress.images == plain.progress.images == 16


def test_fp16_is_refused_in_a_line():
    with pytest.raises(UsageError) as caught:
        dry_run.check_settings(compose_run([*RUN, "sam=0.05", "precision=fp16"]))
    (line,) = caught.value.lines
    assert line.startswith("gradient=sam: ") and "bf16" in line


@pytest.mark.parametrize("word", ["sam=0", "sam=-1", "max_norm=0"])
def test_a_radius_is_positive(word):
    with pytest.raises(UsageError, match="must be > 0"):
        compose_run([word])


def test_max_norm_holds_after_every_step():
    trainer = built("max_norm=0.5", "optimizer.lr=1")
    trainer.fit()
    norms = [weight.detach().flatten(1).norm(dim=1) for weight in trainer.weights]
    assert all((norm <= 0.5 + 1e-6).all() for norm in norms)
    free = built("optimizer.lr=1")
    free.fit()
    assert any((weight.detach().flatten(1).norm(dim=1) > 0.5).any() for weight in free.weights)

"""Optimizers without torch's compiler: a run does not import it, and steps keep their bits."""

import inspect
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.optim.optimizer import _use_grad_for_differentiable

from deeptrain.runtime import dynamo

STEPPED = ["ASGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop", "SGD"]
RUN = """
import sys
from deeptrain.commands.cli import train
words = "data=synthetic data.size=40 model=fcn model.hidden=[4] limit_steps=2 device=cpu threads=1 dir=run"
assert train(words.split()) == 0
assert train(["resume=run", "limit_steps=3"]) == 0
assert not {"torch._dynamo", "torch._inductor", "sympy"} & set(sys.modules)
import torch
compiled = torch.compile(torch.nn.Linear(2, 2), backend="eager", fullgraph=True)
optimizer = torch.optim.SGD(compiled.parameters(), lr=0.1, momentum=0.9)
before = compiled.weight.clone()
compiled(torch.ones(1, 2)).sum().backward()
optimizer.step()
assert "torch._dynamo" in sys.modules and (compiled.weight == before - 0.1).all()
"""


def test_a_run_does_not_import_the_compiler_and_a_network_may_be_compiled_after_it(tmp_path):
    done = subprocess.run([sys.executable, "-c", RUN], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", STEPPED)
def test_a_step_keeps_its_bits(name):
    plain = inspect.unwrap(getattr(torch.optim, name).step)
    torchs = _use_grad_for_differentiable(plain)
    assert dynamo._imports_dynamo(torchs)
    assert torch.equal(weights_after(name, torchs), weights_after(name, dynamo._without_dynamo(torchs)))


def weights_after(name: str, step) -> torch.Tensor:
    """Take three steps, the last one by a closure."""
    weight = nn.Parameter(torch.linspace(-1, 1, 12).view(3, 4))
    optimizer = type(name, (getattr(torch.optim, name),), {"step": step})([weight], lr=0.1)

    def loss():
        optimizer.zero_grad()
        value = (weight**2).sum()
        value.backward()
        return value

    for _ in range(2):
        loss()
        optimizer.step()
    assert optimizer.step(loss) > 0 and torch.is_grad_enabled()
    return weight.detach()


def test_a_differentiable_step_has_a_gradient():
    class Differentiable(torch.optim.SGD):
        step = dynamo._without_dynamo(_use_grad_for_differentiable(inspect.unwrap(torch.optim.SGD.step)))

    start = torch.ones(2, requires_grad=True)
    weight = start.clone()
    weight.grad = torch.ones(2)
    optimizer = Differentiable([nn.Parameter(torch.zeros(2))], lr=0.1, differentiable=True)
    optimizer.param_groups[0]["params"] = [weight]
    optimizer.step()
    weight.sum().backward()
    assert start.grad is not None and start.grad.tolist() == [1.0, 1.0]


def test_a_torch_without_these_wrappers_is_left_as_it_is(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    for name in dynamo.METHODS:
        monkeypatch.setattr(torch.optim.Optimizer, name, lambda self: None)
    monkeypatch.setattr(torch.optim.SGD, "step", step := lambda self, closure=None: None)
    dynamo.leave_out()
    assert torch.optim.SGD.step is step

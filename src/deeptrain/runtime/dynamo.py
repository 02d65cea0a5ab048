"""Optimizers without torch's compiler: they import it on first use, half as long again as torch, to stay out of it."""

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

METHODS = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def leave_out() -> None:
    """Let the optimizers of torch do without torch._dynamo, for a process that compiles nothing.

    They import it to keep a compiled graph from reaching into them. What they compute stays the same, and a network
    may be compiled later. A version of torch without these wrappers is left as it is.
    """
    if "torch._dynamo" in sys.modules:
        return
    for name in METHODS:  # torch._disable_dynamo asks for this attribute before it imports
        if method := getattr(getattr(Optimizer, name), "__wrapped__", None):
            vars(method).setdefault("__dynamo_disable", method)
    for each in vars(torch.optim).values():
        if isinstance(each, type) and issubclass(each, Optimizer) and _imports_dynamo(each.step):
            each.step = _without_dynamo(each.step)


def _imports_dynamo(step: Callable[..., Any]) -> bool:
    return hasattr(step, "__wrapped__") and "_dynamo" in step.__code__.co_names


def _without_dynamo(step: Callable[..., Any]) -> Callable[..., Any]:
    """Do what torch.optim.optimizer._use_grad_for_differentiable does, but for breaking a graph."""
    wrapped = step.__wrapped__  # pyright: ignore[reportFunctionMemberAccess]

    @functools.wraps(wrapped)
    def without(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return wrapped(self, *args, **kwargs)

    return without

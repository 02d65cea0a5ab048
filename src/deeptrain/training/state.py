"""Loading the state of a run that goes on."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from deeptrain.optimizer import start_momenta
from deeptrain.schema import validate_call
from deeptrain.training.progress import Progress

RENAMED = {"slowed": "rollbacks", "left_out": "skipped_steps"}  # keys of Progress in checkpoints of 0.3.0


def load_progress(state: dict[str, Any], steps_per_epoch: int) -> Progress:
    """Read a run's progress; ValueError if an epoch has fewer steps now than the run has taken in it."""
    progress = validate_call(Progress)(**{RENAMED.get(name, name): value for name, value in state.items()})
    if progress.step_in_epoch >= steps_per_epoch:
        stopped = f"it stopped in step {progress.step_in_epoch} of an epoch"
        raise ValueError(f"{stopped}, which now has {steps_per_epoch}; keep its batch_size")
    return progress


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load the momenta but keep this run's settings (learning rate, weight decay).

    Momenta belong to parameters, numbered through all groups, so their grouping may change with the decay.
    Raises ValueError if another optimizer saved the state.
    """
    groups, saved_groups = optimizer.state_dict()["param_groups"], state["param_groups"]
    if set(groups[0]) != set(saved_groups[0]):
        raise ValueError("it was trained with another optimizer; go on with that one, or start a new run")
    last, first = float(saved_groups[0]["lr"]), groups[0]["lr"]
    for group in groups:  # the rate of the last step: a validation before the next step logs it
        group["lr"] = last if group["lr"] == first else group["lr"] * last / first
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})
    match_layouts(optimizer)
    start_momenta(optimizer)


def match_layouts(optimizer: Optimizer) -> None:
    """Give each momentum the memory layout of its parameter, as fused kernels demand.

    Convolutions are channels_last on a CPU and on CUDA, contiguous on MPS: another device may have saved another one.
    """
    for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
        state = optimizer.state.get(parameter, {})
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)

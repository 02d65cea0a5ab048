"""What a checkpoint holds of a run, and how a run goes on from it."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from deeptrain.optimizer import start_momenta
from deeptrain.schema import validate_call
from deeptrain.training.progress import AVERAGE, Progress

if TYPE_CHECKING:
    from deeptrain.training.trainer import Trainer

RENAMED = {"slowed": "rollbacks", "left_out": "skipped_steps"}  # keys of Progress in checkpoints of 0.3.0


def state_of(trainer: "Trainer") -> dict[str, Any]:
    """Return the state of every part that has one, and the metadata."""
    return {
        "model": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "average": trainer.average and trainer.average.state_dict(),
        "scaler": trainer.runtime.scaler.state_dict(),
        "progress": asdict(trainer.progress),
        "meters": trainer.meter.state_dict(),
        "vitals": trainer.vitals.state_dict(),
        **trainer.metadata,
    }


def best_state_of(trainer: "Trainer", weights: str) -> dict[str, Any]:
    """Return the better weights, "raw" or "average", without optimizer state, which would double the file."""
    model = trainer.average.module if weights == AVERAGE and trainer.average is not None else trainer.model
    state = trainer.state_dict() | {"model": trainer.validator.state_dict(model), "weights": weights}
    return state | {"optimizer": None, "average": None, "scaler": None}


def load_state(trainer: "Trainer", state: dict[str, Any]) -> None:
    """Give every part its state back; ValueError if it is of another optimizer, or of longer epochs."""
    trainer.model.load_state_dict(state["model"])
    if state["optimizer"] is not None:
        load_optimizer(trainer.optimizer, state["optimizer"])
    if state["scaler"]:  # a run in fp32 or bf16 saves {}
        trainer.runtime.scaler.load_state_dict(state["scaler"])
    if trainer.average is not None and state["average"] is not None:
        trainer.average.load_state_dict(state["average"])
    elif trainer.average is not None:
        trainer.average.restart()
    trainer.meter.load_state_dict(state["meters"])
    trainer.vitals.load_state_dict(state.get("vitals"))
    trainer.progress = load_progress(state["progress"], trainer.plan.steps_per_epoch)
    trainer.plan.saved_at = trainer.progress.train_seconds


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

"""Loading the state of a run that goes on."""

from typing import Any

from torch.optim import Optimizer

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
    lr = float(saved_groups[0]["lr"])  # of the last step: a validation before the next step logs it
    optimizer.load_state_dict({"state": state["state"], "param_groups": [{**group, "lr": lr} for group in groups]})

"""Recovery from inf, NaN and too little memory, around the loop: go back, change one thing, go on.

A step is a function of seed, epoch and step, so a step taken again has the same bits.
"""

from collections.abc import Callable, Iterable
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor

from deeptrain.optimizer import zero_grad
from deeptrain.runtime.device import is_out_of_memory
from deeptrain.runtime.signals import Interrupted
from deeptrain.training.meters import Outputs
from deeptrain.training.nonfinite import NonFiniteError, first_layer, not_finite, state_values
from deeptrain.training.trainer import Trainer

MAX_ROLLBACKS = 5  # times that on_nan=rollback halves the learning rate before it gives up
INIT_HINT = "the initialization gave it an inf or NaN; try another one, or other weights to start from"
MAX_LISTED = 8  # images named in a message


class TrainingFailed(RuntimeError):
    """Training cannot go on; the message names the step and the likely causes."""


class NonFiniteStepError(NonFiniteError):
    """A checked step went wrong; the message names the cause and the step."""


def fit(trainer: Trainer, on_nan: str = "stop") -> tuple[str, str]:
    """Train as `trainer.fit` does, and handle inf and NaN; return status and reason.

    At the first inf or NaN the run goes back to its last checkpoint. From there it checks every step, which finds the
    cause. on_nan: "stop" raises TrainingFailed with it, "skip" leaves that step out, "rollback" goes back once more and
    halves the learning rate.
    """
    guard = None
    while True:
        try:
            return trainer.fit(guard)
        except Interrupted:  # while it waited for images
            trainer.save()
            return "interrupted", f"stopped by {trainer.stop.reason}"
        except NonFiniteStepError as error:
            failed = str(error)
        except NonFiniteError as error:
            failed = f"{error} at step {trainer.progress.step}"
        if guard is None and trainer.progress.step == 0:
            raise TrainingFailed(f"before the first step: {failed.removesuffix(' at step 0')}: {INIT_HINT}")
        message = f"{failed}: {_advice(trainer)}"
        slower = guard is not None and on_nan == "rollback" and trainer.progress.rollbacks < MAX_ROLLBACKS
        if guard is not None and not slower:
            raise TrainingFailed(message)
        rollbacks = trainer.progress.rollbacks + slower
        if not _go_back(trainer):
            raise TrainingFailed(message)
        trainer.progress.rollbacks = rollbacks
        guard = None if slower else partial(_guarded_step, trainer, skip=on_nan == "skip")
        change = "half the rate" if slower else "looking at every step"
        trainer.logger.message(f"{message}; going back to step {trainer.progress.step}, {change} from there")


def auto_accumulate(trainer: Trainer) -> None:
    """Let the trainer compute a gradient again, in twice as many micro-batches, whenever it runs out of memory."""
    gradient, buffers = trainer.gradient, _by_dtype(trainer.model.buffers())
    saved = [[torch.empty_like(buffer) for buffer in group] for group in buffers]

    def retry(backward: Callable[[], Outputs]) -> Outputs:
        images = trainer.train_loader.sizes[trainer.progress.step_in_epoch]
        while True:
            _copy(buffers, saved)
            try:
                return gradient(backward)
            except (RuntimeError, MemoryError) as error:
                most = trainer.world.local_batch_size(images) // trainer.min_images
                if trainer.accumulate >= most or not is_out_of_memory(error):
                    raise
            trainer.accumulate = min(2 * trainer.accumulate, images)  # only here is the failed pass freed
            step, count = trainer.progress.step + 1, trainer.accumulate
            trainer.logger.message(f"out of memory in step {step}: batches go in {count} pieces now")
            zero_grad(trainer.parameters)
            _copy(saved, buffers)

    trainer.gradient = retry


def _by_dtype(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor)
    return list(groups.values())


@torch.no_grad()
def _copy(sources: list[list[Tensor]], targets: list[list[Tensor]]) -> None:
    """Copy each group of tensors, all of one dtype, in one launch."""
    for source, target in zip(sources, targets, strict=True):
        torch._foreach_copy_(target, source)  # pyright: ignore


def _go_back(trainer: Trainer) -> bool:
    """Load the last checkpoint and drop what was logged after it; return whether there is one."""
    state = trainer.world.broadcast(trainer.checkpoints.load_last())
    if state is None:
        return False
    zero_grad(trainer.parameters)
    trainer.load_state_dict(state)
    trainer.logger.truncate(trainer.progress.step)
    return True


def _advice(trainer: Trainer) -> str:
    lr = trainer.optimizer.param_groups[0]["lr"]
    return f"the learning rate (now {lr:.3g}) is too high, or the initialization is bad; try a tenth of the rate"


def _guarded_step(trainer: Trainer, images: Tensor, labels: Tensor, *, skip: bool) -> Outputs:
    """Take a step and check every value. If one is inf or NaN, undo the step, then skip it or raise NonFiniteError."""
    before = _snapshot(trainer)
    outputs = trainer.train_step(images, labels)
    symptom = trainer.world.first_message(_after_step(trainer, outputs))
    if symptom is None:
        return outputs
    _restore(trainer, before)
    cause = trainer.world.first_message(_diagnose(trainer, images, labels)) or symptom
    _restore(trainer, before)
    progress = trainer.progress
    indices = trainer.train_loader.indices(progress.epoch, progress.step_in_epoch).tolist()
    position = f"step {progress.step + 1} (epoch {progress.epoch + 1}; training images {_shortened(indices)})"
    if not skip:
        raise NonFiniteStepError(f"{cause} in {position}")
    trainer.logger.message(f"{cause} in {position}: left out")
    progress.skipped_steps += 1
    return []


def _after_step(trainer: Trainer, outputs: Outputs) -> str | None:
    """Name a value that a step has made inf or NaN: the loss, a penalty, a gradient, a weight or optimizer state."""
    if not_finite({str(number): loss for number, (loss, _, _) in enumerate(outputs)}):
        return "the loss is not finite"
    if names := not_finite(trainer.meter.penalty_terms):
        return f"the penalty {names[0]} is not finite"
    if message := _gradients(trainer):
        return message
    if names := not_finite(trainer.model.state_dict()):
        return f"the update of {names[0]} is not finite"
    states = {
        f"the update of {name} ({path} of the optimizer)": value
        for name, weight in trainer.model.named_parameters()
        for path, value in state_values(trainer.optimizer.state.get(weight, {})).items()
    }
    names = not_finite(states)
    return f"{names[0]} is not finite" if names else None


def _diagnose(trainer: Trainer, images: Tensor, labels: Tensor) -> str | None:
    """Replay a step up to its gradient; name the first value that is inf or NaN, None if the update made it."""
    zero_grad(trainer.parameters)
    inputs, targets = trainer.augment(images, labels)
    if not_finite({"images": inputs}):
        return "the images are not finite after augmentation"
    outputs = trainer.gradient(partial(trainer.backward, inputs, targets))
    if not_finite({str(number): loss for number, (loss, _, _) in enumerate(outputs)}):
        with trainer.runtime.autocast:
            layer = first_layer(trainer.model, inputs)
        return f"the output of {layer} is not finite" if layer else "the loss is not finite"
    if names := not_finite(trainer.meter.penalty_terms):
        return f"the penalty {names[0]} is not finite"
    return _gradients(trainer)


def _gradients(trainer: Trainer) -> str | None:
    """Name the last layer with a gradient that is not finite: backward reached it first. In fp16 the scaler decides."""
    if trainer.runtime.precision == "fp16":
        return None
    gradients = {name: weight.grad for name, weight in trainer.model.named_parameters() if weight.grad is not None}
    names = not_finite(gradients)
    return f"the gradient of {names[-1]} is not finite" if names else None


def _snapshot(trainer: Trainer) -> tuple[list[Tensor], dict[str, Any], dict[str, Any]]:
    """Copy what a step changes: parameters and buffers, the optimizer's state, the scaler's."""
    tensors = [tensor.detach().clone() for tensor in (*trainer.model.parameters(), *trainer.model.buffers())]
    return tensors, deepcopy(trainer.optimizer.state_dict()), trainer.runtime.scaler.state_dict()


def _restore(trainer: Trainer, snapshot: tuple[list[Tensor], dict[str, Any], dict[str, Any]]) -> None:
    tensors, optimizer, scaler = snapshot
    zero_grad(trainer.parameters)
    with torch.no_grad():
        for tensor, old in zip((*trainer.model.parameters(), *trainer.model.buffers()), tensors, strict=True):
            tensor.copy_(old)
    trainer.optimizer.load_state_dict(deepcopy(optimizer))
    trainer.runtime.scaler.load_state_dict(scaler)
    trainer.meter.penalty_terms = {}


def _shortened(numbers: list[int]) -> str:
    more = f" and {len(numbers) - MAX_LISTED} more" if len(numbers) > MAX_LISTED else ""
    return ", ".join(map(str, numbers[:MAX_LISTED])) + more

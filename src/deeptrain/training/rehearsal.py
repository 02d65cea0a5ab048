"""Before a run: does the network fit the data, in a forward and backward pass, and its state a checkpoint?"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from deeptrain.runtime.device import Runtime, is_out_of_memory
from deeptrain.training import checkpoint

if TYPE_CHECKING:
    from deeptrain.training.trainer import Trainer

MAX_KEPT = 4  # tensors that the optimizers of torch keep for a parameter
IMAGES = 2  # a batch norm refuses a channel of a single number


def forward_backward(model: nn.Module, input_shape: tuple[int, ...], num_classes: int, runtime: Runtime) -> list[str]:
    """Pass random images through a model in train and in eval mode; leave its buffers and gradients as they were.

    Returns the names of the trainable parameters that get no gradient. Raises ValueError if the outputs are no logits
    (N, num_classes), or not finite.
    """
    images = _images(IMAGES, input_shape, runtime)
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    reached = set()
    with unchanged(model):
        for mode in (True, False):
            logits = _forward(model.train(mode), images, runtime)
            _check(logits, num_classes, "training" if mode else "evaluation")
            if logits.requires_grad:
                logits.float().sum().backward()
            reached |= {name for name, parameter in parameters.items() if parameter.grad is not None}
    return [name for name in parameters if name not in reached]


def min_images(model: nn.Module, input_shape: tuple[int, ...], num_classes: int, runtime: Runtime) -> int:
    """Return how many images at once a model needs in training: 1, or 2 where it fails on a single one.

    A batch norm refuses a channel of a single number. A squeeze() takes the axis of a single image away.
    """
    with unchanged(model), torch.no_grad():
        try:
            logits = _forward(model.train(), _images(1, input_shape, runtime), runtime)
        except ValueError:
            return IMAGES
    return 1 if logits.shape == (1, num_classes) else IMAGES


def _images(count: int, input_shape: tuple[int, ...], runtime: Runtime) -> Tensor:
    return torch.randn(count, *input_shape, generator=torch.Generator().manual_seed(0)).to(runtime.device)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Leave a model in training mode, without gradients, and with the buffers that it had."""
    buffers = [buffer.clone() for buffer in model.buffers()]
    try:
        yield
    finally:
        model.train()
        for parameter in model.parameters():
            parameter.grad = None
        with torch.no_grad():
            for buffer, old in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(old)


def _forward(model: nn.Module, images: Tensor, runtime: Runtime) -> Tensor:
    try:
        with runtime.autocast:
            return model(images)
    except Exception as error:  # a model of the user's own may raise anything
        if is_out_of_memory(error):
            raise
        shape = "x".join(map(str, images.shape[1:]))
        raise ValueError(f"does not take images {shape} ({str(error).partition(chr(10))[0]})") from error


def _check(logits: object, num_classes: int, phase: str) -> None:
    """Raise ValueError if outputs are no finite logits (N, num_classes)."""
    if not isinstance(logits, Tensor):
        raise ValueError(f"returns {type(logits).__name__} in {phase}, must return logits (N, {num_classes})")
    if logits.shape != (IMAGES, num_classes):
        found = ", ".join(["N", *map(str, logits.shape[1:])]) if logits.shape[:1] == (IMAGES,) else tuple(logits.shape)
        found = f"({found})" if isinstance(found, str) else found
        raise ValueError(f"returns {found} in {phase}, must return logits (N, {num_classes}), one a class")
    if not logits.isfinite().all():
        raise ValueError(f"returns inf or NaN in {phase} before the first step; look at its initialization")


def check_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    """Raise ValueError if no step of the optimizer can change the model."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    own = [parameter for parameter in model.parameters() if id(parameter) in held]
    if not own:
        raise ValueError("optimizer: holds no parameter of the model; make it from model.parameters()")
    if not any(parameter.requires_grad for parameter in own):
        raise ValueError("model: none of its parameters learns; set requires_grad of some to True")


def compile_probe(device: torch.device) -> None:
    """Compile one addition, cached by torch. ValueError if torch.compile finds no compiler that works."""
    try:
        torch.compile(_add_one)(torch.zeros(2, device=device))
    except Exception as error:  # of something that torch.compile needs
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"needs a C++ compiler, and none works here ({reason})") from error


def _add_one(values: Tensor) -> Tensor:
    return values + 1


def check_state_size(trainer: "Trainer") -> None:
    """Raise ValueError if weights, averages and optimizer state will be more tensors than a checkpoint holds."""
    count = checkpoint.count_tensors(trainer.state_dict())
    if count + MAX_KEPT * len(trainer.parameters) > checkpoint.MAX_TENSORS:
        checkpoint.check_count(count + _kept_for_each(trainer.optimizer) * len(trainer.parameters))


def _kept_for_each(optimizer: torch.optim.Optimizer) -> int:
    """Count the tensors that an optimizer keeps for a parameter, by a step of another one on zeros."""
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.zeros(2, 2)
    accepted = inspect.signature(type(optimizer)).parameters
    settings = {name: value for name, value in optimizer.defaults.items() if name in accepted}
    try:
        other = type(optimizer)([parameter], **settings)
        other.step()
    except Exception:  # it takes other arguments, or a closure; then a save says so
        return 0
    return checkpoint.count_tensors(other.state_dict()["state"])

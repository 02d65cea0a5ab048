"""One forward and backward pass before a run: does the network fit the data?"""

import torch
from torch import Tensor, nn

from deeptrain.runtime.device import Runtime, is_out_of_memory

IMAGES = 2  # a batch norm refuses a channel of a single number


def rehearse(model: nn.Module, input_shape: tuple[int, ...], num_classes: int, runtime: Runtime) -> list[str]:
    """Pass random images through a model in train and in eval mode; leave its buffers and gradients as they were.

    Returns the names of the trainable parameters that get no gradient. Raises ValueError if the outputs are no logits
    (N, num_classes), or not finite.
    """
    images = torch.randn(IMAGES, *input_shape, generator=torch.Generator().manual_seed(0)).to(runtime.device)
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    buffers, reached = [buffer.clone() for buffer in model.buffers()], set()
    try:
        for mode in (True, False):
            logits = _forward(model.train(mode), images, runtime)
            _check(logits, num_classes, "training" if mode else "evaluation")
            if logits.requires_grad:
                logits.float().sum().backward()
            reached |= {name for name, parameter in parameters.items() if parameter.grad is not None}
    finally:
        model.train()
        for parameter in parameters.values():
            parameter.grad = None
        with torch.no_grad():
            for buffer, old in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(old)
    return [name for name in parameters if name not in reached]


def _forward(model: nn.Module, images: Tensor, runtime: Runtime) -> Tensor:
    try:
        with runtime.autocast:
            return model(images)
    except Exception as error:  # whatever somebody's model may raise
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

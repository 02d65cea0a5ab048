"""How a step gets its gradient: from one pass, or from two (SAM)."""
# pyright: reportPrivateImportUsage=false
# (torch documents its foreach operations, underscore and all)

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import get_total_norm

from deeptrain.schema import PositiveFloat, validate_call

T = TypeVar("T")
TINY = 1e-12  # so that no gradient at all moves nothing


def plain_gradient(backward: Callable[[], T]) -> T:
    """Leave the gradient at the weights as they are; return what `backward` returns."""
    return backward()


class SAM:
    """Sharpness-aware minimization: step by the gradient at w + rho g/|g|, uphill from w (Foret et al., 2021).

    The loss in question is that of the batch; weight decay and penalties are of w itself, as in the paper's equation 1.
    Beside any optimizer; a step takes a second pass forth and back, and memory for the parameters once more.
    """

    @validate_call
    def __init__(self, model: nn.Module, parameters: list[Tensor], *, rho: PositiveFloat = 0.05):
        self.parameters, self.rho = parameters, rho
        norms = (module for module in model.modules() if isinstance(module, _BatchNorm))
        self.norms = [norm for norm in norms if norm.track_running_stats]

    def __call__(self, backward: Callable[[], T]) -> T:
        """Leave the gradient at w + rho g/|g| in .grad; return what `backward` returned at w."""
        outputs = backward()
        with self.perturbed():
            backward()
        return outputs

    @contextmanager
    def perturbed(self) -> Iterator[None]:
        """Move the parameters by rho along their gradients, which are dropped; afterwards put them back bit for bit.

        Batch norms do not take note of what passes through them meanwhile: running statistics are of w.
        """
        moved = [parameter for parameter in self.parameters if parameter.grad is not None]
        before = [parameter.detach().clone() for parameter in moved]
        with torch.no_grad():
            gradients = [parameter.grad for parameter in moved if parameter.grad is not None]
            torch._foreach_mul_(gradients, self.rho / (get_total_norm(gradients) + TINY))
            torch._foreach_add_(moved, gradients)
        for parameter in moved:
            parameter.grad = None
        for norm in self.norms:
            norm.track_running_stats = False
        try:
            yield
        finally:
            for norm in self.norms:
                norm.track_running_stats = True
            with torch.no_grad():
                torch._foreach_copy_(moved, before)

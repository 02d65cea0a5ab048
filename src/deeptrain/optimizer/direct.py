"""torch's SGD, Adam and AdamW with a short way to their fused kernels.

At every step torch gathers, checks and sorts all tensors anew. In a small network that takes longer than the update
(`benchmarks/optimizer.py`). Here the kernel is called at once where none of it is needed: every parameter has a dense
gradient and its state, all are of one device and dtype, and no GradScaler may leave the step out. The kernel and so the
bits are the same. Everything else, the first step too, is torch's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class _Direct(Optimizer):
    """Takes a step by `update(group, parameters, gradients, *states)` where it can, else as `torchs` does."""

    torchs: type[Optimizer]

    def step(self, closure: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        # GradScaler sets one of these for its steps alone
        is_scaled = hasattr(self, "grad_scale") or hasattr(self, "found_inf")
        is_plain = closure is None and not is_scaled
        gathered = [self._gather(group) for group in self.param_groups] if is_plain else [None]
        if None in gathered:
            step: Any = self.torchs.step
            step = step.__wrapped__ if getattr(step, "hooked", False) else step  # hooks are called around this step
            return step(self, closure)
        with torch.no_grad():
            for group, tensors in zip(self.param_groups, gathered, strict=True):
                self.update(group, *tensors)  # pyright: ignore[reportOptionalIterable]
        return None

    def names(self, group: dict[str, Any]) -> Sequence[str]:
        """Return what is kept of each parameter."""
        raise NotImplementedError

    def update(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor], *states: Any) -> None:
        raise NotImplementedError

    def _gather(self, group: dict[str, Any]) -> tuple[list, ...] | None:
        """Return parameters, gradients and states; None if there are none or torch is to look after one of them."""
        parameters = group["params"]
        gradients = [parameter.grad for parameter in parameters]
        if not parameters or any(gradient is None or gradient.is_sparse for gradient in gradients):
            return None
        kept = [self.state.get(parameter, {}) for parameter in parameters] if (names := self.names(group)) else []
        states = [[state.get(name) for state in kept] for name in names]
        if any(value is None for values in states for value in values):
            return None
        return parameters, gradients, *states


class SGD(_Direct, torch.optim.SGD):
    torchs = torch.optim.SGD

    def names(self, group: dict[str, Any]) -> Sequence[str]:
        return ("momentum_buffer",) if group["momentum"] else ()

    def update(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor], *states: Any) -> None:
        torch._fused_sgd_(  # pyright: ignore
            parameters,
            gradients,
            *(states or [[]]),
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=group["maximize"],
            is_first_step=False,
        )


class Adam(_Direct, torch.optim.Adam):
    torchs = torch.optim.Adam
    kernel = staticmethod(torch._fused_adam_)  # pyright: ignore

    def names(self, group: dict[str, Any]) -> Sequence[str]:
        return "exp_avg", "exp_avg_sq", "step"

    def update(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor], *states: Any) -> None:
        means, squares, counts = states
        beta1, beta2 = group["betas"]
        torch._foreach_add_(counts, 1)  # pyright: ignore
        self.kernel(
            parameters,
            gradients,
            means,
            squares,
            [],
            counts,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=group["maximize"],
        )


class AdamW(Adam, torch.optim.AdamW):
    torchs = torch.optim.AdamW
    kernel = staticmethod(torch._fused_adamw_)  # pyright: ignore


DIRECT: dict[Any, Any] = {torch.optim.SGD: SGD, torch.optim.Adam: Adam, torch.optim.AdamW: AdamW}

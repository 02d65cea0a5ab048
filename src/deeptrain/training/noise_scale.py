"""The noise scale of a gradient: the batch at which its noise is as large as its signal."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

MEMORY = 0.5  # of earlier estimates, when a new one joins them


class NoiseScale:
    """B = tr Σ / |G|²: G is the gradient of all images, Σ the covariance of a single image's (McCandlish et al., 2018).

    From n gradients g of successive batches, of B images each. E |g|² = |G|² + tr Σ / B, and for their sum
    E |Σ g|² = n² |G|² + tr Σ Σ 1/B. So |G|² = (|Σ g|² - Σ |g|²) / (n² - n) and tr Σ = (Σ |g|² - n |G|²) / Σ 1/B: the
    paper's two batch sizes are one batch and n. Both are averaged apart, then divided. Weights hardly move in n steps.
    """

    def __init__(self):
        self._sum: list[Tensor] = []  # of the gradients so far, by parameter
        self._squares: list[Tensor] = []  # the squared norm of each
        self._inverse = 0.0  # the sum of 1 / images
        self._sample: tuple[Tensor, int, float] | None = None  # squares and total, n, inverse; not read yet
        self._means: list[float] = []  # of |G|² and tr Σ

    @property
    def is_open(self) -> bool:
        """Tell whether gradients have been added since the last estimate."""
        return bool(self._squares)

    def add(self, gradients: list[Tensor], norm: Tensor, images: int, scale: Tensor | float = 1.0) -> None:
        """Add the gradient of a batch. norm: of `scale` times the gradient, which is the one before clipping."""
        whole = torch._foreach_mul(gradients, scale)  # pyright: ignore
        if self._sum:
            torch._foreach_add_(self._sum, whole)  # pyright: ignore
        else:
            self._sum = list(whole)
        self._squares.append(norm.square())
        self._inverse += 1 / images

    def close(self) -> None:
        """Make a sample of the gradients so far. Nothing waits for the device."""
        if (count := len(self._squares)) > 1:
            total = torch.stack(torch._foreach_norm(self._sum)).norm().square()  # pyright: ignore
            self._sample = torch.stack([torch.stack(self._squares).sum(), total]), count, self._inverse
        self._sum, self._squares, self._inverse = [], [], 0.0

    def read(self) -> float | None:
        """Return the noise scale in images; None without a new sample, or where the signal drowns in the noise."""
        if self._sample is None:
            return None
        (values, count, inverse), self._sample = self._sample, None
        squares, total = values.tolist()
        signal = (total - squares) / (count * count - count)
        noise = (squares - count * signal) / inverse
        if not math.isfinite(signal + noise):
            return None
        old = self._means or [signal, noise]
        self._means = [MEMORY * a + (1 - MEMORY) * b for a, b in zip(old, (signal, noise), strict=True)]
        return self._means[1] / self._means[0] if self._means[0] > 0 else None

    def state_dict(self) -> dict[str, Any]:
        """Return what a run needs to go on: tensors only between the gradients of a sample, and only finite ones."""
        state: dict[str, Any] = {"means": self._means}
        if self._sample is not None and self._sample[0].isfinite().all():
            values, count, inverse = self._sample
            state["sample"] = [*values.tolist(), count, inverse]
        if self.is_open and all(tensor.isfinite().all() for tensor in [*self._sum, *self._squares]):
            state |= {"sum": self._sum, "squares": torch.stack(self._squares).tolist(), "inverse": self._inverse}
        return state

    def load_state_dict(self, state: Mapping[str, Any], parameters: list[Tensor]) -> None:
        """Go on from a state; without tensors that fit the parameters a sample begins anew."""
        self.__init__()
        self._means = [float(value) for value in state.get("means", ())]
        if len(sample := state.get("sample", ())) == 4:
            self._sample = torch.tensor(sample[:2]), int(sample[2]), float(sample[3])
        tensors = state.get("sum", [])
        if tensors and [tensor.shape for tensor in tensors] == [parameter.shape for parameter in parameters]:
            pairs = zip(tensors, parameters, strict=True)
            self._sum = [torch.empty_like(parameter).copy_(tensor) for tensor, parameter in pairs]
            self._squares = list(torch.tensor(state["squares"], device=self._sum[0].device).unbind())
            self._inverse = float(state["inverse"])

"""The noise scale of a gradient: the batch at which its noise is as large as its signal."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

MEMORY = 0.5  # of earlier estimates, when a new one joins them


class NoiseScale:
    """B = tr Σ / |G|²: G is the gradient of all images, Σ the covariance of a single image's (McCandlish et al., 2018).

    From n gradients g of parts of a batch, of B images each, at the same weights. E |g|² = |G|² + tr Σ / B, and for
    their sum E |Σ g|² = n² |G|² + tr Σ Σ 1/B. So |G|² = (|Σ g|² - Σ |g|²) / (n² - n) and
    tr Σ = (Σ |g|² - n |G|²) / Σ 1/B: the paper's two batch sizes are one part and n. Both are averaged apart over the
    samples, then divided.
    """

    def __init__(self):
        self._sample: tuple[Tensor, int, float] | None = None  # Σ |g|² and |Σ g|², n, Σ 1/B; not read yet
        self._means: list[float] = []  # of |G|² and tr Σ

    def measure(self, losses: Iterable[tuple[Tensor, int]], parameters: list[Tensor]) -> None:
        """Make a sample of the mean losses of parts of a batch, with their images. Nothing waits for the device.

        Each graph is freed before the next loss is computed. Gradients in .grad stay as they are.
        """
        total, squares, inverse = [torch.zeros_like(parameter) for parameter in parameters], [], 0.0
        for loss, images in losses:
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
            torch._foreach_add_(total, gradients)  # pyright: ignore
            squares.append(squared_norm(list(gradients)))
            inverse += 1 / images
        if len(squares) > 1:
            self._sample = torch.stack([torch.stack(squares).sum(), squared_norm(total)]), len(squares), inverse

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
        """Return what a run needs to go on, without values that are not finite."""
        state: dict[str, Any] = {"means": self._means}
        if self._sample is not None and self._sample[0].isfinite().all():
            values, count, inverse = self._sample
            state["sample"] = [*values.tolist(), count, inverse]
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.__init__()
        self._means = [float(value) for value in state.get("means", ())]
        if len(sample := state.get("sample", ())) == 4:
            self._sample = torch.tensor(sample[:2]), int(sample[2]), float(sample[3])


def squared_norm(tensors: list[Tensor]) -> Tensor:
    """Return the square of the norm of all tensors together, ()."""
    return torch.stack(torch._foreach_norm(tensors)).norm().square()  # pyright: ignore

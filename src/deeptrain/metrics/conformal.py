"""Sets of classes that hold the true one with a promised probability (split conformal prediction; Vovk et al., 2005).

The score of an image is its true class's probability (LAC; Sadinle et al., 2019).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from deeptrain.metrics.probabilities import class_probabilities


def true_class_probabilities(logits: Tensor, labels: Tensor, loss: str) -> list[float]:
    """Return the probability of each image's true class, sorted."""
    probabilities = class_probabilities(logits, loss)
    return probabilities[torch.arange(len(labels)), labels].sort().values.tolist()


def threshold(true_probabilities: Sequence[float], coverage: float) -> float:
    """Return the probability that puts a class into the set, from the sorted ones of held-out images.

    Of new images like these, a fraction `coverage` or more has its true class in the set. ValueError if they are too
    few to promise that.
    """
    count = len(true_probabilities)
    rank = math.ceil((count + 1) * coverage)
    if rank > count:
        fewest, most = math.ceil(coverage / (1 - coverage)), math.floor(1000 * count / (count + 1)) / 1000
        raise ValueError(f"coverage={coverage}: needs {fewest:,} images of val, there are {count:,}; take {most:g}")
    return true_probabilities[count - rank]

"""Are some labels wrong? A network is seldom wrong where it is surest, unless the labels there are.

In a hard task the images that a network is surest of are far easier than the others. Wrong labels spoil all alike
(Northcutt et al., 2021, estimate them from confident disagreement in the same way).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from deeptrain.analysis.curves import share_error
from deeptrain.analysis.verdicts import Verdict
from deeptrain.report.formatting import percent

SUREST = 0.25  # part of val: the images with the largest margins
FEWEST = 50  # of these images: fewer tell nothing
MIN_WRONG = 0.1  # of them, beyond two standard errors
ALIKE = 0.7  # of the share of all images that are wrong: in a hard task it is half of it or less
SPREAD = 0.5  # of the classes: classes that are mixed up with one another have few labels
MIN_CLASSES = 4


@dataclass(frozen=True)
class Surest:
    """Images of val whose highest logit is furthest above the second: how many, and which share has another label.

    all_wrong: the share of val that has. spread: how many classes these labels have (perplexity), as a part of all.
    """

    images: int
    wrong: float
    all_wrong: float
    spread: float


def measure_surest(logits: Tensor, labels: Tensor) -> Surest:
    """Look at logits (N, K) and labels (N,) of images that were not trained on."""
    best, second = logits.float().topk(2).values.unbind(1)
    wrong = logits.argmax(1) != labels
    count = max(1, round(SUREST * len(labels)))
    surest = (best - second).argsort(descending=True, stable=True)[:count]
    counts = torch.bincount(labels[surest][wrong[surest]], minlength=logits.shape[1]).double()
    shares = counts[counts > 0] / counts.sum()
    spread = math.exp(-float((shares * shares.log()).sum())) / logits.shape[1] if len(shares) else 0.0
    return Surest(count, float(wrong[surest].double().mean()), float(wrong.double().mean()), spread)


def read_labels(surest: Surest, classes: int, chance: float, val_images: int) -> Verdict | None:
    """Say that labels are wrong, where val is learned and only they explain the mistakes."""
    is_learned = 1 - surest.all_wrong > chance + 5 * share_error(chance, val_images)
    if not is_learned or classes < MIN_CLASSES or surest.images < FEWEST or surest.spread < SPREAD:
        return None
    beyond = surest.wrong - 2 * share_error(surest.wrong, surest.images)
    if beyond < MIN_WRONG or surest.wrong < ALIKE * surest.all_wrong:
        return None
    evidence = f"of the {surest.images} images of val that it is surest of, {percent(surest.wrong)} have another label"
    evidence += f", of all {percent(surest.all_wrong)}; in a hard task it is mostly right there. Look at the labels"
    return Verdict("labels_are_wrong", "fault", "likely", evidence)

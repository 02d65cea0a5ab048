"""Are some labels wrong? Where a network errs, the label is often its second choice. A wrong label is any class.

Wrong labels spoil all images alike. So the network errs even where it is surest, as in the estimate of wrong labels of
Northcutt et al. (2021).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from deeptrain.analysis.curves import share_error
from deeptrain.analysis.verdicts import Verdict
from deeptrain.report.formatting import percent

SUREST = 0.25  # part of val: the images with the largest margins
FEWEST = 20  # of these images that have another label: fewer tell nothing
MIN_WRONG = 0.1  # of them, beyond two standard errors
ALIKE = 0.7  # of the share of all images that have another label
ANY_CLASS = 0.4  # rank of these labels among the other classes: 0.5 if drawn at random; 0.24 to 0.3 in hard tasks
MIN_CLASSES = 5


@dataclass(frozen=True)
class Surest:
    """Images of val whose highest logit is furthest above the second: how many, and which share has another label.

    all_wrong: the share of val that has. rank: the mean place of these labels among the classes not answered: 0 is the
    second choice, 1 the last.
    """

    images: int
    wrong: float
    all_wrong: float
    rank: float


def measure_surest(logits: Tensor, labels: Tensor) -> Surest:
    """Look at logits (N, K) and labels (N,) of images that were not trained on."""
    best, second = logits.float().topk(2).values.unbind(1)
    count = max(1, round(SUREST * len(labels)))
    surest = (best - second).argsort(descending=True, stable=True)[:count]
    wrong = logits.argmax(1) != labels
    chosen, own = logits[surest], labels[surest]
    is_wrong = wrong[surest]
    above = (chosen > chosen.gather(1, own[:, None])).sum(1) - 1
    rank = above[is_wrong].double().mean() / max(1, logits.shape[1] - 2) if is_wrong.any() else torch.zeros(())
    return Surest(count, float(is_wrong.double().mean()), float(wrong.double().mean()), float(rank))


def read_labels(surest: Surest, classes: int, chance: float, val_images: int) -> Verdict | None:
    """Say that labels are wrong, where val is learned and only they explain the mistakes."""
    is_learned = 1 - surest.all_wrong > chance + 5 * share_error(chance, val_images)
    if not is_learned or classes < MIN_CLASSES or surest.wrong * surest.images < FEWEST:
        return None
    beyond = surest.wrong - 2 * share_error(surest.wrong, surest.images)
    if beyond < MIN_WRONG or surest.wrong < ALIKE * surest.all_wrong or surest.rank < ANY_CLASS:
        return None
    evidence = f"of the {surest.images} images of val that it is surest of, {percent(surest.wrong)} have another label"
    evidence += f", of all {percent(surest.all_wrong)}; these labels are any class, and seldom its next choice"
    return Verdict("labels_are_wrong", "fault", "likely", evidence)

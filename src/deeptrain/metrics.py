"""Metrics: running means that make nobody wait until they are read, the confusion matrix and what follows from it."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

TOP = 5
LEFT_OUT = "left_out"  # images
TOTALS: tuple[str, ...] = ("loss", "accuracy", "top5", "images", LEFT_OUT)
HELD = 2**22  # logits kept before they are reduced on their device: 16 MiB of float32


class RunningMetrics:
    """Running loss, accuracy and top-5 accuracy over batches, each weighted by its number of images.

    `add` keeps references, about a microsecond a batch; many batches are then reduced by one call each on the device,
    and one read brings the results to the host. So what is added must not be overwritten before `read`.

    With `skip_nonfinite` a batch whose loss is inf or NaN is left out: in fp16 its step is not taken either.
    """

    def __init__(self, skip_nonfinite: bool = False):
        self.skip_nonfinite = skip_nonfinite
        self._held: list[tuple[Tensor, Tensor, Tensor]] = []  # batches as they came
        self._numbers = 0  # logits among them
        self._reduced: list[tuple[Tensor, list[int]]] = []  # losses, top-1 and top-5 counts on the device; batch sizes
        self._totals: dict[str, float] = dict.fromkeys(TOTALS, 0.0)  # on the host

    @property
    def images(self) -> int:
        """How many images have been added since the last `read`; known without waiting for the device."""
        waiting = sum(len(logits) for _, logits, _ in self._held) + sum(sum(sizes) for _, sizes in self._reduced)
        return waiting + int(self._totals["images"] + self._totals[LEFT_OUT])

    def add(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Take one batch: its mean loss (scalar), logits (N, K) and targets, ids (N,) or probabilities (N, K)."""
        self._held.append((loss.detach(), logits.detach(), targets))
        self._numbers += logits.numel()
        if self._numbers > HELD:
            self._reduce()

    def read(self) -> dict[str, float]:
        """Return `loss`, `accuracy` and `top5` over all batches since the last read.

        {} when there were none, NaN when every one of them has been left out.
        """
        totals, self._totals = self.state_dict(), dict.fromkeys(TOTALS, 0.0)
        images, left_out = totals.pop("images"), totals.pop(LEFT_OUT)
        if not images:
            return dict.fromkeys(totals, math.nan) if left_out else {}
        return {name: total / images for name, total in totals.items()}

    def state_dict(self) -> dict[str, float]:
        """Return the sums over all images since the last read: whoever loads them reads on as if nothing had been."""
        self._reduce()
        if self._reduced:
            totals = self._totals
            host = iter(torch.cat([vector for vector, _ in self._reduced]).tolist())  # the one wait for the device
            for _, sizes in self._reduced:
                for size in sizes:
                    loss = next(host)
                    if self.skip_nonfinite and not math.isfinite(loss):
                        totals[LEFT_OUT] += size
                    else:
                        totals["loss"] += loss * size
                        totals["images"] += size
                totals["accuracy"] += next(host)
                totals["top5"] += next(host)
            self._reduced = []
        return dict(self._totals)

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from such sums, without what has been added since; those of older runs have left out nothing."""
        self._totals = {name: float(({LEFT_OUT: 0.0} | state)[name]) for name in TOTALS}
        self._held, self._numbers, self._reduced = [], 0, []

    def _reduce(self) -> None:
        """Replace the held batches by one vector on their device: every loss, then both counts; nothing waits."""
        if not self._held:
            return
        losses, logits, targets = zip(*self._held, strict=True)
        alike = len({target.ndim for target in targets}) == 1
        labels = class_ids(torch.cat(targets)) if alike else torch.cat([class_ids(target) for target in targets])
        place = label_rank(torch.cat(logits), labels)
        sizes, means = [batch.shape[0] for batch in logits], torch.stack(losses)
        right = torch.stack([place < rank for rank in (1, TOP)])
        if self.skip_nonfinite:
            right &= torch.cat([one.expand(size) for one, size in zip(means.isfinite(), sizes, strict=True)])
        self._reduced.append((torch.cat([means, right.sum(1, dtype=torch.float32)]), sizes))
        self._held, self._numbers = [], 0


def class_ids(targets: Tensor) -> Tensor:
    """Return class ids (N,) as they are, and of probabilities (N, K) the likeliest class."""
    return targets if targets.ndim == 1 else targets.argmax(1)


def label_rank(logits: Tensor, labels: Tensor) -> Tensor:
    """Count the classes that the logits (N, K) put before each label, float32 (N,): 0 is right, below 5 top-5's.

    Equal logits rank by index, as in argmax; a label whose logit is inf or NaN is never right. Ten times cheaper than
    topk, and half as dear as comparisons that write booleans: these write floats, in place.
    """
    classes = logits.shape[1]
    lead = logits.float() - logits.gather(1, labels[:, None])
    steps = torch.zeros(2 * classes, device=logits.device)
    steps[classes:] = torch.finfo(steps.dtype).smallest_normal  # above a lead of 0, below one to speak of
    most = steps.unfold(0, classes, 1).index_select(0, classes - labels)  # rows that step up at their label
    return classes - lead.lt_(most) @ torch.ones(classes, device=logits.device)


def confusion_matrix(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count (label, prediction) pairs of class ids (N,): (K, K) int64, a row a true class; batches add up."""
    return torch.bincount(labels * num_classes + predicted, minlength=num_classes**2).view(num_classes, num_classes)


@dataclass(frozen=True)
class ClassScore:
    """How one class fared: fractions in [0, 1], 0 where there is nothing to divide by; `images` of it there were."""

    precision: float
    recall: float
    f1: float
    images: int


def per_class(confusion: Tensor) -> list[ClassScore]:
    """Return the scores of every class: precision = TP / predicted, recall = TP / true, F1 their harmonic mean."""
    hits = confusion.diagonal().tolist()
    predicted, true = confusion.sum(0).tolist(), confusion.sum(1).tolist()
    return [
        ClassScore(hit / max(said, 1), hit / max(were, 1), 2 * hit / max(said + were, 1), were)
        for hit, said, were in zip(hits, predicted, true, strict=True)
    ]

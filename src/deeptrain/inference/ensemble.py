"""Several runs as one network: the mean of their probabilities, which members to take, what that gains and costs."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from deeptrain.errors import UsageError
from deeptrain.inference.evaluate import Answers
from deeptrain.inference.paired import check_same_images
from deeptrain.metrics.calibration import calibration_error, equal_width_bins
from deeptrain.metrics.probabilities import class_probabilities, fit_temperature, nll, ranked_first
from deeptrain.metrics.resampling import Estimate, estimate, mcnemar, mean_of
from deeptrain.report import formatting
from deeptrain.run.calibration import WITHOUT_PROBABILITIES

SMALLEST = 1e-12  # a probability, so that the logarithm of none is infinite


@dataclass(eq=False)
class Member:
    """What one run says of the images of a split: probabilities float64 (N, K), in the order of the first's classes."""

    name: str
    shares: Tensor
    seconds: float = 0.0
    temperature: float = 1.0  # that a loss without probabilities needs

    def mean_with(self, others: "Sequence[Member]") -> Tensor:
        """Return the mean of the probabilities of this and other members."""
        total = self.shares.clone()
        for other in others:
            total += other.shares
        return total / (1 + len(others))


@dataclass
class Numbers:
    """How good probabilities are on a split."""

    accuracy: float
    nll: float
    ece: float


Ask = Callable[[str], Answers]  # a run's answers to a split


def open_members(names: Sequence[str], ask: Ask, temperatures: dict[str, float] | None = None) -> list[Member]:
    """Ask each run, one network in memory at a time; UsageError if they were not asked about the same images.

    temperatures: of losses without probabilities, as fitted on val. None: these are the answers to val.
    """
    members: list[Member] = []
    first: Answers | None = None
    for name in names:
        start = time.perf_counter()
        answers = ask(name)
        seconds = time.perf_counter() - start
        first = first or answers
        check_same_images(names[0], first, name, answers)
        order = [answers.dataset.classes.index(known) for known in first.dataset.classes]
        loss = answers.opened.network.loss
        temperature = _temperature(name, answers, loss) if temperatures is None else temperatures[name]
        shares = class_probabilities(answers.logits, loss, temperature)
        if not shares.isfinite().all():
            raise UsageError([f"{name}: some of its answers are not finite; leave it out"])
        shares = shares / shares.sum(1, keepdim=True)  # of loss=bce they do not add up to 1
        members.append(Member(name, shares[:, order], seconds, temperature))
    return members


def _temperature(name: str, answers: Answers, loss: str) -> float:
    """Return 1, or for a loss without probabilities the temperature that gives it some on val."""
    if loss not in WITHOUT_PROBABILITIES:
        return 1.0
    try:
        return fit_temperature(answers.logits, answers.labels, loss)
    except ValueError as error:
        raise UsageError([f"{name}: its loss, {loss}, gives no probabilities to average ({error})"]) from error


def mean(members: Sequence[Member]) -> Tensor:
    """Return the averaged probabilities (N, K)."""
    return members[0].mean_with(members[1:])


def choose(members: Sequence[Member], labels: Tensor) -> list[Member]:
    """Choose members on val: the best one, then whichever lowers the NLL of the mean most, until none does.

    This is forward selection (Caruana et al., 2004), without taking a member twice.
    """
    chosen: list[Member] = []
    best = math.inf
    while len(chosen) < len(members):
        rest = [member for member in members if member not in chosen]
        losses = [_nll(member.mean_with(chosen), labels) for member in rest]
        if min(losses) >= best:
            break
        best = min(losses)
        chosen.append(rest[losses.index(best)])
    return chosen


def logits(shares: Tensor) -> Tensor:
    """Return logits whose softmax are these probabilities."""
    return shares.clamp(min=SMALLEST).log()


def temperature(shares: Tensor, labels: Tensor) -> float | None:
    """Fit the temperature of averaged probabilities on val; None if the images do not decide on one."""
    try:
        return fit_temperature(logits(shares), labels, "CrossEntropy")
    except ValueError:
        return None


def at_temperature(shares: Tensor, value: float | None) -> Tensor:
    """Return probabilities at a temperature."""
    return shares if value is None else class_probabilities(logits(shares), "CrossEntropy", value)


def measure(shares: Tensor, labels: Tensor) -> Numbers:
    """Measure probabilities (N, K) against class ids (N,)."""
    predicted, confidence = ranked_first(shares, shares)
    right = (predicted == labels).double().numpy()
    error = calibration_error(confidence.numpy(), right, equal_width_bins(confidence.numpy()))
    return Numbers(float(right.mean()), _nll(shares, labels), float(error(np.ones((1, len(right))))[0]))


def _nll(shares: Tensor, labels: Tensor) -> float:
    return float(nll(logits(shares), labels, "CrossEntropy").mean())


def disagreement(members: Sequence[Member]) -> Tensor:
    """Return the share of images on which each two members name different classes, (M, M)."""
    predicted = torch.stack([member.shares.argmax(1) for member in members])
    return (predicted[:, None] != predicted[None]).double().mean(2)


def gain(shares: Tensor, member: Member, labels: Tensor) -> tuple[Estimate, float]:
    """Return by how much more images the ensemble has right than a member, with its interval, and McNemar's p."""
    one, other = ((found.argmax(1) == labels).numpy() for found in (member.shares, shares))
    found = estimate({"gain": mean_of(other.astype(float) - one)}, len(one))["gain"]
    return found, mcnemar(one, other)[2]


# --- what is shown ---


def lines(
    split: str, members: Sequence[Member], chosen: Sequence[Member], labels: Tensor, value: float | None
) -> list[str]:
    """Compose a row for each member and for the ensemble, the paired gain, and who disagrees with whom."""
    percent, points = formatting.percent, formatting.format_points
    shares = mean(chosen)
    numbers = [measure(member.shares, labels) for member in members]
    width = max(len("ensemble, calibrated"), *(len(member.name) for member in members)) + 3
    rows = [f"{split}, {len(labels):,} images", "", f"{'':<{width}}  accuracy     NLL     ECE  networks  seconds"]
    for number, (member, found) in enumerate(zip(members, numbers, strict=True), 1):
        name = f"{number}{'+' if member in chosen else ' '} {member.name}"
        rows.append(_row(name, width, found, 1, member.seconds))
    spent = sum(member.seconds for member in chosen)
    rows.append(_row("ensemble", width, measure(shares, labels), len(chosen), spent))
    if value is not None:
        rows.append(
            _row("ensemble, calibrated", width, measure(at_temperature(shares, value), labels), len(chosen), spent)
        )
        rows.append(f"temperature {value:.3g} of the averaged probabilities, fitted on val")
    accuracies = [found.accuracy for member, found in zip(members, numbers, strict=True) if member in chosen]
    best = chosen[int(np.argmax(accuracies))]
    found, chance = gain(shares, best, labels)
    over_mean = float((shares.argmax(1) == labels).double().mean()) - float(np.mean(accuracies))
    rows += [
        "",
        f"{points(found.value)} points over the best member, {best.name} (95 % interval {points(found.low)} to "
        f"{points(found.high)}; McNemar's p = {chance:.2g})",
        f"{points(over_mean)} points over the members' mean",
    ]
    return [*rows, "", *_matrix(disagreement(members), percent)]


def _row(name: str, width: int, found: Numbers, networks: int, seconds: float) -> str:
    numbers = f"{formatting.percent(found.accuracy):>8}  {formatting.format_loss(found.nll):>6}"
    return f"{name:<{width}}  {numbers}  {formatting.percent(found.ece):>6}  {networks:>8}  {seconds:>7.1f}"


def _matrix(differ: Tensor, percent: Callable[[float], str]) -> list[str]:
    """Write who disagrees with whom, by the numbers of the rows above."""
    count = len(differ)
    rows = ["images on which two members differ", "    " + "".join(f"{number:>8}" for number in range(1, count + 1))]
    for row in range(count):
        cells = (percent(float(differ[row, column])) if row != column else "" for column in range(count))
        rows.append(f"{row + 1:>4}" + "".join(f"{cell:>8}" for cell in cells).rstrip())
    return rows

"""Runs on the same images: the difference to the first one with its interval, and whether chance explains it."""

from collections.abc import Sequence

import numpy as np

from deeptrain.errors import UsageError
from deeptrain.inference.evaluate import Answers, interval
from deeptrain.metrics.probabilities import nll
from deeptrain.metrics.resampling import Estimate, estimate, mcnemar, mean_of
from deeptrain.report import formatting
from deeptrain.run.calibration import WITHOUT_PROBABILITIES

SURE = 0.05


def compare(runs: Sequence[tuple[str, Answers]]) -> list[str]:
    """Compose the comparison of named answers with the first ones; UsageError if they are not to the same images."""
    (first, base), *others = runs
    for name, answers in others:
        check_same_images(first, base, name, answers)
    right = right_answers(base)
    rows = [f"{base.opened.split}, {len(right):,} images, each compared with the first run", ""]
    rows += [f"{first}  accuracy {_with_interval(right)}"]
    for name, answers in others:
        rows += ["", f"{name}  accuracy {_with_interval(right_answers(answers))}", *_differences(base, answers)]
    return rows


def right_answers(answers: Answers) -> np.ndarray:
    """Return which images a run has right, (N,) bool."""
    return (answers.logits.argmax(1) == answers.labels).numpy()


def check_same_images(first: str, base: Answers, name: str, answers: Answers) -> None:
    """Raise UsageError if two runs have not answered to the same images with the same classes, matched by name."""
    if set(base.dataset.classes) != set(answers.dataset.classes):
        raise UsageError([f"{name}: has learned other classes than {first}; compare runs of the same classes"])
    names, others = ([one.dataset.classes[label] for label in one.labels.tolist()] for one in (base, answers))
    if names != others or base.opened.names != answers.opened.names:
        remedy = "hold out the same images with data.val_fraction and data.split_seed"
        raise UsageError([f"{name}: its {base.opened.split} has other images than that of {first}; {remedy}"])


def _with_interval(right: np.ndarray) -> str:
    low, high = interval(float(right.mean()), len(right))
    percent = formatting.percent
    return f"{percent(right.mean())} (95 % interval {percent(low)} to {percent(high)})"


def _differences(base: Answers, answers: Answers) -> list[str]:
    """Return a line on accuracy, and one on NLL where both losses give probabilities of the same kind."""
    one, other = right_answers(base), right_answers(answers)
    statistics = {"accuracy": mean_of(other.astype(float) - one)}
    losses = [answers.opened.network.loss for answers in (base, answers)]
    comparable = losses[0] == losses[1] and losses[0] not in WITHOUT_PROBABILITIES
    if comparable:
        values = [nll(found.logits, found.labels, losses[0]).numpy() for found in (base, answers)]
        statistics["nll"] = mean_of(values[1] - values[0])
    found = estimate(statistics, len(one))
    only_first, only_other, chance = mcnemar(one, other)
    doubt = "" if chance < SURE else ", so chance alone could explain the difference"
    lines = [
        f"  accuracy {_points(found['accuracy'])} points; right in {only_other:,} images where the first is not, "
        f"wrong in {only_first:,}",
        f"  McNemar's exact test: p = {chance:.2g}{doubt}",
    ]
    if comparable:
        gap = found["nll"]
        lines.append(f"  NLL {gap.value:+.4f} (95 % interval {gap.low:+.4f} to {gap.high:+.4f}; less is better)")
    return lines


def _points(gap: Estimate) -> str:
    points = formatting.format_points
    return f"{points(gap.value)} (95 % interval {points(gap.low)} to {points(gap.high)})"

"""What a search has shown of its ranges: an edge to move, a smaller range, a setting that did not matter."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from deeptrain.config.axes import Axis, Choice, Interval
from deeptrain.runtime.random import generator
from deeptrain.search.space import Space
from deeptrain.search.trials import Objective, Told, Trial, as_told

MIN_TRIALS = 20  # with a value: below it nothing is said
BEST = 0.2  # of the trials
EDGE = 0.15  # of a range: the best fifth of evenly spread trials at its end has its median at 0.1
WIDER = 10.0  # times, of a log range
SHUFFLES = 199  # of the values of a setting among the trials
LEVEL = 0.05


def edges(
    space: Space, best: Sequence[Trial], is_allowed: Callable[[str, float], bool]
) -> dict[str, tuple[str, Interval]]:
    """Return the settings whose best trials lie at an edge: "lower" or "upper", and the wider range to type.

    best: the best trials. A range that can be no wider is left out.
    """
    found = {}
    for key, axis in _intervals(space):
        positions = _positions(key, axis, best)
        middle = float(np.median(positions)) if positions else 0.5
        if EDGE < middle < 1 - EDGE:
            continue
        is_lower = middle <= EDGE
        wider = _wider(axis, is_lower)
        if is_allowed(key, wider.low if is_lower else wider.high):
            found[key] = ("lower" if is_lower else "upper", wider)
    return found


def refined(space: Space, best: Sequence[Trial], at_edge: Sequence[str] = ()) -> dict[str, Interval]:
    """Return smaller ranges around the best trials: their 10 to 90 %, wider by half. A range at an edge stays out."""
    found = {}
    for key, axis in _intervals(space):
        positions = _positions(key, axis, best)
        if key in at_edge or len(positions) < 2:
            continue
        low, high = np.quantile(positions, (0.1, 0.9))
        margin = (high - low) / 4
        ends = [float(min(max(end, 0.0), 1.0)) for end in (low - margin, high + margin)]
        low, high = (float(f"{_number(axis, end):.2g}") for end in ends)
        low, high = max(low, axis.low), min(high, axis.high)
        if low < high and not axis.whole:
            found[key] = Interval(low, high, axis.log)
    return found


def best_trials(trials: Sequence[Trial], objective: Objective) -> list[Trial]:
    """Return the best fifth of the trials; [] if there are too few for a finding."""
    over = [trial for trial in trials if trial.status in ("finished", "stopped_early", "pruned")]
    finished = objective.best_first(trials)
    return finished[: math.ceil(BEST * len(over))] if len(over) >= MIN_TRIALS else []


def did_not_matter(space: Space, trials: Sequence[Trial], objective: Objective, seed: int) -> list[str]:
    """Return the settings on which the values of the trials show no dependence.

    A permutation test of the distance covariance (Székely et al., 2007) with the ranks of the values. It also sees a
    best in the middle of a range, and choices. Of 20 settings without any effect, about 19 are named.
    """
    told = [each for each in as_told(space, trials, objective) if each.value is not None]
    return [key for key in space.axes if _is_idle(key, space, [each for each in told if key in each.parameters], seed)]


def _is_idle(key: str, space: Space, told: Sequence[Told], seed: int) -> bool:
    if len(told) < MIN_TRIALS:
        return False
    ranks = rankdata([each.value for each in told])
    settings = _centred(_distances(space.axes[key], [each.parameters[key] for each in told]))
    values = _centred(np.abs(ranks[:, None] - ranks))
    shuffles, random = np.zeros(SHUFFLES), generator(seed, key)
    for index in range(SHUFFLES):
        order = random.permutation(len(told))
        shuffles[index] = (settings[np.ix_(order, order)] * values).sum()
    return bool((shuffles >= (settings * values).sum()).sum() + 1 > LEVEL * (SHUFFLES + 1))


def _distances(axis: Axis, found: Sequence[Any]) -> np.ndarray:
    """Return how far apart the values of a setting lie in each pair of trials; choices are equal or not."""
    if isinstance(axis, Choice):
        return np.array([[float(one != other) for other in found] for one in found])
    positions = np.array([_scaled(axis, float(value)) for value in found])
    return np.abs(positions[:, None] - positions)


def _centred(distances: np.ndarray) -> np.ndarray:
    return distances - distances.mean(0) - distances.mean(1)[:, None] + distances.mean()


def _intervals(space: Space) -> list[tuple[str, Interval]]:
    return [(key, axis) for key, axis in space.axes.items() if isinstance(axis, Interval)]


def _positions(key: str, axis: Interval, trials: Sequence[Trial]) -> list[float]:
    """Return where in a range the trials lie, 0 to 1; those outside it, or without the setting, are left out."""
    values = [float(trial.values[key]) for trial in trials if _is_number(trial.values.get(key))]
    low, high = _scaled(axis, axis.low), _scaled(axis, axis.high)
    return [(_scaled(axis, value) - low) / (high - low) for value in values if axis.low <= value <= axis.high]


def _scaled(axis: Interval, value: float) -> float:
    return math.log(value) if axis.log else value


def _number(axis: Interval, position: float) -> float:
    low, high = _scaled(axis, axis.low), _scaled(axis, axis.high)
    value = low + position * (high - low)
    return math.exp(value) if axis.log else value


def _wider(axis: Interval, is_lower: bool) -> Interval:
    width = axis.high - axis.low
    low = axis.low / WIDER if axis.log else axis.low - width
    high = axis.high * WIDER if axis.log else axis.high + width
    if axis.whole:
        low, high = math.floor(low), math.ceil(high)
    return Interval(low if is_lower else axis.low, axis.high if is_lower else high, axis.log, axis.whole)


def _is_number(text: str | None) -> bool:
    try:
        return text is not None and math.isfinite(float(text))
    except ValueError:
        return False

"""What a search has shown of its ranges: an edge to move, a smaller range, a setting that did not matter."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deeptrain.config.axes import Interval
from deeptrain.runtime.random import generator
from deeptrain.search import sampler
from deeptrain.search.space import Space
from deeptrain.search.trials import Objective, Told, Trial, as_told

MIN_TRIALS = 20  # with a value: below it nothing is said
BEST = 0.2  # of the trials
EDGE = 0.15  # of a range: the best fifth of evenly spread trials at its end has its median at 0.1
WIDER = 10.0  # times, of a log range
CONTROLS = 20  # times that the values of each setting are shuffled


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
    """Return the settings that matter no more than their own values do when they are shuffled among the trials.

    The importance is that of PED-ANOVA (Watanabe et al., 2023): how much the best trials differ from all in a setting.
    A permutation test: of 21 settings without any effect, at most about one is not named.
    """
    told = [each for each in as_told(space, trials, objective) if each.value is not None]
    if len(told) < MIN_TRIALS:
        return []
    importance = importances(space, told, objective.higher_is_better, seed)
    keys = [key for key in space.axes if key in importance]
    return [
        key for key in keys if importance[key] <= max(importance[_control(key, index)] for index in range(CONTROLS))
    ]


def importances(space: Space, told: Sequence[Told], higher_is_better: bool, seed: int) -> dict[str, float]:
    """Return the importance of each setting that all trials have, and of its shuffled values."""
    optuna = sampler.load()
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import create_trial

    study = optuna.create_study(direction="maximize" if higher_is_better else "minimize")
    keys = [key for key in space.axes if all(key in each.parameters for each in told)]
    names = {_control(key, index): key for key in keys for index in range(CONTROLS)}
    kinds: Any = sampler.distributions(space, keys)
    kinds |= {name: kinds[key] for name, key in names.items()}
    orders = {name: generator(seed, name).permutation(len(told)) for name in names}
    for number, each in enumerate(told):
        shuffled = {name: told[orders[name][number]].parameters[key] for name, key in names.items()}
        own = {key: each.parameters[key] for key in keys}
        study.add_trial(create_trial(value=each.value, params=own | shuffled, distributions=kinds))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST)
        return get_param_importances(study, evaluator=evaluator, normalize=False)


def _control(key: str, index: int) -> str:
    return f"{key}, shuffled {index}"


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

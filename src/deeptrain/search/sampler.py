"""Optuna's samplers on a study made anew from the trials for every draw: seed, trial and history alone decide."""

import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from deeptrain.config.axes import Choice, Interval
from deeptrain.runtime.random import fold_in
from deeptrain.search.space import Space, Values, written
from deeptrain.search.trials import Told

if TYPE_CHECKING:
    import optuna

Kind = Literal["auto", "gp", "tpe", "random"]
MOST_CHOICES = 5  # of a list, for a Gaussian process
MOST_TRIALS = 150


def kind_for(space: Space, trials: int) -> Literal["gp", "tpe"]:
    """Return what sampler=auto takes: a Gaussian process, or TPE for what it is bad at or too slow for."""
    long = any(isinstance(axis, Choice) and len(axis.values) > MOST_CHOICES for axis in space.axes.values())
    return "tpe" if long or space.is_conditional or trials > MOST_TRIALS else "gp"


def draw(
    space: Space, told: Sequence[Told], higher_is_better: bool, kind: str, seed: int, number: int, attempt: int = 0
) -> Values:
    """Draw the values of trial `number`. Equal arguments give equal values, in any process."""
    optuna = load()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sampler = _sampler(kind, fold_in(seed, "search", number, attempt), space)
        study = optuna.create_study(direction="maximize" if higher_is_better else "minimize", sampler=sampler)
        study.add_trials([_trial(space, each) for each in told])
        trial, values = study.ask(), Values()
        for key, axis in space.axes.items():
            if space.exists(key, values):
                values[key] = _suggest(trial, key, axis)
    return values


def draw_alone(*arguments: Any) -> Values:
    """Draw in a process of its own, with one thread: the bits of a sum depend on their number."""
    import torch

    torch.set_num_threads(1)
    return draw(*arguments)


def distributions(space: Space, keys: Sequence[str]) -> dict[str, "optuna.distributions.BaseDistribution"]:
    """Return Optuna's words for the axes."""
    return {key: _distribution(space.axes[key]) for key in keys}


def load() -> Any:
    """Import Optuna, quietly."""
    os.environ.setdefault("OPTUNA_DISABLE_DEFAULT_HANDLER", "1")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _sampler(kind: str, seed: int, space: Space) -> "optuna.samplers.BaseSampler":
    from optuna import samplers

    seed %= 2**32
    if kind == "random":
        return samplers.RandomSampler(seed=seed)
    if kind == "gp":
        return samplers.GPSampler(seed=seed, warn_independent_sampling=False)
    return samplers.TPESampler(seed=seed, multivariate=True, group=space.is_conditional, constant_liar=True)


def _trial(space: Space, told: Told) -> "optuna.trial.FrozenTrial":
    from optuna.trial import TrialState, create_trial

    return create_trial(
        state=TrialState.RUNNING if told.value is None else TrialState.COMPLETE,
        value=told.value,
        params=told.parameters,
        distributions=distributions(space, list(told.parameters)),
    )


def _distribution(axis: Interval | Choice) -> Any:
    from optuna import distributions as kinds

    if isinstance(axis, Choice):
        return kinds.CategoricalDistribution(axis.values)
    if axis.whole:
        return kinds.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return kinds.FloatDistribution(float(axis.low), float(axis.high), log=axis.log)


def _suggest(trial: "optuna.Trial", key: str, axis: Interval | Choice) -> str:
    if isinstance(axis, Choice):
        return str(trial.suggest_categorical(key, axis.values))
    if axis.whole:
        return str(trial.suggest_int(key, int(axis.low), int(axis.high), log=axis.log))
    return written(trial.suggest_float(key, float(axis.low), float(axis.high), log=axis.log), axis)

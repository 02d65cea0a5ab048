"""Learning-rate schedules: each factory returns a pure function of progress t/T in [0, 1], the factor on every rate."""

import math
from collections.abc import Callable
from typing import Annotated

from deeptrain.schema import EpochsOrFraction, NonNegativeInt, PositiveInt, Range, UnitFloat, validate_call

LRMultiplier = Callable[[float], float]
Inside = Annotated[float, Range(above=0, below=1)]

THIRDS: list[int | float] = [1 / 3, 2 / 3, 1.0]  # 30, 60 and 90 of 90 epochs
ROUNDING = 1e-6  # so that 0.333333 in a YAML is a third of the run, not a step after it
FIRST = 0.01  # a warm-up rises from 1 % of the rate


@validate_call
def constant(epochs: int, *, warmup: EpochsOrFraction = 0) -> LRMultiplier:
    """Keep the rate."""
    return with_warmup(lambda progress: 1.0, warmup, epochs)


@validate_call
def step(
    epochs: int,
    *,
    milestones: list[NonNegativeInt | UnitFloat] = THIRDS,
    gamma: UnitFloat = 0.1,
    warmup: EpochsOrFraction = 0,
) -> LRMultiplier:
    """Multiply the rate by gamma at every milestone (whole number: epoch; with a decimal point: fraction of the run).

    Raises ValueError for a milestone beyond the end, which would silently do nothing, and if they do not ascend.
    """
    if beyond := [milestone for milestone in milestones if as_fraction(milestone, epochs) > 1]:
        raise ValueError(f"milestones={list(milestones)}: {beyond[0]} lies beyond the run (epochs={epochs})")
    shares = [as_fraction(milestone, epochs) for milestone in milestones]
    if unordered := [milestones[i] for i in range(1, len(shares)) if shares[i] <= shares[i - 1]]:
        raise ValueError(f"milestones={list(milestones)}: must ascend; {unordered[0]} is not after the one before it")
    drops = [share - ROUNDING for share in shares]
    return with_warmup(lambda progress: gamma ** sum(progress >= drop for drop in drops), warmup, epochs)


@validate_call
def cosine(epochs: int, *, floor: UnitFloat = 0.0, warmup: EpochsOrFraction = 0) -> LRMultiplier:
    """Fall along half a cosine, ½ (1 + cos πt/T), to `floor` times the rate (Loshchilov & Hutter, 2017)."""
    return with_warmup(lambda progress: rescale(floor, (1 + math.cos(math.pi * progress)) / 2), warmup, epochs)


@validate_call
def cyclic(epochs: int, *, cycles: PositiveInt = 5, floor: UnitFloat = 0.0) -> LRMultiplier:
    """Fall along half a cosine in each of `cycles` equal parts, from the full rate again (Huang et al., 2017)."""

    def factor(progress: float) -> float:
        position = 1.0 if progress >= 1 else (progress * cycles + ROUNDING) % 1
        return rescale(floor, (1 + math.cos(math.pi * position)) / 2)

    return factor


@validate_call
def linear(epochs: int, *, floor: UnitFloat = 0.0, warmup: EpochsOrFraction = 0) -> LRMultiplier:
    """Fall in a straight line, 1 - t/T, to `floor` times the rate."""
    return with_warmup(lambda progress: rescale(floor, 1 - progress), warmup, epochs)


@validate_call
def inverse_sqrt(epochs: int, *, warmup: EpochsOrFraction = 0) -> LRMultiplier:
    """Fall as 1/√t with t in epochs, from t = 1 on: the first epoch runs at the full rate."""
    return with_warmup(lambda progress: 1 / math.sqrt(max(1.0, progress * epochs)), warmup, epochs)


@validate_call
def one_cycle(
    epochs: int, *, peak: Inside = 0.3, start: UnitFloat = 0.04, floor: UnitFloat = 0.0, warmup: EpochsOrFraction = 0
) -> LRMultiplier:
    """Rise in a line from `start` to the full rate at `peak`, then fall to `floor` (Smith, 2018)."""

    def factor(progress: float) -> float:
        if progress < peak:
            return rescale(start, progress / peak)
        return rescale(floor, (1 - progress) / (1 - peak))

    return with_warmup(factor, warmup, epochs)


def with_warmup(base: LRMultiplier, warmup: int | float, epochs: int) -> LRMultiplier:
    """Multiply base by a line from 1 % to 1 over the warm-up, so that its formula holds unchanged afterwards."""
    length = as_fraction(warmup, epochs)
    if length >= 1:
        raise ValueError(f"warmup={warmup}: must be shorter than the run (epochs={epochs})")
    if length == 0:
        return base
    return lambda progress: base(progress) * min(1.0, rescale(FIRST, progress / length))


def as_fraction(span: int | float, epochs: int) -> float:
    """Return a span as a fraction of the run: a whole number counts epochs, any other is that fraction already."""
    return span / epochs if isinstance(span, int) else span


def rescale(floor: float, height: float) -> float:
    """Squeeze a curve between 0 and 1 into the room between floor and 1."""
    return floor + (1 - floor) * height

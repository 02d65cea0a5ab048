"""Finding a learning rate: a range test brackets it, and two races of short annealed runs decide.

Rules that read a range test alone may miss by any distance. Short runs at a constant rate prefer rates that are too
low (Wu et al., 2018). Annealed ones prefer rates that are up to a rung too high, so of equal ones the lower is taken.
Power laws through both lengths of a rate's runs say what the whole run may lose, as in learning curves (Hestness et
al., 2017). They decide only beyond their noise.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deeptrain.analysis.rate_rules import RULES
from deeptrain.analysis.short_runs import Rates, ShortRuns, preserved
from deeptrain.data.loader import Loader
from deeptrain.schedule import constant, cosine
from deeptrain.training.trainer import Trainer

FIRST, LAST, STEPS = 1e-7, 10.0, 100  # of the range test; while nothing diverges it goes on to HIGHEST
HIGHEST = 1e4
STOP = 4.0  # times the least smoothed loss: the test has diverged
FIRST_LOSSES = 20  # of the range test, at rates so low that nothing is learned
SMOOTHED = 4  # steps on each side of a smoothed loss
FALLEN = 0.8  # part of the way from the first loss to the least; noise may hide the steepest place, but not this
LEAST, SHARE, LONGER = 24, 0.05, 4  # steps of a run in the first race; part of the planned steps; second race
MARGIN = 3.0  # that the rate stays below the one that diverges
ERRORS = 2.0  # paired standard errors within which two rates are the same
FALL = 5.0  # standard errors by which the best run must be better than guessing


@dataclass
class Race:
    """Short runs of one length: the loss of each rate's weights on every block of images."""

    steps: int
    scores: dict[float, np.ndarray] = field(default_factory=dict)

    @property
    def means(self) -> dict[float, float]:
        return {rate: float(score.mean()) for rate, score in sorted(self.scores.items())}

    @property
    def best(self) -> float:
        return min(self.means, key=lambda rate: self.means[rate])

    def equals(self) -> list[float]:
        """Return the rates within ERRORS paired standard errors of the best one."""
        return [rate for rate, score in self.scores.items() if excess(score, self.scores[self.best]) <= ERRORS]


@dataclass
class RateSearch:
    """What a search has found, and all that it has seen.

    lr: None if no rate makes the network better than guessing. fallen, diverges: where the loss of the range test has
    fallen most of its way, and where it has diverged (None: nowhere). guesses, own: the blocks' losses of guessing, and
    of one's own rate in the last race.
    """

    lr: float | None
    rates: np.ndarray
    losses: np.ndarray
    fallen: float
    diverges: float | None
    races: list[Race]
    guesses: np.ndarray
    steps: int
    planned_steps: int
    own: np.ndarray | None = None

    @property
    def guess(self) -> float:
        return float(self.guesses.mean())

    @property
    def span(self) -> tuple[float, float]:
        """Return the lowest and the highest rate that the races cannot tell from the best."""
        longest = {rate: race for race in self.races for rate in race.scores}
        equal = [rate for rate, race in longest.items() if rate == self.lr or rate in race.equals()]
        return min(equal), max(equal)

    @property
    def is_unstable(self) -> bool:
        """Tell whether the rate is close to the one that diverges."""
        return self.lr is not None and self.diverges is not None and self.lr * MARGIN > self.diverges

    def other_rules(self) -> dict[str, float]:
        """Return the rates that the rules of other tools read off the same range test, where they have an answer."""
        ends = {name: len(self.rates[self.rates <= (LAST / 10 if name == "Lightning" else LAST)]) for name in RULES}
        found = {name: rule(self.rates[: ends[name]], self.losses[: ends[name]]) for name, rule in RULES.items()}
        return {name: rate for name, rate in found.items() if math.isfinite(rate)}

    def summary(self) -> dict[str, Any]:
        """Return what find_lr.json holds."""
        return {
            "lr": self.lr,
            "range": list(self.span) if self.lr else None,
            "fallen": self.fallen,
            "diverges": self.diverges,
            "unstable": self.is_unstable,
            "loss_of_guessing": self.guess,
            "steps": self.steps,
            "planned_steps": self.planned_steps,
            "races": [
                {"steps": race.steps, "losses": {f"{rate:g}": _json(loss) for rate, loss in race.means.items()}}
                for race in self.races
            ],
            "range_test": {"lr": self.rates.tolist(), "loss": [_json(loss) for loss in self.losses]},
            "other_rules": self.other_rules(),
        }


def find_lr(
    trainer: Trainer,
    rates_of: Rates | None = None,
    slices: list[Loader] | None = None,
    report: Callable[[str], None] = lambda text: None,
    own: float | None = None,
) -> RateSearch:
    """Search the rate for a trainer's plan; afterwards the trainer and all random generators are as before.

    rates_of, slices: see ShortRuns. report: takes what is being done, at every step. own: a rate that takes part in the
    last race too, outside of the choice. Raises ValueError if several processes train together.
    """
    if not trainer.world.is_single:
        raise ValueError("a search for the rate needs a single process")
    planned = trainer.plan.total_steps
    first = max(LEAST, math.ceil(SHARE * planned))
    with preserved(trainer) as start:
        runs = ShortRuns(trainer, start, rates_of, slices)
        rates, losses = _range_test(runs, report)
        fallen, diverges = read_test(rates, losses)
        below = diverges if diverges is not None else HIGHEST
        sprint, final = Race(first), Race(min(LONGER * first, planned))
        _run_bracket(sprint, runs, on_ladder(fallen), below, report)
        for rate in _finalists(sprint) if final.steps > first else ():
            _run(final, runs, rate, report)
        race = final if final.scores and final.means[final.best] < math.inf else sprint
        guess = runs.guess()
        rival = Race(race.steps)
        if own is not None:
            _run(rival, runs, own, report)
    learns = excess(guess, race.scores[race.best]) > FALL
    races = [each for each in (sprint, final) if each.scores]
    lr = choose(races[: races.index(race) + 1], planned, below) if learns else None
    seen = (rates, losses, fallen, diverges, races, guess, runs.steps, planned)
    return RateSearch(lr, *seen, rival.scores.get(own) if own is not None else None)


def choose(races: Sequence[Race], planned: int, below: float) -> float:
    """Return the lowest rate that the last race cannot tell from its best: in a longer run the best rate is lower.

    Another one if it promises a lower loss beyond ERRORS after the planned steps, and is MARGIN below the one that
    diverges.
    """
    last = races[-1]
    lowest = min(last.equals())
    promises = {rate: promised(races, rate, planned) for rate in last.scores}
    better = [rate for rate, promise in promises.items() if excess(promises[lowest], promise) > ERRORS]
    safe = [rate for rate in better if rate * MARGIN <= below]
    return min(safe, key=lambda rate: promises[rate].mean(), default=lowest)


def promised(races: Sequence[Race], rate: float, planned: int) -> np.ndarray:
    """Return the blocks' losses after the planned steps by power laws through those of the last two races."""
    *before, loss = (race.scores[rate] for race in races if rate in race.scores)
    if not before or not np.isfinite([loss, before[-1]]).all() or before[-1].min() <= 0:
        return loss
    exponent = math.log(planned / races[-1].steps) / math.log(races[-1].steps / races[-2].steps)
    return loss * (loss / before[-1]) ** exponent


def read_test(rates: np.ndarray, losses: np.ndarray) -> tuple[float, float | None]:
    """Return where the smoothed loss of a range test has FALLEN, and the rate at which it diverges, if any.

    A test that is flat to its end gives a tenth of the last rate.
    """
    is_over = has_diverged(losses)
    diverges = float(rates[-1]) if is_over else None
    count = len(losses) - (0 if np.isfinite(losses[-1]) else 1)
    smoothed = smooth(losses[:count])
    lowest = int(smoothed.argmin())
    if lowest < 2:
        return float(rates[-1]) / 10, diverges
    first = losses[: min(FIRST_LOSSES, lowest)].mean()
    level = first - FALLEN * (first - smoothed[lowest])
    return float(rates[int((smoothed <= level).argmax())]), diverges


def smooth(losses: np.ndarray) -> np.ndarray:
    """Return centred means over SMOOTHED steps on each side, of fewer at the ends: no lag shifts them."""
    ones = np.ones(2 * SMOOTHED + 1)
    middle = slice(SMOOTHED, SMOOTHED + len(losses))
    sums, counts = (np.convolve(values, ones)[middle] for values in (losses, np.ones(len(losses))))
    return sums / counts


def has_diverged(losses: np.ndarray) -> bool:
    """Tell whether a range test is over: a loss that is not finite, or three above STOP times the least and the first.

    The least loss is a smoothed one. Above the first loss: near zero noise alone makes four times the least.
    """
    if not np.isfinite(losses[-1]):
        return True
    if len(losses) <= 2 * SMOOTHED:
        return False
    smoothed = smooth(losses)
    return bool(losses[-3:].min() > max(STOP * smoothed.min(), smoothed[0]))


def on_ladder(rate: float) -> float:
    """Return the nearest of 1 and 3 times a power of ten, as one types them."""
    exponent = math.floor(math.log10(rate))
    rungs = [number * 10.0**power for power in (exponent, exponent + 1) for number in (1, 3)]
    return float(f"{min(rungs, key=lambda rung: abs(math.log(rung / rate))):.0e}")


def rung(rate: float, steps: int) -> float:
    """Return the rate so many rungs higher on the ladder ..., 0.1, 0.3, 1, 3, ..."""
    return on_ladder(rate * math.sqrt(10.0) ** steps)


def _range_test(runs: ShortRuns, report: Callable[[str], None]) -> tuple[np.ndarray, np.ndarray]:
    factor = (LAST / FIRST) ** (1 / (STEPS - 1))
    count = 1 + round(math.log(HIGHEST / FIRST) / math.log(factor))
    rates, losses = FIRST * factor ** np.arange(count), []
    for loss in runs.losses(map(float, rates), constant(1)):
        losses.append(loss)
        report(f"range test  rate {rates[len(losses) - 1]:.1e}, loss {loss:.4g}")
        if has_diverged(np.array(losses)):
            break
    return rates[: len(losses)], np.array(losses)


def _run_bracket(race: Race, runs: ShortRuns, middle: float, below: float, report: Callable[[str], None]) -> None:
    """Race three rates, and further ones while the best is at an edge."""
    middle = middle if middle < below else rung(below, -2)
    for rate in _allowed([rung(middle, -1), middle, rung(middle, 1)], below):
        _run(race, runs, rate, report)
    while True:
        edges = [rung(min(race.scores), -1)] * (race.best == min(race.scores))
        edges += [rung(max(race.scores), 1)] * (race.best == max(race.scores))
        new = [rate for rate in _allowed(edges, below) if rate not in race.scores]
        if not new:
            return
        for rate in new:
            _run(race, runs, rate, report)


def _finalists(sprint: Race) -> list[float]:
    """Return the best rate of the first race, and the one below it: in a longer run that one may be the best."""
    means = {rate: mean for rate, mean in sprint.means.items() if mean < math.inf}
    below = [rate for rate in means if rate < sprint.best]
    return [sprint.best, *below[-1:]] if means else []


def _allowed(rates: Iterable[float], below: float) -> list[float]:
    return [rate for rate in rates if FIRST <= rate < below]


def _run(race: Race, runs: ShortRuns, rate: float, report: Callable[[str], None]) -> None:
    """Train one short run, annealed to zero after a warm-up of a tenth, and score its weights."""
    schedule = cosine(1, warmup=0.1)
    loss = math.inf
    for step, loss in enumerate(runs.losses([rate] * race.steps, schedule, race.steps), start=1):
        report(f"race at {rate:g}  step {step} of {race.steps}, loss {loss:.4g}")
    race.scores[rate] = runs.score()
    if not math.isfinite(loss):
        race.scores[rate] = np.full_like(race.scores[rate], math.inf)


def excess(score: np.ndarray, best: np.ndarray) -> float:
    """Return by how many paired standard errors a score is above another one."""
    if not np.isfinite(score).all():
        return 0.0 if score is best else math.inf
    if not np.isfinite(best).all():
        return -math.inf
    difference = score - best
    error = difference.std(ddof=1) / math.sqrt(len(difference)) if len(difference) > 1 else 0.0
    mean = float(difference.mean())
    return mean / float(error) if error > 0 else math.copysign(math.inf, mean) if mean else 0.0


def _json(loss: float) -> float | None:
    return float(loss) if math.isfinite(loss) else None

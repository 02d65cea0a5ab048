"""How long the runs of a diagnosis may be, so that all steps fit into a budget of time."""

import math
import time
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import torch

from deeptrain.analysis.diagnosis.grid import FINE, SHARE
from deeptrain.analysis.diagnosis.memorise import EARLY, STEPS
from deeptrain.analysis.diagnosis.subject import Opened
from deeptrain.analysis.diagnosis.trial import points_of, trial_slices
from deeptrain.analysis.find_lr import LEAST
from deeptrain.analysis.find_lr import SHARE as RACE_SHARE
from deeptrain.analysis.find_lr import STEPS as TEST_STEPS
from deeptrain.analysis.short_runs import ShortRuns, preserved

PLANNED = 1000  # steps of the longest run of a diagnosis; of a longer run it is the first part, with the rate annealed
SHORTEST, LONGEST = 100.0, 600.0  # seconds; between them a diagnosis takes as long as the run that it is for
FEWEST = 120  # steps of a run that are worth its while
SPARE = 0.9  # of a budget: a busy machine is slower
WARM, TIMED = 2, 9  # steps
RACES, CELLS, RUNS, TESTS = 16, 8, 4, 2  # short runs of a search, of the grid; whole runs to refine, and to test
COARSE_RUNS = 2  # to refine, where only a small part of a run fits


@dataclass(frozen=True)
class Speed:
    """Seconds of a training step, and of an evaluation of a trial, on an idle machine. share: of it that is free."""

    step: float
    evaluation: float
    share: float = 1.0


@dataclass(frozen=True)
class Lengths:
    """planned: steps of the longest run. last: the last step of the diagnosis that fits. seconds: of all."""

    planned: int
    last: int
    seconds: float


def measure_speed(opened: Opened) -> Speed:
    """Take a few training steps, and evaluate twice; the trainer is as before."""
    trainer, slices = opened.trainer, trial_slices(opened)
    clock = _seconds_of_cores if trainer.runtime.device.type == "cpu" else time.perf_counter
    with preserved(trainer) as begin:
        runs = ShortRuns(trainer, begin, opened.rates_of, slices)
        rates = [trainer.optimizer.param_groups[0]["initial_lr"] * 1e-3] * (WARM + TIMED)
        times, wall = [clock()], time.perf_counter()
        times += [clock() for _ in runs.losses(rates, lambda progress: 1.0)]
        steps = [after - before for before, after in pairwise(times)]
        evaluations = []
        for _ in range(2):
            began = clock()
            runs.score()
            evaluations.append(clock() - began)
        share = (clock() - times[0]) / max(time.perf_counter() - wall, 1e-9)
    for loader in slices:
        loader.close()
    return Speed(median(steps[WARM:] or steps), min(evaluations), min(max(share, 0.01), 1.0))


def _seconds_of_cores() -> float:
    """Return the seconds that the cores have computed, each of them: other programs do not count."""
    return time.process_time() / torch.get_num_threads()


def seconds_of(step: int, planned: int, speed: Speed, total_steps: int) -> float:
    """Return what a step of the diagnosis takes, about."""
    short, first = max(LEAST, math.ceil(SHARE * planned)), max(LEAST, math.ceil(RACE_SHARE * planned))
    whole = planned * speed.step + points_of(planned, total_steps) * speed.evaluation
    return {
        1: 0.0,
        2: EARLY * STEPS * speed.step,
        3: (TEST_STEPS + RACES * first) * speed.step + RACES // 2 * speed.evaluation,
        4: CELLS * (short * speed.step + speed.evaluation),
        5: (RUNS if planned >= FINE * total_steps else COARSE_RUNS) * whole,
        6: 0.0,
        7: TESTS * whole,
    }[step]


def plan_lengths(speed: Speed, total_steps: int, budget: float | None, last: int) -> Lengths:
    """Make the runs shorter until all steps fit; where even the shortest do not, leave out steps from the end.

    budget: seconds; None: what the training itself takes, within limits. Then no step is left out.
    """
    longest = min(total_steps, PLANNED)

    def seconds(planned: int, steps: int) -> float:
        return sum(seconds_of(step, planned, speed, total_steps) for step in range(1, steps + 1))

    usual = min(max(total_steps * speed.step, SHORTEST), LONGEST)
    room = SPARE * (usual if budget is None else budget * speed.share)
    for steps in range(last, 0, -1):
        planned = longest
        while planned > FEWEST and seconds(planned, steps) > room:
            planned = max(FEWEST, int(0.9 * planned))
        if seconds(planned, steps) <= room or steps == 1 or budget is None:
            return Lengths(planned, steps, seconds(planned, steps))
    raise AssertionError("step 1 trains nothing")

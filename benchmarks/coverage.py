"""Do the intervals of a comparison hold? Simulated sweeps: python benchmarks/coverage.py [repetitions]

For six noises, n seeds and k settings: the share of sweeps in which all intervals hold, their median width, and that of
pooled Dunnett. Then what is found, what is claimed falsely, and the same over seeds and images.
"""

import sys
from collections.abc import Callable

import numpy as np

from deeptrain.compare.statistics import compare, critical_value, may_be_best, seeds_needed

SEEDS, SETTINGS = (3, 5, 10), (2, 3, 6, 12)


def contaminated(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.normal(size=shape) * np.where(rng.random(shape) < 0.1, 5, 1)


NOISES: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "equal": lambda rng, k, n: rng.normal(size=(k + 1, n)),
    "sd from 0.5 to 2": lambda rng, k, n: rng.normal(size=(k + 1, n)) * np.geomspace(0.5, 2, k + 1)[:, None],
    "one setting 3 times": lambda rng, k, n: (
        rng.normal(size=(k + 1, n)) * np.where(np.arange(k + 1) == 1, 3, 1)[:, None]
    ),
    "baseline 3 times": lambda rng, k, n: rng.normal(size=(k + 1, n)) * np.where(np.arange(k + 1) == 0, 3, 1)[:, None],
    "t with 3 df": lambda rng, k, n: rng.standard_t(3, (k + 1, n)),
    "10 % five times": lambda rng, k, n: contaminated(rng, (k + 1, n)),
}


def pooled_half(differences: np.ndarray) -> float:
    """Return the half width of pooled Dunnett: one variance, the residual of settings and seeds."""
    k, n = differences.shape
    values = np.vstack([np.zeros(n), differences])
    rest = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    variance = (rest**2).sum() / (k * (n - 1))
    return critical_value(k, k * (n - 1)) * np.sqrt(2 * variance / n)


def coverage(repetitions: int) -> None:
    print(f"{'noise':<20} {'n':>3} {'k':>3} {'all hold':>9} {'worst one':>10} {'width':>7} {'pooled':>7}")
    lowest = 1.0
    for name, noise in NOISES.items():
        for n in SEEDS:
            for k in SETTINGS:
                rng = np.random.default_rng([n, k])
                held, halves, pooled = np.zeros((repetitions, k), bool), [], []
                for index in range(repetitions):
                    values = noise(rng, k, n)
                    found = compare(list(values[1:] - values[0]))
                    held[index] = [abs(each.mean) <= each.half for each in found]
                    halves.append(np.median([each.half for each in found]))
                    pooled.append(pooled_half(values[1:] - values[0]))
                share, worst = held.all(1).mean(), held.mean(0).min()
                lowest = min(lowest, share)
                width, other = 2 * np.median(halves), 2 * np.median(pooled)
                widths = f"{width:>7.2f} {other:>7.2f} {width / other:.2f}"
                print(f"{name:<20} {n:>3} {k:>3} {share:>9.1%} {worst:>10.1%} {widths}")
    print(f"lowest: {lowest:.1%}")


def claims(repetitions: int) -> None:
    print("\nk = 6, equal noise: how often the better setting is found, and how often another is claimed")
    for n, effect in ((3, 0), (3, 4), (5, 2), (5, 4), (10, 2)):
        rng, found, false, best = np.random.default_rng(n), 0, 0, 0
        for _ in range(repetitions):
            values = rng.normal(size=(7, n))
            values[1] += effect
            clear = [each.is_clear for each in compare(list(values[1:] - values[0]))]
            found, false = found + (clear[0] and effect > 0), false + any(clear[1:] if effect else clear)
            best += 1 in may_be_best(values)
        shares = [f"{count / repetitions:.1%}" for count in (found, false, best)]
        print(f"n={n:<3} effect {effect} sd  found {shares[0]}  false {shares[1]}  in the best set {shares[2]}")


def smallest(repetitions: int) -> None:
    print('\n"no larger than x", x of the 90 % intervals, k = 1 and 6, true difference 1 sd: how often it holds')
    for n in SEEDS:
        for k in (1, 6):
            rng, held, sizes, advice = np.random.default_rng(n), 0, [], []
            for _ in range(repetitions):
                values = rng.normal(size=(k + 1, n))
                values[1] += 1
                differences = list(values[1:] - values[0])
                found = compare(differences, level=0.9)
                held += found[0].largest >= 1 and all(each.largest >= 0 for each in found)
                sizes.append(found[0].largest)
                if len(advice) < 200:
                    advice.append(seeds_needed(differences, 1.0))
            low, high = (np.median([each[part] or 200 for each in advice]) for part in (0, 1))
            seeds = f"seeds for 1 sd: {low:g} to {high:g}"
            print(f"n={n:<3} k={k}  holds {held / repetitions:.1%}  median x {np.median(sizes):.2f}  {seeds}")


def images(repetitions: int) -> None:
    print("\nover seeds and images, k = 6: the share of sweeps in which all intervals hold for other seeds and images")
    for m in (100, 250, 1000):
        for n in SEEDS:
            rng, seeds_only, both, widths = np.random.default_rng([n, m]), 0, 0, [[], []]
            for _ in range(repetitions):
                by_image = rng.normal(0, 0.15, (7, 1, m)) + rng.normal(0, 0.005, (7, n, 1))
                by_image = by_image + rng.normal(0, 0.25, (7, n, m))
                differences = [by_image[index] - by_image[0] for index in range(1, 7)]
                means = [each.mean(1) for each in differences]
                for index, found in enumerate((compare(means), compare(means, differences))):
                    widths[index].append(np.median([each.half for each in found]))
                    held = all(abs(each.mean) <= each.half for each in found)
                    seeds_only, both = seeds_only + (held and not index), both + (held and index)
            half = [f"({100 * np.median(each):.2f} points)" for each in widths]
            shares = [f"{count / repetitions:.1%}" for count in (seeds_only, both)]
            print(f"m={m:<5} n={n:<3} seeds only {shares[0]} {half[0]}  both {shares[1]} {half[1]}")


if __name__ == "__main__":
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    coverage(repetitions)
    claims(repetitions)
    smallest(repetitions)
    images(max(100, repetitions // 10))

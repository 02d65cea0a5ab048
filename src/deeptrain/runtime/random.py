"""Randomness as a pure function of (seed, purpose, counters): nothing depends on where a generator happened to be."""

import functools
import zlib

import numpy as np

MASK = 2**64 - 1


def fold_in(seed: int, purpose: str, *counters: int) -> int:
    """Mix seed, purpose and counters (epoch, step, ...) into 63 bits by rounds of SplitMix64 (Steele et al., 2014)."""
    state = _purpose(purpose)
    for number in (seed, *counters):
        state = (state + number + 0x9E3779B97F4A7C15) & MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
        state ^= state >> 31
    return state >> 1


def generator(seed: int, purpose: str, *counters: int) -> np.random.Generator:
    """Make the host generator of one purpose; its draws are the same on every device and in every process."""
    return np.random.Generator(np.random.Philox(key=fold_in(seed, purpose, *counters)))


@functools.cache
def _purpose(name: str) -> int:
    return zlib.crc32(name.encode())

"""Draws are functions of (seed, purpose, counters): distinct where any differs, and spread evenly."""

from deeptrain.runtime.random import fold_in, generator


def test_keys_differ_wherever_an_argument_does():
    keys = {fold_in(s, p, e, t) for s in range(5) for p in ("order", "augment") for e in range(10) for t in range(50)}
    assert len(keys) == 5 * 2 * 10 * 50
    assert fold_in(0, "order", 1, 0) != fold_in(0, "order", 0, 1) != fold_in(1, "order", 0, 0)
    assert all(0 <= value < 2**63 for value in keys)


def test_bits_of_keys_are_fair():
    keys = [fold_in(0, "step", index) for index in range(4000)]
    for bit in range(63):
        ones = sum(value >> bit & 1 for value in keys)
        assert abs(ones - 2000) < 5 * (4000 * 0.25) ** 0.5


def test_generators_repeat_and_are_independent():
    first = generator(3, "order", 1).random(8)
    assert (generator(3, "order", 1).random(8) == first).all()
    assert (generator(3, "order", 2).random(8) != first).all()

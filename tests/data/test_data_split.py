"""The held-out share: exact per class, stable, and never a whole class."""

import numpy as np
import pytest

from deeptrain.data.split import balanced, deal, stratified


def test_each_class_gives_its_exact_share():
    labels = np.repeat(np.arange(10), 500)
    held = stratified(labels, 0.1, seed=0)
    assert np.bincount(labels[held]).tolist() == [50] * 10
    assert len(set(held.tolist())) == 500 and (np.diff(held) > 0).all()


@pytest.mark.parametrize("fraction", [0.1, 0.25, 1 / 3, 0.5])
def test_shares_are_within_one_and_their_sum_is_right(fraction):
    counts = np.array([13, 29, 47, 101, 7])
    held = stratified(np.repeat(np.arange(5), counts), fraction, seed=3)
    shares = np.bincount(np.repeat(np.arange(5), counts)[held], minlength=5)
    assert (np.abs(shares - counts * fraction) < 1).all()
    assert shares.sum() == round(counts.sum() * fraction)


def test_small_classes_give_one_and_keep_one():
    labels = np.array([0] * 100 + [1, 1, 2])
    low = np.bincount(labels[stratified(labels, 0.01, 0)], minlength=3)
    high = np.bincount(labels[stratified(labels, 0.99, 0)], minlength=3)
    assert low[1] == high[1] == 1 and low[2] == high[2] == 0
    assert low[0] >= 1 and high[0] <= 99


def test_the_choice_depends_on_the_seed_and_on_the_class_alone():
    labels = np.repeat(np.arange(3), 40)
    assert np.array_equal(stratified(labels, 0.2, 5), stratified(labels, 0.2, 5))
    assert not np.array_equal(stratified(labels, 0.2, 5), stratified(labels, 0.2, 6))
    more = np.concatenate([labels, np.full(60, 3)])
    assert np.array_equal(stratified(labels, 0.2, 5), [i for i in stratified(more, 0.2, 5) if i < 120])


def test_the_choice_is_the_same_for_ever():
    """Frozen: a changed split would let a resumed run validate on what it trained on."""
    assert stratified(np.arange(30) % 2, 0.2, seed=0).tolist() == [2, 8, 11, 13, 19, 24]


@pytest.mark.parametrize("count", [1, 7, 30, 45, 60])
def test_few_images_are_as_many_of_each_class_as_there_are(count):
    labels = np.repeat(np.arange(3), [5, 20, 35])
    shares = np.bincount(labels[balanced(labels, count, seed=0)], minlength=3)
    level = max(shares)
    assert shares.sum() == count
    assert all(share == total or level - share <= 1 for share, total in zip(shares, [5, 20, 35], strict=True))


def test_a_larger_choice_contains_a_smaller_one_and_a_seed_makes_another():
    labels = np.tile(np.arange(4), 50)
    assert set(balanced(labels, 20, seed=1)) < set(balanced(labels, 60, seed=1))
    assert set(balanced(labels, 20, seed=1)) != set(balanced(labels, 20, seed=2))


@pytest.mark.parametrize("folds", [2, 3, 5, 7])
def test_folds_are_dealt_evenly_over_all_images_and_each_class(folds):
    counts = np.array([13, 29, 47, 7])
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4), counts))
    fold = deal(labels, folds, seed=1)
    assert np.ptp(np.bincount(fold, minlength=folds)) <= 1
    for label in range(4):
        assert np.ptp(np.bincount(fold[labels == label], minlength=folds)) <= 1
    assert np.array_equal(fold, deal(labels, folds, seed=1)) and not np.array_equal(fold, deal(labels, folds, seed=2))

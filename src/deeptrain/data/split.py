"""Which images are held out for validation, and which of the rest are used: by class, by a seed of their own."""

import numpy as np

from deeptrain.runtime.random import generator


def stratified(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Return sorted indices of the held-out images, int64. The choice in a class depends on its images and seed only.

    Counts are rounded by the largest remainder, so their sum is right too. A class with two or more images holds out
    at least one and keeps at least one. A class with a single image keeps it.
    """
    classes, counts = np.unique(labels, return_counts=True)
    quotas = counts * fraction
    sizes = np.floor(quotas).astype(np.int64)
    missing = round(float(quotas.sum())) - int(sizes.sum())
    sizes[np.argsort(sizes - quotas, kind="stable")[:missing]] += 1
    sizes = np.clip(sizes, np.minimum(1, counts - 1), counts - 1)
    held = [
        generator(seed, "split", int(label)).permutation(np.flatnonzero(labels == label))[:size]
        for label, size in zip(classes, sizes, strict=True)
    ]
    return np.sort(np.concatenate(held)) if held else np.arange(0)


def deal(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the fold of each image, int64 (N,): each class is shuffled by itself and dealt like cards.

    So the sizes of two folds differ by at most one image, and so do their shares of any class.
    """
    found, dealt = np.zeros(len(labels), np.int64), 0
    for label in np.unique(labels):
        members = generator(seed, "folds", int(label)).permutation(np.flatnonzero(labels == label))
        found[members] = (dealt + np.arange(len(members))) % folds
        dealt += len(members)
    return found


def balanced(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return sorted indices of `count` images, int64, with as many of each class as possible.

    A class that has fewer gives all it has. A larger count contains the images of a smaller one.
    """
    shuffled = generator(seed, "subset").permutation(len(labels))
    ranks = np.zeros(len(labels), np.int64)  # of each image within its class
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        ranks[members] = np.arange(len(members))
    order = np.lexsort((labels, ranks))
    return np.sort(order[:count])

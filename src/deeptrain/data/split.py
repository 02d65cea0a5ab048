"""Which images are held out: the same share of every class, by a seed of its own."""

import numpy as np

from deeptrain.runtime.random import generator


def stratified(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Return the sorted indices of a held-out share; a class's choice depends on its own images and the seed alone.

    Shares are rounded by largest remainder, so that their sum is right too. A class of two or more images gives at
    least one and keeps at least one; a single image is kept.
    """
    classes, counts = np.unique(labels, return_counts=True)
    quotas = counts * fraction
    shares = np.floor(quotas).astype(np.int64)
    missing = round(float(quotas.sum())) - int(shares.sum())
    shares[np.argsort(shares - quotas, kind="stable")[:missing]] += 1
    shares = np.clip(shares, np.minimum(1, counts - 1), counts - 1)
    held = [
        generator(seed, "split", int(label)).permutation(np.flatnonzero(labels == label))[:share]
        for label, share in zip(classes, shares, strict=True)
    ]
    return np.sort(np.concatenate(held)) if held else np.arange(0)

"""Sets of classes hold the true one as often as they promise."""

import pytest
import torch

from deeptrain.metrics.conformal import threshold, true_class_probabilities
from deeptrain.metrics.probabilities import class_probabilities


def test_coverage_over_random_halves():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2000, 10, generator=generator)
    labels = torch.distributions.Categorical(logits=logits / 3).sample()
    probabilities = class_probabilities(logits, "CrossEntropy")
    found = []
    for _ in range(200):
        order = torch.randperm(2000, generator=generator)
        half, rest = order[:1000], order[1000:]
        limit = threshold(true_class_probabilities(logits[half], labels[half], "CrossEntropy"), 0.9)
        found.append((probabilities[rest, labels[rest]] >= limit).double().mean())
    assert abs(torch.stack(found).mean() - 0.9) < 0.01


def test_the_rank_is_that_of_the_definition():
    values = [index / 10 for index in range(1, 10)]  # nine images: rank ceil(10 * 0.8) = 8 of scores 1 - p
    assert threshold(values, 0.8) == sorted(values)[9 - 8]


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match=r"needs 19 images of val, there are 9; take 0.9$"):
        threshold([0.5] * 9, 0.95)
    assert threshold([0.5] * 9, 0.9) == 0.5


def test_bce_takes_each_class_by_itself():
    logits = torch.tensor([[0.0, 2.0]])
    torch.testing.assert_close(class_probabilities(logits, "BCE"), logits.double().sigmoid())

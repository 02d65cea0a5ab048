"""The loss against the lecture's smoothing formula and against itself for ids, one-hot and mixed targets."""

import pytest
import torch

from deeptrain.loss import CrossEntropy


def smoothed_by_hand(targets, epsilon):
    """1 - (K-1)/K ε on the right class and ε/K on the others, mixed like the targets (N, K)."""
    classes = targets.shape[1]
    rows = torch.full((classes, classes), epsilon / classes, device=targets.device)
    rows.fill_diagonal_(1 - (classes - 1) / classes * epsilon)
    return targets @ rows


def test_smoothing_is_the_lectures(device):
    """K = 3, ε = 0.15: 90 % / 5 % / 5 %. The gradient of the loss is softmax - targets, so it shows the targets."""
    logits = torch.zeros(1, 3, device=device, requires_grad=True)
    CrossEntropy(label_smoothing=0.15)(logits, torch.tensor([0], device=device)).backward()
    targets = torch.softmax(logits.detach(), 1) - logits.grad
    torch.testing.assert_close(targets.cpu(), torch.tensor([[0.9, 0.05, 0.05]]))


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.9])
def test_it_is_minus_sum_q_log_p(device, epsilon):
    generator = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(64, 7, generator=generator)).to(device)
    mixed = torch.softmax(torch.randn(64, 7, generator=generator), 1).to(device)
    expected = -(smoothed_by_hand(mixed, epsilon) * logits.double().log_softmax(1)).sum(1).mean()
    loss = CrossEntropy(label_smoothing=epsilon)(logits, mixed)
    assert loss.shape == () and loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_ids_equal_their_one_hot(device, epsilon):
    loss = CrossEntropy(label_smoothing=epsilon)
    logits, ids = torch.randn(32, 10, device=device), torch.arange(32, device=device) % 10
    one_hot = torch.eye(10, device=device)[ids]
    torch.testing.assert_close(loss(logits, ids), loss(logits, one_hot))


def test_it_is_computed_in_float32_and_does_not_overflow(device):
    logits = torch.tensor([[1e4, 0.0], [0.0, 1e4]], dtype=torch.bfloat16, device=device)
    loss = CrossEntropy()(logits, torch.tensor([0, 1], device=device))
    assert loss.dtype == torch.float32 and loss.item() == 0
    assert CrossEntropy()(logits, torch.tensor([[0.5, 0.5], [0.5, 0.5]], device=device)).isfinite()


@pytest.mark.parametrize("epsilon", [-0.1, 1.0, "much"])
def test_smoothing_out_of_range_is_refused(epsilon):
    with pytest.raises(ValueError, match=f"label_smoothing={epsilon}: must be a?"):
        CrossEntropy(label_smoothing=epsilon)

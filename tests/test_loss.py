"""Losses against their formulas, written out image by image, for ids and mixed targets; smoothing, class weights."""

from functools import partial

import pytest
import torch
from torch.nn import functional

from deeptrain.loss import BCE, MSE, CrossEntropy, Hinge, Perceptron, for_evaluation, gathered_hinge

LOSSES = [
    CrossEntropy,
    partial(CrossEntropy, label_smoothing=0.1),
    Hinge,
    partial(Hinge, margin=0.3),
    Perceptron,
    *(partial(MSE, output=output) for output in ("linear", "softmax", "sigmoid")),
    BCE,
]
COUNTS = [10, 40, 5, 0, 45, 100, 3]  # training images of seven classes
every_loss = pytest.mark.parametrize("make", LOSSES, ids=lambda make: getattr(make, "__name__", "with settings"))


def batch(device, count=64, classes=7, spread=3.0):
    """Random logits, class ids and mixed targets; the first rows of the mixed ones mix two classes, as Mixup does."""
    generator = torch.Generator().manual_seed(0)
    logits = spread * torch.randn(count, classes, generator=generator)
    ids = torch.randint(classes, (count,), generator=generator)
    mixed = torch.softmax(torch.randn(count, classes, generator=generator), 1)
    pairs = 0.7 * functional.one_hot(ids, classes) + 0.3 * functional.one_hot(ids.flip(0), classes)
    mixed[: count // 2] = pairs[: count // 2]
    return logits.to(device), ids.to(device), mixed.to(device)


def smoothed_by_hand(targets, epsilon):
    """1 - (K-1)/K ε on the right class and ε/K on the others, mixed like the targets (N, K)."""
    classes = targets.shape[1]
    rows = torch.full((classes, classes), epsilon / classes, device=targets.device)
    rows.fill_diagonal_(1 - (classes - 1) / classes * epsilon)
    return targets @ rows


# --- formulas of one image in float64 ---


def hinge(s, q, margin=1.0):
    classes = range(len(s))
    return sum(q[k] * sum((s[j] - s[k] + margin).clamp(min=0) for j in classes if j != k) for k in classes)


def perceptron(s, q):
    return sum(q[k] * max((s[j] - s[k]).clamp(min=0) for j in range(len(s)) if j != k) for k in range(len(s)))


def bce(s, q):
    y = 1 / (1 + torch.exp(-s))
    return -sum(q[k] * torch.log(y[k]) + (1 - q[k]) * torch.log(1 - y[k]) for k in range(len(s)))


def squared(s, q, of):
    return 0.5 * sum((of(s)[k] - q[k]) ** 2 for k in range(len(s)))


FORMULAS = [
    (Hinge(), hinge),
    (Hinge(margin=0.3), partial(hinge, margin=0.3)),
    (Perceptron(), perceptron),
    (BCE(), bce),
    (MSE(), partial(squared, of=lambda s: s)),
    (MSE(output="softmax"), partial(squared, of=lambda s: s.exp() / s.exp().sum())),
    (MSE(output="sigmoid"), partial(squared, of=lambda s: 1 / (1 + torch.exp(-s)))),
]


@pytest.mark.parametrize("targets", ["ids", "mixed"])
@pytest.mark.parametrize(("loss", "formula"), FORMULAS, ids=lambda value: type(value).__name__)
def test_value_and_gradient_are_the_formulas(device, loss, formula, targets):
    logits, ids, mixed = batch(device, count=12)
    given = ids if targets == "ids" else mixed
    shares = functional.one_hot(ids, 7) if targets == "ids" else mixed
    exact = logits.cpu().double().requires_grad_()
    expected = sum(formula(s, q) for s, q in zip(exact, shares.cpu().double(), strict=True)) / len(logits)
    expected.backward()
    logits.requires_grad_()
    found = loss(logits, given)
    found.backward()
    assert found.shape == () and found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(logits.grad.cpu(), exact.grad.float())


@pytest.mark.parametrize("targets", ["ids", "mixed"])
def test_torch_agrees(device, targets):
    logits, ids, mixed = batch(device)
    given, shares = (ids, functional.one_hot(ids, 7).float()) if targets == "ids" else (mixed, mixed)
    close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)
    close(CrossEntropy()(logits, given), functional.cross_entropy(logits, given))
    close(MSE()(logits, given), functional.mse_loss(logits, shares) * 7 / 2)
    close(BCE()(logits, given), functional.binary_cross_entropy_with_logits(logits, shares) * 7)
    if targets == "ids":
        close(Hinge()(logits, ids), functional.multi_margin_loss(logits, ids) * 7)


# --- smoothing ---


def test_smoothing_is_the_lectures(device):
    """K = 3, ε = 0.15: 90 % / 5 % / 5 %. The gradient of the loss is softmax - targets, so it shows the targets."""
    logits = torch.zeros(1, 3, device=device, requires_grad=True)
    CrossEntropy(label_smoothing=0.15)(logits, torch.tensor([0], device=device)).backward()
    targets = torch.softmax(logits.detach(), 1) - logits.grad
    torch.testing.assert_close(targets.cpu(), torch.tensor([[0.9, 0.05, 0.05]]))


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.9])
def test_it_is_minus_sum_q_log_p(device, epsilon):
    logits, _, mixed = batch(device)
    expected = -(smoothed_by_hand(mixed, epsilon) * logits.double().log_softmax(1)).sum(1).mean()
    loss = CrossEntropy(label_smoothing=epsilon)(logits, mixed)
    assert loss.shape == () and loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("epsilon", [-0.1, 1.0, "much"])
def test_smoothing_out_of_range_is_refused(epsilon):
    with pytest.raises(ValueError, match=f"label_smoothing={epsilon}: must be a?"):
        CrossEntropy(label_smoothing=epsilon)


# --- all losses ---


@every_loss
@pytest.mark.parametrize("weights", [None, "auto"])
def test_ids_equal_their_one_hot(device, make, weights):
    loss = make(class_weights=weights, class_counts=COUNTS)
    logits, ids, _ = batch(device)
    torch.testing.assert_close(loss(logits, ids), loss(logits, functional.one_hot(ids, 7).float()))


@every_loss
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]])
def test_the_parts_of_a_batch_add_up(device, make, weights):
    loss = make(class_weights=weights)
    logits, ids, mixed = batch(device)
    for targets in (ids, mixed):
        parts = [loss(logits[part], targets[part]) * len(logits[part]) for part in (slice(5), slice(5, None))]
        torch.testing.assert_close(sum(parts) / len(logits), loss(logits, targets))


@every_loss
def test_large_logits_overflow_nothing(device, make):
    """Value and gradient stay finite: the loss is computed in float32."""
    loss = make(class_weights="auto", class_counts=[3, 5])
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], dtype=torch.bfloat16, device=device, requires_grad=True)
    for targets in (torch.tensor([1, 0], device=device), torch.full((2, 2), 0.5, device=device)):
        found = loss(logits, targets)
        found.backward()
        assert found.dtype == torch.float32 and found.isfinite()
        assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", [CrossEntropy(), Hinge(), Perceptron(), BCE(), MSE(output="softmax")])
def test_being_sure_and_right_costs_nothing(device, loss):
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], device=device)
    assert loss(logits, torch.tensor([0, 1], device=device)) == 0


@every_loss
def test_an_evaluation_measures_it_without_smoothing_and_weights(device, make):
    logits, ids, _ = batch(device)
    loss = make(class_weights="auto", class_counts=COUNTS)
    expected = CrossEntropy() if isinstance(loss, CrossEntropy) else make()
    before = loss(logits, ids)
    assert torch.equal(for_evaluation(loss)(logits, ids), expected(logits, ids))
    assert torch.equal(loss(logits, ids), before), "the loss itself is not changed"


def test_a_loss_of_ones_own_is_not_changed():
    own = torch.nn.CrossEntropyLoss()
    assert for_evaluation(own) is own


# --- the margin losses ---


@pytest.mark.parametrize("loss", [Hinge(), Perceptron()], ids=lambda loss: type(loss).__name__)
def test_margin_losses_are_linear_in_the_targets(device, loss):
    logits, _, mixed = batch(device, count=1)
    every = [loss(logits, torch.tensor([k], device=device)) for k in range(7)]
    torch.testing.assert_close(loss(logits, mixed), (mixed[0] * torch.stack(every)).sum())


def test_the_perceptron_learns_by_its_rule(device):
    """After a wrong prediction the right class adds the input and the predicted class subtracts it; else nothing."""
    logits = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 0.5]], device=device, requires_grad=True)
    Perceptron()(logits, torch.tensor([1, 1], device=device)).backward()
    assert (2 * logits.grad).tolist() == [[1, -1, 0], [0, 0, 0]]


# --- class weights ---


@every_loss
def test_an_image_counts_by_the_weight_of_its_class(device, make):
    weights = [0.5, 2.0, 1.0, 3.0, 1.0, 0.1, 4.0]
    logits, ids, _ = batch(device)
    alone = torch.stack([make()(logits[i : i + 1], ids[i : i + 1]) for i in range(len(ids))])
    expected = (torch.tensor(weights, device=device)[ids] * alone).mean()
    torch.testing.assert_close(make(class_weights=weights)(logits, ids), expected)


@pytest.mark.parametrize("loss", [CrossEntropy, Hinge, Perceptron])
def test_a_mixture_costs_what_its_labels_would(device, loss):
    weighted = loss(class_weights=[0.5, 2.0, 1.0, 3.0, 1.0, 0.1, 4.0])
    logits, _, mixed = batch(device, count=1)
    every = [weighted(logits, torch.tensor([k], device=device)) for k in range(7)]
    torch.testing.assert_close(weighted(logits, mixed), (mixed[0] * torch.stack(every)).sum())


def test_auto_weights_are_inverse_to_the_frequency_and_one_on_average():
    weights = CrossEntropy(class_weights="auto", class_counts=[10, 40, 50]).weights
    torch.testing.assert_close(weights, torch.tensor([10 / 3, 100 / 120, 2 / 3]))
    assert sum(w * n for w, n in zip(weights.tolist(), [10, 40, 50], strict=True)) == pytest.approx(100)
    assert CrossEntropy(class_weights="auto", class_counts=COUNTS).weights.isfinite().all(), "also with an empty class"
    equal = CrossEntropy(class_weights="auto", class_counts=[7, 7, 7]).weights
    assert equal.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_weights": [1.0, 2.0]}, "class_weights=[1.0, 2.0]: must be 3 numbers, one a class"),
        ({"class_weights": [1.0, 0.0, 2.0]}, "class_weights=[1.0, 0.0, 2.0]: every item must be > 0"),
        ({"class_weights": "aut"}, "class_weights=aut: did you mean auto? choose from auto or a list"),
        ({"class_weights": "auto", "class_counts": None}, "class_weights=auto: needs class_counts"),
        ({"class_weights": {"dgo": 2.0}}, "class_weights={dgo:2.0}: no class is dgo; did you mean dog? choose from"),
        ({"class_weights": {"dog": -1.0}}, "class_weights={'dog': -1.0}: every value must be > 0"),
        ({"class_weights": {"dog": 2.0}, "class_names": None}, "class_weights by name: needs class_names"),
    ],
)
@every_loss
def test_wrong_weights_are_refused_in_a_line(make, settings, message):
    with pytest.raises(ValueError) as error:
        make(**{"class_counts": [1, 2, 3], "class_names": ["cat", "dog", "3"], **settings})
    assert str(error.value).startswith(message), str(error.value)


@every_loss
def test_weights_by_name_leave_the_others_at_one(make):
    names = ["cat", "dog", "3"]
    assert make(class_weights={"dog": 2.5}, class_names=names).weights.tolist() == [1, 2.5, 1]
    assert make(class_weights={3: 4, "cat": 0.5}, class_names=names).weights.tolist() == [0.5, 1, 4], "3 is a name"


@pytest.mark.parametrize("settings", [{"margin": 0}, {"margin": -1.0}])
def test_a_margin_is_positive(settings):
    with pytest.raises(ValueError, match="margin="):
        Hinge(**settings)


def test_an_unknown_output_names_the_choices():
    with pytest.raises(ValueError, match="output=softmx: did you mean softmax"):
        MSE(output="softmx")


@pytest.mark.parametrize("margin", [0.3, 1.0, 2.0])
def test_the_hinge_by_gathering_is_torchs(device, margin):
    """MPS lacks torch's."""
    logits = torch.randn(9, 7, device=device, generator=torch.Generator(device).manual_seed(0), requires_grad=True)
    ids = (torch.arange(9) % 7).to(device)
    ours = gathered_hinge(logits, ids, margin)
    theirs = functional.multi_margin_loss(logits, ids, margin=margin, reduction="none") * 7
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(each.sum(), logits)[0] for each in (ours, theirs)]
    torch.testing.assert_close(*gradients)

"""What the logits of a loss say as probabilities, and the one number that calibrates them (Guo et al., 2017)."""

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

MIN_IMAGES = 100  # that a temperature is fitted on
LOWEST, HIGHEST = 0.02, 50.0  # temperatures
STEPS, EXACT = 60, 1e-10


def class_probabilities(logits: Tensor, loss: str, temperature: float = 1.0) -> Tensor:
    """Return float64 probabilities of logits (..., K). loss=BCE takes each class by itself; any other, softmax."""
    values = logits.double() / temperature
    return values.sigmoid() if loss == "BCE" else values.softmax(-1)


def nll(logits: Tensor, labels: Tensor, loss: str, temperature: float = 1.0) -> Tensor:
    """Return -log of the probability of each label, float64 (N,). loss=BCE: summed over the classes, each yes or no."""
    values = logits.double() / temperature
    if loss == "BCE":
        targets = one_hot(labels, values.shape[1]).double()
        return binary_cross_entropy_with_logits(values, targets, reduction="none").sum(1)
    return cross_entropy(values, labels, reduction="none")


def fit_temperature(logits: Tensor, labels: Tensor, loss: str) -> float:
    """Return the temperature with the smallest mean `nll`; ValueError if these images do not decide on one.

    The NLL is convex in 1/T. So Newton steps find the zero of its slope, inside bounds that close in on it.
    """
    if len(labels) < MIN_IMAGES:
        raise ValueError(f"a temperature needs {MIN_IMAGES} images, there are {len(labels)}")
    if not logits.isfinite().all():
        raise ValueError("some logits are not finite")
    values = logits.double() if loss == "BCE" else logits.double() - logits.double().amax(1, keepdim=True)
    low, high, inverse = 1 / HIGHEST, 1 / LOWEST, 1.0
    if _slope(values, labels, loss, high)[0] < 0:
        raise ValueError("nearly all of these images are right, which decides on no temperature")
    if _slope(values, labels, loss, low)[0] > 0:
        raise ValueError("the logits say nothing about these images")
    for _ in range(STEPS):
        slope, curvature = _slope(values, labels, loss, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = inverse - slope / curvature if curvature > 0 else 0.0
        following = step if low < step < high else (low * high) ** 0.5
        if abs(following - inverse) <= EXACT * inverse:
            break
        inverse = following
    return 1 / inverse


def _slope(values: Tensor, labels: Tensor, loss: str, inverse: float) -> tuple[float, float]:
    """Return the first and second derivative of the mean NLL by 1/T."""
    true = values.gather(1, labels[:, None])[:, 0]
    if loss == "BCE":
        shares = (values * inverse).sigmoid()
        first = (shares * values).sum(1) - true
        second = (shares * (1 - shares) * values.square()).sum(1)
    else:
        shares = (values * inverse).softmax(1)
        mean = shares.mul_(values).sum(1)  # in place: memory for another tensor takes as long as the sum
        first, second = mean - true, shares.mul_(values).sum(1) - mean.square()
    return float(first.mean()), float(second.mean())


def brier_scores(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return the squared distance of each image's probabilities (N, K) from its label, in [0, 2] (Brier, 1950)."""
    return (probabilities - one_hot(labels, probabilities.shape[1])).square().sum(1)


def ranked_first(logits: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Return the class of the largest logit and its probability, the confidence, (N,) each."""
    predicted = logits.argmax(1)
    return predicted, probabilities.gather(1, predicted[:, None])[:, 0]

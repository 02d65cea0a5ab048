"""How far the probabilities of a network can be believed."""

from torch import Tensor
from torch.nn.functional import one_hot

from deeptrain.metrics.metric import Metric, Predictions
from deeptrain.schema import PositiveInt, validate_call


@validate_call
def ece(*, bins: PositiveInt = 15) -> Metric:
    """Expected calibration error: mean distance of confidence and accuracy, over bins of confidence (Guo et al., 2017).

    The confidence is the probability of the predicted class. A bin counts by its share of the images.
    """

    def values(predictions: Predictions) -> Tensor:
        confidence = predictions.probabilities.amax(1)
        index = (confidence * bins).ceil().long().clamp_(1, bins) - 1  # bins are open below, closed above
        surplus = confidence - (predictions.predicted == predictions.labels).float()
        return one_hot(index, bins) * surplus[:, None]

    return Metric(values, bins, lambda means: means.abs().sum(), as_percent=True)


def brier() -> Metric:
    """Brier score: squared distance of the probabilities from the one-hot label, in [0, 2] (Brier, 1950)."""

    def values(predictions: Predictions) -> Tensor:
        probabilities = predictions.probabilities
        return (probabilities - one_hot(predictions.labels, probabilities.shape[1])).square().sum(1)

    return Metric(values)

"""The published rules of other tools, evaluated on what a run records; their thresholds are those that they ship with.

Each tool is a list of rules in its own order. A rule takes a History and tells whether it fires. Its alarm is mapped to
our verdicts that it could mean, the likeliest first; the mapping was written down before any patient was examined.
Left out, because no run of ours records what they need:

SageMaker Debugger: AllZero, UnchangedTensor, SaturatedActivation and TensorVariance read whole tensors,
PoorWeightInitialization too, and the losses of the first five steps; Confusion reads the confusion matrix.
UMLAUT: inputs that are no floats and a missing softmax, which no network here can have; its advice on the last layer.
AutoTrainer: repairs. A weight's exact zeros in the gradient are replaced by silent units.
TheDeepChecker: the checks of its second training on one batch, of single units' histograms, and of augmentation.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from zoo.history import History

Rule = tuple[str, Callable[[History], bool], tuple[str, ...]]  # its name, when it fires, our verdicts

HIGH, LOW = ("rate_too_high", "better_rate"), ("rate_too_low", "better_rate")
VANISHING = ("signal_dies", "start_too_bad", "remedied", "ignores_input")
EXPLODING = ("signal_explodes", "rate_too_high", "start_too_bad")
DEAD = ("dead_units", "remedied", "ignores_input")
NOT_FINITE = ("not_finite", "became_not_finite", "rate_too_high")
STUCK = ("cannot_memorise", "flat_from_start", "rate_too_low", "no_signal", "start_too_bad", "remedied")
GAP = ("overfitted", "no_transfer")
UNSTABLE = ("noisy_late", "diverged", "rate_too_high")
INPUTS = ("input_scale",)


# --- what rules share ---


def _by_layer(history: History, what: str) -> list[list[float]]:
    """Return the values of each look at the layers, in the layers' order."""
    return [[value for name, value in row.items() if name.startswith(f"{what}/")] for row in history.layers]


def _ratio_of_gradients(history: History) -> list[tuple[float, float]]:
    """Return the gradient norm of the first layer, and it over that of the last one, at each look."""
    norms = [row for row in _by_layer(history, "gradient") if len(row) > 1]
    return [(row[0], row[0] / row[-1] if row[-1] else math.inf if row[0] else 1.0) for row in norms]


def _not_finite(history: History) -> bool:
    return bool(history.failed)


def _sizes(history: History) -> list[float]:
    return [row["vitals/ratio_median"] for row in history.steps if "vitals/ratio_median" in row]


# --- SageMaker Debugger: alarms on saved tensors, no cause ---


def _sm_loss_not_decreasing(history: History) -> bool:
    """No decrease over 10 saved steps. A log point stands for a saved step."""
    loss = [row["loss/train"] for row in history.steps if "loss/train" in row]
    return any(min(loss[i - 9 : i + 1]) >= loss[i - 10] for i in range(10, len(loss)))


def _sm_overfit(history: History) -> bool:
    """Val loss above the training loss by more than a tenth of it, in one step."""
    pairs = zip(history.curve("loss/train"), history.curve("loss/val"), strict=True)
    return any(val - train > 0.1 * train for train, val in pairs)


def _sm_overtraining(history: History) -> bool:
    """Val loss without a new minimum for 10 validations."""
    loss = history.curve("loss/val")
    return len(loss) > 10 and len(loss) - 1 - int(loss.argmin()) >= 10


def _sm_vanishing(history: History) -> bool:
    """Mean absolute gradient below 1e-7: from the norm, as if all of a layer were equal."""
    return any(norm < 1e-7 for row in _by_layer(history, "gradient") for norm in row)


SAGEMAKER: list[Rule] = [
    ("ExplodingTensor", _not_finite, NOT_FINITE),
    ("VanishingGradient", _sm_vanishing, VANISHING),
    ("DeadRelu", lambda h: any(share > 0.5 for row in _by_layer(h, "dead") for share in row), DEAD),
    ("WeightUpdateRatio", lambda h: any(not 1e-8 <= size <= 10 for size in _sizes(h)), (*HIGH, *LOW)),
    ("CheckInputImages", lambda h: abs(h.inputs[0]) > 0.2 or abs(h.inputs[1] - 1) > 0.2, INPUTS),
    ("ClassImbalance", lambda h: max(h.shares) > 10 * min(h.shares), ("imbalance", "one_class")),
    ("LossNotDecreasing", _sm_loss_not_decreasing, STUCK),
    ("Overtraining", _sm_overtraining, ("overfitted",)),
    ("Overfit", _sm_overfit, GAP),
]


# --- UMLAUT: heuristics at each epoch ---


def _um_overfitting(history: History) -> bool:
    """Val loss up while the training loss is not, in one epoch."""
    train, val = pairwise(history.curve("loss/train")), pairwise(history.curve("loss/val"))
    return any(b > a and d <= c for (c, d), (a, b) in zip(train, val, strict=True))


def _um_val_too_high(history: History) -> bool:
    """Val accuracy above 95 %, or above that of train."""
    pairs = zip(history.curve("accuracy/train"), history.curve("accuracy/val"), strict=True)
    return any(val > 0.95 or val > train for train, val in pairs)


def _highest_rate(history: History) -> float:
    return max((row["rate/lr"] for row in history.steps if "rate/lr" in row), default=0.0)


UMLAUT: list[Rule] = [
    ("NaN in loss", _not_finite, NOT_FINITE),
    ("learning rate high", lambda h: _highest_rate(h) > 0.01, HIGH),
    ("learning rate low", lambda h: _highest_rate(h) < 1e-5, LOW),
    ("input not normalised", lambda h: h.inputs[2] < -1 or h.inputs[3] > 1, INPUTS),
    ("overfitting", _um_overfitting, GAP),
    ("val accuracy suspicious", _um_val_too_high, ("leak", "val_above_train")),
    (
        "high dropout",
        lambda h: float((h.config.get("model") or {}).get("dropout") or 0) > 0.5,
        ("regularized", "too_much_regularization"),
    ),
]


# --- AutoTrainer: five problems, looked for while accuracy is low ---


GATE = 0.7  # gradients are looked at only while the best accuracy is below it, or no epoch gains a point


def _at_is_low(history: History) -> bool:
    train, val = history.curve("accuracy/train"), history.curve("accuracy/val")
    if not len(val):
        return True
    return min(train.max(), val.max()) < GATE or _at_stands(history)


def _at_stands(history: History) -> bool:
    """No epoch gains a point, on train or on val."""
    return all(max(np.diff(history.curve(f"accuracy/{part}")), default=0.0) < 0.01 for part in ("train", "val"))


def _at_oscillates(history: History) -> bool:
    """A fifth of the epochs are peaks that are 3 points above a valley."""
    curve = history.curve("accuracy/train")
    inner = range(1, len(curve) - 1)
    peaks = [curve[i] for i in inner if curve[i] >= curve[i - 1] and curve[i] >= curve[i + 1]]
    valleys = [curve[i] for i in inner if curve[i] <= curve[i - 1] and curve[i] <= curve[i + 1]]
    swings = sum(high - low >= 0.03 for high, low in zip(peaks, valleys, strict=False))
    return bool(peaks) and swings >= 0.2 * len(curve)


AUTOTRAINER: list[Rule] = [
    ("exploding (not finite)", _not_finite, NOT_FINITE),
    ("dying ReLU", lambda h: _at_is_low(h) and any(s >= 0.7 for row in _by_layer(h, "dead") for s in row), DEAD),
    ("exploding gradient", lambda h: _at_is_low(h) and any(r > 70 for _, r in _ratio_of_gradients(h)), EXPLODING),
    (
        "vanishing gradient",
        lambda h: _at_is_low(h) and any(norm < 1e-4 and r < 1e-3 for norm, r in _ratio_of_gradients(h)),
        VANISHING,
    ),
    ("slow convergence", lambda h: _at_is_low(h) and _at_stands(h), STUCK),
    ("oscillating loss", lambda h: not _at_is_low(h) and _at_oscillates(h), UNSTABLE),
]


# --- TheDeepChecker: properties before and during a training ---


def _dc_loss_not_decreasing(history: History) -> bool:
    """Less than 5 % down in 5 periods; a validation stands for a period."""
    loss = history.curve("loss/train")
    return any(loss[i] > 0.95 * loss[i - 5] for i in range(5, len(loss)))


def _dc_diverges(history: History) -> bool:
    loss = history.curve("loss/train")
    return any(loss[i] >= 2 * loss[:i].min() for i in range(1, len(loss)))


def _dc_initial_loss(history: History) -> bool:
    if history.initial_loss is None:
        return False
    loss, guess = history.initial_loss["train"], history.initial_loss["equal_logits"]
    return abs(loss - guess) >= abs(guess)


def _dc_perplexity(history: History) -> bool:
    shares = np.array(history.shares)[np.array(history.shares) > 0]
    return float(np.exp(-(shares * np.log(shares)).sum())) / len(history.shares) < 0.5


def _dc_oscillates(history: History) -> bool:
    """More than half of the changes of the loss turn their sign."""
    signs = np.sign(np.diff(history.curve("loss/train")))
    return len(signs) > 2 and bool((signs[1:] != signs[:-1]).mean() > 0.5)


def _dc_activations(history: History) -> bool:
    """A layer's output has a standard deviation outside 0.5 to 2; without the last layer."""
    return any(not 0.5 <= std <= 2 for row in _by_layer(history, "activation_std") for std in row[:-1])


DEEPCHECKER: list[Rule] = [
    ("NaN loss", _not_finite, NOT_FINITE),
    ("initial loss", _dc_initial_loss, ("start_too_bad", "signal_explodes")),
    ("unbalanced labels", _dc_perplexity, ("imbalance", "one_class")),
    ("unscaled inputs", lambda h: abs(h.inputs[0]) > 0.2 or abs(h.inputs[1] - 1) > 0.2, INPUTS),
    ("dead ReLU", lambda h: any(share > 0.5 for row in _by_layer(h, "dead") for share in row), DEAD),
    ("vanishing gradient", lambda h: any(r < 1e-3 for _, r in _ratio_of_gradients(h)), VANISHING),
    ("exploding gradient", lambda h: any(r > 1e3 for _, r in _ratio_of_gradients(h)), EXPLODING),
    ("updates too large", lambda h: any(size > 0.1 for size in _sizes(h)), HIGH),
    ("updates too small", lambda h: any(size < 1e-4 for size in _sizes(h)[:2]), LOW),
    ("diverging loss", _dc_diverges, UNSTABLE),
    ("loss not decreasing", _dc_loss_not_decreasing, STUCK),
    ("loss oscillates", _dc_oscillates, UNSTABLE),
    ("activations out of range", _dc_activations, ("signal_dies", "signal_explodes", "start_too_bad")),
]

TOOLS = {"SageMaker": SAGEMAKER, "UMLAUT": UMLAUT, "AutoTrainer": AUTOTRAINER, "TheDeepChecker": DEEPCHECKER}


Alarm = tuple[str, tuple[str, ...]]  # its name, and the verdicts of ours that it could mean


def listen(history: History) -> dict[str, list[Alarm]]:
    """Return the alarms of each tool, in its order."""
    return {tool: [(name, means) for name, fires, means in rules if fires(history)] for tool, rules in TOOLS.items()}

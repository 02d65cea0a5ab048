"""What measurements of a set-up mean: pure functions, a verdict for each row of the decision table.

A fault is a broken set-up, advice could make it better, a remark is only seen. "certain": the symptom names its cause,
its remedy was tested and no other does as well; or the symptom proves it. A wrong verdict is worse than none.
"""

from dataclasses import dataclass
from typing import Literal

TITLES = {
    "one_class": "all training images have one class",
    "equal_images": "the training images are the same",
    "contradictions": "the same image has several labels",
    "leak": "val holds images of train",
    "not_finite": "the first outputs are inf or NaN",
    "loss_upside_down": "the loss rewards wrong answers",
    "batch_mixed": "images of a batch influence one another",
    "loss_mixed": "the loss of an image depends on the labels of others",
    "probabilities": "the outputs are probabilities already",
    "linear": "the network is a straight line",
    "not_trained": "parameters that no step changes",
    "input_scale": "the inputs have an unusual scale",
    "first_loss": "the first loss is far from guessing",
    "rate_too_high": "the learning rate is too high",
    "rate_too_low": "the learning rate is too low",
    "modes_differ": "the network answers otherwise in training than in evaluation",
    "remedied": "it learns only with a change",
    "cannot_memorise": "the set-up cannot memorise a few images",
    "regularized": "regularization keeps it from learning",
    "start_too_bad": "the start keeps it from learning",
    "unusual_start": "the usual start is better",
    "labels_are_noise": "the labels have nothing to do with the images",
    "labels_are_wrong": "part of the labels is wrong",
    "no_signal": "no rate is better than guessing",
    "better_rate": "another learning rate learns faster",
    "ignores_input": "the outputs do not depend on the images",
    "signal_dies": "the signal dies on its way through the layers",
    "signal_explodes": "the signal explodes on its way through the layers",
    "dead_units": "most units of a layer are silent",
    "better_settings": "another rate or weight decay ends better",
    "below_linear": "a straight line does better",
    "imbalance": "one class has most of the images",
    "split_differs": "val is of another kind than train",
    # of the curves of a run
    "became_not_finite": "a value became inf or NaN",
    "flat_from_start": "nothing is learned from the start",
    "diverged": "it had learned, and then diverged",
    "no_transfer": "it learns its training images and nothing of val",
    "too_much_regularization": "too much regularization",
    "clipped": "clipping holds the steps back",
    "decayed_too_early": "the rate decays too early",
    "warmup_too_long": "the warm-up takes too much of the run",
    "overfitted": "overfitting",
    "val_above_train": "val is better than the training images",
    "train_longer": "it still improves",
    "underfitted": "the model is too small",
    "noisy_late": "the rate stays too high to the end",
    "plateau": "it stands still at a constant rate",
    "overconfident": "too sure of itself, not worse",
    "harder_in_training": "training accuracy is low because of the regularizers",
    "healthy": "nothing is wrong",
}
SIGNS = {  # how a verdict is seen, and what is tried or said then
    "one_class": ("diagnose: counts of the training labels", "look at the labels"),
    "equal_images": ("diagnose: their pixels", "look at the pictures"),
    "contradictions": ("diagnose: equal pixels, other labels, 1 % of train and more", "mend the labels"),
    "leak": ("diagnose: equal pixels in two splits", "split again"),
    "not_finite": ("diagnose: the first forward pass, layer by layer", "look at this layer"),
    "loss_upside_down": ("diagnose: the gradient of the loss at equal logits", "mend the loss"),
    "batch_mixed": ("diagnose: the gradient of an output on other images", "look for a reshape in the model"),
    "loss_mixed": ("diagnose: the gradient under another label elsewhere", "look for a mean over the wrong axis"),
    "probabilities": ("diagnose: outputs that are positive and sum to 1", "leave the softmax out of the model"),
    "linear": ("diagnose: between two images its outputs lie half-way", "look for a missing activation"),
    "not_trained": ("diagnose: not in the optimizer, or without a gradient", "hand them over; look for a detach"),
    "input_scale": ("diagnose: mean and standard deviation of each channel", "data.mean=null data.std=null"),
    "first_loss": ("diagnose: loss before the first step, 1.5 times that of guessing", "nothing, while it learns"),
    "rate_too_high": ("diagnose: another rate learns. Curves: guessing, the loss above equal logits", "a lower rate"),
    "rate_too_low": ("diagnose: another rate learns. Curves: the loss falls steadily, and little", "a higher rate"),
    "modes_differ": (
        "diagnose: a sample is known in training mode only",
        "another norm; look at what the modes change",
    ),
    "remedied": ("diagnose: a sample is memorised only with one change", "that change"),
    "cannot_memorise": ("diagnose: no rate and no change lets it memorise a sample", "look at model and loss"),
    "regularized": ("diagnose: a short run learns only without a regularizer", "without it"),
    "start_too_bad": ("diagnose: a short run learns only from another start", "that start"),
    "unusual_start": ("diagnose: an initialization or norm was typed that is not the usual one", "the usual one"),
    "labels_are_noise": ("diagnose: val is not learned, permuted labels are learned as fast", "look at the labels"),
    "labels_are_wrong": ("diagnose: where it is surest many labels differ, and are any class", "look at the labels"),
    "no_signal": ("diagnose: memorises, but no rate beats guessing on new images", "look at the labels"),
    "better_rate": ("diagnose: a short run with another rate is better, five errors", "that rate"),
    "ignores_input": ("diagnose: outputs are the same for all images, none can be memorised", "look at the layers"),
    "signal_dies": ("diagnose: each layer halves the spread, another start memorises", "that start, or norm=batch"),
    "signal_explodes": (
        "diagnose: each layer doubles the spread, another start memorises",
        "that start, or norm=batch",
    ),
    "dead_units": ("diagnose: over half of a layer is silent, another start memorises", "that start, or activation"),
    "better_settings": ("diagnose: whole runs, compared on each image of val, three errors", "that rate and decay"),
    "below_linear": ("diagnose: softmax regression on the same images, five errors", "without each regularizer"),
    "imbalance": ("diagnose: largest class, more than half-way from even to all", "loss.class_weights=auto"),
    "split_differs": ("diagnose: val at guessing, a straight line tells it from train", "split again"),
    "became_not_finite": ("curves: the run has failed so", "a tenth of the rate"),
    "flat_from_start": ("curves: val and train stay at guessing, at a usual rate", "initialization, norm=batch"),
    "diverged": ("curves: val lost half of what it had, the loss doubled", "a third of the rate"),
    "no_transfer": ("curves: train is learned, val stays at guessing", "look at labels and val"),
    "too_much_regularization": ("curves: train is not learned, a regularizer is extreme", "a usual value of it"),
    "clipped": ("curves: train is not learned, clip_norm is far below the gradient", "clip_norm=null"),
    "decayed_too_early": ("curves: train is not learned, most of the run below a tenth of the rate", "schedule=cosine"),
    "warmup_too_long": ("curves: train is not learned, the warm-up is half of the run", "schedule.warmup=0.1"),
    "overfitted": ("curves: train ahead of val by 3 points and 3 errors", "all images, aug=mixup, smoothing, decay"),
    "val_above_train": ("curves: val ahead of train by 2 points and 3 errors", "look for leaks"),
    "train_longer": ("curves: train below 97 %, val no worse, or few steps", "twice the epochs"),
    "underfitted": (
        "curves: train below 90 %, the loss stands; or a layer of few units",
        "wider layers",
    ),
    "noisy_late": ("curves: val loss jumps about a level, the rate never fell", "schedule=cosine"),
    "plateau": ("curves: val loss stands, the rate never fell", "schedule=cosine"),
    "overconfident": ("curves: val loss has risen, accuracy has not fallen", "loss.label_smoothing=0.1"),
    "harder_in_training": ("curves: accuracy as trained on is far below val", "nothing"),
    "healthy": ("curves: train is learned, val follows", "three seeds"),
}


Confidence = Literal["certain", "likely", "possible", ""]


@dataclass(frozen=True)
class Verdict:
    """What is wrong, how sure that is, and what to type instead. override: empty if no setting mends it."""

    name: str
    kind: Literal["fault", "advice", "remark"]
    confidence: Confidence
    evidence: str
    override: str = ""

    @property
    def sentence(self) -> str:
        sure = f" ({self.confidence})" if self.confidence else ""
        return f"{TITLES[self.name]}{sure}: {self.evidence}"

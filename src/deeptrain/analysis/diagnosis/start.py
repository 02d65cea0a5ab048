"""Step 1: what is seen before the first step, in images, labels, outputs and the gradients of the loss."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from deeptrain.analysis.diagnosis.judge_start import Start
from deeptrain.analysis.diagnosis.subject import Opened
from deeptrain.analysis.initial_loss import initial_loss
from deeptrain.analysis.short_runs import preserved
from deeptrain.data.dataset import evenly_spaced
from deeptrain.data.leaks import contradictions
from deeptrain.loss import CrossEntropy
from deeptrain.training.nonfinite import first_layer
from deeptrain.training.rehearsal import unchanged
from deeptrain.training.trainer import Trainer
from deeptrain.training.validation import predict

LOOKED_AT = 256  # training images, before the first step
FAR_OFF = 1e3  # times the images
VARIES, STRAIGHT = 1e-3, 1e-4  # spread over images, as a part of the outputs; and bend, as a part of the spread


def measure_start(opened: Opened, leaks: list[str]) -> Start:
    """Measure what is seen before the first step; the trainer is as before."""
    trainer, classes = opened.trainer, opened.classes
    counts = np.bincount(opened.train.labels, minlength=classes)
    with preserved(trainer), unchanged(trainer.model):
        images, labels = opened.first(opened.train.select(evenly_spaced(len(opened.train), LOOKED_AT)))
        first = initial_loss(trainer, images[: len(images) // 4 or 1], labels[: len(images) // 4 or 1])
        inputs = trainer.pipeline.evaluate(images)
        logits = predict(trainer.model, [(images, labels)], trainer.pipeline, trainer.runtime)[0]
        trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
        held = set(map(id, trainer.parameters))
        bad_layer = first_layer(trainer.model, inputs) if not logits.isfinite().all() else None
        shares = torch.from_numpy(counts / counts.sum()).float().clamp(min=1e-6).log().repeat(len(labels), 1)
        guess = min(_value(trainer.validator.loss, guessed, labels) for guessed in (0 * shares, shares))
        return Start(
            images=len(opened.train),
            classes=int(np.count_nonzero(counts)),
            different=len(np.unique(images.cpu().flatten(1).numpy(), axis=0)),
            contradictions=len(contradictions(opened.train)) / len(opened.train),
            leaks=tuple(leaks),
            bad_layer=bad_layer,
            loss=first["train"] if first else math.nan,
            guess=guess,
            batch_mixed=mixes_batch(trainer.model, inputs[:4]),
            loss_mixed=mixes_labels(trainer.loss, labels, classes),
            upside_down=is_upside_down(trainer.loss, labels, classes),
            probabilities=_are_probabilities(logits) and _takes_softmax(trainer.loss),
            scale=_scale(inputs),
            missing=tuple(name for name, parameter in trained.items() if id(parameter) not in held),
            unused=unused_parameters(trainer, trained, inputs, labels) if bad_layer is None else (),
            parameters=len(trained),
            frozen=_frozen(trainer.model) if opened.is_random else (),
            linear=bad_layer is None and is_linear(trainer.model, inputs),
        )


def _frozen(model: nn.Module) -> tuple[str, ...]:
    return tuple(name for name, p in model.named_parameters() if not p.requires_grad and p.ndim > 1)


def is_linear(model: nn.Module, inputs: Tensor) -> bool:
    """Tell whether several layers give no more than one: of a mean of two images the mean of what each gives.

    Far from the data too, for near zero a tanh is a straight line. Outputs that are equal for all images tell nothing.
    """
    layers = [name for name, parameter in model.named_parameters() if parameter.ndim > 1]
    if len(layers) < 2 or len(inputs) < 4 or not inputs.is_floating_point():
        return False
    count = len(inputs) // 2
    model.eval()
    with torch.no_grad():
        for scale in (1.0, FAR_OFF):
            one, two = scale * inputs[:count], scale * inputs[count : 2 * count]
            first, second, middle = (model(images).double() for images in (one, two, (one + two) / 2))
            bend, spread = (first + second - 2 * middle).abs().max(), (first - second).abs().max()
            size = max(float(first.abs().max()), float(second.abs().max()))
            if not (spread > VARIES * size and bend < STRAIGHT * spread):
                return False
    return True


def _value(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor) -> float:
    try:
        return float(loss(logits.to(labels.device), labels))
    except RuntimeError:
        return math.nan


def unused_parameters(
    trainer: Trainer, parameters: Mapping[str, Tensor], inputs: Tensor, labels: Tensor
) -> tuple[str, ...]:
    """Return the names of the parameters that the loss does not depend on, neither in evaluation nor in training.

    In training a block may be left out by chance, and in evaluation another head.
    """
    unused = dict(parameters)
    for is_training in (False, True):
        if not unused:
            break
        trainer.model.train(is_training)
        with trainer.runtime.autocast:
            loss = trainer.loss(trainer.model(inputs), labels)
        if loss.requires_grad:
            gradients = torch.autograd.grad(loss, list(unused.values()), allow_unused=True)
            unused = {name: unused[name] for name, found in zip(unused, gradients, strict=True) if found is None}
    return tuple(unused)


def mixes_batch(model: nn.Module, inputs: Tensor) -> bool:
    """Tell whether in evaluation an output has a gradient on the other images of its batch."""
    if len(inputs) < 2 or not inputs.is_floating_point():
        return False
    inputs = inputs.detach().clone().requires_grad_()
    model.eval()
    try:
        outputs = model(inputs)[0].float()
        (gradient,) = torch.autograd.grad(outputs.sum() + outputs.square().sum(), inputs, allow_unused=True)
    except RuntimeError:  # a network without gradients on its inputs
        return False
    return gradient is not None and bool(gradient[1:].abs().max() > 1e-6 * gradient[0].abs().max())


def _gradient(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor) -> Tensor:
    logits = logits.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits, labels), logits)
    return gradient


def mixes_labels(loss: Callable[[Tensor, Tensor], Tensor], labels: Tensor, classes: int) -> bool:
    """Tell whether the gradient of an image turns when the labels of the others change; its length may change."""
    labels = labels[: min(8, len(labels))]
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(len(labels), classes, generator=rng).to(labels.device)
    others = (labels + 1) % classes
    others[0] = labels[0]
    try:
        one, two = (_gradient(loss, logits, each)[0] for each in (labels, others))
    except RuntimeError:
        return False
    return bool(torch.cosine_similarity(one, two, dim=0) < 0.99) if float(one.norm() * two.norm()) > 0 else False


def is_upside_down(loss: Callable[[Tensor, Tensor], Tensor], labels: Tensor, classes: int) -> bool:
    """Tell whether a step down the loss, from equal logits, lowers the right classes beside the others."""
    logits = torch.zeros(len(labels), classes, device=labels.device)
    try:
        gradient = _gradient(loss, logits, labels)
    except RuntimeError:
        return False
    right = gradient.gather(1, labels[:, None]).squeeze(1)
    others = (gradient.sum(1) - right) / max(1, classes - 1)
    return bool(((right - others) > 1e-12 * gradient.abs().max()).float().mean() > 0.9)


def _are_probabilities(logits: Tensor) -> bool:
    return bool((logits >= 0).all() and ((logits.sum(1) - 1).abs() < 1e-3).all())


def _takes_softmax(loss: object) -> bool:
    return loss is cross_entropy or isinstance(loss, CrossEntropy | nn.CrossEntropyLoss)


def _scale(inputs: Tensor) -> tuple[float, float]:
    """Return mean and standard deviation of the channel that is furthest from 0 and 1."""
    values = inputs.float().transpose(0, 1).flatten(1)
    pairs = list(zip(values.mean(1).tolist(), values.std(1).tolist(), strict=True))
    return max(pairs, key=lambda pair: abs(pair[0]) + abs(math.log(max(pair[1], 1e-9))))

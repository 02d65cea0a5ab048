"""What is seen before the first step, and what it means: a pure function, a verdict for each row of the table."""

from dataclasses import dataclass

from deeptrain.analysis.diagnosis.judgements import Reading
from deeptrain.analysis.verdicts import Verdict
from deeptrain.report.formatting import format_loss, percent

MIN_SHARE = 0.01  # of the images: fewer spoil little
FAR = 1.5  # times the loss of guessing


@dataclass(frozen=True)
class Start:
    """What is seen before the first step, on some training images.

    loss, guess: of the network and of guessing; NaN if unknown. mixed: a label or image changes what another image
    gives. upside_down: at equal logits the loss asks for less of the right class. probabilities: every output is
    positive, and those of an image sum to 1. missing: names of the parameters that the optimizer does not hold, unused:
    of those that the loss does not depend on, of so many `parameters`; frozen: of random weights that ask for no
    gradient. scale: mean and standard deviation of the channel that is furthest off. linear: several layers give no
    more than a single one would.
    """

    images: int
    classes: int  # that have training images
    different: int  # images, of those that were looked at
    contradictions: float  # share of train: equal images with other labels
    leaks: tuple[str, ...]  # a sentence for each split that holds images of train
    bad_layer: str | None
    loss: float
    guess: float
    batch_mixed: bool
    loss_mixed: bool
    upside_down: bool
    probabilities: bool
    scale: tuple[float, float]
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    parameters: int = 0
    frozen: tuple[str, ...] = ()
    linear: bool = False


def read_start(start: Start) -> Reading:
    """Judge what is seen before the first step."""
    found = [*_data_verdicts(start), *_code_verdicts(start), *_idle_verdicts(start), *_scale_verdicts(start)]
    excluded = [
        "equal images with other labels",
        "inf or NaN",
        "a loss upside down",
        "images that influence one another",
    ]
    return Reading(found, excluded if not any(verdict.kind == "fault" for verdict in found) else [])


def _data_verdicts(start: Start) -> list[Verdict]:
    found = []
    if start.classes < 2:
        found.append(Verdict("one_class", "fault", "certain", f"{start.images:,} images, one label"))
    if start.different == 1:
        evidence = "all that were looked at have the same pixels"
        found.append(Verdict("equal_images", "fault", "certain", evidence))
    if start.contradictions >= MIN_SHARE:
        evidence = f"{percent(start.contradictions)} of the training images; no network gets these right"
        found.append(Verdict("contradictions", "fault", "certain", evidence))
    return found + [Verdict("leak", "advice", "certain", sentence) for sentence in start.leaks]


def _code_verdicts(start: Start) -> list[Verdict]:
    found = []
    if start.bad_layer is not None:
        evidence = f"first in layer {start.bad_layer}, before any step"
        found.append(Verdict("not_finite", "fault", "certain", evidence))
    if start.upside_down:
        evidence = "at equal logits its gradient lowers the right class"
        found.append(Verdict("loss_upside_down", "fault", "certain", evidence))
    if start.batch_mixed:
        evidence = "in evaluation an output has a gradient on the other images of its batch; look for a reshape"
        found.append(Verdict("batch_mixed", "fault", "certain", evidence))
    if start.loss_mixed:
        evidence = "another label elsewhere in the batch turns the gradient of an image; look for a mean over its axis"
        found.append(Verdict("loss_mixed", "fault", "certain", evidence))
    if start.probabilities:
        evidence = "all are positive and sum to 1, and the loss takes the softmax again; leave it out of the model"
        found.append(Verdict("probabilities", "fault", "likely", evidence))
    if start.linear:
        evidence = "what it says of a mean of two images is the mean of what it says of each; "
        evidence += "look for a missing activation between its layers"
        found.append(Verdict("linear", "advice", "certain", evidence))
    return found


def _idle_verdicts(start: Start) -> list[Verdict]:
    """Say which parameters no step changes; a set-up that changes none cannot learn."""
    found = []
    for names, why in ((start.missing, "the optimizer does not hold"), (start.unused, "the loss does not depend on")):
        if names:
            evidence = f"{why} {len(names)} of {start.parameters} parameters, such as {names[0]}"
            kind = "fault" if len(names) == start.parameters else "advice"
            found.append(Verdict("not_trained", kind, "certain", evidence))
    if start.frozen:
        evidence = f"requires_grad is off for {len(start.frozen)} random weights, such as {start.frozen[0]}"
        found.append(Verdict("not_trained", "advice", "certain", evidence))
    return found


def _scale_verdicts(start: Start) -> list[Verdict]:
    """Say what is unusual. Only a set-up that cannot memorise makes it a fault."""
    found = []
    mean, std = start.scale
    if abs(mean) > 2 or not 0.1 <= std <= 10:
        evidence = f"mean {mean:.3g}, standard deviation {std:.3g}; usual are 0 and 1"
        found.append(Verdict("input_scale", "remark", "", evidence, "data.mean=null data.std=null"))
    if start.loss > FAR * start.guess > 0:
        evidence = f"{format_loss(start.loss)}, guessing gives {format_loss(start.guess)}"
        found.append(Verdict("first_loss", "remark", "", evidence))
    return found

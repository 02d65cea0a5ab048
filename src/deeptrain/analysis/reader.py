"""Reading a run's curves in words: what they show, how sure that is, and which setting to try. No torch.

A reading tests nothing, so it is "likely" or "possible", never "certain". Saying nothing is a valid answer.
"""

import math
from collections.abc import Callable, Sequence
from statistics import median

from deeptrain.analysis import remedies
from deeptrain.analysis.curves import difference_error, is_falling, noise_level, share_error
from deeptrain.analysis.run_record import FULL_RATE, Record
from deeptrain.analysis.verdicts import Verdict
from deeptrain.report import formatting

TIGHT_CLIP, FAR_ABOVE = 0.01, 10.0  # clip_norm, and times clip_norm that the gradient is
SMALL_STEP, LARGE_STEP = 3e-5, 0.2  # update over weight at the full rate: outside of it hardly any network learns
FEW = 50  # validation images: fewer cannot tell anything from guessing
LONG_WARMUP = 0.5  # of the run
MIN_STEPS = 100  # a shorter run has hardly begun
LEARNED = 0.97  # of the training images: then little is left to learn


def read(record: Record) -> list[Verdict]:
    """Return what a run's curves show: at most one fault, or up to two advices and a remark; [] is no diagnosis."""
    for rule in FAULTS:
        if (found := rule(record)) is not None:
            return [found]
    advices = [found for rule in ADVICES if (found := rule(record)) is not None]
    remarks = [found for rule in REMARKS if (found := rule(record)) is not None]
    if not advices and record.is_over and (healthy := _healthy(record)) is not None:
        return [healthy, *remarks[:1]]
    return [*advices[:2], *remarks[:1]]


def lines(findings: Sequence[Verdict], command: Callable[[str], str]) -> list[str]:
    """Return at most three lines: a reading, what to try, a second reading. command: writes an override to paste."""
    found = []
    for finding in findings[:2]:
        found.append(f"reading  {finding.sentence}")
        if finding.override and len(found) < 3:
            found.append(f"try  {command(finding.override)}")
    return found[:3]


# --- faults: it does not learn ---


def _not_finite(record: Record) -> Verdict | None:
    reason = str(record.result.get("reason", ""))
    if record.result.get("status") != "failed" or not any(
        word in reason for word in ("not finite", "is nan", "is inf")
    ):
        return None
    what, _, rest = reason.partition(" in step ")
    step = f" in step {rest.split()[0]}" if rest else ""
    return Verdict(
        "became_not_finite", "fault", "likely", f"{what}{step}; mostly the rate is too high", remedies.slower(record)
    )


def _diverged(record: Record) -> Verdict | None:
    """It had learned more than its error, then lost half of it or more. The training loss rose with it."""
    accuracy, loss = record.curve("accuracy/val"), record.train_loss
    if len(accuracy) < 3 or not record.val or len(loss) != len(accuracy):
        return None
    best, last = max(accuracy), accuracy[-1]
    lost, error = best - last, difference_error((best, record.val), (last, record.val))
    if lost < max(0.5 * (best - record.chance), 5 * error) or loss[-1] < 2 * min(loss):
        return None
    epoch = record.rows[accuracy.index(best)]["epoch"]
    evidence = f"val fell from {_share(best, record.val)} in epoch {epoch:g} to {_share(last, record.val)}"
    return Verdict(
        "diverged", "fault", "likely", f"{evidence}; the rate is too high for it", remedies.slower(record, 1 / 3)
    )


def _learned_nothing(record: Record) -> Verdict | None:
    """Neither val nor training images are ever better than the best constant answer."""
    rows, loss = record.rows, record.train_loss
    if not rows or rows[-1]["step"] < MIN_STEPS or len(loss) < 2:
        return None
    if record.val < FEW or _beats_chance(record):
        return None
    val, equal, ratio = record.curve("accuracy/val")[-1], record.equal_logits, record.rate_ratio
    guess = f"val {_share(val, record.val)} is that of guessing"
    if strong := remedies.strong(record):
        return Verdict("too_much_regularization", "fault", "likely", f"{guess}; {strong[0]}", strong[1])
    if equal is not None and _was_driven_up(record, equal):
        evidence = f"{guess}; the loss rose to {_loss(max(loss))}, equal logits give {_loss(equal)}"
        return Verdict("rate_too_high", "fault", "likely", evidence, remedies.slower(record))
    if clipped := _tight_clip(record):
        return Verdict("clipped", "fault", "likely", f"{guess}; {clipped}", "clip_norm=null")
    if ratio is not None and ratio >= 10:
        evidence = f"{guess}; optimizer.lr is {ratio:.0f} times the usual one of {record.option('optimizer')}"
        return Verdict("rate_too_high", "fault", "likely", evidence, remedies.slower(record))
    if ratio is not None and ratio <= 0.03:
        evidence = f"{guess}; loss {_loss(loss[0])} to {_loss(loss[-1])}, optimizer.lr is {_usual(ratio)}"
        return Verdict("rate_too_low", "fault", "likely", evidence, remedies.faster(record))
    stands = f"the loss went from {_loss(loss[0])} to {_loss(loss[-1])}"
    remedy, cause = remedies.start_remedy(record)
    return Verdict("flat_from_start", "fault", "possible", f"{guess}; {stands}; {cause}", remedy)


def _no_transfer(record: Record) -> Verdict | None:
    """It learns its own images by heart, and val stays at guessing."""
    val, gap = record.last("accuracy/val"), record.gap
    if gap is None or record.fitted is None or val is None:
        return None
    learned, error = record.fitted[0] - record.chance, share_error(record.chance, record.val)
    if learned < 0.3 or gap[0] < 5 * gap[1] or val > record.chance + min(3 * error, 0.2 * learned):
        return None
    evidence = f"train {_share(*record.fitted)}, val {_share(val, record.val)}, guessing {record.chance:.0%}"
    causes = "the labels are random, or val is of another kind; look at mistakes.png and samples.png"
    return Verdict("no_transfer", "fault", "likely", f"{evidence}; {causes}")


def _rate_far_too_low(record: Record) -> Verdict | None:
    """The loss falls steadily and comes nowhere, at a rate far below the usual."""
    way, ratio, size = _way(record), record.rate_ratio, record.step_size
    is_low, is_small = ratio is not None and ratio <= 0.03, size is not None and size < SMALL_STEP
    if way is None or not (is_low or is_small) or way > 0.3 or not is_falling(record.train_loss):
        return None
    loss = record.train_loss
    cause = f"optimizer.lr is {_usual(ratio)}" if ratio and is_low else f"a step changes the weights by {size:.0e}"
    evidence = f"loss {_loss(loss[0])} to {_loss(loss[-1])}, steadily; {cause}"
    return Verdict("rate_too_low", "fault", "likely", evidence, remedies.faster(record))


def _held_back(record: Record) -> Verdict | None:
    """It does not fit its own images, and a setting that is known to prevent that is strong."""
    if not _underfits(record, 0.9):
        return None
    assert record.fitted is not None
    own = f"train {_share(*record.fitted)}, not ahead of val"
    if strong := remedies.strong(record):
        return Verdict("too_much_regularization", "fault", "likely", f"{own}; {strong[0]}", strong[1])
    if clipped := _tight_clip(record):
        return Verdict("clipped", "fault", "likely", f"{own}; {clipped}", "clip_norm=null")
    if record.step_size is not None and record.step_size > LARGE_STEP:
        evidence = f"{own}; a step changes the weights by {record.step_size:.0%}"
        return Verdict("rate_too_high", "fault", "likely", evidence, remedies.slower(record))
    if (ratio := record.rate_ratio) is not None and ratio >= 30 and record.fitted[0] < 0.7:
        evidence = f"{own}; optimizer.lr is {ratio:.0f} times the usual one of {record.option('optimizer')}"
        return Verdict("rate_too_high", "fault", "likely", evidence, remedies.slower(record))
    return None


# --- advices: it could be better ---


def _schedule(record: Record) -> Verdict | None:
    """It does not fit its own images, and had a small part of the rate for most of the run."""
    if not _underfits(record, LEARNED) or len(record.factors) < 4:
        return None
    low = [factor < 0.1 for factor in record.factors]
    assert record.fitted is not None
    own = f"train {_share(*record.fitted)}, not ahead of val"
    if sum(low) > 0.6 * len(low) and all(low[-sum(low) :]):
        evidence = f"{own}; the rate was below a tenth at {sum(low)} of {len(low)} validations"
        return Verdict("decayed_too_early", "advice", "likely", evidence, "schedule=cosine")
    if record.warmup >= LONG_WARMUP:
        evidence = f"{own}; the rate rose through {record.warmup:.0%} of the run"
        return Verdict("warmup_too_long", "advice", "likely", evidence, "schedule.warmup=0.1")
    return None


def _overfitted(record: Record) -> Verdict | None:
    if record.gap is None or not record.rows:
        return None
    (gap, error), losses = record.gap, record.curve("loss/val")
    if gap < 3 * error or gap < 0.03:
        return None
    evidence = f"train is {100 * gap:.0f} ± {100 * error:.0f} points ahead of val"
    rises = _rise(losses)
    if rises:
        evidence += f", and val loss has risen from {_loss(min(losses))} to {_loss(losses[-1])}"
    return Verdict("overfitted", "advice", "likely", evidence, remedies.regularizer(record))


def _not_enough(record: Record) -> Verdict | None:
    """It does not fit its own images and was still improving; else the model is too small."""
    if not _underfits(record, LEARNED) or len(record.rows) < 2 or _schedule(record) is not None:
        return None
    assert record.fitted is not None
    own, ratio = f"train {_share(*record.fitted)}, not ahead of val", record.rate_ratio
    if narrow := _narrow(record):
        return Verdict("underfitted", "advice", "likely", f"{own}; {narrow}", remedies.larger(record))
    high = [loss for loss, factor in zip(record.train_loss, record.factors, strict=False) if factor >= FULL_RATE]
    half = high[len(high) // 2 :]
    if record.mixes or len(half) < 5 or is_falling(half):
        if ratio is not None and ratio < 0.1 and record.fitted[0] < 0.9:
            evidence = f"{own}; optimizer.lr is {_usual(ratio)}"
            return Verdict("rate_too_low", "advice", "possible", evidence, remedies.faster(record))
        seen = "; the loss still fell while the rate was high" if is_falling(half) else ""
        return Verdict("train_longer", "advice", "likely" if seen else "possible", own + seen, remedies.longer(record))
    if record.fitted[0] < 0.9 and not _regularized(record):
        evidence = f"{own}; the loss stood at {_loss(half[0])} while the rate was high"
        return Verdict("underfitted", "advice", "possible", evidence, remedies.larger(record))
    return None


def _constant_rate(record: Record) -> Verdict | None:
    """The rate was never lowered, and the end is noise about a level."""
    rows, factors, losses = record.rows, record.factors, record.curve("loss/val")
    if not record.is_over or len(rows) < 8 or min(factors[len(factors) // 2 :]) < 0.5 or record.setting("overfit"):
        return None
    tail = losses[-(len(losses) // 2) :]
    if len(tail) != len(losses) // 2 or is_falling(tail) or (record.fitted is not None and record.fitted[0] > 0.995):
        return None
    evidence = f"the loss on val went between {_loss(min(tail))} and {_loss(max(tail))} in the second half"
    noise = noise_level(tail) > 0.1 * min(tail)
    name = "noisy_late" if noise else "plateau"
    return Verdict(name, "advice", "likely", evidence, "schedule=cosine")


# --- remarks ---


def _overconfident(record: Record) -> Verdict | None:
    losses, accuracy = record.curve("loss/val"), record.curve("accuracy/val")
    if not record.val or len(losses) < 5 or record.setting("overfit") or not _rise(losses):
        return None
    if max(accuracy) - accuracy[-1] > 2 * share_error(max(accuracy), record.val):
        return None
    rose = f"val loss rose from {_loss(min(losses))} to {_loss(losses[-1])}"
    evidence = f"{rose}, accuracy stays {_share(accuracy[-1], record.val)}"
    smoothing = record.option("loss") == "CrossEntropy" and not record.number("loss.label_smoothing")
    more = "; loss.label_smoothing=0.1 helps if you need probabilities" if smoothing else ""
    return Verdict("overconfident", "remark", "", evidence + more)


def _harder_in_training(record: Record) -> Verdict | None:
    trained, val = record.last("accuracy/train"), record.last("accuracy/val")
    if trained is None or val is None or record.fitted is None or not record.val or record.setting("overfit"):
        return None
    if len(record.rows) < 4:  # the mean of a whole epoch lags behind its end
        return None
    if val - trained < max(0.05, 3 * share_error(val, record.val)) or not (_regularized(record) or record.mixes):
        return None
    evidence = (
        f"{trained:.0%} as trained on, {record.fitted[0]:.0%} without augmentation and dropout; compare that with val"
    )
    return Verdict("harder_in_training", "remark", "", evidence)


def _val_above_train(record: Record) -> Verdict | None:
    if record.gap is None or record.gap[0] > -max(3 * record.gap[1], 0.02):
        return None
    gap, error = record.gap
    evidence = f"{-100 * gap:.0f} ± {100 * error:.0f} points; does val hold images of train, or easier ones?"
    return Verdict("val_above_train", "remark", "possible", evidence)


def _healthy(record: Record) -> Verdict | None:
    """It fits its images and val follows; say which differences these images can show."""
    val = record.last("accuracy/val")
    if record.gap is None or val is None or record.fitted is None or record.fitted[0] < 0.9:
        return None
    error = share_error(val, record.val)
    see = (
        f"with {record.val:,} validation images no change below {100 * 2 * math.sqrt(2) * error:.1f} points can be seen"
    )
    return Verdict("healthy", "remark", "", f"val {_share(val, record.val)}; {see}, so compare over 3 seeds")


FAULTS = (_not_finite, _diverged, _learned_nothing, _no_transfer, _rate_far_too_low, _held_back)
ADVICES = (_schedule, _overfitted, _not_enough, _constant_rate)
REMARKS = (_val_above_train, _overconfident, _harder_in_training)


# --- what rules share ---


def _beats_chance(record: Record) -> bool:
    """Tell whether val or training images were ever answered better than by guessing, beyond three errors."""
    level, best = record.chance, [(max(record.curve("accuracy/val"), default=0.0), record.val)]
    best.append((max(record.curve("accuracy/train_clean"), default=0.0), record.clean))
    return any(images and share > level + 3 * share_error(level, images) + 0.02 for share, images in best)


def _way(record: Record) -> float | None:
    """Return which part of the loss of equal logits is gone at the end, in [0, 1]."""
    loss, equal = record.train_loss, record.equal_logits
    return None if not loss or not equal or len(loss) < 3 else max(0.0, 1 - loss[-1] / equal)


def _underfits(record: Record, level: float) -> bool:
    """Tell whether training images, not augmented, are answered below a level, and val no worse."""
    if record.gap is None or record.fitted is None or not record.is_over or record.rows[-1]["step"] < MIN_STEPS:
        return False
    share, images = record.fitted
    return share + 2 * share_error(share, images) < level and record.gap[0] < max(3 * record.gap[1], 0.02)


def _was_driven_up(record: Record, equal: float) -> bool:
    """Tell whether training has raised the loss above that of guessing, from a start that was not."""
    loss, ratio = record.train_loss, record.rate_ratio
    if record.initial is None or record.mixes:
        return max(loss) > 1.15 * equal and (ratio is None or ratio > 3)
    return max(loss) > 1.05 * max(equal, record.initial) and (ratio is None or ratio > 1)


def _narrow(record: Record) -> str:
    """Name a hidden layer through which the classes do not fit."""
    hidden = record.setting("model.hidden")
    sizes = [size for size in hidden if isinstance(size, int)] if isinstance(hidden, list) else []
    is_narrow = bool(sizes) and 4 * min(sizes) < record.num_classes and record.fitted is not None
    return f"a hidden layer has {min(sizes)} units for {record.num_classes} classes" if is_narrow else ""


def _tight_clip(record: Record) -> str:
    """Say how far clip_norm is below the gradient, if it is far."""
    clip = record.number("clip_norm")
    norms = [row["vitals/gradient_norm"] for row in record.steps if "vitals/gradient_norm" in row]
    if clip and norms and median(norms) > FAR_ABOVE * clip:
        return f"clip_norm={clip:g}, and the gradient has {median(norms):.2g}"
    return f"clip_norm={clip:g}" if 0 < clip < TIGHT_CLIP and not norms else ""


def _regularized(record: Record) -> bool:
    keys = ("model.dropout", "model.drop_connect", "model.stochastic_depth", "loss.label_smoothing", "penalty.strength")
    return bool(record.config.get("aug")) or any(record.number(key) for key in keys)


def _rise(losses: Sequence[float]) -> bool:
    """Tell whether the loss has risen from its lowest for good: by a tenth and beyond three times its noise."""
    if len(losses) < 5:
        return False
    rise = losses[-1] - min(losses)
    return rise > 0.1 * min(losses) and rise > 3 * noise_level(losses) and min(losses[-3:]) > 1.05 * min(losses)


def _usual(ratio: float) -> str:
    return f"1/{1 / ratio:,.0f} of the usual one" if ratio < 1 else f"{ratio:,.0f} times the usual one"


def _share(share: float, images: int) -> str:
    return f"{100 * share:.1f} ± {100 * share_error(share, images):.1f} %"


def _loss(value: float) -> str:
    return formatting.format_loss(value)

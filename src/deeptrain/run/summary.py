"""What the terminal shows before the first step and after the last one."""

import math
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeptrain import build
from deeptrain.config.compose import experiment_overrides
from deeptrain.config.override import override_key
from deeptrain.config.settings import RunConfig
from deeptrain.errors import UsageError
from deeptrain.model.published import library_of
from deeptrain.report import formatting
from deeptrain.run import record, saved
from deeptrain.runtime.paths import as_typed, quote, quote_setting
from deeptrain.runtime.resources import command

if TYPE_CHECKING:
    from deeptrain.training.trainer import Trainer

JUMP = 2.0  # times as high a rate, or as low
MIN_EPOCHS = 3  # after which a network that learns no longer guesses

MAX_WEIGHTS = 12  # classes whose weight the head names


def header(trainer: "Trainer", setup: build.Setup, run_dir: Path, rate: str | None = None) -> list[str]:
    """Say before the first step what is about to happen. rate: what a search has found."""
    run, choices = setup.run, setup.run.choices
    count = sum(parameter.numel() for parameter in trainer.model.parameters())
    batch = f"{setup.batch_size} images a step, {len(trainer.train_loader)} steps an epoch"
    auto = " (auto: about 100 steps an epoch)" if run.settings.batch_size == "auto" else ""
    groups = ("aug", "optimizer", "gradient", "schedule", "loss", "penalty", "average")
    chosen = [f"{group} {choices[group]}" for group in groups if group == "aug" or choices[group] != "none"]
    chosen[0] = _augmentation(setup)
    recipe = ", ".join(chosen)
    changed = " ".join([*run.overrides, *experiment_overrides(run)])
    lines = [
        f"data       {setup.dataset.summary}",
        f"model      {_model(run)}, {count:,} parameters{_stem(trainer)}",
        f"recipe     {recipe}; {_count(run.settings.epochs, 'epoch')}",
        f"batch      {batch}{auto}; {setup.machine}",
        *(f"chosen     {note}" for note in setup.dataset.notes),
        *_initial_weights(setup),
        *_frozen(trainer, setup),
        *([f"rate       {rate}"] if rate else []),
        *_scaled_rate(setup),
        *_trust_ratios(trainer),
        *_ghost_norms(trainer, setup),
        *_class_weights(trainer, setup),
    ]
    if run.settings.overfit:
        lines.insert(3, f"overfit    val is what is trained on; turned off: {', '.join(run.turned_off) or 'nothing'}")
    if run.settings.max_seconds is not None:
        lines.append("clock      the rate follows the clock (max_seconds), so that repeats differ a little")
    if initial := trainer.metadata["initial_loss"] if not trainer.progress.step else None:
        lines.append(f"start      {_initial_loss(initial, len(setup.dataset.classes))}")
    if trainer.progress.step:
        lines.append(f"resumed    after epoch {trainer.progress.epoch}, step {trainer.progress.step}")
    # where there is no room for all, the last line before the folder is the first to go
    return [*lines, f"changed    {changed or 'nothing: all settings are the defaults'}", f"folder     {run_dir}"]


def _initial_weights(setup: build.Setup) -> list[str]:
    """Return a line that says which weights are loaded, and which are new."""
    initial = setup.initial_weights
    if initial is None or not initial.summary:
        return []
    mean = " ".join(f"{value / 255:.3f}" for value in initial.mean)
    if initial.is_of_a_run:
        inputs = "images normalised as there"
    else:
        inputs = f"images normalised as for it, mean {mean}" if mean else "images normalised by this set's own mean"
    path = initial.path if initial.is_of_a_run else Path(initial.path).name
    return [f"init from  {path}: {initial.summary}; {inputs}"]


def _model(run: RunConfig) -> str:
    """Name the option of the model, and the network of a library that it builds."""
    node = run.parts["model"]
    return f"{run.choices['model']} {node['name']}" if library_of(node) else run.choices["model"]


def _stem(trainer: "Trainer") -> str:
    """Name the stem of a residual network, which goes by the size of the images."""
    kind = getattr(trainer.model, "stem_kind", None)
    return f", stem {kind}" if kind else ""


def _frozen(trainer: "Trainer", setup: build.Setup) -> list[str]:
    """Return a line that says how much is trained, where parts are frozen or slower."""
    from deeptrain.model.feature_memory import remembers_features

    finetune = setup.run.settings.finetune
    trained = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    parts = ["all but the last layer"] if finetune.head_only == 1 else finetune.freeze
    lines = []
    if parts:
        once = "; computed once" if remembers_features(trainer.model) else ""
        frozen = f"frozen {', '.join(parts)}, with the statistics of its batch norms{once}"
        lines.append(f"{frozen}; {trained:,} parameters are trained")
    elif finetune.norms == "freeze":
        lines.append("batch norms keep their statistics")
    if 0 < finetune.head_only < 1:
        lines.append(f"the last layer alone until {formatting.percent(finetune.head_only)} of the run")
    rates = [group["initial_lr"] for group in trainer.optimizer.param_groups]
    if finetune.backbone_lr_factor != 1 or finetune.decay != 1:
        low, high = map(formatting.format_lr, (min(rates), rates[0]))
        lines.append(f"rates from {low} to {high} at the last layer")
    return [f"finetune   {'; '.join(lines)}"] if lines else []


def _scaled_rate(setup: build.Setup) -> list[str]:
    """Return a line that says which rate scale_lr makes of optimizer.lr."""
    settings, rate = setup.run.settings, setup.run.parts["optimizer"].get("lr")
    if settings.scale_lr == "none" or not isinstance(rate, int | float):
        return []
    ratio = f"{min(setup.batch_size, len(setup.dataset.train))}/{settings.base_batch}"
    ratio = f"√({ratio})" if settings.scale_lr == "sqrt" else ratio
    warmup = f", after schedule.warmup={warmup}" if (warmup := setup.run.parts["schedule"].get("warmup")) else ""
    return [f"rate       {rate:g} x {ratio} = {rate * setup.rate_factor:g} (scale_lr={settings.scale_lr}){warmup}"]


def _trust_ratios(trainer: "Trainer") -> list[str]:
    """Return a line that counts what LARS or LAMB scales, and what it leaves out."""
    counts = {True: 0, False: 0}
    for group in trainer.optimizer.param_groups:
        if (is_scaled := group.get("has_trust_ratio")) is not None:
            counts[is_scaled] += len(group["params"])
    if not counts[True]:
        return []
    left_out = f"; {counts[False]} norms and biases have none, and do not decay" if counts[False] else ""
    return [f"layers     {counts[True]} have a trust ratio of their own{left_out}"]


def _ghost_norms(trainer: "Trainer", setup: build.Setup) -> list[str]:
    """Return a line where batch norm sees pieces of the batch (ghost batch norm): the result depends on their size."""
    from deeptrain.runtime.batch_norm import has_batch_norm

    pieces, processes = trainer.accumulate, setup.world.size
    if pieces * processes == 1 or setup.run.settings.sync_batch_norm or not has_batch_norm(trainer.model):
        return []
    images = -(-setup.world.local_batch_size(trainer.train_loader.sizes[0]) // pieces)
    causes = [f"accumulate={pieces}"] * (pieces > 1) + [f"{processes} processes"] * (processes > 1)
    return [f"norms      batch norm sees {images} images at once, not {setup.batch_size} ({', '.join(causes)})"]


def _initial_loss(losses: dict[str, float], classes: int) -> str:
    """Set the loss before the first step beside that of equal logits, which is log K for cross-entropy."""
    measured, equal = (formatting.format_loss(losses[name]) for name in ("train", "equal_logits"))
    log = f" (log {classes})" if math.isclose(losses["equal_logits"], math.log(classes), rel_tol=1e-3) else ""
    return f"loss {measured} before the first step; equal logits give {equal}{log}"


def _class_weights(trainer: "Trainer", setup: build.Setup) -> list[str]:
    """Return a line that names the weight of each class, where they have some."""
    weights = getattr(trainer.loss, "weights", None)
    if weights is None:
        return []
    pairs = [f"{name}={weight:.4g}" for name, weight in zip(setup.dataset.classes, weights.tolist(), strict=True)]
    more = f" and {len(pairs) - MAX_WEIGHTS} more" if len(pairs) > MAX_WEIGHTS else ""
    return [f"weights    {', '.join(pairs[:MAX_WEIGHTS])}{more}"]


def _augmentation(setup: build.Setup) -> str:
    """Name the augmentations of aug=, and what the data set does to its training images besides."""
    source, decoder = setup.source, setup.dataset.train.decoder
    aug = f"aug {setup.run.choices['aug']}"
    if not source.augment:
        return f"{aug} (data: nothing)" if setup.pipeline.augmentations else "aug off"
    is_cropped = decoder is not None and decoder.short_side_range is not None
    shift = f"shift {source.crop_padding}" if source.crop_padding and not is_cropped else ""
    own = [word for word in ("random crop" if is_cropped else shift, "flip" if source.flip else "") if word]
    return f"{aug} (data: {', '.join(own)})" if own else aug


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def closing_lines(trainer: "Trainer", setup: build.Setup, run_dir: Path, result: dict[str, Any]) -> list[str]:
    """Say how it ended, how good it is and what to type next, in 6 to 8 lines."""
    metrics, best, overfit = result["metrics"], result["best"], setup.run.settings.overfit
    lines = [f"{result['status'].replace('_', ' ')}  {result['reason']}"]
    if best is not None:
        monitor, record, metrics_of = trainer.plan.monitor, trainer.progress.record, trainer.validator.metrics
        value = formatting.format_metric(monitor, best, metrics_of)
        lines.append(f"best  {monitor} {value} in epoch {result['best_epoch']}")
        if record is not None and record != best:
            value = formatting.format_metric(monitor, record, metrics_of)
            lines.append(f"near  {monitor} {value} in another epoch: within the noise of val, with a higher loss")
    if "accuracy/train_clean" in metrics:
        train, val = metrics["accuracy/train_clean"], metrics["accuracy/val"]
        shares = f"train {formatting.percent(train)} (not augmented), val {formatting.percent(val)}"
        lines.append(f"gap  {formatting.format_points(train - val)} points at the end: {shares}")
    if result["epochs"] >= MIN_EPOCHS and setup.source.augment and setup.source.flip:
        lines += _guesses(setup, metrics.get("accuracy/train", 1.0))
    if overfit and "accuracy/val" in metrics:
        lines.append(f"overfit  {_learned_by_heart(metrics['accuracy/val'], overfit)}")
    speed = f"{result['images_per_second']:,.0f} images/s"
    lines.append(f"time  {result['train_seconds']:.1f} s of training, {speed}; {result['seconds']:.1f} s in all")
    is_drawn = (run_dir / "checkpoints" / "best.pt").is_file()  # soon: nobody waits for the pictures
    lines.append(f"folder  {run_dir}" + (" (card.html, curves.png)" if is_drawn else ""))
    lines += reading(run_dir, result)
    return [*lines, *(f"{what}  {command}" for what, command in next_commands(trainer, setup, run_dir))]


def reading(run_dir: Path, result: dict[str, Any]) -> list[str]:
    """Return what the curves show, in at most three lines; none if they show nothing, or cannot be read."""
    with suppress(UsageError, OSError):
        return record.reading(run_dir, result=result)
    return []


def _guesses(setup: build.Setup, accuracy: float) -> list[str]:
    """Return a line if the accuracy in training is that of guessing, within two standard errors."""
    counts = build.data_info(setup.dataset)["class_counts"]
    chance = max(counts) / sum(counts)
    if accuracy > chance + 2 * math.sqrt(chance * (1 - chance) / sum(counts)):
        return []
    share = f"train {formatting.percent(accuracy)}, the largest class has {formatting.percent(chance)}"
    return [f"guesses  {share}; if classes are mirror images, data.flip=true mixes them up: try data.flip=false"]


def _learned_by_heart(accuracy: float, count: int) -> str:
    learned = f"{round(accuracy * count)} of {count} images learned by heart"
    if accuracy == 1:
        return f"{learned}: data, network, loss and rate fit together"
    return f"{learned}: try more epochs, another optimizer.lr or a larger model; look at the labels"


def next_commands(trainer: "Trainer", setup: build.Setup, run_dir: Path) -> list[tuple[str, str]]:
    """Return what one may want to do next, as commands to paste. They hold the words that no folder may decide."""
    checkpoints, progress = run_dir / "checkpoints", trainer.progress
    over = trainer.outcome() is not None and not trainer.stop.reason and progress.validated == progress.step
    trusted = [quote(word) for word in trainer.metadata["overrides"] if override_key(word) in saved.TRUSTED]
    commands = []
    if (checkpoints / "best.pt").is_file():
        split = [] if setup.source.has_test() else ["split=val"]
        commands.append(("evaluate", " ".join([command("evaluate"), quote(as_typed(run_dir)), *split, *trusted])))
    if (checkpoints / "last.pt").is_file():
        resumed = " ".join([command("train"), quote_setting("resume", run_dir), *trusted])
        commands.append(("train longer", _longer_command(trainer, resumed)) if over else ("go on", resumed))
    return [*commands, ("see curves", f"tensorboard --logdir {quote(as_typed(run_dir.parent))}")]


def _longer_command(trainer: "Trainer", resumed: str) -> str:
    """Return the command that trains longer: a new run if a resumed one would jump back to a high rate."""
    longer = longer_override(trainer)
    name = longer.partition("=")[0]
    is_stretched = name != "early_stop.patience"  # a run of twice the length is half done now
    if not is_stretched or trainer.schedule(0.5) <= JUMP * trainer.schedule(1.0):
        return f"{resumed} {longer}"
    words = [word for word in trainer.metadata["overrides"] if override_key(word) not in (name, "dir")]
    return " ".join([command("train"), *map(quote, words), longer])


def longer_override(trainer: "Trainer") -> str:
    """Return the setting that lets a run that is over go on: twice the limit that it has reached."""
    name, limit, _ = next(each for each in limits(trainer) if each[2] >= each[1] or each[0] == "epochs")
    return f"{name}={2 * limit:g}"


def limits(trainer: "Trainer") -> list[tuple[str, float, float]]:
    """Return the limits that a run has, epochs last: the setting, its value, and how much of it is used up."""
    plan, progress = trainer.plan, trainer.progress
    known = (
        ("limit_steps", plan.limit_steps, progress.step),
        ("max_seconds", plan.max_seconds, progress.train_seconds),
        ("early_stop.patience", plan.patience, progress.since_best),
        ("epochs", plan.epochs, plan.epochs_done(progress)),
    )
    return [(name, limit, used) for name, limit, used in known if limit is not None]

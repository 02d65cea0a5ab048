"""Settings that cannot work together, or have no effect: found before the first step."""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from deeptrain.config.override import override_key
from deeptrain.config.settings import RunConfig, Settings
from deeptrain.errors import UsageError
from deeptrain.metrics.metric import TOP
from deeptrain.model.published import BUILDERS
from deeptrain.runtime.world import get_world
from deeptrain.schema import flatten, format_value

MAX_TRANSLATION = 32  # pixels, the furthest that aug=trivial_augment moves an image
MIN_COMPILED_STEPS = 2000  # steps in which a compiled network does not win back its compilation on a CPU


@dataclass(frozen=True)
class Facts:
    """What is known once the data are open: of one image (C, H, W), of the training images, and of the machine."""

    input_shape: tuple[int, int, int]
    class_counts: list[int]  # training images of each class
    batch_size: int
    device: str  # cpu, cuda or mps
    class_names: tuple[str, ...] = ()
    drawn: bool = False  # large pictures, cut anew each time: data.crop_padding is not read
    characters: bool = False  # the classes are written characters, which no mirror shows rightly
    mixing: tuple[str, ...] = ()  # augmentations that mix the images of a batch


class CombinedSettings(dict):
    """All settings of a run by dotted key, the options by group, and the facts; None for what is not there (yet)."""

    def __init__(self, run: RunConfig, facts: Facts | None):
        super().__init__(flatten(asdict(run.settings)) | flatten(run.parts) | run.choices)
        self.defaults = flatten(asdict(Settings()))
        self.augs = list(run.parts["aug"])
        self.given = {override_key(override) for override in run.overrides}
        self["processes"], self["halves"] = get_world().size, self["accumulate"] == "auto"
        self["accumulate"] = 1 if self["halves"] else self["accumulate"]
        if self["data.augment"] is False:
            self["data.flip"], self["data.crop_padding"] = False, 0
        if facts is None:
            self["batch_size"] = None if self["batch_size"] == "auto" else self["batch_size"]
            return
        images = sum(facts.class_counts)
        steps = max(1, images // facts.batch_size)
        self |= asdict(facts)
        self |= {"classes": len(facts.class_counts), "channels": facts.input_shape[0], "steps_per_epoch": steps}
        self["side"] = min(facts.input_shape[1:])
        self["steps"] = min(self["epochs"] * steps, self["limit_steps"] or math.inf)

    def __missing__(self, key: str) -> None:
        return None

    def exceeds(self, key: str, limit: Any) -> bool:
        """Tell whether a setting is larger than a number, or than another setting; not if one of them is not there."""
        value, limit = self[key], self[limit] if isinstance(limit, str) else limit
        return value is not None and limit is not None and value > limit

    def has_changed(self, key: str) -> bool:
        """Tell whether a setting of every run differs from its default."""
        return self[key] != self.defaults[key]

    def is_zero(self, *keys: str) -> bool:
        """Tell whether settings that are there are all 0."""
        return all(self[key] == 0 for key in keys)

    def has_published_weights(self) -> bool:
        """Tell whether model.weights names weights; a model of the user's own may have a setting of that name."""
        return self["model"] in BUILDERS.values() and self["model.weights"] is not None

    def starts_from_weights(self) -> bool:
        return self["init_from"] is not None or self.has_published_weights()

    def micro_batch(self) -> float:
        """Return how many images of a full batch go through the network at once. A rest joins the piece before."""
        if self["batch_size"] is None:
            return math.inf
        batch = self["batch_size"] if self["sync_batch_norm"] else self["batch_size"] // self["processes"]
        return max(1, math.ceil(batch / self["accumulate"]))

    def last_average(self) -> float:
        """Return the part of the run that is done when average=swa takes in weights for the last time."""
        every = self["average.every_steps"] or self["steps_per_epoch"]
        return self["steps"] // every * every / self["steps"]


@dataclass(frozen=True)
class Check:
    """A message, and the condition under which it is shown. {keys} in it become the settings' values."""

    message: str
    condition: Callable[[CombinedSettings], Any]


ERRORS = (
    Check(
        "data.folds={data.folds}: says not which fold is held out; write folds={data.folds} for each in turn, or "
        "data.fold=0 beside it",
        lambda s: s["data.folds"] is not None and s["data.fold"] is None,
    ),
    Check(
        "data.fold={data.fold}: must be a number below data.folds, the number of folds; write data.folds=5 beside it",
        lambda s: s["data.fold"] is not None and s["data.fold"] >= (s["data.folds"] or 0),
    ),
    Check(
        "data.folds={data.folds}: does not go with overfit={overfit}, which holds out no image; leave out one of them",
        lambda s: s["data.folds"] is not None and s["overfit"] is not None,
    ),
    Check(
        "init_from={init_from}: the run starts from model.weights={model.weights}; leave one of them out",
        lambda s: s["init_from"] and s.has_published_weights(),
    ),
    Check(
        "checkpoint.snapshots={checkpoint.snapshots}: needs epochs that it divides, and a validation at each part's "
        "end; write epochs and validate.every_epochs so",
        lambda s: (
            s["checkpoint.snapshots"]
            and (
                s["epochs"] % s["checkpoint.snapshots"]
                or s["epochs"] // s["checkpoint.snapshots"] % s["validate.every_epochs"]
            )
        ),
    ),
    Check(
        "checkpoint.snapshots={checkpoint.snapshots}: goes by epochs; leave out limit_steps and max_seconds",
        lambda s: s["checkpoint.snapshots"] and (s["limit_steps"] or s["max_seconds"]),
    ),
    Check(
        "gradient={gradient}: does not go with precision=fp16, whose gradients are scaled between its two passes; "
        "write precision=bf16 or fp32",
        lambda s: s["gradient"] != "none" and s["precision"] == "fp16",
    ),
    Check(
        "early_stop.patience={early_stop.patience}: must be shorter than the run (epochs={epochs}, "
        "validated every {validate.every_epochs})",
        lambda s: (
            s["early_stop.patience"] is not None
            and s["validate.every_steps"] is None
            and s["early_stop.patience"] >= s["epochs"] / s["validate.every_epochs"]
        ),
    ),
    Check(
        "accumulate={accumulate}: must be at most batch_size={batch_size}",
        lambda s: s.exceeds("accumulate", "batch_size"),
    ),
    Check(
        "batch_size={batch_size}: is that of all processes together, so it must be at least {processes}, their number",
        lambda s: s.exceeds("processes", "batch_size"),
    ),
    Check(
        "accumulate=auto: does not go with torchrun, since a process without memory left would wait for the others; "
        "write accumulate=2",
        lambda s: s["halves"] and s["processes"] > 1,
    ),
    Check(
        "sync_batch_norm=true: does not go with accumulate={accumulate}, whose pieces are normed apart; "
        "write accumulate=1",
        lambda s: s["sync_batch_norm"] and s["accumulate"] > 1,
    ),
    Check(
        "model.norm=batch: cannot norm a single image of model=fcn (batch_size={batch_size}, accumulate={accumulate}); "
        "take a larger batch, or model.norm=layer",
        lambda s: s["model"] == "fcn" and s["model.norm"] == "batch" and s.micro_batch() == 1,
    ),
)

WARNINGS = (
    Check(
        "data.val_fraction has no effect: data.folds={data.folds} holds out a fold",
        lambda s: s["data.folds"] is not None and "data.val_fraction" in s.given,
    ),
    Check(
        "checkpoint.snapshots={checkpoint.snapshots} keeps weights that differ little, since schedule={schedule} does "
        "not start again at the full rate: write schedule=cyclic",
        lambda s: s["checkpoint.snapshots"] and s["schedule"] != "cyclic",
    ),
    Check(
        "checkpoint.snapshots={checkpoint.snapshots} and schedule.cycles={schedule.cycles} should be the same number",
        lambda s: s["checkpoint.snapshots"] and s["schedule.cycles"] not in (None, s["checkpoint.snapshots"]),
    ),
    Check(
        "base_batch={base_batch} has no effect without scale_lr: write scale_lr=linear",
        lambda s: s["scale_lr"] == "none" and s.has_changed("base_batch"),
    ),
    Check(
        "scale_lr={scale_lr} takes a high rate from the first step on (batch_size={batch_size}): "
        "write schedule.warmup=0.1",
        lambda s: (
            s["scale_lr"] != "none"
            and s["schedule"] != "one_cycle"
            and s.is_zero("schedule.warmup")
            and s.exceeds("batch_size", 2 * s["base_batch"])
        ),
    ),
    Check(
        "finetune=head keeps random weights as they are, all but the last layer's: write init_from=RUN beside it",
        lambda s: s["finetune.head_only"] == 1 and not s.starts_from_weights(),
    ),
    Check(
        "finetune.head_only={finetune.head_only} keeps random weights as they are: write init_from=RUN beside it",
        lambda s: 0 < s["finetune.head_only"] < 1 and not s.starts_from_weights(),
    ),
    Check(
        "finetune.freeze={finetune.freeze} keeps random weights as they are: write init_from=RUN beside it",
        lambda s: s["finetune.freeze"] and not s.starts_from_weights(),
    ),
    Check(
        "finetune.norms=freeze keeps the statistics 0 and 1 of new batch norms: write init_from=RUN beside it",
        lambda s: s["finetune.norms"] == "freeze" and not s.starts_from_weights(),
    ),
    Check(
        "finetune.cache=false has no effect: it is for finetune=head",
        lambda s: not s["finetune.cache"] and s["finetune.head_only"] < 1,
    ),
    Check(
        "init_match={init_match} has no effect without a file of weights (init_from, or model.weights)",
        lambda s: s.has_changed("init_match") and not s.starts_from_weights(),
    ),
    Check(
        "model.norm=batch norms every image by itself where batch_size / accumulate is 1: take model.norm=group",
        lambda s: s["model.norm"] == "batch" and s.micro_batch() == 1,
    ),
    Check(
        "sync_batch_norm=true has no effect in a single process: start several with torchrun",
        lambda s: s["sync_batch_norm"] and s["processes"] == 1,
    ),
    Check(
        "data.flip=true mirrors characters, and a mirrored 2 is no 2: set data.flip=false",
        lambda s: s["characters"] and s["data.flip"],
    ),
    Check(
        "data.flip=true mirrors half of the pictures, so that left and right in the names of classes mean nothing: "
        "set data.flip=false",
        lambda s: s["data.flip"] and _differ_in_side(s["class_names"] or ()),
    ),
    Check(
        "aug=flip mirrors characters, and a mirrored 2 is no 2: leave it out",
        lambda s: s["characters"] and (s.exceeds("aug.flip.horizontal", 0) or s.exceeds("aug.flip.vertical", 0)),
    ),
    Check(
        "aug=flip mirrors again what data={data} has mirrored: set data.flip=false, or leave it out",
        lambda s: not s["characters"] and s["data.flip"] and s.exceeds("aug.flip.horizontal", 0),
    ),
    Check(
        "aug=random_crop shifts again what data.crop_padding={data.crop_padding} has shifted: set that to 0, "
        "or leave it out",
        lambda s: (
            s.exceeds("data.crop_padding", 0)
            and "random_crop" in s.augs
            and (s["data"] != "image_folder" or s["drawn"] is False)  # how large its pictures are is not known at first
        ),
    ),
    Check(
        "aug.random_crop.padding={aug.random_crop.padding} shifts these images by more than a quarter of their "
        "{side} pixels: an eighth is usual",
        lambda s: s["side"] and s.exceeds("aug.random_crop.padding", s["side"] / 4),
    ),
    Check(
        "aug=flip has no effect: aug.flip.horizontal=0 and aug.flip.vertical=0",
        lambda s: s.is_zero("aug.flip.horizontal", "aug.flip.vertical"),
    ),
    Check(
        "aug=color_jitter has no effect: brightness, contrast, saturation and hue are all 0",
        lambda s: s.is_zero(*(f"aug.color_jitter.{name}" for name in ("brightness", "contrast", "saturation", "hue"))),
    ),
    Check(
        "aug=pca_jitter has no effect: aug.pca_jitter.strength=0",
        lambda s: s.is_zero("aug.pca_jitter.strength"),
    ),
    Check(
        "aug=random_resized_crop has no effect: aug.random_resized_crop.area=[1,1] is always the whole image",
        lambda s: s["aug.random_resized_crop.area"] == [1, 1],
    ),
    Check(
        "aug.mixup_or_cutmix.mixup_alpha={aug.mixup_or_cutmix.mixup_alpha} has no effect: "
        "aug.mixup_or_cutmix.cutmix=1 never draws Mixup",
        lambda s: s["aug.mixup_or_cutmix.cutmix"] == 1 and "aug.mixup_or_cutmix.mixup_alpha" in s.given,
    ),
    Check(
        "aug.mixup_or_cutmix.cutmix_alpha={aug.mixup_or_cutmix.cutmix_alpha} has no effect: "
        "aug.mixup_or_cutmix.cutmix=0 never draws CutMix",
        lambda s: s["aug.mixup_or_cutmix.cutmix"] == 0 and "aug.mixup_or_cutmix.cutmix_alpha" in s.given,
    ),
    Check(
        "aug=trivial_augment moves images by up to 32 pixels, more than their {side}: "
        "take aug=randaugment, which moves them by a part of their side",
        lambda s: s["side"] and "trivial_augment" in s.augs and s["side"] < MAX_TRANSLATION,
    ),
    Check(
        "aug=random_grayscale has no effect: these images are grey",
        lambda s: s["channels"] == 1 and "random_grayscale" in s.augs,
    ),
    Check(
        "aug.color_jitter.saturation={aug.color_jitter.saturation} has no effect: these images are grey",
        lambda s: s["channels"] == 1 and s.exceeds("aug.color_jitter.saturation", 0),
    ),
    Check(
        "aug.color_jitter.hue={aug.color_jitter.hue} has no effect: these images are grey",
        lambda s: s["channels"] == 1 and s.exceeds("aug.color_jitter.hue", 0),
    ),
    Check(
        "one of RandAugment's operations, Color, has no effect: these images are grey",
        lambda s: s["channels"] == 1 and {"randaugment", "trivial_augment"} & set(s.augs),
    ),
    Check(
        "model.drop_connect={model.drop_connect} and model.dropout={model.dropout} act on the same layers: "
        "set one of them to 0",
        lambda s: s.exceeds("model.drop_connect", 0) and s.exceeds("model.dropout", 0),
    ),
    Check(
        "model.stochastic_depth_mode=sample has no effect while model.stochastic_depth=0",
        lambda s: s["model.stochastic_depth_mode"] == "sample" and s["model.stochastic_depth"] == 0,
    ),
    Check(
        "penalty={penalty} has no effect: penalty.strength=0",
        lambda s: s["penalty.strength"] == 0,
    ),
    Check(
        "penalty={penalty} and optimizer.weight_decay={optimizer.weight_decay} both shrink the weights: "
        "set one of them to 0",
        lambda s: (
            (s["penalty"] == "l2" or (s["penalty"] == "elastic" and s.exceeds("penalty.beta", 0)))
            and s.exceeds("penalty.strength", 0)
            and s.exceeds("optimizer.weight_decay", 0)
        ),
    ),
    Check(
        "loss.class_weights=auto has no effect: all classes have equally many training images",
        lambda s: s["loss.class_weights"] == "auto" and s["class_counts"] and len(set(s["class_counts"])) == 1,
    ),
    Check(
        "average=swa averages nothing: it starts at {average.start} of the run, after the last weights are taken in",
        lambda s: s["average"] == "swa" and s["steps"] and s.last_average() < s["average.start"],
    ),
    Check(
        "average=swa averages weights that hardly move: schedule={schedule} ends at 0; set schedule.floor=0.3 "
        "(explain=swa)",
        lambda s: s["average"] == "swa" and s.is_zero("schedule.floor"),
    ),
    Check(
        "average.bn_images={average.bn_images} has no effect: model={model} is without batch norm here",
        lambda s: (
            "average.bn_images" in s.given and (s["model"] == "rnn" or s["model.norm"] in ("group", "layer", "none"))
        ),
    ),
    *(
        Check(
            f"data.{name} has no effect: data.augment=false (aug=off) trains on images as they are",
            lambda s, name=name: s["data.augment"] is False and not s["overfit"] and f"data.{name}" in s.given,
        )
        for name in ("flip", "crop_padding")
    ),
    Check(
        "data.whiten_eps={data.whiten_eps} has no effect without data.whiten",
        lambda s: "data.whiten_eps" in s.given and s["data.whiten"] is None,
    ),
    Check(
        "data.whiten=pca turns images into components without neighbours, which model={model} looks for: "
        "take data.whiten=zca, or model=fcn",
        lambda s: s["data.whiten"] == "pca" and s["model"] != "fcn",
    ),
    Check(
        "early_stop.min_delta={early_stop.min_delta} has no effect without early_stop.patience",
        lambda s: s["early_stop.min_delta"] and s["early_stop.patience"] is None,
    ),
    Check(
        "monitor=top5/val is always 1 with {classes} classes, so that the loss alone decides: "
        "take monitor=accuracy/val",
        lambda s: s["monitor"] == "top5/val" and s["classes"] and s["classes"] <= TOP,
    ),
    Check(
        "validate.every_epochs={validate.every_epochs} is longer than the run (epochs={epochs}), "
        "which is validated at its end only",
        lambda s: s.exceeds("validate.every_epochs", "epochs"),
    ),
    Check(
        "validate.every_steps={validate.every_steps} has no effect: the run has {steps} steps",
        lambda s: s.exceeds("validate.every_steps", "steps"),
    ),
    Check(
        "log.every_steps={log.every_steps} has no effect: the run has {steps} steps",
        lambda s: s.has_changed("log.every_steps") and s.exceeds("log.every_steps", "steps"),
    ),
    Check(
        "compile=true takes a minute before the first step, which {steps} steps on a CPU seldom win back",
        lambda s: s["compile"] and s["device"] == "cpu" and s.exceeds("steps", 0) and s["steps"] < MIN_COMPILED_STEPS,
    ),
)


def check(run: RunConfig, facts: Facts | None = None) -> list[str]:
    """Return a warning for every setting without effect; raise UsageError with all that cannot work.

    Before the data are open (no facts) what needs them is left for later.
    """
    settings = CombinedSettings(run, facts)
    if messages := [_message(check, settings) for check in ERRORS if check.condition(settings)]:
        raise UsageError(messages)
    return [
        *run.renamed,
        *(_message(check, settings) for check in WARNINGS if check.condition(settings)),
        *_idle_augs(settings),
    ]


def _differ_in_side(names: Iterable[str]) -> bool:
    """Tell whether two names differ in left and right only."""
    plain = [re.sub(r"left|right", "side", name.lower()) for name in names if re.search(r"left|right", name.lower())]
    return len(set(plain)) < len(plain)


def _idle_augs(settings: CombinedSettings) -> Iterator[str]:
    """Say which augmentations are never applied, and which find no other image to mix with."""
    for name in settings.augs:
        for key in ("probability", "until"):
            if settings[f"aug.{name}.{key}"] == 0:
                yield f"aug={name} has no effect: aug.{name}.{key}=0"
        if name in (settings["mixing"] or ()) and settings["batch_size"] == 1:
            yield f"aug={name} has no effect: batch_size=1 leaves no other image to mix with"


def _message(check: Check, settings: CombinedSettings) -> str:
    return re.sub(r"\{([\w.]+)\}", lambda match: format_value(settings[match[1]]), check.message)

"""What a run is made of: the settings that every run has, and its parts."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from deeptrain.model.published import weights_of
from deeptrain.schema import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Range,
    Seed,
    Threads,
    UnitFloat,
    Workers,
)

PARTS = ("data", "model", "loss", "penalty", "optimizer", "gradient", "schedule", "average")  # one option each
LISTS = ("aug", "metrics", "loggers")  # of these several options make a list

LayerDecay = Annotated[float, Range(above=0, maximum=1)]
Device = Literal[
    "auto", "cpu", "cuda", "mps", "cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:4", "cuda:5", "cuda:6", "cuda:7"
]


@dataclass
class Validate:
    every_epochs: PositiveInt = 1
    every_steps: PositiveInt | None = None
    images: PositiveInt | None = None
    clean_images: NonNegativeInt = 2000


@dataclass
class EarlyStop:
    patience: PositiveInt | None = None
    min_delta: NonNegativeFloat = 0.0
    prune: Literal["median"] | None = None


@dataclass
class Checkpoint:
    every_steps: PositiveInt | None = None
    every_minutes: PositiveFloat | None = 1.0
    snapshots: PositiveInt | None = None


@dataclass
class Finetune:
    head_only: UnitFloat = 0.0
    freeze: list[str] = field(default_factory=list)
    norms: Literal["train", "freeze"] = "train"
    backbone_lr_factor: PositiveFloat = 1.0
    decay: LayerDecay = 1.0
    cache: bool = True


@dataclass
class Log:
    every_steps: PositiveInt = 20
    vitals: bool = True


@dataclass
class Settings:
    """What every run has; configs/train.yaml says what each is for. A test holds the two together."""

    seed: Seed = 0
    device: Device = "auto"
    epochs: PositiveInt = 30
    batch_size: PositiveInt | Literal["auto"] = "auto"
    scale_lr: Literal["none", "linear", "sqrt"] = "none"
    base_batch: PositiveInt = 128
    overfit: PositiveInt | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    sync_batch_norm: bool = False
    threads: Threads | Literal["auto"] = "auto"
    workers: Workers | Literal["auto"] = "auto"
    accumulate: PositiveInt | Literal["auto"] = 1
    clip_norm: PositiveFloat | None = None
    max_norm: PositiveFloat | None = None
    sam: PositiveFloat | None = None
    limit_steps: PositiveInt | None = None
    max_seconds: PositiveFloat | None = None
    on_nan: Literal["stop", "skip", "rollback"] = "stop"
    init_from: str | None = None
    init_match: Literal["names", "order"] = "names"
    dir: str | None = None
    resume: str | None = None
    resume_changed: bool = False
    rerun: str | None = None
    cache_dir: str | None = None
    monitor: str = "accuracy/val"
    validate: Validate = field(default_factory=Validate)
    early_stop: EarlyStop = field(default_factory=EarlyStop)
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    finetune: Finetune = field(default_factory=Finetune)
    log: Log = field(default_factory=Log)
    allow_targets: list[str] = field(default_factory=list)


@dataclass
class RunConfig:
    """One checked configuration: the settings, the parts as plain dictionaries, and the words that made it."""

    settings: Settings
    parts: dict[str, dict[str, Any]]
    overrides: list[str]
    choices: dict[str, str]  # the option of each group; several of a list are joined by +
    yaml: str  # as composed, interpolations unresolved: no secret from the environment is in it
    values: dict[str, Any]  # every setting by its dotted key, unresolved too
    renamed: list[str] = field(default_factory=list)  # a line for each old name that was typed
    turned_off: list[str] = field(default_factory=list)  # by overfit, as one types it
    find_lr: bool = False  # optimizer.lr=auto: the rate is searched first; until then it is the option's own

    @property
    def origin(self) -> tuple[str, str] | None:
        """Return the setting that names the weights which the run starts from, and its value; None without any."""
        if self.settings.init_from is not None:
            return "init_from", self.settings.init_from
        weights = weights_of(self.parts["model"])
        return None if weights is None else ("model.weights", weights)

    @property
    def title(self) -> str:
        """Name the run by what was typed to start it."""
        return " ".join(self.overrides) or "all settings at their defaults"


def part_nodes(parts: dict[str, dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Walk the parts of a run with their dotted keys (model, ..., aug.cutout, aug.mixup); absent ones are left out."""
    for name in PARTS:
        if parts[name]:
            yield name, parts[name]
    for group in LISTS:
        for name, node in parts[group].items():
            yield f"{group}.{name}", node

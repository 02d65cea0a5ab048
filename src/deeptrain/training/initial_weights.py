"""Weights that a run starts from, of another run or a file, and how images became inputs for them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeptrain.runtime.paths import read_path
from deeptrain.training import checkpoint, weight_file
from deeptrain.training.data_description import describes_data

if TYPE_CHECKING:
    from torch import Tensor, nn

    from deeptrain.training.matching import InitMatch

COPY = "init_from.pt"  # in the run folder: a repeat of the run does not need the origin
MAX_WORDS, MAX_CHARACTERS = 20, 80  # of a stranger's settings in a message
MAX_CHANNELS = 3


@dataclass
class InitialWeights:
    """Weights, and how images became inputs for them: plain values and tensors.

    path, digest: of the file and its weights. tensors: empty in a run that goes on, whose own checkpoint has them.
    classes, input_shape: of another run; empty for a file of another program. mean, std: on the scale 0 to 255; empty
    if they are not known. overrides: of the other run. summary: what of the weights is used, once they are loaded.
    """

    path: str
    digest: str
    tensors: dict[str, "Tensor"]
    classes: list[str] = field(default_factory=list)
    input_shape: list[int] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    subtract_image_mean: bool = False
    whitening: dict[str, "Tensor"] | None = None
    overrides: list[str] = field(default_factory=list)
    summary: str = ""
    random: list[str] = field(default_factory=list)  # names that a file left as they were

    @property
    def origin(self) -> dict[str, str]:
        """Return what a run notes of its origin."""
        return {"path": self.path, "digest": self.digest}

    def state_dict(self) -> dict[str, Any]:
        """Return the content of init_from.pt, a checkpoint to start from."""
        return {"model": self.tensors, **{name: value for name, value in vars(self).items() if name != "tensors"}}

    def model_settings(self) -> list[str]:
        """Return the words that chose the model of the other run."""
        words = [word for word in self.overrides if word.startswith(("model=", "model."))]
        return [word for word in words if len(word) <= MAX_CHARACTERS and word.isprintable()][:MAX_WORDS]

    @property
    def is_of_a_run(self) -> bool:
        """Tell whether another run of deeptrain wrote the weights, so that its classes and inputs are known."""
        return bool(self.classes)

    def load_into(self, model: "nn.Module", classes: list[str], how: "InitMatch" = "names") -> None:
        """Copy the weights into a model. With other classes its head keeps its own weights.

        Raises ValueError if those of another run differ in anything else: name, shape or type; if those of a file fit
        less than half of the network, or are not finite.
        """
        if self.is_of_a_run:
            self._load_all(model, classes)
        else:
            self._load_fitting(model, classes, how)

    def _load_fitting(self, model: "nn.Module", classes: list[str], how: "InitMatch") -> None:
        import torch

        from deeptrain.training.matching import match

        own, found = model.state_dict(), match(model, self.tensors, how, len(classes))
        if broken := [name for name, tensor in found.filled.items() if not tensor.isfinite().all()]:
            raise ValueError(f"{broken[0]} holds inf or NaN; take a file of a training that went well")
        with torch.no_grad():
            for name, tensor in found.filled.items():
                own[name].copy_(tensor)
        self.summary, self.random = found.describe(own, len(classes)), found.random

    def _load_all(self, model: "nn.Module", classes: list[str]) -> None:
        import torch

        from deeptrain.model.head import head_name, is_in

        own, head = model.state_dict(), head_name(model, len(classes))
        new = [name for name in own if classes != self.classes and is_in(name, head)]
        fitting = {name: tensor for name, tensor in self.tensors.items() if name not in new}
        expected = {name: tensor for name, tensor in own.items() if name not in new}
        if difference := _difference(fitting, expected):
            raise ValueError(difference)
        if not expected:
            raise ValueError("it has no layer but the head, and that is of other classes")
        with torch.no_grad():
            for name, tensor in fitting.items():
                own[name].copy_(tensor)
        values = sum(tensor.numel() for tensor in expected.values())
        self.summary = f"{values:,} of {sum(tensor.numel() for tensor in own.values()):,} values loaded"
        if new:
            self.summary += f"; new: {head}, for other classes ({len(classes)}, there {len(self.classes)})"


def find(text: str) -> Path:
    """Return the file that a person names, or the best checkpoint of a run folder; ValueError if there is none."""
    path = read_path(text)
    if path.is_dir():
        path = path / "checkpoints" / "best.pt"
        if not path.is_file():
            raise ValueError("has no checkpoints/best.pt; name the folder of a run, or a checkpoint")
    if not path.is_file():
        raise ValueError("there is no such run; name its folder, a checkpoint as RUN/checkpoints/best.pt, or a file")
    return path


def read(path: Path) -> InitialWeights:
    """Read the weights of a checkpoint, and how images became inputs; of another file the weights alone.

    Raises ValueError in a line.
    """
    if not checkpoint.is_whole(path):
        tensors = weight_file.read(path)
        return InitialWeights(str(path), checkpoint.digest(tensors), tensors)
    state = checkpoint.load(path)
    digest = checkpoint.digest(state["model"])
    if state.get("classes") == [] and _are_statistics(state):  # a run's copy of a file
        return InitialWeights(str(path), digest, state["model"], mean=state["mean"], std=state["std"])
    return from_state(state, str(path), digest, state["model"])


def read_published(path: Path, mean: Sequence[float], std: Sequence[float]) -> InitialWeights:
    """Read published weights, whose images had these statistics, in [0, 1]; ValueError in a line."""
    found = read(path)
    if found.is_of_a_run:
        return found
    return replace(found, mean=[255 * value for value in mean], std=[255 * value for value in std])


def _are_statistics(state: Mapping[str, Any]) -> bool:
    mean, std = state.get("mean"), state.get("std")
    if not isinstance(mean, list) or not isinstance(std, list) or not len(mean) == len(std) <= MAX_CHANNELS:
        return False
    return all(isinstance(value, float) and math.isfinite(value) for value in [*mean, *std]) and min(std, default=1) > 0


def continued(state: Mapping[str, Any], path: str) -> InitialWeights:
    """Return what a run that goes on still needs to know of its origin, from its own checkpoint.

    path: what its settings say, where the checkpoint does not. It may be a stranger's.
    """
    origin = state.get("init_from")
    known = origin if isinstance(origin, dict) else {}
    digest = str(known.get("digest"))
    is_digest = len(digest) == 64 and set(digest) <= set("0123456789abcdef")
    path = known["path"] if isinstance(known.get("path"), str) else path
    return from_state(state, path, digest if is_digest else "unknown", {})


def from_state(state: Mapping[str, Any], path: str, digest: str, tensors: dict[str, "Tensor"]) -> InitialWeights:
    """Return initial weights that are described by a checkpoint; ValueError if it does not tell its data."""
    if not describes_data(state):
        raise ValueError(f"{path}: does not say what it was trained on; name a checkpoint of deeptrain")
    overrides = state.get("overrides")
    overrides = [word for word in overrides if isinstance(word, str)] if isinstance(overrides, list) else []
    return InitialWeights(
        path,
        digest,
        tensors,
        classes=state["classes"],
        input_shape=state["input_shape"],
        mean=state["mean"],
        std=state["std"],
        subtract_image_mean=bool(state.get("subtract_image_mean", "data.subtract_image_mean=true" in overrides)),
        whitening=state.get("whitening") or None,
        overrides=overrides,
    )


def _difference(given: "Mapping[str, Tensor]", expected: "Mapping[str, Tensor]") -> str | None:
    """Name the first tensor that differs between two models, None if all fit."""
    for name, tensor in expected.items():
        if name not in given:
            return f"it has no {name}{_more(expected.keys() - given.keys())}"
        if given[name].shape != tensor.shape:
            return f"{name} is {shape(given[name])} there, here {shape(tensor)}"
        if given[name].dtype != tensor.dtype:
            return f"{name} is {given[name].dtype} there, here {tensor.dtype}"
    unused = [name for name in given if name not in expected]
    name = unused[0] if unused and unused[0].isprintable() and len(unused[0]) <= MAX_CHARACTERS else "a layer"
    return f"it has {name}{_more(unused)}, which this model has not" if unused else None


def _more(names: Iterable[str]) -> str:
    count = len(list(names)) - 1
    return f" and {count} more" if count > 0 else ""


def shape(tensor: "Tensor") -> str:
    return "x".join(map(str, tensor.shape)) or "a number"

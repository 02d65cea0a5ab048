"""Weights that a run starts from: those of another run, whose images were normalised in the same way."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeptrain.runtime.paths import read_path
from deeptrain.training import checkpoint
from deeptrain.training.data_description import describes_data

if TYPE_CHECKING:
    from torch import Tensor, nn

COPY = "init_from.pt"  # in the run folder: a repeat of the run does not need the origin
MAX_WORDS, MAX_CHARACTERS = 20, 80  # of a stranger's settings in a message


@dataclass
class InitialWeights:
    """The weights of another run, and how its images became inputs: plain values and tensors.

    path, digest: of the checkpoint and its weights. tensors: empty in a run that goes on, whose own checkpoint has
    them. overrides: of the other run. summary: what of the weights is used, once they are loaded.
    """

    path: str
    digest: str
    tensors: dict[str, "Tensor"]
    classes: list[str]
    input_shape: list[int]
    mean: list[float]
    std: list[float]
    subtract_image_mean: bool
    whitening: dict[str, "Tensor"] | None
    overrides: list[str] = field(default_factory=list)
    summary: str = ""

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

    def load_into(self, model: "nn.Module", classes: list[str]) -> None:
        """Copy the weights into a model. With other classes its head keeps its own weights.

        Raises ValueError if anything else differs in name, shape or type.
        """
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
    """Return the checkpoint that a person names, or the best one of a run folder; ValueError if there is none."""
    path = read_path(text)
    if path.is_dir():
        path = path / "checkpoints" / "best.pt"
        if not path.is_file():
            raise ValueError("has no checkpoints/best.pt; name the folder of a run, or a checkpoint")
    if not path.is_file():
        raise ValueError("there is no such run; name its folder, or a checkpoint such as RUN/checkpoints/best.pt")
    return path


def read(path: Path) -> InitialWeights:
    """Read the weights of a checkpoint, and how images became inputs; ValueError in a line."""
    state = checkpoint.load(path)
    return from_state(state, str(path), checkpoint.digest(state["model"]), state["model"])


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
            return f"{name} is {_shape(given[name])} there, here {_shape(tensor)}"
        if given[name].dtype != tensor.dtype:
            return f"{name} is {given[name].dtype} there, here {tensor.dtype}"
    unused = [name for name in given if name not in expected]
    shown = unused[0] if unused and unused[0].isprintable() and len(unused[0]) <= MAX_CHARACTERS else "a layer"
    return f"it has {shown}{_more(unused)}, which this model has not" if unused else None


def _more(names: Iterable[str]) -> str:
    count = len(list(names)) - 1
    return f" and {count} more" if count > 0 else ""


def _shape(tensor: "Tensor") -> str:
    return "x".join(map(str, tensor.shape)) or "a number"

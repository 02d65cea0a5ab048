"""The temperature of a run's probabilities: calibration.json, fitted on the validation images."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from deeptrain.run.saved import read_json
from deeptrain.runtime.files import write_atomically
from deeptrain.runtime.resources import command
from deeptrain.schema import PositiveFloat, PositiveInt, type_error

NAME = "calibration.json"
WITHOUT_PROBABILITIES = (
    "Hinge",
    "Perceptron",
    "MSE",
)  # losses whose logits are scores, which only put classes in order


@dataclass(frozen=True)
class Calibration:
    """A temperature, the images that it was fitted on, and the NLL on them."""

    temperature: float
    images: int
    nll_before: float
    nll_after: float
    weights: str  # the digest of the weights that it is for
    split: str = "val"

    @property
    def source(self) -> str:
        return f"fitted on {self.images:,} val images"


def name_of(tta: str | None = None) -> str:
    """Return the file of a temperature: that of averaged answers is another one."""
    return f"calibration-{tta}.json" if tta else NAME


def save(run_dir: Path, calibration: Calibration, tta: str | None = None) -> None:
    """Write a calibration into the folder of its run."""
    write_atomically(run_dir / name_of(tta), json.dumps(asdict(calibration), indent=1).encode())


def load(run_dir: Path, weights: str, tta: str | None = None) -> Calibration | None:
    """Return the calibration if it is of these weights. The file may be a stranger's."""
    content = read_json(run_dir / name_of(tta), dict, {})
    kinds = {"temperature": PositiveFloat, "images": PositiveInt, "nll_before": float, "nll_after": float}
    if content.get("weights") != weights or any(type_error(content.get(name), kind) for name, kind in kinds.items()):
        return None
    return Calibration(**{name: content[name] for name in kinds}, weights=weights)


def describe(loss: str, calibration: Calibration | None) -> list[str]:
    """Say in a line what the probabilities of a network are, unless they are simply those of its loss."""
    if calibration is not None:
        return [f"probabilities at temperature {calibration.temperature:.3g}, {calibration.source}"]
    if loss in WITHOUT_PROBABILITIES:
        remedy = f"{command('evaluate')} RUN split=val fits a temperature"
        return [f"its loss, {loss}, gives no probabilities: the softmax only puts the classes in order; {remedy}"]
    return []

"""What coverage=0.9 needs to know of a run: conformal.json, the probability of each validation image's true class."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from deeptrain.run.saved import read_json
from deeptrain.runtime.files import write_atomically
from deeptrain.schema import UnitFloat, type_error

if TYPE_CHECKING:
    from torch import Tensor

NAME = "conformal.json"


def save(run_dir: Path, weights: str, logits: "Tensor", labels: "Tensor", loss: str) -> list[float]:
    """Write the probabilities of val's true classes, and the digest of the weights that they are of; return them."""
    from deeptrain.metrics.conformal import true_class_probabilities

    found = true_class_probabilities(logits, labels, loss)
    content = {"weights": weights, "split": "val", "true_class_probabilities": found}
    write_atomically(run_dir / NAME, json.dumps(content).encode())
    return found


def load(run_dir: Path, weights: str) -> list[float] | None:
    """Return the sorted probabilities if they are of these weights. The file may be a stranger's."""
    content = read_json(run_dir / NAME, dict, {})
    found = content.get("true_class_probabilities")
    if content.get("weights") != weights or not found or type_error(found, list[UnitFloat]):
        return None
    return sorted(found)

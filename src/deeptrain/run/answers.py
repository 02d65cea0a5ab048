"""answers.npz: what the final and the best weights answer to each validation image, for comparisons of runs."""

import io
import zipfile
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deeptrain.runtime.files import write_atomically

if TYPE_CHECKING:
    from torch import Tensor

NAME = "answers.npz"
FINAL, BEST = "final", "best"
MAX_BYTES = 256 * 2**20  # of a file and of what it unfolds to: over 20 million images
MAX_LOSS = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Answers:
    """What weights answer to the validation images, in their order.

    predicted, losses: by weights, "final" or "best". data: the fingerprint of the data set. images: the hash of which
    of its images these are.
    """

    labels: np.ndarray  # (N,) class ids
    classes: list[str]
    data: str
    images: str
    predicted: dict[str, np.ndarray] = field(default_factory=dict)  # (N,) class ids
    losses: dict[str, np.ndarray] = field(default_factory=dict)  # float16 (N,)


def of_logits(logits: "Tensor", labels: "Tensor", loss: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the predicted classes and the losses of logits (N, K). loss: that of the validations."""
    from torch.nn.functional import cross_entropy

    per_sample = getattr(loss, "per_sample", None)
    losses = cross_entropy(logits, labels, reduction="none") if per_sample is None else per_sample(logits, labels)
    return logits.argmax(1).numpy(), losses.clamp(max=MAX_LOSS).numpy().astype(np.float16)


def image_digest(held_out: list[int], labels: np.ndarray) -> str:
    """Hash which images of a data set are the validation images: the indices of split.json, and the labels."""
    return sha256(np.array([*held_out, *labels], np.int64).tobytes()).hexdigest()[:16]


def save(run_dir: Path, answers: Answers) -> None:
    """Write answers.npz: the same answers give the same bytes."""
    dtype = np.uint8 if len(answers.classes) <= 256 else np.uint16
    arrays: dict[str, np.ndarray] = {
        "labels": answers.labels.astype(dtype),
        "classes": np.array(answers.classes, dtype=np.str_),
        "data": np.array(answers.data),
        "images": np.array(answers.images),
        **{f"{weights}_predicted": found.astype(dtype) for weights, found in answers.predicted.items()},
        **{f"{weights}_loss": found for weights, found in answers.losses.items()},
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomically(run_dir / NAME, buffer.getvalue())


def load(run_dir: Path) -> Answers | None:
    """Read the answers of a run; None if it has none, or a file that `save` did not write. It may be a stranger's."""
    path = run_dir / NAME
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
                return None
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        return _read(found)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, NotImplementedError, EOFError, MemoryError):
        return None  # MemoryError: its header lies about its size


def _read(arrays: dict[str, np.ndarray]) -> Answers | None:
    labels, classes = arrays["labels"], arrays["classes"]
    found = Answers(labels, [str(name) for name in classes], str(arrays["data"]), str(arrays["images"]))
    for weights in (FINAL, BEST):
        if f"{weights}_predicted" in arrays:
            found.predicted[weights] = arrays[f"{weights}_predicted"]
            found.losses[weights] = arrays[f"{weights}_loss"]
    sizes = {len(labels), *(len(each) for each in (*found.predicted.values(), *found.losses.values()))}
    numbers = [labels, *found.predicted.values()]
    is_whole = labels.ndim == 1 and len(sizes) == 1 and all(each.dtype.kind == "u" for each in numbers)
    return found if is_whole and labels.size and labels.max() < len(classes) else None

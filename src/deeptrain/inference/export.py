"""One file of a network for other programs, with its pipeline inside: ONNX, torch.export or safetensors.

Every file is read again and compared with the network on real pictures before it gets its name.
"""

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

import deeptrain
from deeptrain.aug.pipeline import Pipeline
from deeptrain.errors import UsageError
from deeptrain.inference.predictor import Predictor
from deeptrain.run.calibration import WITHOUT_PROBABILITIES
from deeptrain.runtime.files import write_atomically
from deeptrain.training import checkpoint
from deeptrain.training.validation import compute_logits

Format = Literal["onnx", "torch_export", "safetensors"]
Answer = Callable[[np.ndarray], np.ndarray]  # uint8 (N, H, W, C) -> logits float32 (N, K)

SUFFIXES: dict[str, str] = {"onnx": ".onnx", "torch_export": ".pt2", "safetensors": ".safetensors"}
PACKAGES: dict[str, Sequence[str]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "torch_export": (),
    "safetensors": ("safetensors",),
}
TOLERANCE = 1e-5  # of the largest logit
BATCHES = (1, 3, 64)  # that the file must take
EXAMPLE_IMAGES = 2  # black ones: a torch.export file keeps them


class Deployed(nn.Module):
    """A network that takes pixels, uint8 (N, H, W, C), and returns float32 logits (N, K)."""

    shift: Tensor
    scale: Tensor
    whitening_weight: Tensor
    whitening_bias: Tensor

    def __init__(self, network: nn.Module, pipeline: Pipeline, width: int):
        super().__init__()
        self.network = network
        self.subtract_image_mean, self.whitens = pipeline.subtract_image_mean, pipeline.whitening is not None
        self.register_buffer("shift", torch.tensor(pipeline.shift).repeat(width))
        self.register_buffer("scale", torch.tensor(pipeline.scale).repeat(width))
        if pipeline.whitening is not None:
            for name, tensor in pipeline.whitening.state_dict().items():
                self.register_buffer(f"whitening_{name}", tensor)

    def forward(self, pixels: Tensor) -> Tensor:
        """Do what `Pipeline.evaluate` does, without its views and its writing in place, then ask the network."""
        count, height, width, channels = pixels.shape
        rows = torch.addcmul(self.shift, pixels.to(torch.float32).reshape(count, height, width * channels), self.scale)
        if self.subtract_image_mean:
            rows = rows - rows.mean(dim=(1, 2), keepdim=True)
        if self.whitens:
            rows = torch.addmm(self.whitening_bias, rows.flatten(1), self.whitening_weight)
        return self.network(rows.view(count, height, width, channels).permute(0, 3, 1, 2)).float()


@dataclass
class Parity:
    """How far a file is from the network on some pictures."""

    images: int
    difference: float  # the largest of a logit, as a part of the largest logit
    other_labels: int

    def __str__(self) -> str:
        labels = f"{self.other_labels} of {self.images:,} labels"
        return f"logits differ by at most {self.difference:.1e} of the largest, {labels} differ"


def export(network: Predictor, to: Format, path: Path, pixels: np.ndarray) -> Parity:
    """Write a network on the CPU in float32 as a file; UsageError if it does not answer as the network does.

    pixels: real pictures, uint8 (N, H, W, C).
    """
    check_packages(to)
    deployed = Deployed(network.model, network.pipeline, network.decoder.width).eval()
    content, answer = WRITERS[to](network, deployed)
    parity = compare(network, answer, pixels)
    if parity.other_labels or not parity.difference <= TOLERANCE:
        raise UsageError([f"to={to}: the file would answer otherwise ({parity}), so it is not written"])
    write_atomically(path, content)
    return parity


def check_packages(to: str) -> None:
    """Raise UsageError if a format needs packages that are not installed."""
    if missing := [name for name in PACKAGES[to] if find_spec(name) is None]:
        raise UsageError([f"to={to}: needs {', '.join(missing)}; pip install 'deeptrain[export]'"])


def metadata(network: Predictor) -> dict[str, str]:
    """Return what a user of the file must know, as text by name."""
    decoder, calibration = network.decoder, network.calibration
    facts = {
        "classes": network.classes,
        "input": {"pixels": ["N", decoder.height, decoder.width, decoder.channels], "type": "uint8", "range": [0, 255]},
        "output": {"logits": ["N", len(network.classes)]},
        "probabilities": "sigmoid" if network.loss == "BCE" else "softmax",
        "has_probabilities": network.loss not in WITHOUT_PROBABILITIES or calibration is not None,
        "temperature": calibration.temperature if calibration else 1.0,
        "resize": decoder.state_dict(),
        "inside": {
            "shift": network.pipeline.shift,
            "scale": network.pipeline.scale,
            "subtract_image_mean": network.pipeline.subtract_image_mean,
            "whitening": network.pipeline.whitening is not None,
        },
        "weights": checkpoint.digest(network.model.state_dict()),
        "versions": {"deeptrain": deeptrain.__version__, "torch": torch.__version__},
    }
    return {name: json.dumps(value) for name, value in facts.items()}


def compare(network: Predictor, answer: Answer, pixels: np.ndarray) -> Parity:
    """Ask a file and the network about the same pictures, in batches of several sizes."""
    sizes = [size for size in BATCHES if size <= len(pixels)]
    starts = np.cumsum([0, *sizes])
    batches = [pixels[start : start + size] for start, size in zip(starts, sizes, strict=False)]
    rest = pixels[min(starts[-1], len(pixels)) :]
    batches += [rest[start : start + BATCHES[-1]] for start in range(0, len(rest), BATCHES[-1])]
    batches = [batch for batch in batches if len(batch)]
    expected = np.concatenate([_answers_of(network, batch) for batch in batches])
    found = np.concatenate([answer(batch) for batch in batches])
    difference = float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30))
    return Parity(len(expected), difference, int((found.argmax(1) != expected.argmax(1)).sum()))


@torch.inference_mode()
def _answers_of(network: Predictor, batch: np.ndarray) -> np.ndarray:
    images = torch.from_numpy(batch).permute(0, 3, 1, 2)
    return compute_logits(network.model, images, network.pipeline, network.runtime).numpy()


# --- formats ---


def _program(network: Predictor, deployed: Deployed) -> torch.export.ExportedProgram:
    decoder = network.decoder
    example = torch.zeros(EXAMPLE_IMAGES, decoder.height, decoder.width, decoder.channels, dtype=torch.uint8)
    with torch.no_grad():
        return torch.export.export(deployed, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))


def _torch_export(network: Predictor, deployed: Deployed) -> tuple[bytes, Answer]:
    """Return the content of a .pt2 and what it answers. It is read from memory, as written here."""
    content = io.BytesIO()
    with _silent():
        torch.export.save(
            _program(network, deployed), content, extra_files={"deeptrain.json": json.dumps(metadata(network))}
        )
        again = torch.export.load(io.BytesIO(content.getvalue())).module()

    def answer(batch: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return again(torch.from_numpy(batch)).numpy()

    return content.getvalue(), answer


def _onnx(network: Predictor, deployed: Deployed) -> tuple[bytes, Answer]:
    import onnxruntime

    with _silent():
        program = torch.onnx.export(
            _program(network, deployed), dynamo=True, input_names=["pixels"], output_names=["logits"], verbose=False
        )
    assert program is not None
    program.model.metadata_props.update(metadata(network))
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda batch: np.asarray(session.run(None, {"pixels": batch})[0])


def _safetensors(network: Predictor, deployed: Deployed) -> tuple[bytes, Answer]:
    """Return the weights, and the pipeline's numbers as tensors beside them; a copy of the network answers."""
    import copy

    from safetensors.torch import load, save

    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in deployed.state_dict().items()}
    content = save(tensors, metadata(network))
    again = copy.deepcopy(deployed)
    for tensor in again.state_dict().values():
        tensor.zero_()
    again.load_state_dict(load(content))

    def answer(batch: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return again(torch.from_numpy(batch)).numpy()

    return content, answer


WRITERS: dict[str, Callable[[Predictor, Deployed], tuple[bytes, Answer]]] = {
    "onnx": _onnx,
    "torch_export": _torch_export,
    "safetensors": _safetensors,
}


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep the exporter's progress, warnings and logs away from the terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            Path(os.devnull).open("w") as null,
            contextlib.redirect_stdout(null),
            contextlib.redirect_stderr(null),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)

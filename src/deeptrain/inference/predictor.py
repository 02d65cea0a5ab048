"""A trained network with its way from a picture to an answer: `deeptrain.load(RUN).predict(["cat.jpg"])`."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deeptrain.aug.pipeline import Pipeline
from deeptrain.data.decode import Decoder, cores
from deeptrain.inference.pictures import decode_picture, expand, name_of
from deeptrain.metrics.probabilities import class_probabilities
from deeptrain.run.calibration import Calibration
from deeptrain.runtime.device import Runtime, pick_device, pick_precision, use_threads
from deeptrain.runtime.watch import map_in_threads
from deeptrain.training.validation import compute_logits

BATCH = 512  # as an evaluation has, since the size of a batch decides on the last bits
MAX_BATCH_BYTES = 2**30  # of the pixels of a batch
PIECE = 16  # pictures that a thread decodes at a time

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """What a network says of one picture, or why the picture could not be read."""

    name: str
    classes: list[str]
    logits: np.ndarray  # float32 (K,)
    probabilities: np.ndarray  # float64 (K,)
    scores: np.ndarray  # float64 (K,): the probabilities before any temperature, by which conformal sets go
    error: str = ""

    @property
    def label(self) -> str:
        """Return the most likely class."""
        return self.classes[int(self.logits.argmax())]

    @property
    def probability(self) -> float:
        """Return the probability of the most likely class."""
        return float(self.probabilities[self.logits.argmax()])

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """Return the most likely classes with their probabilities, the likeliest first."""
        order = np.argsort(-self.logits, kind="stable")[:count]
        return [(self.classes[index], float(self.probabilities[index])) for index in order]

    def at_least(self, threshold: float) -> list[str]:
        """Return the classes whose probability before any temperature reaches a threshold, the likeliest first."""
        order = np.argsort(-self.logits, kind="stable")
        return [self.classes[index] for index in order if self.scores[index] >= threshold]


@dataclass
class Predictor:
    """A network, and all that turns a picture into its input. Made by `deeptrain.load`.

    Pictures are paths, folders, PIL images, arrays (H, W[, C]), or tensors (C, H, W), from 0 to 255.
    """

    model: nn.Module
    pipeline: Pipeline
    decoder: Decoder
    classes: list[str]
    runtime: Runtime
    loss: str = "CrossEntropy"  # the class that it was trained with, which decides what its logits mean
    precision: str = "fp32"  # as it was set, auto included
    threads: int | str = "auto"
    calibration: Calibration | None = None  # None: probabilities as the network was trained

    def to(self, device: str) -> "Predictor":
        """Move to a device, such as "cuda" or "cpu"; ValueError if it is not there."""
        chosen, _ = pick_device(device)
        self.runtime = Runtime(chosen, pick_precision(self.precision, chosen))
        self.model = self.runtime.to_device(self.model)
        return self

    def predict(self, pictures: Any, batch_size: int | None = None) -> list[Prediction]:
        """Return a prediction for each picture; ValueError naming the first that cannot be read.

        A folder stands for all pictures in it.
        """
        answers = list(self.predict_each(expand(pictures), batch_size))
        if error := next((answer.error for answer in answers if answer.error), None):
            raise ValueError(error)
        return answers

    def predict_each(self, pictures: Iterable[Any], batch_size: int | None = None) -> Iterator[Prediction]:
        """Yield predictions as they come, in order. One that could not be made has its reason in `error`."""
        start = 0
        for batch in self.decoded(pictures, batch_size):
            logits = self._forward([image for _, image in batch if not isinstance(image, str)])
            yield from self.answers(batch, logits, start)
            start += len(batch)

    def logits(self, pictures: Any, batch_size: int | None = None) -> Tensor:
        """Return float32 logits (N, K), on the host."""
        return torch.from_numpy(np.stack([answer.logits for answer in self.predict(pictures, batch_size)]))

    def features(self, pictures: Any, batch_size: int | None = None) -> Tensor:
        """Return what the last layer of the network receives, float32 (N, D), on the host.

        Of several draws of fractional pools it is the mean.
        """
        received: list[Tensor] = []
        hook = self._last_layer().register_forward_pre_hook(lambda _, inputs: received.append(inputs[0].flatten(1)))
        rows = []
        try:
            for batch in self.decoded(expand(pictures), batch_size):
                if error := next((image for _, image in batch if isinstance(image, str)), None):
                    raise ValueError(error)
                received.clear()
                self._forward([image for _, image in batch])
                rows.append(torch.stack(received).float().mean(0).cpu())
        finally:
            hook.remove()
        return torch.cat(rows)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return float64 probabilities of logits (..., K), as the loss means them and the calibration corrects them."""
        temperature = self.calibration.temperature if self.calibration else 1.0
        return class_probabilities(torch.from_numpy(logits), self.loss, temperature).numpy()

    def answers(
        self, batch: list[tuple[Any, np.ndarray | str]], logits: np.ndarray, start: int
    ) -> Iterator[Prediction]:
        """Yield a prediction for each picture of a batch, the number `start` and on. logits (M, K): of those read."""
        finite = np.isfinite(logits).all(1, keepdims=True)
        logits = np.where(finite, logits, np.float32("nan"))
        scores = class_probabilities(torch.from_numpy(logits), self.loss).numpy()
        rows = zip(logits, self.probabilities(logits), scores, strict=True)
        nothing = np.full(len(self.classes), np.nan)
        for index, (picture, image) in enumerate(batch, start):
            name = name_of(picture, index)
            if isinstance(image, str):
                yield Prediction(name, self.classes, nothing.astype(np.float32), nothing, nothing, image)
                continue
            row = next(rows)
            not_finite = f"{name}: the network's answer is not finite" if np.isnan(row[0]).any() else ""
            yield Prediction(name, self.classes, *row, not_finite)

    @torch.inference_mode()
    def forward(self, images: np.ndarray, mode: Callable[[nn.Module], Any] = nn.Module.eval) -> np.ndarray:
        """Return logits (N, K) of decoded pictures, uint8 or float32 (N, H, W, C). mode: prepares the model."""
        pixels = torch.from_numpy(images).to(self.runtime.device).permute(0, 3, 1, 2)
        mode(self.model)
        with self._own_threads():
            return compute_logits(self.model, pixels, self.pipeline, self.runtime).cpu().numpy()

    def _forward(self, images: list[Any]) -> np.ndarray:
        return self.forward(np.stack(images)) if images else np.zeros((0, len(self.classes)), np.float32)

    @contextmanager
    def _own_threads(self) -> Iterator[None]:
        """Compute with as many threads as an evaluation does: they decide on the last bits."""
        before = torch.get_num_threads()
        use_threads(self.threads, BATCH * self.decoder.height * self.decoder.width)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def decoded(self, pictures: Iterable[Any], size: int | None) -> Iterator[list[tuple[Any, np.ndarray | str]]]:
        """Yield pictures with their pixels, or with the reason why there are none. The next batch is read meanwhile."""
        pixels = self.decoder.height * self.decoder.width * self.decoder.channels
        size = size or max(1, min(BATCH, MAX_BATCH_BYTES // pixels))

        def decode(piece: list[Any]) -> list[tuple[Any, np.ndarray | str]]:
            return [(picture, decode_picture(self.decoder, picture)) for picture in piece]

        source = iter(pictures)
        pieces = iter(lambda: list(islice(source, PIECE)), [])
        ahead = 2 * math.ceil(size / PIECE)
        decoded = chain.from_iterable(map_in_threads(decode, pieces, cores(), ahead=ahead, warn=logger.warning))
        while batch := list(islice(decoded, size)):
            yield batch

    def _last_layer(self) -> nn.Module:
        """Return the layer that makes the logits: the last linear one, or convolution, that is called."""
        called: list[nn.Module] = []
        layers = [module for module in self.model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
        hooks = [layer.register_forward_hook(lambda layer, *_: called.append(layer)) for layer in layers]
        try:
            self._forward([np.zeros((self.decoder.height, self.decoder.width, self.decoder.channels), np.uint8)])
        finally:
            for hook in hooks:
                hook.remove()
        if not called:
            raise ValueError("features: this network has no linear layer and no convolution to take them from")
        return called[-1]

"""Measuring a network on images that it does not learn from: loss and metrics, or every prediction."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from deeptrain.aug.pipeline import Pipeline
from deeptrain.average import Average
from deeptrain.data.loader import Loader
from deeptrain.metrics.metric import METRICS, Metric
from deeptrain.metrics.running_metrics import RunningMetrics
from deeptrain.runtime.batch_norm import measure_statistics, remembers_start
from deeptrain.runtime.device import Runtime, is_out_of_memory
from deeptrain.runtime.random import fold_in, generator
from deeptrain.runtime.signals import StopRequest
from deeptrain.runtime.world import SINGLE, World
from deeptrain.training.progress import AVERAGE, RAW

BN_IMAGES = 1024  # on which batch norms are measured before an early validation

Batch = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass
class Validator:
    """What a validation measures, and on which images.

    loss: without class weights and smoothing, so that runs compare. clean_loader: a fixed slice of train, not
    augmented. bn_loader: a fixed slice of train, augmented, on which batch norms are measured: those of averaged
    weights, and in the first steps all. measured_buffers: those of the last validation, by model, where they were not
    the model's own.
    """

    model: nn.Module
    loader: Loader
    pipeline: Pipeline
    runtime: Runtime = field(default_factory=Runtime)
    loss: Loss = cross_entropy
    clean_loader: Loader | None = None
    bn_loader: Loader | None = None
    average: Average | None = None
    metrics: Mapping[str, Metric] = field(default_factory=lambda: METRICS)
    seed: int = 0
    world: World = SINGLE
    measured_buffers: dict[nn.Module, dict[str, Tensor]] = field(default_factory=dict, init=False)

    @property
    def num_images(self) -> int:
        """Return the images of val, those of all processes together."""
        (images,) = self.world.all_reduce_sum([self.loader.num_images])
        return int(images)

    def measure(self, stop: StopRequest, epoch: int, fraction: float) -> dict[str, float]:
        """Return the metrics of the present weights by tag; raise Interrupted if the run is to stop.

        fraction: how much of the run is done, in [0, 1].
        """
        self.world.broadcast_buffers(self.model, self.average and self.average.module)
        self.measured_buffers.clear()
        position, measured = (stop, epoch, fraction), {}
        with self.settled(self.model, *position):
            if self.clean_loader is not None:
                measured["train_clean"] = self._evaluate(self.model, self.clean_loader, stop)
            measured["val"] = self._evaluate(self.model, self.loader, stop)
        if self.average is not None and self.average.started:
            with self.runtime.autocast:
                self.average.update_bn_statistics(self._bn_batches(*position))
            with self.settled(self.average.module, *position, is_measured=self.average.bn_images > 0):
                measured["val_average"] = self._evaluate(self.average.module, self.loader, stop)
        return {f"{name}/{split}": value for split, means in measured.items() for name, value in means.items()}

    def state_dict(self, model: nn.Module) -> dict[str, Tensor]:
        """Return a model's state as the last validation has measured it."""
        state, measured = model.state_dict(), self.measured_buffers.get(model, {})
        state.update({name: value for name, value in measured.items() if name in state})
        return state

    @property
    def final_weights(self) -> str:
        """Return which weights a run ends with, "average" or "raw": an average is made to be used."""
        return AVERAGE if self.average is not None and self.average.started else RAW

    def predict_final(self, loader: Loader, epoch: int, fraction: float) -> tuple[Tensor, Tensor]:
        """Return logits (N, K) and labels (N,) by the final weights, as the last validation has measured them.

        epoch, fraction: of that validation. One of several processes may call this alone.
        """
        average = self.average if self.final_weights == AVERAGE else None
        model = average.module if average else self.model
        if not self.world.is_single:  # its batch norms may wait for the others
            model.load_state_dict(self.state_dict(model))
        is_measured = not self.world.is_single or (average is not None and average.bn_images > 0)
        with self.settled(model, StopRequest(), epoch, fraction, is_measured=is_measured):
            return predict(model, loader.epoch(0), self.pipeline, self.runtime)

    def close(self) -> None:
        """End the processes that read images."""
        for loader in filter(None, (self.loader, self.clean_loader, self.bn_loader)):
            loader.close()

    @contextmanager
    def settled(
        self, model: nn.Module, stop: StopRequest, epoch: int, fraction: float, is_measured: bool = False
    ) -> Iterator[None]:
        """Let batch norms use the statistics of the present weights while their running ones remember the start.

        The running statistics come back afterwards, so the training does not change.
        """
        if is_measured or self.bn_loader is None or not remembers_start(model):
            yield
            return
        running = [buffer.clone() for buffer in model.buffers()]
        try:
            with self.runtime.autocast:
                measure_statistics(model, self._bn_batches(stop, epoch, fraction))
            self.measured_buffers[model] = {name: buffer.clone() for name, buffer in model.named_buffers()}
            yield
        finally:
            with torch.no_grad():
                for buffer, old in zip(model.buffers(), running, strict=True):
                    buffer.copy_(old)

    def _evaluate(self, model: nn.Module, loader: Loader, stop: StopRequest) -> dict[str, float]:
        batches = stop.stoppable(loader.epoch(0))
        return evaluate(model, batches, self.pipeline, self.runtime, self.loss, self.metrics, self.world)

    def _bn_batches(self, stop: StopRequest, epoch: int, fraction: float) -> Iterator[Tensor]:
        """Yield augmented training images as the network takes them; the same ones whenever it is the same epoch."""
        batches = stop.stoppable(self.bn_loader.epoch(epoch)) if self.bn_loader else ()
        for number, (images, labels) in enumerate(batches):
            position = self.seed, "norms", epoch, number
            self.runtime.seed(fold_in(*position))
            yield self.pipeline.train(images, labels, generator(*position), fraction)[0]


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    pipeline: Pipeline,
    runtime: Runtime,
    loss: Loss,
    metrics: Mapping[str, Metric] = METRICS,
    world: World = SINGLE,
) -> dict[str, float]:
    """Return the means of `loss` and the metrics over batches, with one read from the device.

    loss: what for_evaluation returns of the run's own, without class weights and smoothing, so that runs compare. Every
    rank brings its shard of the images and gets the means over all.
    """
    model.eval()
    means = RunningMetrics(metrics)
    for images, labels in batches:
        logits = compute_logits(model, images, pipeline, runtime)
        means.update(loss(logits, labels), logits, labels)
    means.exchange(world.all_reduce_sum)
    return means.compute()


@torch.inference_mode()
def predict(model: nn.Module, batches: Iterable[Batch], pipeline: Pipeline, runtime: Runtime) -> tuple[Tensor, Tensor]:
    """Return logits (N, K) and labels (N,) of all batches, on the host."""
    model.eval()
    logits, labels = [], []
    for images, classes in batches:
        logits.append(compute_logits(model, images, pipeline, runtime))
        labels.append(classes)
    return torch.cat(logits).cpu(), torch.cat(labels).cpu()


def compute_logits(model: nn.Module, images: Tensor, pipeline: Pipeline, runtime: Runtime) -> Tensor:
    """Return the logits of a batch, float32 (N, K). If memory runs out, each half of the batch goes by itself."""
    try:
        with runtime.autocast:
            return model(pipeline.evaluate(images)).float()
    except (RuntimeError, MemoryError) as error:
        if len(images) == 1 or not is_out_of_memory(error):
            raise
    halves = images.chunk(2)  # only here is the failed pass freed
    return torch.cat([compute_logits(model, half, pipeline, runtime) for half in halves])


def score(logits: Tensor, labels: Tensor, loss: Loss, metrics: Mapping[str, Metric] = METRICS) -> dict[str, float]:
    """Return the metrics of logits (N, K) against class ids (N,), as `evaluate` measures them."""
    means = RunningMetrics(metrics)
    means.update(loss(logits, labels), logits, labels)
    return means.compute()

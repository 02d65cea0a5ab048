"""The training loop, written out once, in order. To change what happens, change it here."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from deeptrain.aug.pipeline import Pipeline
from deeptrain.average import Average
from deeptrain.data.loader import Loader
from deeptrain.gradient import plain_gradient
from deeptrain.loggers.run_logger import RunLogger, metric_names
from deeptrain.model.layers import limit_norms
from deeptrain.optimizer import closure, needs_closure, set_learning_rate, start_momenta, weights_of, zero_grad
from deeptrain.penalty import backward_penalty
from deeptrain.runtime.batch_norm import has_batch_norm, settling_batches
from deeptrain.runtime.device import Runtime
from deeptrain.runtime.random import fold_in, generator
from deeptrain.runtime.signals import Interrupted, StopRequest
from deeptrain.runtime.world import SINGLE, World
from deeptrain.schedule import constant
from deeptrain.schema import NonNegativeInt, PositiveFloat, PositiveInt, Seed, validate_fields
from deeptrain.training.checkpoint import Checkpoints
from deeptrain.training.meters import Outputs, Stopwatch, TrainMeter
from deeptrain.training.nonfinite import check_finite
from deeptrain.training.progress import Plan, Progress
from deeptrain.training.rehearsal import check_optimizer
from deeptrain.training.state import best_state_of, load_state, state_of
from deeptrain.training.validation import BN_IMAGES, Validator
from deeptrain.training.vitals import Vitals

Step = Callable[[Tensor, Tensor], Outputs]
Gradient = Callable[[Callable[[], Outputs]], Outputs]


@dataclass
class Trainer:
    """The parts of a run and the loop over them. It knows nothing of configuration.

    gradient: gets `backward`, which leaves the gradient of a batch in .grad; may call it more than once (SAM).
    accumulate: micro-batches a batch. min_images: those of the smallest micro-batch that the model can train on;
    0: 2 with batch norms, else 1. max_norm: of the weights into each unit. metadata: stored in every checkpoint.
    The validator gets a bn_loader if it has none and is to measure before batch norms have settled.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    pipeline: Pipeline
    train_loader: Loader
    validator: Validator
    plan: Plan = field(default_factory=Plan)
    schedule: Callable[[float], float] = constant(1)  # noqa: RUF009
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy
    runtime: Runtime = field(default_factory=Runtime)
    logger: RunLogger = field(default_factory=RunLogger)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    gradient: Gradient = plain_gradient
    penalty: Callable[[list[Tensor]], dict[str, Tensor]] | None = None
    average: Average | None = None
    accumulate: PositiveInt = 1
    min_images: NonNegativeInt = 0
    clip_norm: PositiveFloat | None = None
    max_norm: PositiveFloat | None = None
    seed: Seed = 0
    world: World = SINGLE
    vitals: Vitals = field(default_factory=Vitals)
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        validate_fields(self)
        check_optimizer(self.optimizer, self.model)
        metrics = self.validator.metrics
        self.plan = self.plan.bind(len(self.train_loader), metrics, self.validator.num_images)
        self.progress, self.stop, self.watch = Progress(), StopRequest(self.world), Stopwatch()
        self.meter = TrainMeter(metrics, skip_nonfinite=self.runtime.precision == "fp16", world=self.world)
        self.min_images = self.min_images or (2 if has_batch_norm(self.model) else 1)
        if self.validator.bn_loader is None and settling_batches(self.model) > self.plan.first_validation:
            self.validator.bn_loader = self.train_loader.first_images(BN_IMAGES)
        self.network = self.runtime.compiled(self.world.wrap(self.model))
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.weights = weights_of(self.parameters)
        self.needs_closure = needs_closure(self.optimizer)
        self.vitals.bind(self.model, self.parameters, self.clip_norm, self.runtime.precision)
        start_momenta(self.optimizer)
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    # --- the loop ---

    def fit(self, step: Step | None = None) -> tuple[str, str]:
        """Train until the run is over; return status and reason. step: replaces train_step."""
        self.logger.start(self.plan, self.progress)
        if self.progress.step == 0:
            self.save()  # there is always something to go back to
        elif self.progress.validated < self.progress.step and self.plan.validation_is_due(self.progress):
            self.validate()  # the run was stopped before it had validated
        while (outcome := self.outcome()) is None:
            self.train_epoch(self.vitals.sampled(step or self.train_step, self.progress, self.measure_noise))
        return outcome

    def train_epoch(self, step: Step) -> None:
        """Train to the end of the epoch, or of the run."""
        progress, plan, loader = self.progress, self.plan, self.train_loader
        self.model.train()
        self.watch.restart()
        for images, labels in loader.epoch(progress.epoch, progress.step_in_epoch):
            self.watch.batch_arrived()
            self.meter.update(step(images, labels))
            progress.advance(loader.sizes[progress.step_in_epoch], plan.steps_per_epoch)
            if self.average is not None:
                self.average.update(progress.step, plan.fraction(progress), progress.step_in_epoch == 0)
            progress.train_seconds += self.stop.sync(self.watch.lap())
            self.logger.advance(progress.step_in_epoch)
            if progress.step % plan.log_every_steps == 0:
                self.log()
            if not self.stop.reason and plan.validation_is_due(progress):
                self.validate()
            elif self.stop.reason or plan.save_is_due(progress):
                self.save()
            if self.stop.reason or (progress.validated == progress.step and plan.outcome(progress)):
                break

    def train_step(self, images: Tensor, labels: Tensor) -> Outputs:
        """Take one optimizer step on uint8 images (N, C, H, W) and class ids (N,)."""
        scaler = self.runtime.scaler
        done = self.plan.fraction(self.progress)
        set_learning_rate(self.optimizer, self.schedule(done) * self.progress.lr_scale, done)
        compute_gradient = partial(self.compute_gradient, *self.augment(images, labels))
        outputs = compute_gradient()
        if self.needs_closure:
            self.optimizer.step(closure(self.parameters, compute_gradient, outputs, self.meter.total_loss))
        else:
            scaler.step(self.optimizer)
            scaler.update()
        if self.max_norm is not None:
            limit_norms(self.weights, self.max_norm)
        return outputs

    def compute_gradient(self, images: Tensor, targets: Tensor) -> Outputs:
        """Leave the gradient of loss and penalty, clipped, in .grad."""
        scaler = self.runtime.scaler
        zero_grad(self.parameters)
        outputs = self.gradient(partial(self.backward, images, targets))
        if self.penalty is not None:
            self.meter.penalty_terms = backward_penalty(self.penalty, self.weights, scaler)
        if self.clip_norm is not None:
            scaler.unscale_(self.optimizer)
            self.vitals.add_clip_norm(clip_grad_norm_(self.parameters, self.clip_norm))
        return outputs

    def augment(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the augmented batch as the network takes it, and its targets: class ids (N,) or soft (N, K).

        Every rank augments the whole batch and keeps its shard, so augmentations mix any two images of a batch.
        """
        epoch, step = self.progress.epoch, self.progress.step_in_epoch
        targets = labels
        if self.pipeline.augmentations:
            rng = generator(self.seed, "augment", epoch, step)
            images, labels = self.world.all_gather_batch(images, labels, self.train_loader.sizes[step])
            images, targets = self.pipeline.augment(images, labels, rng, self.plan.fraction(self.progress))
            images, targets = self.world.shard_batch(images, targets)
        return self.pipeline.evaluate(images), targets

    def backward(self, images: Tensor, targets: Tensor) -> Outputs:
        """Add the gradient of the batch's mean loss to .grad; return loss, logits, targets of each micro-batch."""
        epoch, step = self.progress.epoch, self.progress.step_in_epoch
        self.runtime.seed(fold_in(self.seed, "model", epoch, step) + self.world.rank)
        outputs, batch = [], (images, targets, self.accumulate, self.train_loader.sizes[step], self.min_images)
        for inputs, wanted, weight in self.world.micro_batches(*batch):
            with self.runtime.autocast:
                logits = self.network(inputs)
                loss = self.loss(logits, wanted)
            self.runtime.scaler.scale(loss if weight == 1 else loss * weight).backward()
            if weight:
                outputs.append((loss, logits, wanted))
        return outputs

    def measure_noise(self, images: Tensor, labels: Tensor) -> None:
        """Measure how much the gradients of parts of a batch differ. Nothing of the run changes."""
        self.vitals.measure_noise(*self.augment(images, labels), self.loss, self.accumulate)

    def log(self) -> None:
        """Log the training means since the last log point. Only here does the host wait for the device."""
        means = self.meter.compute()
        self.progress.train_seconds += self.stop.sync(self.watch.lap())  # the device's part
        if means:  # {} if on_nan=skip left out every step
            values = means | self.meter.penalties | self.vitals.read()
            self.logger.log_step(self.progress, values, self.lr, self.meter.images_per_second)
        self.watch.restart()

    def validate(self) -> None:
        """Measure the weights, log a row, and save. A run that is asked to stop saves only; resumed, it validates."""
        if self.meter.has_batches:
            self.log()
        check_finite(self.state_dict(), self.world)
        try:
            measured = self.validator.measure(self.stop, self.progress.epoch, self.plan.fraction(self.progress))
        except Interrupted:
            return self.save()
        metrics = self.meter.epoch_means() | measured | self.meter.penalties
        check_finite(metrics, self.world)
        best = self.plan.update_best(self.progress, metrics)
        self.logger.log_validation(self.progress, metrics, self.lr, best is not None, self.watch.take_waited())
        self.logger.log_layers(self.progress, self.vitals.look(self.validator, self.progress, self.plan))
        self.meter.start_epoch()
        if best is not None:
            self.save_checkpoint("best", best_state_of(self, best))
        self.save()
        self.model.train()

    def metric_names(self) -> list[str]:
        """Name what a validation measures, in the order of metrics.csv."""
        terms = list(self.penalty(self.weights)) if self.penalty is not None else []
        clean = self.validator.clean_loader is not None
        return metric_names(self.validator.metrics, clean=clean, average=self.average is not None, penalties=terms)

    # --- state ---

    @property
    def history(self) -> list[dict[str, float]]:
        """Return a row a validation: epoch, step, every metric by tag, rate and speed. pandas.DataFrame takes it."""
        return self.logger.history

    @property
    def lr(self) -> float:
        return self.optimizer.param_groups[0]["lr"]

    def outcome(self) -> tuple[str, str] | None:
        """Return status and reason if the run is to end here, else None."""
        if self.stop.reason:
            return "interrupted", f"stopped by {self.stop.reason}"
        return self.plan.outcome(self.progress)

    def save(self) -> None:
        """Write last.pt. From there a run goes on as if it had never stopped."""
        self.meter.keep_on_main()
        self.save_checkpoint("last", self.state_dict())
        self.plan.saved_at = self.progress.train_seconds
        self.watch.restart()

    def save_checkpoint(self, name: str, state: dict[str, Any]) -> None:
        """Write a checkpoint; NonFiniteError if it holds an inf or NaN."""
        check_finite(state, self.world)
        logs = self.logger.flush()  # a resumed run does not log again what came before
        self.checkpoints.save(name, state | {"logs": logs})

    def state_dict(self) -> dict[str, Any]:
        """Return all that a run needs to go on as if it had never stopped: plain values and tensors."""
        return state_of(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state. One without optimizer state (best.pt) starts momentum and averages anew."""
        load_state(self, state)

    def close(self) -> None:
        """End the processes that read images."""
        self.train_loader.close()
        self.validator.close()

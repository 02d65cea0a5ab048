"""The training loop, written out once, in order. To change what happens, change it here."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from deeptrain.aug.pipeline import Pipeline
from deeptrain.average import Average
from deeptrain.data.loader import ResidentLoader, StreamLoader
from deeptrain.loggers.run_logger import RunLogger, metric_names
from deeptrain.loss import plain
from deeptrain.metrics import RunningMetrics
from deeptrain.model.layers import limit_norms
from deeptrain.optimizer import SAM, weights_of
from deeptrain.runtime import distributed
from deeptrain.runtime.device import Runtime, is_out_of_memory
from deeptrain.runtime.random import generator, key
from deeptrain.runtime.signals import SIGNALS
from deeptrain.runtime.world import SINGLE, World
from deeptrain.schema import NonNegativeFloat, NonNegativeInt, validate_call
from deeptrain.training.nonfinite import first_layer, not_finite, state_values
from deeptrain.training.validation import evaluate, pool

Loader = ResidentLoader | StreamLoader


MAX_ROLLBACKS = 5  # times that on_nan=rollback halves the rate before it gives up
INIT_HINT = "the initialization gave it an inf or NaN; try another one, or other weights to start from"


class TrainingFailed(RuntimeError):
    """Training cannot go on; the message says at which step, and the likely causes."""


class NonFiniteError(TrainingFailed):
    """A value has become inf or NaN, some time since the last checkpoint."""


class Interrupted(Exception):
    """A validation has been left in the middle, since the run is told to stop."""


@dataclass
class Progress:
    """Where a run stands: all of the loop's state that is not a tensor."""

    epoch: NonNegativeInt = 0  # passes completed
    step_in_epoch: NonNegativeInt = 0
    step: NonNegativeInt = 0  # optimizer steps
    images: NonNegativeInt = 0
    train_seconds: NonNegativeFloat = 0.0  # spent in training steps, validation not counted
    best: float | None = None  # of the monitored metric
    best_epoch: NonNegativeFloat = 0  # passes completed by then
    since_best: NonNegativeInt = 0  # validations
    validated: NonNegativeInt = 0  # at which step last
    slowed: NonNegativeInt = 0  # times that the rate has been halved, by on_nan=rollback
    left_out: NonNegativeInt = 0  # steps, by on_nan=skip
    metrics: dict[str, float] = field(default_factory=dict)  # last value of each


@dataclass
class Trainer:
    """Built parts and the verbs that run them; nothing here knows of configuration."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Callable[[float], float]
    loss: Callable[[Tensor, Tensor], Tensor]
    pipeline: Pipeline
    train_loader: Loader
    val_loader: Loader
    runtime: Runtime
    record: RunLogger
    clean_loader: Loader | None = None  # a fixed slice of train, un-augmented
    norm_loader: Loader | None = None  # a fixed slice of train, augmented, for the average's batch norms
    penalty: Callable[[list[Tensor]], dict[str, Tensor]] | None = None
    average: Average | None = None
    seed: int = 0
    epochs: int = 30
    limit_steps: int | None = None
    max_seconds: float | None = None
    accumulate: int = 1
    halve: bool = False  # the pieces of a batch, whenever memory does not suffice
    clip_norm: float | None = None
    max_norm: float | None = None  # of the weights into each unit
    sam: float | None = None  # the radius of sharpness-aware minimization
    on_nan: str = "stop"  # or skip, rollback
    monitor: str = "accuracy/val"
    patience: int | None = None
    min_delta: float = 0.0
    validate_every_epochs: int = 1
    validate_every_steps: int | None = None
    save_every_steps: int | None = None
    save_every_minutes: float | None = None
    log_every_steps: int = 20
    about: dict[str, Any] = field(default_factory=dict)  # goes into every checkpoint: overrides, versions, classes
    processes: World = SINGLE  # that train together, each on its part of every batch
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self):
        self.network = network = self.model if self.processes.alone else distributed.wrap(self.model)
        if self.runtime.compile:
            self.network = torch.compile(network)
        self.averaging = network  # of gradients, where it is wrapped
        self.lower_is_better = self.monitor.startswith("loss")
        steps = self.epochs * len(self.train_loader)
        self.total_steps = min(steps, self.limit_steps or steps)
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.weights = weights_of(self.parameters)
        self.sharpness = SAM(self.model, self.parameters, self.sam) if self.sam else None
        self.plain_loss = plain(self.loss)  # what evaluations measure
        self.penalty_terms: dict[str, Tensor] = {}  # of the last step
        self.penalties: dict[str, float] = {}  # as they were at the last log point
        self.recent = self.no_batches()  # since the last log point
        self.passed: list[tuple[int, dict[str, float]]] = []  # images and means of the log points since a validation
        self.watching = False  # every step, for values that are not finite
        self.clock, self.waited = 0.0, 0.0
        self.saved_at = self.progress.train_seconds
        self.told = 0  # to stop, by which signal
        self.interrupted = ""  # by what: the run stops after its step, with everything saved
        self.validated = replace(self.progress)  # where the run stood at the last validation
        for group in self.optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    # --- the loop ---

    def fit(self) -> tuple[str, str]:
        """Train until there is a reason to stop; return the status and the reason."""
        self.record.begin(self.epochs, len(self.train_loader), self.progress.epoch)
        if self.progress.step == 0:
            self.save()  # so that there is always something to go back to
        while True:
            self.clock = self.logged_at = perf_counter()
            try:
                if self.was_stopped_before_validating():
                    self.validate()
                if (end := self.over()) is not None:
                    return end
                self.train_epoch()
            except NonFiniteError as wrong:
                self.recover(wrong)

    def train_epoch(self) -> None:
        progress, loader = self.progress, self.train_loader
        self.model.train()
        for images, labels in loader.epoch(progress.epoch, progress.step_in_epoch):
            self.waited += perf_counter() - self.clock
            self.train_step(images, labels)
            if progress.step_in_epoch == len(loader):
                progress.epoch, progress.step_in_epoch = progress.epoch + 1, 0
            self.record.tick(progress.step_in_epoch)
            if progress.step % self.log_every_steps == 0:
                self.log_step()
            due = self.validation_is_due()
            if due and not self.interrupted:
                self.validate()
            elif due or self.save_is_due():
                self.save()
            if progress.step_in_epoch == 0 or (due and self.over()):
                break

    def train_step(self, images: Tensor, labels: Tensor) -> None:
        """Take one optimizer step on a batch of uint8 images (N, C, H, W) and class ids (N,)."""
        progress, runtime = self.progress, self.runtime
        moment = progress.epoch, progress.step_in_epoch
        draws, done = key(self.seed, "model", *moment) + self.processes.rank, self.fraction()
        runtime.seed(draws)
        factor = self.schedule(done) / 2**progress.slowed
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor

        rng = generator(self.seed, "augment", *moment) if self.pipeline.augmentations else None
        size = len(images) if self.processes.alone else self.train_loader.size(progress.step_in_epoch)
        if self.processes.alone or rng is None:
            images, targets = self.pipeline.train(images, labels, rng, done)
        else:
            images, targets = self.augment_together(images, labels, rng, done, size)
        before = self.copied() if self.watching else None
        measured = self.backward_or_halve(images, targets, size, draws)
        if self.sharpness is not None:
            with self.sharpness.uphill():
                runtime.seed(draws)  # the same units dropped, the same branches
                self.backward_or_halve(images, targets, size, draws)
        if self.penalty is not None:
            self.penalty_terms = self.penalty(self.weights)
            torch.autograd.backward(runtime.scaler.scale(list(self.penalty_terms.values())))
        if before is not None and self.leaves_out(self.cause(images, measured), before):
            measured = []
        else:
            if self.clip_norm is not None:
                runtime.scaler.unscale_(self.optimizer)
                clip_grad_norm_(self.parameters, self.clip_norm)
            runtime.scaler.step(self.optimizer)
            runtime.scaler.update()
            if self.max_norm is not None:
                limit_norms(self.weights, self.max_norm)
            if before is not None and self.leaves_out(self.cause_in_update(), before):
                measured = []
        for batch in measured:
            self.recent.add(*batch)
        for parameter in self.parameters:
            parameter.grad = None  # 6 us a step less than zero_grad()

        progress.step += 1
        progress.step_in_epoch += 1
        progress.images += size
        if self.average is not None:
            self.average.update(progress.step, self.fraction(), progress.step_in_epoch == len(self.train_loader))
        now = perf_counter()
        progress.train_seconds += self.agreed(now - self.clock)
        self.clock = now

    def backward_or_halve(
        self, images: Tensor, targets: Tensor, size: int, draws: int
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Do `backward`; with accumulate=auto again, in pieces half as large, whenever memory does not suffice."""
        while self.halve:
            buffers = [buffer.clone() for buffer in self.model.buffers()]
            try:
                return self.backward(images, targets, size)
            except (RuntimeError, MemoryError) as error:
                if self.accumulate >= len(images) or not is_out_of_memory(error):
                    raise
            self.accumulate = min(2 * self.accumulate, len(images))  # only here has the failed pass been let go of
            self.record.note(
                f"out of memory in step {self.progress.step + 1}: batches go in {self.accumulate} pieces now"
            )
            for parameter in self.parameters:
                parameter.grad = None
            with torch.no_grad():
                for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                    buffer.copy_(before)
            self.runtime.seed(draws)
        return self.backward(images, targets, size)

    def backward(self, images: Tensor, targets: Tensor, size: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Add the gradient of the mean loss of a batch, of whose `size` images several processes have a part each.

        Returns loss, logits and targets of each piece.
        """
        runtime, measured = self.runtime, []
        mean = size / self.processes.count  # images a process: what their mean gradient is divided by
        idle = size < self.processes.count and not self.own_part(size)  # its image is another's
        pieces = self.pieces(images, targets)
        for number, (piece, wanted) in enumerate(pieces, 1):
            if not self.processes.alone:  # once a step
                self.averaging.require_backward_grad_sync = number == len(pieces)  # pyright: ignore
            with runtime.autocast:
                logits = self.network(piece)
                loss = self.loss(logits, wanted)
            share = loss if len(piece) == mean else loss * (0.0 if idle else len(piece) / mean)
            runtime.scaler.scale(share).backward()
            measured.append((loss, logits, wanted))
        return [] if idle else measured

    def pieces(self, images: Tensor, targets: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        """Cut a batch into `accumulate` pieces, whose gradients add up to the whole batch's."""
        if self.accumulate == 1:
            return ((images, targets),)
        return list(zip(images.chunk(self.accumulate), targets.chunk(self.accumulate), strict=True))

    def close(self) -> None:
        """End the processes that read images."""
        for loader in (self.train_loader, self.val_loader, self.clean_loader, self.norm_loader):
            if loader is not None:
                loader.close()

    # --- when ---

    def fraction(self) -> float:
        """Return how much of the run is done, in [0, 1]: what schedules are functions of."""
        done = self.progress.step / self.total_steps
        if self.max_seconds is not None:
            done = max(done, self.progress.train_seconds / self.max_seconds)
        return min(done, 1.0)

    def passes(self) -> float:
        """Return the passes over the training set that are done: a whole number between epochs."""
        progress = self.progress
        if progress.step_in_epoch == 0:
            return progress.epoch
        return round(progress.epoch + progress.step_in_epoch / len(self.train_loader), 2)

    def over(self) -> tuple[str, str] | None:
        """Return status and reason if the run is to end here."""
        progress = self.progress
        if self.interrupted:
            return "interrupted", f"stopped by {self.interrupted}"
        if progress.epoch >= self.epochs:
            return "finished", f"{self.epochs} epoch{'s' if self.epochs > 1 else ''} done"
        if self.limit_steps is not None and progress.step >= self.limit_steps:
            return "finished", f"limit_steps={self.limit_steps} reached"
        if self.max_seconds is not None and progress.train_seconds >= self.max_seconds:
            return "finished", f"max_seconds={self.max_seconds:g} reached"
        if self.patience is not None and progress.since_best >= self.patience:
            return "stopped_early", f"{self.monitor} no better for {self.patience} validations"
        return None

    def validation_is_due(self) -> bool:
        progress, every = self.progress, self.validate_every_steps
        passed = progress.step_in_epoch == 0 and progress.epoch % self.validate_every_epochs == 0
        return passed or (every is not None and progress.step % every == 0) or self.over() is not None

    def was_stopped_before_validating(self) -> bool:
        progress = self.progress
        return progress.validated < progress.step and not self.interrupted and self.validation_is_due()

    def save_is_due(self) -> bool:
        if self.save_every_steps is not None and self.progress.step % self.save_every_steps == 0:
            return True
        since = self.progress.train_seconds - self.saved_at
        return self.save_every_minutes is not None and since > 60 * self.save_every_minutes

    # --- now and then ---

    def log_step(self) -> None:
        """Read the training means since the last log point: the one moment at which the host waits for the device."""
        if not self.processes.alone:
            pool(self.recent)
        images, means = int(self.recent.state_dict()["images"]), self.recent.read()
        if not means:  # on_nan=skip has left out every step
            return
        if not math.isfinite(means["loss"]):
            raise NonFiniteError(f"the loss is {means['loss']} at step {self.progress.step}: {self.advice()}")
        self.passed.append((images, means))
        self.penalties = self.read_penalties()
        now = perf_counter()
        self.progress.train_seconds += self.agreed(now - self.clock)  # the device's part, just waited for
        self.record.step(
            self.progress.step,
            means,
            self.penalties,
            epoch=self.progress.epoch,
            step_in_epoch=self.progress.step_in_epoch,
            rate=self.optimizer.param_groups[0]["lr"],
            images_per_second=images / max(now - self.logged_at, 1e-9),
            seconds_left=self.seconds_left(),
        )
        self.logged_at = self.clock = perf_counter()

    def read_penalties(self) -> dict[str, float]:
        """Return the penalties of the last step by their tags, and what they come to."""
        if not self.penalty_terms:  # no step yet, or none since a resume
            return self.penalties
        values = torch.stack(list(self.penalty_terms.values())).tolist()
        terms = {f"penalty/{name}": value for name, value in zip(self.penalty_terms, values, strict=True)}
        return {"loss/penalty": sum(values), **terms}

    def seconds_left(self) -> float:
        done = self.fraction()
        return self.progress.train_seconds * (1 - done) / max(done, 1e-9)

    def validate(self) -> None:
        """Evaluate val and the clean slice of train, write the row, and keep what is to be kept.

        Told to stop meanwhile, a run saves what it was before: resumed, it validates first.
        """
        if self.processes.alone:
            unread = self.recent.images
        else:
            (unread,) = distributed.largest(self.recent.images)
            for model in filter(None, (self.model, self.average and self.average.module)):
                distributed.same_buffers(model)
        if unread:
            self.log_step()
        self.check(self.state_dict())
        progress = self.progress
        try:
            metrics = self.measure()
        except Interrupted:
            self.save()
            return
        if wrong := [f"{tag} is {value}" for tag, value in metrics.items() if not math.isfinite(value)]:
            raise NonFiniteError(f"{', '.join(wrong)} at step {progress.step}: {self.advice()}")
        progress.metrics, progress.validated = metrics, progress.step
        best = self.note_best(metrics)
        seconds = progress.train_seconds - self.validated.train_seconds
        self.record.row(
            {
                "epoch": self.passes(),
                "step": progress.step,
                **metrics,
                "rate/lr": self.optimizer.param_groups[0]["lr"],
                "images_per_second": (progress.images - self.validated.images) / max(seconds, 1e-9),
                "seconds": progress.train_seconds,
            },
            best=best is not None,
            waited=self.waited / max(seconds, 1e-9),
            seconds_left=self.seconds_left(),
        )
        self.validated, self.waited, self.passed = replace(progress), 0.0, []
        if best is not None:
            self.keep("best", self.best_state(best))
        self.save()
        self.model.train()
        self.clock = self.logged_at = perf_counter()

    def measure(self) -> dict[str, float]:
        """Return the metrics of the weights as they are; BrokenOff if the run is told to stop meanwhile."""
        measured = {"train": _pooled(self.passed)} if self.passed else {}
        if self.clean_loader is not None:
            measured["train_clean"] = self.evaluate(self.model, self.clean_loader)
        measured["val"] = self.evaluate(self.model, self.val_loader)
        if self.average is not None and self.average.started:
            with self.runtime.autocast:
                self.average.settle(self.norm_batches())
            measured["val_average"] = self.evaluate(self.average.module, self.val_loader)
        metrics = {f"{name}/{part}": value for part, means in measured.items() for name, value in means.items()}
        return metrics | self.penalties

    def evaluate(self, model: nn.Module, loader: Loader) -> dict[str, float]:
        batches = self.until_told(loader.epoch(0))
        return evaluate(model, batches, self.pipeline, self.runtime, self.plain_loss, self.processes)

    def until_told(self, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches; BrokenOff once the run is told to stop. Several processes agree on that in a step alone."""
        for batch in batches:
            if self.interrupted:
                raise Interrupted
            yield batch

    def norm_batches(self) -> Iterator[Tensor]:
        """Yield training images as a network takes them, augmented; the same ones whenever an epoch is asked for."""
        epoch = self.progress.epoch
        batches = self.until_told(self.norm_loader.epoch(epoch)) if self.norm_loader else ()
        for number, (images, labels) in enumerate(batches):
            moment = self.seed, "norms", epoch, number
            self.runtime.seed(key(*moment))
            yield self.pipeline.train(images, labels, generator(*moment), self.fraction())[0]

    def metric_names(self) -> list[str]:
        """Name what a validation measures, in the order of metrics.csv."""
        terms = list(self.penalty(self.weights)) if self.penalty is not None else []
        return metric_names(clean=self.clean_loader is not None, average=self.average is not None, penalties=terms)

    def note_best(self, metrics: dict[str, float]) -> str | None:
        """Compare the monitored metric, of the raw and the averaged weights; name the weights that are best so far."""
        names = [name for name in (self.monitor, f"{self.monitor}_average") if name in metrics]
        pick = min if self.lower_is_better else max
        names = [name for name in names if math.isfinite(metrics[name])]
        progress = self.progress
        if not names:
            progress.since_best += 1
            return None
        name = pick(names, key=lambda name: metrics[name])
        value = metrics[name]
        gain = math.inf if progress.best is None else value - progress.best
        if self.lower_is_better and progress.best is not None:
            gain = -gain
        progress.since_best = 0 if gain > self.min_delta else progress.since_best + 1
        if gain <= 0:
            return None
        progress.best, progress.best_epoch = value, self.passes()
        return "average" if name.endswith("_average") else "raw"

    # --- when numbers go wrong ---

    def check(self, state: dict[str, Any]) -> None:
        """Raise NotFinite if any tensor or number that a checkpoint would hold is inf or NaN."""
        wrong = not_finite(state_values(state))
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        if said := self.said_by_any(f"{wrong[0].removeprefix('model.')}{more} is not finite" if wrong else None):
            if self.progress.step == 0:
                raise TrainingFailed(f"before the first step: {said}: {INIT_HINT}")
            raise NonFiniteError(f"{said} at step {self.progress.step}: {self.advice()}")

    def recover(self, wrong: NonFiniteError) -> None:
        """Go back to the last checkpoint and watch every step from there; with on_nan=rollback then go slower."""
        slower, slowed = self.watching and self.on_nan == "rollback", self.progress.slowed
        if (self.watching and not slower) or (slower and slowed == MAX_ROLLBACKS):
            raise wrong
        good = self.record.last()
        if not self.processes.alone:
            good = distributed.shared(good, self.processes)
        if good is None:
            raise wrong
        for parameter in self.parameters:
            parameter.grad = None  # of the step that was not taken
        self.load_state_dict(good)
        self.record.rewind(self.progress.step)
        self.watching = not slower
        self.progress.slowed = slowed + slower
        how = "half the rate" if slower else "looking at every step"
        self.record.note(f"{wrong}; going back to step {self.progress.step}, {how} from there")

    def copied(self) -> tuple[list[Tensor], dict[str, Any], dict[str, Any]]:
        """Copy all that a step changes: parameters and buffers, the optimizer's state, the scaler's."""
        tensors = [tensor.detach().clone() for tensor in (*self.model.parameters(), *self.model.buffers())]
        return tensors, deepcopy(self.optimizer.state_dict()), self.runtime.scaler.state_dict()

    def leaves_out(self, cause: str | None, before: tuple[list[Tensor], dict[str, Any], dict[str, Any]]) -> bool:
        """Tell, with on_nan=skip, whether a step is not to be taken, and undo it; otherwise raise, saying why."""
        cause = self.said_by_any(cause)
        if cause is None:
            return False
        progress = self.progress
        drawn = self.train_loader.indices(progress.epoch, progress.step_in_epoch).tolist()
        where = f"step {progress.step + 1} (epoch {progress.epoch + 1}; training images {_short(drawn)})"
        if self.on_nan != "skip":
            raise NonFiniteError(f"{cause} in {where}: {self.advice()}")
        self.record.note(f"{cause} in {where}: left out")
        progress.left_out += 1
        tensors, optimizer, scaler = before
        with torch.no_grad():
            for tensor, old in zip((*self.model.parameters(), *self.model.buffers()), tensors, strict=True):
                tensor.copy_(old)
        self.optimizer.load_state_dict(optimizer)
        self.runtime.scaler.load_state_dict(scaler)
        self.penalty_terms = {}
        return True

    def cause(self, images: Tensor, measured: list[tuple[Tensor, Tensor, Tensor]]) -> str | None:
        """Say what was the first to be inf or NaN: the images, a layer, the loss, a penalty or a gradient."""
        if not_finite({"images": images}):
            return "the images are not finite after augmentation"
        if not_finite({str(number): loss for number, (loss, _, _) in enumerate(measured)}):
            with self.runtime.autocast:
                layer = first_layer(self.model, images)
            return f"the output of {layer} is not finite" if layer else "the loss is not finite"
        if wrong := not_finite(self.penalty_terms):
            return f"the penalty {wrong[0]} is not finite"
        gradients = {name: weight.grad for name, weight in self.model.named_parameters() if weight.grad is not None}
        wrong = [] if self.runtime.precision == "fp16" else not_finite(gradients)  # there the scaler leaves steps out
        return f"the gradient of {wrong[-1]} is not finite" if wrong else None  # the last layer's came first

    def cause_in_update(self) -> str | None:
        """Say which layer's weights or buffers, or what the optimizer keeps of them, a step has made inf or NaN."""
        if wrong := not_finite(self.model.state_dict()):
            return f"the update of {wrong[0]} is not finite"
        kept = {
            f"the update of {name} ({path} of the optimizer)": value
            for name, weight in self.model.named_parameters()
            for path, value in state_values(self.optimizer.state.get(weight, {})).items()
        }
        wrong = not_finite(kept)
        return f"{wrong[0]} is not finite" if wrong else None

    def advice(self) -> str:
        rate = self.optimizer.param_groups[0]["lr"]
        return f"the learning rate (now {rate:.3g}) is too high, or the initialization is bad; try a tenth of the rate"

    # --- among several processes ---

    def tell(self, number: int) -> None:
        """Take note of a signal to stop: after the step in hand, or that in which all processes know of it."""
        self.told = number
        if self.processes.alone:
            self.interrupted = SIGNALS[number]

    def agreed(self, seconds: float) -> float:
        """Return the time that the slowest process took, and pass on that one has been told to stop.

        So all come to the same decisions at the same step: on the end, on saving, and on a rate that follows the clock.
        """
        if self.processes.alone:
            return seconds
        seconds, told = distributed.largest(seconds, self.told)
        self.interrupted = SIGNALS[int(told)] if told else ""
        return seconds

    def said_by_any(self, sentence: str | None) -> str | None:
        return sentence if self.processes.alone else distributed.first_said(sentence, self.processes)

    def own_part(self, size: int) -> int:
        """Count this process's images among those of a batch."""
        part = self.processes.part(slice(0, size))
        return part.stop - part.start

    def augment_together(
        self, images: Tensor, labels: Tensor, rng: np.random.Generator, done: float, size: int
    ) -> tuple[Tensor, Tensor]:
        """Return this process's part of the augmented batch.

        Each one augments the whole, since what is drawn for an image depends on its place, and images mix with their
        neighbours: so the parts are what one process would have seen, and no augmentation knows of processes.
        """
        images, labels = (distributed.whole_batch(own, size, self.processes) for own in (images, labels))
        images, targets = self.pipeline.augment(images, labels, rng, done)
        part = self.processes.part(slice(0, size))
        part = part if self.own_part(size) else slice(0, 1)  # without a part: one that does not count
        return self.pipeline.evaluate(images[part]), targets[part]

    # --- state ---

    def save(self) -> None:
        """Write last.pt: from there the run goes on as if it had never stopped."""
        if not self.processes.alone:  # the first one keeps the means of all
            pool(self.recent)
            self.recent = self.recent if self.processes.first else self.no_batches()
        self.keep("last", self.state_dict())
        self.clock, self.saved_at = perf_counter(), self.progress.train_seconds

    def keep(self, name: str, state: dict[str, Any]) -> None:
        """Write a checkpoint, unless anything in it is inf or NaN."""
        self.check(state)
        self.record.save(name, state)

    def no_batches(self) -> RunningMetrics:
        """Return means of nothing yet. In fp16 the scaler leaves out a step that overflows, and they its loss."""
        return RunningMetrics(finite_only=self.runtime.precision == "fp16")

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a run needs to go on as if it had never stopped: plain values and tensors only."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average and self.average.state_dict(),
            "scaler": self.runtime.scaler.state_dict(),
            "progress": asdict(self.progress),
            "meters": {"recent": self.recent.state_dict(), "passed": self.passed, "penalties": self.read_penalties()},
            **self.about,
        }

    def best_state(self, weights: str) -> dict[str, Any]:
        """Return the better weights, raw or averaged, without the optimizer's state, which would double the file."""
        model = self.average.module if weights == "average" and self.average is not None else self.model
        state = self.state_dict() | {"model": model.state_dict(), "weights": weights}
        return state | {"optimizer": None, "average": None, "scaler": None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state. One without the optimizer's (best.pt) starts its momentum and averages anew."""
        self.model.load_state_dict(state["model"])
        if state["optimizer"] is not None:
            self.load_optimizer(state["optimizer"])
            self.runtime.scaler.load_state_dict(state["scaler"])
        if self.average is not None and state["average"] is not None:
            self.average.load_state_dict(state["average"])
        elif self.average is not None:
            self.average.restart()
        self.progress = validate_call(Progress)(**state["progress"])
        meters = state["meters"]
        self.recent, self.penalty_terms = self.no_batches(), {}
        if self.processes.first:
            self.recent.load_state_dict(meters["recent"])
        self.passed = [(images, dict(means)) for images, means in meters["passed"]]
        self.penalties = dict(meters["penalties"])
        stopped, steps = self.progress.step_in_epoch, len(self.train_loader)
        if stopped >= steps:
            raise ValueError(f"it stopped in step {stopped} of an epoch, which now has {steps}; keep its batch_size")
        self.validated, self.saved_at = replace(self.progress), self.progress.train_seconds

    def load_optimizer(self, state: dict[str, Any]) -> None:
        """Take over the momenta, but not the settings: what this run was told (rate, decay) holds from here on.

        Momenta belong to parameters, numbered through all groups, so that their grouping may change with the decay.
        """
        groups, theirs = self.optimizer.state_dict()["param_groups"], state["param_groups"]
        if set(groups[0]) != set(theirs[0]):
            raise ValueError("it was trained with another optimizer; go on with that one, or start a new run")
        rate = float(theirs[0]["lr"])  # of the last step, for the row of a validation before the next
        groups = [{**group, "lr": rate} for group in groups]
        self.optimizer.load_state_dict({"state": state["state"], "param_groups": groups})


def _pooled(passed: list[tuple[int, dict[str, float]]]) -> dict[str, float]:
    """Return the means over all images from the means of several stretches of them."""
    images = sum(count for count, _ in passed)
    return {name: sum(count * means[name] for count, means in passed) / images for name in passed[0][1]}


def _short(numbers: list[int], most: int = 8) -> str:
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return ", ".join(map(str, numbers[:most])) + more

"""Vital signs of a training: what steps do to the weights, and what layers say. Sampled, so that a step stays cheap.

A sampled step takes about 0.2 ms more; every 200th is one. For the noise scale one in 1,000 takes a second pass.
Nothing random is drawn, so the run keeps its bits.
"""

import math
from collections.abc import Callable, Mapping
from statistics import fmean, median, pstdev
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from deeptrain.optimizer import weights_of
from deeptrain.runtime.batch_norm import own_statistics
from deeptrain.runtime.device import is_out_of_memory
from deeptrain.training.noise_scale import NoiseScale

EARLY, LAST_EARLY = frozenset((1, 10, 100)), 100  # steps that are sampled besides
NOISE_EVERY = 5  # samples: how often the gradient's noise is measured, and at LAST_EARLY
NEIGHBOURS = 4  # steps up to a sampled one whose gradient norms are compared for it
LOOK_IMAGES, LOOK_VALUES = 256, 2**22  # that the layers are looked at with, and numbers in them
PARTS, PART_IMAGES = 4, 2  # of each micro-batch whose gradients the noise scale compares, and images that each needs
SILENT = 1e-5  # standard deviation of a unit's output that says nothing
SAMPLE = ("ratio", "gradient", "norms")  # of each weight, of each parameter, and of the last whole gradients
UNKNOWN = -1.0  # in a checkpoint, which holds no NaN
SUMMARY = ("ratio_min", "ratio_median", "ratio_max", "gradient_norm", "gradient_noise", "noise_scale", "clipped")

Values = dict[str, float]


class Looked(Protocol):
    """What is looked at: a Validator."""

    model: nn.Module
    loader: Any
    clean_loader: Any
    pipeline: Any
    runtime: Any


class Vitals:
    """Samples every `every`-th step; 0: none.

    `sampled` wraps a step, `read` returns what it measured at the next log point, where the host waits anyway.
    """

    def __init__(self, every: int = 0):
        self.every = every
        self._clip_norms: list[Tensor] = []  # of the gradient before clipping, since the last log point
        self._norms: list[Tensor] = []  # of the gradient in the steps up to a sampled one
        self._noise_scale = NoiseScale()
        self._sample: dict[str, Tensor] = {}  # SAMPLE, not read yet
        self._latest: Values = {}  # by layer, of the last sample that was read
        self._looked = 0  # the step of the last look
        self._images: Tensor | None = None

    def bind(self, model: nn.Module, parameters: list[Tensor], clip_norm: float | None, precision: str) -> None:
        """Take the network whose weights are sampled. In fp16 the gradient is not known without clipping: scaled."""
        names = {id(parameter): name.removesuffix(".weight") for name, parameter in model.named_parameters()}
        self._model, self._parameters, self._clip_norm = model, parameters, clip_norm
        self._weights = weights_of(parameters)
        self._names = [names.get(id(weight), str(index)) for index, weight in enumerate(self._weights)]
        self._is_weight = [parameter.ndim > 1 for parameter in parameters]
        self._has_gradient = clip_norm is not None or precision != "fp16"

    @property
    def tags(self) -> list[str]:
        """Return the columns of steps.csv."""
        names = SUMMARY if self._clip_norm is not None else SUMMARY[:-1]
        return [f"vitals/{name}" for name in names] if self.every else []

    @property
    def layer_tags(self) -> list[str]:
        """Return the columns of layers.csv."""
        if not self.every:
            return []
        sampled = [f"{what}/{name}" for what in ("ratio", "gradient") for name in self._names]
        return [*sampled, *(_tag(name, layer) for name, layer in _layers(self._model).items())]

    # --- steps ---

    def sampled(
        self,
        step: Callable[[Tensor, Tensor], Any],
        progress: Any,
        measure_noise: Callable[[Tensor, Tensor], None],
    ) -> Callable[[Tensor, Tensor], Any]:
        """Return a step that is measured whenever it is due. measure_noise: takes some of their batches first."""
        if not self.every:
            return step

        def measured_step(images: Tensor, labels: Tensor) -> Any:
            number = progress.step + 1
            if number > LAST_EARLY and (number + NEIGHBOURS - 1) % self.every >= NEIGHBOURS:
                return step(images, labels)
            if number % self.every and number not in EARLY:
                outputs = step(images, labels)
                if self._compares_norms(number):
                    self._add_norm(self._gradient_norms())
                return outputs
            with torch.no_grad():
                before = list(torch._foreach_mul(self._weights, 1))  # pyright: ignore
            if self._noise_is_due(number):
                measure_noise(images, labels)
            outputs = step(images, labels)
            self._measure(before)
            return outputs

        return measured_step

    def _compares_norms(self, number: int) -> bool:
        """Tell whether a step is one of those before a sample for which the gradient's noise is measured."""
        sample = LAST_EARLY if number < LAST_EARLY else -(-number // self.every) * self.every
        return self._noise_is_due(sample) and sample - number < NEIGHBOURS

    def _noise_is_due(self, number: int) -> bool:
        return number == LAST_EARLY or number % (NOISE_EVERY * self.every) == 0

    def add_clip_norm(self, norm: Tensor) -> None:
        """Note the norm of a gradient before it was clipped."""
        if self.every:
            self._clip_norms.append(norm)

    def measure_noise(self, inputs: Tensor, targets: Tensor, loss: Callable[..., Tensor], accumulate: int) -> None:
        """Compare the gradients of parts of a batch at the same weights, in fp32; dropout is off as in `look_now`."""
        count = min(PARTS * accumulate, len(inputs) // PART_IMAGES)
        if count < 2:
            return
        parts = zip(inputs.tensor_split(count), targets.tensor_split(count), strict=True)
        for module in self._model.eval().modules():
            if isinstance(module, nn.RNNBase):  # cuDNN has no backward pass for these in evaluation mode
                module.train()
        try:
            with own_statistics(self._model):
                losses = ((loss(self._model(part), wanted), len(part)) for part, wanted in parts)
                self._noise_scale.measure(losses, self._parameters)
        except (RuntimeError, MemoryError) as error:  # a run that fits ends by no measurement
            if not is_out_of_memory(error):
                raise
        finally:
            self._model.train()

    def _add_norm(self, norms: Tensor) -> None:
        """Note the norm of the whole gradient before clipping, NaN where it is scaled."""
        self._norms.append(self._clip_norms[-1] if self._clip_norms else norms.norm())

    @torch.no_grad()
    def _gradient_norms(self) -> Tensor:
        """Return the norm of each parameter's gradient, NaN where gradients are scaled."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        norms = torch.stack(torch._foreach_norm(gradients))  # pyright: ignore
        return norms if self._has_gradient else norms * math.nan

    @torch.no_grad()
    def _measure(self, before: list[Tensor]) -> None:
        """Measure what a step has done; `before`: the weights before it. Nothing waits for the device."""
        torch._foreach_sub_(before, self._weights)  # pyright: ignore
        updates, weights = torch._foreach_norm(before), torch._foreach_norm(self._weights)  # pyright: ignore
        ratios, gradients = torch.stack(updates) / torch.stack(weights).clamp_min_(1e-30), self._gradient_norms()
        self._add_norm(gradients)
        self._sample = {"ratio": ratios, "gradient": gradients, "norms": torch.stack(self._norms[-NEIGHBOURS:])}
        self._norms = []

    # --- reading ---

    def read(self) -> Values:
        """Return what was measured since the last log point, by tag. The host waits for the device."""
        clip_norms, self._clip_norms = _read(self._clip_norms), []
        values = {"clipped": fmean(norm > (self._clip_norm or math.inf) for norm in clip_norms)} if clip_norms else {}
        if self._sample:
            sample, self._sample = {name: _read([vector]) for name, vector in self._sample.items()}, {}
            ratios = self._by_layer("ratio", sample["ratio"])
            gradients = [
                norm for norm, is_weight in zip(sample["gradient"], self._is_weight, strict=False) if is_weight
            ]
            self._latest = ratios | self._by_layer("gradient", gradients)
            values |= ratios | _summary(list(ratios.values()), sample["norms"])
        if (noise_scale := self._noise_scale.read()) is not None:
            values["noise_scale"] = noise_scale
        return {f"vitals/{name}": value for name, value in values.items()}

    def _by_layer(self, what: str, values: list[float]) -> Values:
        """Return values by tag, without those that are inf or NaN. A step that fp16 skips changes no weight."""
        pairs = zip(self._names, values, strict=False) if any(values) else ()
        return {f"{what}/{name}": value for name, value in pairs if math.isfinite(value)}

    def state_dict(self) -> dict[str, Any]:
        """Return what is measured and not read yet, as numbers: a resumed run goes on as if it had never stopped."""
        if not self.every:
            return {}
        lists = {"clip_norms": _read(self._clip_norms), "norms": _read(self._norms)}
        lists |= {name: _read([vector]) for name, vector in self._sample.items()}
        finite = {
            name: [value if math.isfinite(value) else UNKNOWN for value in values] for name, values in lists.items()
        }
        return finite | {"latest": self._latest, "looked": self._looked, "noise_scale": self._noise_scale.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on from a state; runs of 0.3.0 have none."""
        state = state or {}
        lists = {
            name: torch.tensor([math.nan if value == UNKNOWN else float(value) for value in state.get(name, ())])
            for name in ("clip_norms", "norms", *SAMPLE)
        }
        self._clip_norms, self._norms = list(lists["clip_norms"].unbind()), list(lists["norms"].unbind())
        self._sample = {name: lists[name] for name in SAMPLE} if "ratio" in state else {}
        self._latest = {str(name): float(value) for name, value in state.get("latest", {}).items()}
        self._looked = int(state.get("looked", 0))
        self._noise_scale.load_state_dict(state.get("noise_scale", {}))

    # --- layers ---

    def look(self, validator: Looked, progress: Any, plan: Any) -> Values:
        """Return statistics of the layers by tag, at steps that double and at the end; {} at the others."""
        step = progress.step
        if not self.every or (step < 2 * self._looked and plan.outcome(progress) is None):
            return {}
        self._looked = step
        return self.look_now(validator) | self._latest

    @torch.no_grad()
    def look_now(self, validator: Looked) -> Values:
        """Return the statistics of each layer's output for images of train, not augmented; {} if vitals are off."""
        if not self.every:
            return {}
        if self._images is None:
            loader = validator.clean_loader or validator.loader
            images, _ = next(iter(loader.first_images(LOOK_IMAGES).epoch(0)))
            self._images = images[: max(1, min(LOOK_IMAGES, LOOK_VALUES // images[0].numel()))].clone()
        inputs, was_training = validator.pipeline.evaluate(self._images), self._model.training
        with validator.runtime.autocast:
            found = layer_statistics(self._model.eval(), inputs)
        self._model.train(was_training)
        return found


def layer_statistics(model: nn.Module, inputs: Tensor) -> Values:
    """Return by tag the standard deviation of what each layer with weights says, and each activation's silent units.

    activation_std/LAYER; dead/LAYER: the share of units whose output is the same for all images and places. Batch norms
    use the statistics of these images.
    """
    found: dict[str, Tensor] = {}

    def look(tag: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim > 1 and len(output) > 1:
                found[tag] = _silent_share(output) if tag.startswith("dead/") else output.float().std()

        return hook

    hooks = [layer.register_forward_hook(look(_tag(name, layer))) for name, layer in _layers(model).items()]
    try:
        with own_statistics(model):
            model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    names, values = list(found), _read(list(found.values()))
    return {name: value for name, value in zip(names, values, strict=True) if math.isfinite(value)}


def _read(tensors: list[Tensor]) -> list[float]:
    """Bring numbers to the host, which waits once for each device that they are on."""
    if len({tensor.device for tensor in tensors}) > 1:
        tensors = [tensor.cpu() for tensor in tensors]
    return torch.cat([tensor.float().reshape(-1) for tensor in tensors]).tolist() if tensors else []


def _summary(ratios: list[float], norms: list[float]) -> Values:
    """Return the range of the ratios, and the gradient's norm with its noise."""
    summary = {"ratio_min": min(ratios), "ratio_median": median(ratios), "ratio_max": max(ratios)} if ratios else {}
    if math.isfinite(norms[-1]):
        summary["gradient_norm"] = norms[-1]
    if len(norms) == NEIGHBOURS and math.isfinite(mean := fmean(norms)) and mean > 0:
        summary["gradient_noise"] = pstdev(norms) / mean
    return summary


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers to look at by name: those with weights of their own, and activations."""
    leaves = {name: module for name, module in model.named_modules() if name and not list(module.children())}
    return {name: module for name, module in leaves.items() if _is_activation(module) or _has_weights(module)}


def _is_activation(module: nn.Module) -> bool:
    return type(module).__module__ == "torch.nn.modules.activation" and not list(module.parameters())


def _has_weights(module: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in module.parameters())


def _tag(name: str, layer: nn.Module) -> str:
    return f"{'dead' if _is_activation(layer) else 'activation_std'}/{name}"


def _silent_share(output: Tensor) -> Tensor:
    """Return the share of units that do not vary. Units: channels of (N, C, H, W), else the last dimension."""
    units = output.float().movedim(1, -1) if output.ndim > 3 else output.float()
    return (units.flatten(0, -2).std(0) < SILENT).float().mean()

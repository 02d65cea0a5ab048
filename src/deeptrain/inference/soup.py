"""One network with the mean of several networks' weights (Wortsman et al., 2022), where they have a common start."""

import copy
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deeptrain import build
from deeptrain.aug.pipeline import Pipeline
from deeptrain.data.loader import make_loader
from deeptrain.errors import UsageError
from deeptrain.inference.averaging import recipe_of
from deeptrain.inference.evaluate import OpenSplit
from deeptrain.metrics.probabilities import nll
from deeptrain.runtime.batch_norm import has_batch_norm, measure_statistics
from deeptrain.runtime.random import generator
from deeptrain.training import checkpoint
from deeptrain.training.validation import predict

BN_IMAGES = 10_000
REMEDY = "write average=probabilities"
SAME = ("classes", "mean", "std", "subtract_image_mean", "decoder")  # of two states whose weights are averaged
COPIED = ("config.yaml", "overrides.yaml", "split.json")


@dataclass(eq=False)
class Ingredient:
    """The weights of one run, and the checkpoint that holds them."""

    name: str
    path: Path
    state: dict[str, Any]
    nll: float = float("nan")  # on val

    @property
    def weights(self) -> dict[str, Tensor]:
        return self.state["model"]


def read(names: Sequence[str], paths: Sequence[Path]) -> list[Ingredient]:
    """Read the weights; UsageError if their mean would be of no use."""
    found = [Ingredient(name, path, checkpoint.load(path)) for name, path in zip(names, paths, strict=True)]
    first = found[0]
    for other in found[1:]:
        shapes = [{key: value.shape for key, value in one.weights.items()} for one in (first, other)]
        if shapes[0] != shapes[1] or any(first.state.get(key) != other.state.get(key) for key in SAME):
            raise UsageError([f"{other.name}: has another network, classes or inputs than {first.name}; {REMEDY}"])
        if first.path.parent.resolve() != other.path.parent.resolve() and not _has_common_start(first, other):
            reason = "did not start from the same weights (init_from), so the mean of their weights knows nothing"
            raise UsageError([f"average=weights: {first.name} and {other.name} {reason}; {REMEDY}"])
    return found


def _has_common_start(one: Ingredient, other: Ingredient) -> bool:
    """Tell whether two runs started from the same weights, by the digest of init_from."""
    origins = (found.state.get("init_from") for found in (one, other))
    digests = [origin.get("digest") if isinstance(origin, dict) else None for origin in origins]
    return digests[0] == digests[1] and len(str(digests[0])) == 64


def cook(ingredients: Sequence[Ingredient], opened: OpenSplit, greedy: bool) -> tuple[list[Ingredient], float]:
    """Load the mean of the weights into the network of a split, val; return whose they are, and their NLL there.

    greedy: the best network first, then each next one that does not raise the NLL. Batch norms are measured anew.
    """
    for one in ingredients:
        opened.network.model.load_state_dict(one.weights)
        one.nll = _nll(opened)
    order = sorted(ingredients, key=lambda one: one.nll)
    chosen, best = (order[:1], order[0].nll) if greedy else (list(order), float("inf"))
    for one in order[1:] if greedy else ():
        _load(opened, [*chosen, one])
        if (found := _nll(opened)) <= best:
            chosen, best = [*chosen, one], found
    _load(opened, chosen)
    return chosen, _nll(opened)


def _load(opened: OpenSplit, chosen: Sequence[Ingredient]) -> None:
    network = opened.network
    if len(chosen) == 1:
        network.model.load_state_dict(chosen[0].weights)
        return
    network.model.load_state_dict(mean([one.weights for one in chosen]))
    if has_batch_norm(network.model):
        measure_statistics(network.model, _training_images(opened))
        network.model.eval()


def mean(weights: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the mean of each tensor; counters are those of the first."""
    first = weights[0]
    return {
        name: torch.stack([one[name].double() for one in weights]).mean(0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in first.items()
    }


def _training_images(opened: OpenSplit) -> Iterator[Tensor]:
    """Yield training images as the network took them, augmented."""
    run, network = opened.run, opened.network
    inputs = copy.copy(network.pipeline)
    augment = Pipeline(recipe_of(run, opened.dataset).augmentations, [0.0], [1.0]).augment
    samples = opened.dataset.train.evenly_spaced(BN_IMAGES)
    size = min(build.EVAL_BATCH, len(samples))
    device = network.runtime.device
    loader = make_loader(opened.source, samples, batch_size=size, device=device, seed=run.settings.seed, train=True)
    for number, (images, labels) in enumerate(loader.epoch(0)):
        rng = generator(run.settings.seed, "norms", 0, number)
        yield inputs.evaluate(augment(images, labels, rng)[0])


def _nll(opened: OpenSplit) -> float:
    network = opened.network
    logits, labels = predict(network.model, opened.batches().epoch(0), network.pipeline, network.runtime)
    return float(nll(logits, labels, network.loss).mean())


def save(into: Path, opened: OpenSplit, chosen: Sequence[Ingredient]) -> None:
    """Write a folder that is read as a run: the settings of the first member, and these weights as best.pt."""
    source = chosen[0]
    run_dir = source.path.parent.parent
    (into / "checkpoints").mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in opened.network.model.state_dict().items()}
    new = {"model": weights, "optimizer": None, "average": None, "scaler": None, "soup": [one.name for one in chosen]}
    checkpoint.save(into / "checkpoints" / "best.pt", {**source.state, **new})
    for name in COPIED:
        if (run_dir / name).is_file():
            shutil.copyfile(run_dir / name, into / name)

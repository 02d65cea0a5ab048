"""The weights that a run starts from, and whether its images become inputs as they did for these."""

from typing import TYPE_CHECKING, Any

from deeptrain.config.settings import RunConfig
from deeptrain.errors import UsageError
from deeptrain.model import published
from deeptrain.runtime.world import get_world
from deeptrain.schema import format_value

if TYPE_CHECKING:  # a part that needs no torch is built without importing it
    from deeptrain.data.dataset import Dataset
    from deeptrain.training.initial_weights import InitialWeights


def initial_weights(run: RunConfig, known: "InitialWeights | None" = None) -> "InitialWeights | None":
    """Return the weights to start from on all ranks, None without any. Only rank 0 reads them, unless it knows them."""
    from deeptrain.training.initial_weights import InitialWeights

    world = get_world()
    if run.origin is None:
        return None
    key, path = run.origin
    try:
        known = known or (_read_initial(run) if world.is_main else None)
    except ValueError as error:
        raise UsageError([f"{key}={path}: {error}".replace(f"{path}: {path}", path)]) from error
    fields: Any = world.broadcast(known and vars(known))
    return InitialWeights(**fields)


def _read_initial(run: RunConfig) -> "InitialWeights":
    """Read the weights of init_from or model.weights, fetched if they are not there; ValueError in a line."""
    from deeptrain.training.initial_weights import find, read, read_published

    if run.settings.init_from is not None:
        return read(find(run.settings.init_from))
    node = run.parts["model"]
    recipe = published.recipe(node)
    assert recipe is not None
    return read_published(published.find(node), recipe.mean, recipe.std)


def check_inputs(run: RunConfig, initial: "InitialWeights", source: Any, dataset: "Dataset") -> None:
    """Raise UsageError if images cannot become inputs as they did for the initial weights."""
    name = "{}={}".format(*(run.origin or ("init_from", initial.path)))
    if initial.is_of_a_run:
        _check_shape(run, initial, dataset, name)
    for key, asked, was in (
        ("data.whiten", source.whiten, bool(initial.whitening)),
        ("data.subtract_image_mean", source.subtract_image_mean, initial.subtract_image_mean),
    ):
        if asked and not was:
            raise UsageError([f"{key}={format_value(asked)}: {name} was trained without it; leave it out"])


def _check_shape(run: RunConfig, initial: "InitialWeights", dataset: "Dataset", name: str) -> None:
    channels, *sides = initial.input_shape
    if channels != dataset.image_shape[0]:
        remedy = f"; write data.channels={channels}" if "channels" in run.parts["data"] else ""
        count = f"{channels} channel" + "s" * (channels > 1)
        raise UsageError([f"{name}: was trained on images of {count}, these have {dataset.image_shape[0]}{remedy}"])
    if initial.whitening and tuple(initial.input_shape) != dataset.image_shape:
        raise UsageError([f"{name}: was trained on whitened images of {sides[0]}x{sides[1]}; take images of that size"])

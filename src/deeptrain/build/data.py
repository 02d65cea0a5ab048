"""The data of a run: its source, opened with the user's cache, and what parts may ask to know of it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from deeptrain.config.instantiate import instantiate, name_setting
from deeptrain.config.settings import RunConfig
from deeptrain.errors import UsageError, error_line
from deeptrain.model import published

if TYPE_CHECKING:  # a part that needs no torch is built without importing it
    from deeptrain.data.dataset import Dataset
    from deeptrain.model.published import InputRecipe

T = TypeVar("T")


def data_source(run: RunConfig, **facts: Any) -> Any:
    """Build the data source of a run. Its pictures get the size that published weights know."""
    return instantiate("data", run.parts["data"], **facts, input_recipe=input_recipe(run))


def input_recipe(run: RunConfig) -> "InputRecipe | None":
    """Return how the images of model.weights became inputs, None without; UsageError if there are no such weights."""
    try:
        return published.recipe(run.parts["model"])
    except ValueError as error:
        raise UsageError([f"model.weights={published.weights_of(run.parts['model'])}: {error}"]) from error


def load_data(run: RunConfig, load: Callable[[Path | None], T]) -> T:
    """Open data through a source's method, with the user's cache; UsageError that name the setting or the file."""
    cache = run.settings.cache_dir
    try:
        return load(Path(cache) if cache else None)
    except ValueError as error:
        lines = str(error).splitlines()
        raise UsageError(name_setting("data", line, run.parts["data"]) for line in lines) from error
    except OSError as error:
        raise UsageError([f"data={run.choices['data']}: {error_line(error)}"]) from error
    except MemoryError as error:
        message = f"data={run.choices['data']}: does not fit into memory; choose fewer or smaller images"
        raise UsageError([message]) from error


def data_info(dataset: "Dataset") -> dict[str, Any]:
    """Return what parts may ask to know of the data."""
    import numpy as np

    return {
        "input_shape": dataset.image_shape,
        "num_classes": len(dataset.classes),
        "class_names": dataset.classes,
        "class_counts": np.bincount(dataset.train.labels, minlength=len(dataset.classes)).tolist(),
        "mean": [float(value) for value in dataset.mean],
        "in_chans": dataset.image_shape[0],  # timm's word
    }


def smaller_than_known(run: RunConfig, dataset: "Dataset") -> list[str]:
    """Return a line if images are less than half as large as those that published weights know."""
    recipe, side = input_recipe(run), min(dataset.image_shape[1:])
    if recipe is None or 2 * side > recipe.size or run.parts["data"].get("image_size"):
        return []
    remedy = "larger ones transfer better, as files with data=image_folder data.image_size=112"
    return [f"model.weights know images of {recipe.size}x{recipe.size}, these have a side of {side}: {remedy}"]

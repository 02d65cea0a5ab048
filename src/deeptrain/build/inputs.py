"""The way from pixels to inputs: augmentations, normalisation, whitening."""

import inspect
import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deeptrain.build.data import data_info, load_data
from deeptrain.config.instantiate import instantiate, locate
from deeptrain.config.settings import RunConfig, part_nodes
from deeptrain.errors import UsageError

if TYPE_CHECKING:  # a part that needs no torch is built without importing it
    from deeptrain.aug.pipeline import Pipeline, RandomApply
    from deeptrain.aug.whitening import Whitening
    from deeptrain.data.dataset import Dataset
    from deeptrain.training.initial_weights import InitialWeights


def input_pipeline(run: RunConfig, source: Any, dataset: "Dataset", initial: "InitialWeights | None") -> "Pipeline":
    """Build the way from pixels to inputs: as it was for the initial weights, else as the data set asks."""
    from deeptrain.aug.pipeline import Pipeline
    from deeptrain.aug.whitening import Whitening

    nodes = [(key, node) for key, node in part_nodes(run.parts) if key.startswith("aug.")]
    augmentations = [augmentation(key, node, run, dataset) for key, node in nodes]
    pipeline = Pipeline(augmentations, dataset.mean, dataset.std, subtract_image_mean=source.subtract_image_mean)
    if initial is None or not initial.mean:
        pipeline.whitening = whitening(run, source, dataset, pipeline)
    else:
        pipeline.subtract_image_mean = initial.subtract_image_mean
        pipeline.whitening = Whitening(**initial.whitening) if initial.whitening else None
    return pipeline


def normalised_as(initial: "InitialWeights", source: Any, dataset: "Dataset") -> "Dataset":
    """Return the data with mean and std of the initial weights, unless the user has set them."""
    import numpy as np

    mean, std = getattr(source, "mean", None), getattr(source, "std", None)
    known = np.array(initial.mean), np.array(initial.std)
    if dataset.image_shape[0] == 1:  # grey images for weights of colour ones
        known = known[0].mean(keepdims=True), known[1].mean(keepdims=True)
    return replace(dataset, mean=dataset.mean if mean else known[0], std=dataset.std if std else known[1])


def augmentation(key: str, node: Mapping[str, Any], run: RunConfig, dataset: "Dataset") -> "RandomApply":
    """Build an augmentation and how often and until when it is applied, unless its constructor takes that itself."""
    from deeptrain.aug.pipeline import RandomApply
    from deeptrain.data.statistics import covariance

    accepted, facts = inspect.signature(locate(key, node["_target_"])).parameters, data_info(dataset)
    if "covariance" in accepted:  # it takes a look at thousands of images
        facts["covariance"] = load_data(run, lambda cache_dir: covariance(dataset, cache_dir))
    when = {name: node[name] for name in ("probability", "until") if name in node and name not in accepted}
    own = {name: value for name, value in node.items() if name not in when}
    return RandomApply(instantiate(key, own, **facts), **when)


def whitening(run: RunConfig, source: Any, dataset: "Dataset", pipeline: "Pipeline") -> "Whitening | None":
    """Compute the whitening of the pipeline's images from a spread of train; what takes long is kept in the cache."""
    if source.whiten is None:
        return None
    import torch

    from deeptrain.aug.whitening import FIT_IMAGES, MAX_INPUT_VALUES, MAX_UNCACHED_VALUES, Whitening
    from deeptrain.data.statistics import cached_arrays, sample_images

    values = math.prod(dataset.image_shape)
    if values > MAX_INPUT_VALUES:
        reason = f"an image has {values:,} values, each computed from all; more than {MAX_INPUT_VALUES:,} are too many"
        raise UsageError([f"data.whiten={source.whiten}: {reason}: choose smaller images or data.whiten=null"])

    def fit() -> list[Any]:
        if values > MAX_UNCACHED_VALUES:
            logging.getLogger(__name__).info("computing the whitening of %s values an image, once", f"{values:,}")
        images = torch.from_numpy(sample_images(dataset.train, FIT_IMAGES)).permute(0, 3, 1, 2)
        fitted = Whitening.fit(pipeline.evaluate(images), source.whiten, source.whiten_eps)
        return [fitted.weight.numpy(), fitted.bias.numpy()]

    normalisation = [pipeline.shift, pipeline.scale, source.subtract_image_mean]
    what = {"whiten": [source.whiten, source.whiten_eps, FIT_IMAGES], "normalisation": normalisation}
    if values <= MAX_UNCACHED_VALUES:
        arrays = fit()
    else:
        arrays = load_data(run, lambda cache_dir: cached_arrays(dataset, what, fit, cache_dir))
    return Whitening(*map(torch.from_numpy, arrays))

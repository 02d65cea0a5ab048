"""Finding what is wrong with a run before it starts: first what needs no torch, then everything."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deeptrain import build
from deeptrain.config import checks
from deeptrain.config.instantiate import instantiate
from deeptrain.config.settings import RunConfig, Settings
from deeptrain.errors import UsageError
from deeptrain.model import published
from deeptrain.runtime.world import get_world
from deeptrain.training import initial_weights

if TYPE_CHECKING:
    from deeptrain.training.trainer import Trainer


def check_settings(run: RunConfig) -> list[str]:
    """Build what needs no torch, the data source and the schedule, so that their mistakes show within a second.

    Returns a sentence for every setting that will have no effect, as far as the settings alone can tell.
    """
    messages = [*_initial_weights_messages(run), *_build_light_parts(run.parts, run.settings)]
    try:
        warnings = checks.check(run)
    except UsageError as error:
        raise UsageError([*messages, *error.lines]) from None
    if messages:
        raise UsageError(messages)
    return warnings


def check_test_split(run: RunConfig) -> None:
    """Raise UsageError if the data have no test split. No image is read, and torch is not imported."""
    try:
        source = instantiate("data", run.parts["data"])
    except UsageError:  # a folder with test/ alone, which needs the run's checkpoint
        return
    if not source.has_test():
        build.load_data(run, source.test)


def _initial_weights_messages(run: RunConfig) -> list[str]:
    """Return what is wrong with the file to start from. A run that goes on or is repeated has its own copy."""
    if run.origin is None or run.settings.resume or run.settings.rerun or not get_world().is_main:
        return []
    key, path = run.origin
    if key == "model.weights":
        missing = published.is_file(path) and not Path(path).expanduser().is_file()
        return [f"{key}={path}: there is no such file"] if missing else []
    try:
        initial_weights.find(path)
    except ValueError as error:
        return [f"{key}={path}: {error}"]
    return []


def with_settings_checked(error: UsageError) -> UsageError:
    """Add to a command's messages those that building its valid parts brings to light."""
    return UsageError([*error.lines, *_build_light_parts(error.valid_parts)])


def _build_light_parts(parts: Mapping[str, Any], settings: Settings | None = None) -> list[str]:
    """Build the data source, and with the settings of every run the schedule; return what is wrong with them."""
    messages = published.messages(parts.get("model", {}))
    try:
        available = getattr(instantiate("data", parts["data"]), "available", math.inf) if "data" in parts else math.inf
        if settings is not None and settings.batch_size != "auto" and settings.batch_size > available:
            messages.append(
                f"batch_size={settings.batch_size}: must be at most {available}, the number of images there are"
            )
    except UsageError as error:
        messages += error.lines
    try:
        if settings is not None:
            instantiate("schedule", parts["schedule"], epochs=settings.epochs)
    except UsageError as error:
        messages += error.lines
    return messages


def check_by_building(run: RunConfig, *, on_cpu: bool = True) -> "tuple[build.Setup, Trainer]":
    """Build all parts of a run to find messages; return them. The warnings are in the setup.

    on_cpu: without a copy of the images, and without the GPU, since other processes are to train.
    """
    import torch

    from deeptrain.runtime.device import Runtime

    setup = build.open_setup(run)
    if on_cpu:
        setup.source.loader, setup.runtime = "stream", Runtime(torch.device("cpu"))
    return setup, build.trainer(setup)

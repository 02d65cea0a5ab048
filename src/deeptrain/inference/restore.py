"""From a run folder to its network: the one way for evaluate, predict and `deeptrain.load`.

A run keeps how its pictures become inputs and how its network is built. So neither its data nor Hydra are needed.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from torch.overrides import TorchFunctionMode

from deeptrain import build
from deeptrain.aug.pipeline import Pipeline
from deeptrain.aug.whitening import Whitening
from deeptrain.config.instantiate import instantiate, locate
from deeptrain.config.renamed import update_targets
from deeptrain.config.settings import RunConfig, Settings
from deeptrain.config.user_modules import split_config_dirs
from deeptrain.config.validate import ALLOWED_TARGETS, part_messages, settings_messages
from deeptrain.data.decode import Decoder
from deeptrain.data.image_files import ImageFiles, one_range
from deeptrain.errors import UsageError
from deeptrain.inference.predictor import Predictor
from deeptrain.model.published import BUILDERS
from deeptrain.run import calibration, folder, saved
from deeptrain.runtime.device import Runtime, keep_malloc_arena, pick_device, pick_precision
from deeptrain.schema import type_error
from deeptrain.training import checkpoint
from deeptrain.training.data_description import describes_data, is_shape

DECODING = ("image_size", "channels", "resize", "range", "background", "loader")  # settings of how pictures are read
MOVABLE = ("data.range", "data.root", "data.file")


@dataclass
class NetworkSettings:
    """What of a run's settings decides on the answers of its network."""

    model: dict[str, Any]
    loss: str  # the dotted class
    device: str
    precision: str
    threads: int | str


def load(run: str | Path, overrides: Sequence[str] = ()) -> Predictor:
    """Open the best weights of a run, or a checkpoint of it, to ask them about pictures.

    overrides: words as on the command line, such as "device=cpu". Raises UsageError, a ValueError, of one line each.
    """
    keep_malloc_arena()
    run_dir, path = folder.find(str(run), "run", best=True)
    words = list(overrides)
    saved.check_read(words, "predicting", saved.NETWORK_WORDS)
    saved.load_overrides(run_dir, words)  # refuses what a folder may not decide
    settings = _saved_settings(run_dir, words)
    state, device = open_checkpoint(path, settings.device)
    if not describes_data(state):
        raise not_ours(path)
    decoder = _decoder(path, state, words)
    runtime = Runtime(device, pick_precision(settings.precision, device))
    network = restore(path, state, settings, decoder, runtime)
    if (run_dir / calibration.NAME).is_file():
        network.calibration = calibration.load(run_dir, checkpoint.digest(state["model"]))
    return network


def open_checkpoint(path: Path, device: str) -> tuple[dict[str, Any], torch.device]:
    """Read a checkpoint and find the device for it; UsageError if either is not there."""
    try:
        return checkpoint.load(path), pick_device(device)[0]
    except checkpoint.Damaged as error:
        other = folder.other_checkpoint(path)
        raise UsageError([f"{error}" + (f"; name another one: {other}" if other else "")]) from error
    except ValueError as error:
        raise UsageError([str(error)]) from error


def restore(
    path: Path, state: dict[str, Any], settings: NetworkSettings, decoder: Decoder, runtime: Runtime
) -> Predictor:
    """Build a network with the weights of a checkpoint that `describes_data`; UsageError if they do not fit."""
    shape, classes = tuple(state["input_shape"]), state["classes"]
    facts = {"input_shape": shape, "num_classes": len(classes), "in_chans": shape[0]}
    mismatch = UsageError([f"{path}: its weights do not fit; leave the settings of the model as they were"])
    if not _fits(settings.model, facts, state["model"]):
        raise mismatch
    try:
        whitening = Whitening(**state["whitening"]) if state.get("whitening") else None
        pipeline = Pipeline([], state["mean"], state["std"], state["subtract_image_mean"], whitening)
        model = runtime.to_device(instantiate("model", settings.model, **facts))
        model.load_state_dict(state["model"])
    except UsageError:
        raise
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError) as error:
        raise mismatch from error
    loss, precision, threads = settings.loss.rpartition(".")[2], settings.precision, settings.threads
    return Predictor(model.eval(), pipeline, decoder, classes, runtime, loss, precision, threads)


def not_ours(path: Path) -> UsageError:
    return UsageError([f"{path}: does not say what it was trained on; is it from a run of deeptrain?"])


def saved_decoder(path: Path, state: dict[str, Any]) -> Decoder | None:
    """Return how the run reads pictures; None if its checkpoint does not tell, as in older versions."""
    if state.get("decoder") is None:
        return None
    try:
        decoder = Decoder.from_state(state["decoder"])
    except ValueError as error:
        raise not_ours(path) from error
    fits = [decoder.channels, decoder.height, decoder.width] == state.get("input_shape")
    return decoder if fits else None


# --- settings ---


def _saved_settings(run_dir: Path, words: list[str]) -> NetworkSettings:
    """Read config.yaml, and over it the words typed now. Only where it refers to something else, Hydra composes."""
    config = saved.load_config(run_dir)
    needed: dict[str, Any] = {name: config.get(name) for name in ("model", "loss", "device", "precision", "threads")}
    if not all(isinstance(needed[name], dict) for name in ("model", "loss")) or "${" in str(needed):
        return network_settings(_compose(run_dir, words))
    update_targets(needed)
    words, config_dirs = split_config_dirs(words)
    typed = {key: yaml.safe_load(value) for key, _, value in (word.lstrip("+").partition("=") for word in words)}
    needed |= {name: typed[name] for name in ("device", "precision") if name in typed}
    needed["model"] |= {key.partition(".")[2]: typed[key] for key in typed if key.startswith("model.")}
    defaults = Settings()
    plain = {name: needed[name] or getattr(defaults, name) for name in ("device", "precision", "threads")}
    allowed = ALLOWED_TARGETS + tuple(typed.get("allow_targets") or ())
    messages = [*settings_messages(plain, Settings), *part_messages("model", needed["model"], allowed, config_dirs)]
    target = str(needed["model"].get("_target_"))
    if target.startswith(tuple(f"{package}." for package in ALLOWED_TARGETS)) and not _makes_networks(target):
        messages = [f"{run_dir / 'config.yaml'}: model._target_={target}: makes no network; move the file away"]
    if messages:
        raise UsageError(messages)
    return NetworkSettings(needed["model"], str(needed["loss"].get("_target_")), **plain)


def _compose(run_dir: Path, words: list[str]) -> RunConfig:
    """Compose the settings of a run by Hydra, which takes its time."""
    from deeptrain.config.compose import compose_run
    from deeptrain.run import defaults

    return compose_run([*defaults.load_overrides(run_dir, words), *words])


def _makes_networks(target: str) -> bool:
    """Say whether a target makes networks: a class, one of our builders, or a function of torchvision or timm.

    The packages hold much else, and a stranger's config.yaml may name any of it.
    """
    if any(name.startswith("_") for name in target.split(".")):
        return False
    if target in BUILDERS:
        return True
    found = locate("model", target)
    if isinstance(found, type):
        return issubclass(found, nn.Module)
    return getattr(found, "__module__", "").startswith(("torchvision.models.", "timm."))


def network_settings(run: RunConfig) -> NetworkSettings:
    """Return what of a composed run decides on the answers of its network."""
    chosen = run.settings
    loss = str(run.parts["loss"].get("_target_"))
    return NetworkSettings(run.parts["model"], loss, chosen.device, chosen.precision, chosen.threads)


class _NoValues(TorchFunctionMode):
    """Skip what only fills a tensor: on the meta device the first such call imports a compiler, a second long."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        filled = args[0] if args else kwargs.get("tensor")  # of torch.nn.init it is named
        name = getattr(func, "__name__", "")
        if name.endswith("_") and not name.endswith("__") and isinstance(filled, torch.Tensor):
            return filled
        return func(*args, **kwargs)


def _fits(node: Mapping[str, Any], facts: dict[str, Any], weights: Mapping[str, Any]) -> bool:
    """Say whether a model has these weights, before it takes any memory: its settings may be a stranger's."""
    try:
        with torch.device("meta"), _NoValues():
            shapes = {name: tensor.shape for name, tensor in instantiate("model", node, **facts).state_dict().items()}
    except UsageError:
        raise
    except Exception:  # a model that needs numbers while it is built
        return True
    return shapes == {name: tensor.shape for name, tensor in weights.items()}


# --- pictures ---


def open_source(run: RunConfig, path: Path, state: dict[str, Any], typed: Sequence[str] = (), **facts: Any) -> Any:
    """Build the data source of a run. It reads pictures as the run did, unless a word typed now decides on that."""
    held_out = saved.read_json(path.parent.parent / "split.json", dict, None)
    data = _with_range(run.parts["data"], held_out and held_out.get("range"))
    keys = {word.lstrip("+").partition("=")[0] for word in typed}
    decided = "data" in keys or keys & {f"data.{name}" for name in DECODING}
    decoder = None if decided else saved_decoder(path, state)
    return instantiate("data", data, **_learned(state), decoder=decoder, **facts)


def _learned(state: dict[str, Any]) -> dict[str, Any]:
    """Return what a source of files takes over from the run: the order of its classes, and the shape of its images."""
    classes, shape = saved.learned_classes(state), state.get("input_shape")
    if classes is None or not is_shape(shape):
        return {}
    return {"learned_classes": classes, "input_shape": shape}


def _with_range(data: dict[str, Any], ends: Any) -> dict[str, Any]:
    """Set the range of deep pictures that the run found, so that other files are read in the same way."""
    is_pair = isinstance(ends, list) and len(ends) == 2
    if data.get("range") != "auto" or not is_pair or not all(isinstance(end, float) for end in ends):
        return data
    return {**data, "range": ends}


def _decoder(path: Path, state: dict[str, Any], words: list[str]) -> Decoder:
    """Return how a run reads pictures: as its checkpoint says, or for an older one as its data tell."""
    decoder = saved_decoder(path, state)
    if decoder is None:
        return _decoder_of_data(path, state, words)
    typed = {word: word.lstrip("+").partition("=")[0] for word in words}
    fixed = [word for word, key in typed.items() if key.partition(".")[0] == "data" and key not in MOVABLE]
    if fixed:
        raise UsageError(f"{word}: the run keeps how it reads pictures; leave it out" for word in fixed)
    for word, key in typed.items():
        if key == "data.range":
            ends = yaml.safe_load(word.partition("=")[2])
            if type_error(ends, list[float]) or len(ends) != 2 or not ends[0] < ends[1]:
                raise UsageError([f"{word}: must be the lowest and the highest value, as [0,4095]"])
            decoder = replace(decoder, ranges=one_range(*ends))
    return decoder


def _decoder_of_data(path: Path, state: dict[str, Any], words: list[str]) -> Decoder:
    """Find how an older run read pictures. Of files their training pictures tell; of arrays their shape."""
    run = _compose(path.parent.parent, words)
    data = run.parts["data"]
    state["subtract_image_mean"] = data.get("subtract_image_mean", False)
    channels, height, width = state["input_shape"]
    if not issubclass(inspect.unwrap(locate("data", data["_target_"])), ImageFiles):
        return Decoder(height, width, channels)
    try:
        dataset = build.load_data(run, open_source(run, path, state).load)
    except UsageError as error:
        lines = [f"{line} (a run of an older version needs its pictures)" for line in error.lines]
        raise UsageError(lines) from error
    if dataset.image_shape != (channels, height, width) or dataset.decoder is None:
        raise UsageError(["data: these are not the pictures that the run was trained on; name them with data.root=DIR"])
    return dataset.decoder

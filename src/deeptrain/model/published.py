"""Networks of torchvision and timm for any classes and channels, the weights that are published, and their inputs.

Importing this module imports neither of them, nor torch: names are read from their source text.
"""

import functools
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from deeptrain.runtime.download import Unreachable, fetch, open_url
from deeptrain.schema import suggest, validate_call

Library = Literal["torchvision", "timm"]
BUILDERS: dict[str, Library] = {  # what a `_target_` names
    f"{__name__}.torchvision_network": "torchvision",
    f"{__name__}.timm_network": "timm",
}
DEFINITION = re.compile(r"^@register_model\b.*\n(?:@.*\n)*def (\w+)", re.MULTILINE)
FETCHES = ("pretrained", "checkpoint_path", "cache_dir")  # timm's arguments that read files or the network
WITHOUT_AUXILIARY = {"aux_logits": False, "init_weights": True}
ARGUMENTS = {"googlenet": WITHOUT_AUXILIARY, "inception_v3": WITHOUT_AUXILIARY}
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
HF_FILE = "model.safetensors"
NEAREST = 4  # names in a message

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InputRecipe:
    """How the images of published weights became inputs.

    mean, std: of each channel, in [0, 1]. size, short_side: pixels of the centre crop, and of the short side that it is
    cut from.
    """

    mean: list[float]
    std: list[float]
    size: int
    short_side: int
    interpolation: str = "bilinear"


@dataclass(frozen=True)
class Published:
    """Weights that a library publishes for a network: how to fetch them, and the inputs that they were trained on."""

    label: str
    url: str
    recipe: InputRecipe
    hub: str = ""  # the repository on Hugging Face, in whose cache they are


# --- networks ---


@validate_call
def torchvision_network(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    name: str = "resnet18",
    weights: str | None = None,
    arguments: dict | None = None,
):
    """Build a network of torchvision with random weights, an output for each class and an input for each channel.

    (N, C, H, W) -> logits (N, num_classes). A run loads `weights` afterwards; a trained network is built without them.
    arguments: of the network's constructor. Auxiliary heads are off.
    """
    from torchvision.models import get_model

    check_name("torchvision", name)
    settings = dict(ARGUMENTS.get(name, {}))
    if settings:
        settings["transform_input"] = weights is not None  # as torchvision: published weights know other statistics
    network = _build(name, get_model, weights=None, num_classes=num_classes, **settings, **(arguments or {}))
    if input_shape[0] != 3:
        _replace_first_convolution(network, input_shape[0])
    return _with_small_head(network, num_classes)


@validate_call
def timm_network(
    input_shape: tuple[int, int, int],
    num_classes: int,
    *,
    name: str = "resnet18",
    weights: str | None = None,
    arguments: dict | None = None,
):
    """Build a network of timm with random weights, an output for each class and an input for each channel.

    (N, C, H, W) -> logits (N, num_classes). A run loads `weights` afterwards; a trained network is built without them.
    arguments: of timm.create_model. A name may have a tag, as in resnet18.a1_in1k: it chooses the weights.
    """
    check_name("timm", name)
    arguments = arguments or {}
    if refused := [word for word in arguments if word.startswith(FETCHES)]:
        raise ValueError(f"arguments={{{refused[0]}:...}}: is not taken; model.weights=DEFAULT or a FILE gives weights")
    from timm import create_model

    facts = {"num_classes": num_classes, "in_chans": input_shape[0]}
    return _with_small_head(_build(name, create_model, pretrained=False, **facts, **arguments), num_classes)


def _build(name: str, builder: Any, **arguments: Any) -> Any:
    try:
        return builder(name, **arguments)
    except Exception as error:  # a package's own, of any kind
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"name={name}: cannot be built so ({reason})") from error


def _replace_first_convolution(network: Any, channels: int) -> None:
    from torch import nn

    name, old = next((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    kept = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    settings = {setting: getattr(old, setting) for setting in kept}
    new = nn.Conv2d(channels, old.out_channels, bias=old.bias is not None, **settings)
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, new)


def _with_small_head(network: Any, num_classes: int) -> Any:
    """Draw the head anew with a tenth of the usual deviation: the loss starts near log(num_classes)."""
    from torch import nn

    from deeptrain.model.head import head_name

    if (name := head_name(network, num_classes)) is not None:
        head = network.get_submodule(name)
        nn.init.normal_(head.weight, std=0.1 / head.weight[0].numel() ** 0.5)
        if head.bias is not None:
            nn.init.zeros_(head.bias)
    return network


# --- names, without importing anything ---


def library_of(node: Mapping[str, Any]) -> Library | None:
    """Return the library whose network a model's node builds, if any."""
    return BUILDERS.get(str(node.get("_target_")))


@functools.cache
def names(library: Library) -> list[str]:
    """List the networks of a library, from its source text; ValueError if it is not installed."""
    spec = find_spec(library)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"needs the package {library}; pip install 'deeptrain[{library}]'")
    files = Path(spec.submodule_search_locations[0], "models").glob("*.py")
    return sorted({name for file in files for name in DEFINITION.findall(file.read_text("utf-8"))})


def library_with(name: str) -> Library | None:
    """Return the library that has a network of this name, torchvision first; None if none of them has."""
    installed = [library for library in get_args(Library) if find_spec(library)]
    return next((library for library in installed if name.partition(".")[0] in names(library)), None)


def check_name(library: Library, name: str) -> None:
    """Raise ValueError if a library has no such network, with the nearest that it has."""
    known, base = names(library), name.partition(".")[0] if library == "timm" else name
    if base not in known:
        near = get_close_matches(base.lower(), known, NEAREST, 0.5)
        remedy = f"did you mean {' or '.join(near)}?" if near else f"it has {len(known):,}, such as {known[0]}"
        raise ValueError(f"name={name}: no network of {library}; {remedy}")


def weights_of(node: Mapping[str, Any]) -> str | None:
    """Return the published weights or the file that a model's node starts from, if any."""
    weights = node.get("weights") if library_of(node) else None
    return weights if isinstance(weights, str) else None


def messages(node: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a model's node, as far as can be told without torch."""
    library, name = library_of(node), node.get("name")
    if library is None or not isinstance(name, str):
        return []
    try:
        check_name(library, name)
    except ValueError as error:
        key = "model." if str(error).startswith("name=") else f"model={library}: "
        return [f"{key}{error}"]
    return []


# --- weights ---


def recipe(node: Mapping[str, Any]) -> InputRecipe | None:
    """Return how the images of a node's weights became inputs; None without weights, ValueError if there are none."""
    weights, library = weights_of(node), library_of(node)
    return describe(library, node["name"], weights).recipe if weights and library else None


def find(node: Mapping[str, Any]) -> Path:
    """Return the file of a node's weights, fetched if it is not there; ValueError in a line if it cannot be."""
    weights, library = weights_of(node), library_of(node)
    assert weights is not None and library is not None
    if is_file(weights):
        return Path(weights).expanduser()
    published = describe(library, node["name"], weights)
    if not published.url:
        raise ValueError(f"{library} publishes no weights of {node['name']}; name a FILE, or write model.weights=null")
    try:
        return _fetch_hub(published) if published.hub else _fetch(published)
    except OSError as error:
        reason = str(error) if isinstance(error, Unreachable) else error.strerror or str(error)
        raise ValueError(f"cannot fetch {published.url} ({reason}); fetch it, then write model.weights=FILE") from error


def is_file(weights: str) -> bool:
    """Tell whether weights are named by a file, rather than by a word of the library."""
    return "/" in weights or os.sep in weights or "." in weights or Path(weights).is_file()


def describe(library: Library, name: str, weights: str) -> Published:
    """Return what a library says of weights; of a file what it says of those of that name, else of its default.

    ValueError for a word that it does not know.
    """
    return _describe_torchvision(name, weights) if library == "torchvision" else _describe_timm(name, weights)


def _describe_torchvision(name: str, weights: str) -> Published:
    from torchvision.models import get_model_weights

    known: Any = get_model_weights(name)
    entries = {entry.name: entry for entry in known}
    if is_file(weights):
        by_file = {entry.url.rpartition("/")[2]: entry for entry in known}
        entry = by_file.get(Path(weights).name, known.DEFAULT)
    elif weights == "DEFAULT":
        entry = known.DEFAULT
    elif weights in entries:
        entry = entries[weights]
    else:
        raise ValueError(f"{suggest(weights, ['DEFAULT', *entries])}; or name a file that is there")
    made = entry.transforms()
    found = InputRecipe(made.mean, made.std, made.crop_size[0], made.resize_size[0], made.interpolation.value)
    return Published(entry.name, entry.url, found)


def _describe_timm(name: str, weights: str) -> Published:
    from timm.data.config import resolve_data_config
    from timm.models import get_pretrained_cfg

    try:
        config = get_pretrained_cfg(name)
    except RuntimeError as error:  # of a tag
        raise ValueError(str(error).partition("\n")[0]) from error
    if not is_file(weights) and weights != "DEFAULT":
        raise ValueError(f"must be DEFAULT or a file; other weights are a tag of model.name, as in {name}.in1k")
    plain: Any = config.to_dict() if config else {}
    used = resolve_data_config(pretrained_cfg=plain)
    size = used["input_size"][-1]
    interpolation = used["interpolation"] if used["interpolation"] in INTERPOLATIONS else "bilinear"
    found = InputRecipe(
        list(used["mean"]), list(used["std"]), size, int(size / used["crop_pct"]), interpolation=interpolation
    )
    hub = str(plain.get("hf_hub_id") or "")
    url = f"{_hub_address()}/{hub}/resolve/main/{HF_FILE}" if hub else str(plain.get("url") or "")
    return Published(name, url, found, hub)


def _hub_address() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _fetch(published: Published) -> Path:
    """Return the file in the cache of torch.hub, where torchvision and timm look too."""
    name = published.url.rpartition("/")[2]
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "torch")
    path = Path(home, "hub", "checkpoints", name).expanduser()
    digest = re.search(r"-([a-f0-9]{8,})\.", name)
    if not path.is_file():
        fetch(published.url, path, digest[1] if digest else "", _announcing(path))
    return path


def _announcing(path: Path) -> Any:
    return lambda size: logger.info("fetching %s (%.0f MB) into %s", path.name, size / 1e6, path.parent)


def _fetch_hub(published: Published) -> Path:
    """Return the file in the cache of Hugging Face."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    if isinstance(path := try_to_load_from_cache(published.hub, HF_FILE), str):
        return Path(path)
    open_url(published.url).close()  # or its client tries for minutes
    logger.info("fetching %s of %s", HF_FILE, published.hub)
    try:
        return Path(hf_hub_download(published.hub, HF_FILE))
    except Exception as error:  # of its client, of any kind
        raise Unreachable(str(error).partition("\n")[0]) from error

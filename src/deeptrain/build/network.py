"""The model with the weights to start from, checked on data and machine, partly frozen; and its loss."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from deeptrain.build.data import data_info
from deeptrain.build.setup import Setup, known_facts
from deeptrain.config import checks
from deeptrain.config.instantiate import instantiate
from deeptrain.errors import UsageError
from deeptrain.schema import format_value

if TYPE_CHECKING:  # a part that needs no torch is built without importing it
    from torch import Tensor, nn

    from deeptrain.training.initial_weights import InitialWeights


def model(setup: Setup) -> "nn.Module":
    """Build the model with weights drawn from the run's seed, on its device."""
    from deeptrain.runtime.random import fold_in

    setup.runtime.seed(fold_in(setup.run.settings.seed, "weights"))
    built = instantiate("model", setup.run.parts["model"], **data_info(setup.dataset))
    built = setup.runtime.to_device(built)
    if setup.initial_weights is not None and setup.initial_weights.tensors:
        _load_initial(setup, setup.initial_weights, built)
    return built


def _load_initial(setup: Setup, initial: "InitialWeights", network: "nn.Module") -> None:
    """Load the weights to start from; UsageError with what to type if they do not fit."""
    try:
        initial.load_into(network, setup.dataset.classes, setup.run.settings.init_match)
    except ValueError as error:
        if not initial.is_of_a_run:
            raise UsageError(["{}={}: {}".format(*(setup.run.origin or ("", "")), error)]) from error
        old, new = ("x".join(map(str, shape)) for shape in (initial.input_shape, setup.dataset.image_shape))
        images = f", images {old} there, here {new}" if old != new else ""
        words = _fitting_stem(setup, initial) or " ".join(initial.model_settings())
        remedy = f"write {words}" if words else "choose the model that it had"
        name = f"init_from={setup.run.settings.init_from}"
        raise UsageError([f"{name}: its weights do not fit this model ({error}{images}); {remedy}"]) from error


def _fitting_stem(setup: Setup, initial: "InitialWeights") -> str:
    """Return the setting of the stem with which the weights fit: it goes by the size of the images. "" if none does."""
    import torch

    node = setup.run.parts["model"]
    for stem in ("small", "pool", "large") if "stem" in node else ():
        try:
            with torch.device("meta"):
                network = instantiate("model", {**node, "stem": stem}, **data_info(setup.dataset))
            initial.load_into(network, setup.dataset.classes)
        except ValueError:  # of this stem, or of these weights
            continue
        return f"model.stem={stem}"
    return ""


def trainable_model(setup: Setup) -> "nn.Module":
    """Build the model and make it ready to train: checked, with batch norms of all processes, partly frozen."""
    network = model(setup)
    check_model(setup, network)
    check_compiler(setup)
    if setup.run.settings.sync_batch_norm:
        setup.world.sync_batch_norm(network)
    freeze_parts(setup, network)
    return network


def check_model(setup: Setup, network: "nn.Module") -> None:
    """Raise UsageError if the network fits neither the data nor the batch; warn of parameters without a gradient."""
    from deeptrain.training import rehearsal

    name = setup.run.choices["model"]
    what = network, setup.dataset.image_shape, len(setup.dataset.classes), setup.runtime
    try:
        idle = rehearsal.forward_backward(*what)
        setup.min_images = 1 if setup.run.settings.sync_batch_norm else rehearsal.min_images(*what)
    except ValueError as error:
        raise UsageError([f"model={name}: {error}"]) from error
    if idle:
        more = f" and {len(idle) - 1} more" if len(idle) > 1 else ""
        setup.warnings.append(f"model={name}: {idle[0]}{more} get no gradient, so they are never trained")
    if checks.CombinedSettings(setup.run, known_facts(setup)).micro_batch() < setup.min_images:
        size, count = setup.batch_size, setup.run.settings.accumulate
        message = f"batch_size={size}: model={name} cannot train on a single image (accumulate={count})"
        raise UsageError([f"{message}; take a larger batch, or a model without batch norm"])


def check_compiler(setup: Setup) -> None:
    """Raise UsageError if compile=true cannot work on this machine."""
    from deeptrain.training import rehearsal

    if setup.runtime.compile:
        try:
            rehearsal.compile_probe(setup.runtime.device)
        except ValueError as error:
            raise UsageError([f"compile=true: {error}; install one (g++), or write compile=false"]) from error


def freeze_parts(setup: Setup, network: "nn.Module") -> None:
    """Freeze what finetune says; UsageError that names the setting."""
    from deeptrain.model.freezing import backbone, freeze, freeze_norms

    finetune, classes = setup.run.settings.finetune, len(setup.dataset.classes)
    try:
        if parts := backbone(network, classes) if finetune.head_only == 1 else finetune.freeze:
            freeze(network, parts)
    except ValueError as error:
        name = "finetune=head" if finetune.head_only == 1 else f"finetune.freeze={format_value(finetune.freeze)}"
        raise UsageError([f"{name}: {error}"]) from error
    if finetune.norms == "freeze":
        freeze_norms(network)
    learns = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    random = setup.initial_weights.random if setup.initial_weights else []
    known = {name for name, _ in network.named_parameters()}
    if still := [name for name in random if name in known - learns]:
        setup.warnings.append(f"{', '.join(still[:2])}: left at random, and frozen; train them too (finetune.freeze)")


def loss(setup: Setup) -> "Callable[[Tensor, Tensor], Tensor]":
    """Build the loss and try it on zeros (2, K): one of your own may not know the targets that this run has."""
    import torch

    name, classes = setup.run.choices["loss"], len(setup.dataset.classes)
    built = instantiate("loss", setup.run.parts["loss"], **data_info(setup.dataset))
    logits = torch.zeros(2, classes, device=setup.runtime.device)
    kinds = {"class ids": torch.zeros_like(logits[:, 0], dtype=torch.int64)}
    augs = zip(setup.run.parts["aug"], setup.pipeline.augmentations, strict=True)
    if mixing := [aug for aug, applied in augs if applied.mixes]:
        kinds[f"mixed targets, which aug={mixing[0]} makes"] = torch.full_like(logits, 1 / classes)
    for kind, targets in kinds.items():
        try:
            built(logits, targets)
        except Exception as error:  # a loss of the user's own may raise anything
            reason = str(error).partition("\n")[0]
            raise UsageError([f"loss={name}: does not take {kind} ({reason})"]) from error
    return built

"""Features that a frozen backbone has computed once. From then on only the head of the network runs."""

from collections.abc import Callable, Iterable
from functools import partial
from hashlib import blake2b

import torch
from torch import Tensor, nn

from deeptrain.model.head import head_name

Fill = Callable[[], Iterable[Tensor]]


class FeatureMemory:
    """What the last layers of a network receive for each image, by the bits of the network's input.

    The first batch fills it with all training images in their order. So a resumed run finds the same bits. An
    evaluation adds its own images. A batch with an unknown one is computed as a whole.

    tail: names of the layers behind the features. fill: yields inputs (N, C, H, W). max_bytes: of all features.
    """

    def __init__(self, tail: list[str], fill: Fill, max_bytes: int):
        self.tail, self.fill, self.max_bytes, self.used = tail, fill, max_bytes, 0
        self.features: dict[bytes, Tensor] = {}
        self.backbone: list[int] | None = None  # versions of its tensors: other weights have other features

    def __deepcopy__(self, memo: dict) -> "FeatureMemory":
        return self  # a copy of the network has the same backbone

    def forward(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return the logits (N, K) of a network for inputs (N, C, H, W)."""
        if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
            return whole(model, images)  # somebody looks at its layers
        backbone = [parameter._version for parameter in model.parameters() if not parameter.requires_grad]
        if backbone != self.backbone:
            self.features, self.used, self.backbone = {}, 0, backbone
            self._fill(model)
        keys = digests(images)
        known = [self.features[key] for key in keys if key in self.features]
        if len(known) == len(keys):
            return self.finish(model, torch.stack(known))
        if model.training:
            return whole(model, images)
        logits, features = watched(model, images, self.tail[0])
        self._keep(keys, features)
        return logits

    def finish(self, model: nn.Module, features: Tensor) -> Tensor:
        """Return the logits that belong to features."""
        for name in self.tail:
            features = model.get_submodule(name)(features)
        return features

    def _fill(self, model: nn.Module) -> None:
        was_training = model.training
        model.eval()
        with torch.inference_mode(False), torch.no_grad():
            for images in self.fill():
                self._keep(digests(images), watched(model, images, self.tail[0])[1])
        model.train(was_training)

    @torch.inference_mode(False)
    def _keep(self, keys: list[bytes], features: Tensor) -> None:
        for key, row in zip(keys, features.detach(), strict=True):
            if key not in self.features and self.used + row.nbytes <= self.max_bytes:
                self.features[key], self.used = row.clone(), self.used + row.nbytes


@torch.no_grad()
def remember_features(
    model: nn.Module, num_classes: int, images: Tensor, fill: Fill, count: int, max_bytes: int
) -> bool:
    """Let a network with a frozen backbone keep its features; return whether it can.

    images: some of its inputs (N, C, H, W). For them the last layers alone must give the bits of the whole network,
    in training and in evaluation. fill: yields all inputs to be kept, `count` of them; all must fit in.
    """
    was_training = model.training
    tail = _tail(model.train(), images, head_name(model, num_classes))
    memory, seen = FeatureMemory(tail, fill, max_bytes), []
    with torch.random.fork_rng(devices=[]):
        for training in (True, False) if tail else ():
            model.train(training)
            torch.manual_seed(0)
            logits, features = watched(model, images, tail[0])
            torch.manual_seed(0)
            if torch.equal(memory.finish(model, features), logits):
                seen.append(features)
    model.train(was_training)
    if len(seen) < 2 or not torch.equal(*seen) or count * seen[0][0].nbytes > max_bytes:
        return False
    model.forward = partial(memory.forward, model)
    return True


def remembers_features(model: nn.Module) -> bool:
    """Tell whether a network keeps the features of its backbone."""
    method = getattr(model.__dict__.get("forward"), "func", None)
    return isinstance(getattr(method, "__self__", None), FeatureMemory)


def whole(model: nn.Module, images: Tensor) -> Tensor:
    """Return the logits of a network as its class computes them."""
    return type(model).forward(model, images)


def watched(model: nn.Module, images: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Return the logits of the whole network, and what one of its layers receives."""
    received: list[Tensor] = []
    hook = model.get_submodule(name).register_forward_pre_hook(lambda _, inputs: received.append(inputs[0]))
    try:
        return whole(model, images), received[0]
    finally:
        hook.remove()


def digests(images: Tensor) -> list[bytes]:
    """Return for each image of a batch (N, C, H, W) a key of 16 bytes, by all its bits."""
    rows = images.detach().permute(0, 2, 3, 1).contiguous().flatten(1).cpu().numpy()
    return [blake2b(row, digest_size=16).digest() for row in rows]


def _tail(model: nn.Module, images: Tensor, head: str | None) -> list[str]:
    """Return the layers from the first dropout that is on to the head; [] if the head is not the last one."""
    called: list[str] = []
    leaves = {name: module for name, module in model.named_modules() if not list(module.children())}
    hooks = [module.register_forward_hook(lambda *_, name=name: called.append(name)) for name, module in leaves.items()]
    try:
        whole(model, images)
    finally:
        for hook in hooks:
            hook.remove()
    if head is None or called[-1:] != [head]:
        return []
    dropouts = (isinstance(leaves[name], nn.modules.dropout._DropoutNd) and leaves[name].training for name in called)
    first = next((index for index, is_on in enumerate(dropouts) if is_on), -1)
    return called[first:]

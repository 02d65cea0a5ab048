"""Which tensor of a file belongs to which of a network: by their names, or by their order where all shapes fit."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from deeptrain.model.head import head_name, is_in
from deeptrain.training.initial_weights import shape

InitMatch = Literal["names", "order"]
PREFIXES = ("module", "_orig_mod", "model", "network", "net", "backbone", "encoder", "state_dict")  # of wrappers
MIN_SHARE = 0.5  # of the values below the head that a file must fill
SHOWN, MAX_CHARACTERS = 2, 60  # of the names in a message, which may be a stranger's


@dataclass
class Match:
    """The tensors for a network by its own names, what keeps its random weights, and what the file has beside."""

    filled: dict[str, Tensor]
    random: list[str]
    unused: list[str]

    def describe(self, own: Mapping[str, Tensor], num_classes: int) -> str:
        """Say how much is filled, left at random and unused, with the first names of each."""
        total, filled = _values(own), sum(own[name].numel() for name in self.filled)
        parts = [f"{filled:,} of {total:,} values filled"]
        if self.random:
            parts.append(f"{_count(self.random)} left at random, for {num_classes} classes: {shown(self.random)}")
        if self.unused:
            parts.append(f"{_count(self.unused)} of the file unused: {shown(self.unused)}")
        return "; ".join(parts)


def match(model: nn.Module, given: Mapping[str, Tensor], how: InitMatch, num_classes: int) -> Match:
    """Find the tensors of a file for a network; ValueError if they fit less than half of it, the head aside."""
    own, head = model.state_dict(), head_name(model, num_classes)
    if how == "order":
        return _by_order(own, given, num_classes)
    found = _by_name(own, given)
    backbone = {name: tensor for name, tensor in own.items() if not is_in(name, head)}
    filled = _values({name: tensor for name, tensor in backbone.items() if name in found.filled})
    if filled < MIN_SHARE * _values(backbone) or not found.filled:
        share = f"only {filled:,} of {_values(backbone):,} values below the head fit"
        names = f"names there are as {shown(given)}, here as {shown(own)}"
        raise ValueError(f"{share} ({names}); {_order_hint(own, given, num_classes)}")
    return found


def _order_hint(own: Mapping[str, Tensor], given: Mapping[str, Tensor], num_classes: int) -> str:
    try:
        _by_order(own, given, num_classes)
    except ValueError:
        return "choose the network that it was saved from"
    return "all shapes fit in their order: add init_match=order"


def _by_name(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Match:
    """Match equal names; or those without the prefixes of wrappers, if they fill more."""
    candidates = [_pair(own, given, lambda name: name), _pair(own, given, _bare)]
    return max(candidates, key=lambda found: sum(tensor.numel() for tensor in found.filled.values()))


def _pair(own: Mapping[str, Tensor], given: Mapping[str, Tensor], key: Callable[[str], str]) -> Match:
    by_key = {key(name): name for name in given}
    filled, used = {}, set()
    for name, tensor in own.items():
        origin = by_key.get(key(name))
        if origin is not None and (fitting := _fitted(given[origin], tensor)) is not None:
            filled[name] = fitting
            used.add(origin)
    return Match(filled, [name for name in own if name not in filled], [name for name in given if name not in used])


def _bare(name: str) -> str:
    """Return a name without the prefixes of wrappers."""
    while (parts := name.split(".", 1))[0] in PREFIXES and len(parts) == 2:
        name = parts[1]
    return name


def _by_order(own: Mapping[str, Tensor], given: Mapping[str, Tensor], num_classes: int) -> Match:
    """Match the first with the first, and so on. Counters of batch norms are matched apart: some files lack them.

    Raises ValueError at a shape that differs, except of a head for other classes.
    """
    filled, random, unused = {}, [], []
    for is_counter in (False, True):
        here, there = ([name for name in names if (names[name].ndim == 0) == is_counter] for names in (own, given))
        if len(here) != len(there):
            if is_counter:
                random, unused = [*random, *here], [*unused, *there]
                continue
            raise ValueError(f"it has {len(there)} tensors, this network {len(here)}, so their order tells nothing")
        for name, origin in zip(here, there, strict=True):
            tensor, other = own[name], given[origin]
            if (fitting := _fitted(other, tensor)) is not None:
                filled[name] = fitting
            elif len(tensor) == num_classes and tensor.shape[1:] == other.shape[1:]:
                random.append(name)
                unused.append(origin)
            else:
                shapes = f"{shown([origin])} is {shape(other)}, {name} is {shape(tensor)}"
                raise ValueError(f"the order of its tensors does not fit ({shapes})")
    return Match(filled, random, unused)


def _fitted(given: Tensor, own: Tensor) -> Tensor | None:
    """Return a tensor with the shape and type of another, None if it does not fit.

    A convolution of colour images takes grey ones with the sum of its weights over the colours.
    """
    if given.is_floating_point() != own.is_floating_point():
        return None
    if given.ndim == own.ndim == 4 and own.shape[1] == 1 and given.shape[1] == 3 and len(own) == len(given):
        given = given.sum(1, keepdim=True)
    return given.to(own.dtype) if given.shape == own.shape else None


def _values(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} tensor" + "s" * (len(names) != 1)


def shown(names: Iterable[str]) -> str:
    """Join the first names; one that may not be printed is called a tensor."""
    known = list(names)
    first = [name if name.isprintable() and len(name) <= MAX_CHARACTERS else "a tensor" for name in known[:SHOWN]]
    return ", ".join(first) + (", ..." if len(known) > SHOWN else "")

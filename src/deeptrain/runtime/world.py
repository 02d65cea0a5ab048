"""Which of the processes that torchrun started this one is, as its environment says; alone without torchrun."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


@dataclass(frozen=True)
class World:
    """One of `count` processes that train a network together, `local_count` of them on this machine."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1

    @cached_property  # asked several times a step
    def alone(self) -> bool:
        return self.count == 1

    @cached_property
    def first(self) -> bool:
        """Tell whether this is the process that speaks and writes."""
        return self.rank == 0

    def part(self, whole: slice) -> slice:
        """Return this process's share of a stretch: all shares make the whole, and differ by one image at most."""
        size = whole.stop - whole.start
        return slice(*(whole.start + size * rank // self.count for rank in (self.rank, self.rank + 1)))


SINGLE = World()


def here(environment: Mapping[str, str] = os.environ) -> World:
    """Read torchrun's variables."""
    if not was_torchrun(environment):
        return SINGLE
    return World(*(int(environment[name]) for name in NEEDED))


def was_torchrun(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether torchrun started this process, be it a single one."""
    return all(environment.get(name, "").isdigit() for name in NEEDED)

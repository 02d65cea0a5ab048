"""The processes that train one network together, and what they exchange. Alone, every exchange is the identity.

Torch is imported only where several processes exchange something.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor, nn

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")

T = TypeVar("T")
MicroBatches = Iterable[tuple["Tensor", "Tensor", float]]


@dataclass(unsafe_hash=True)
class World:
    """One process that trains alone. `runtime.distributed.DistributedWorld` is one of several.

    size: processes in all. local_size: processes on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_single(self) -> bool:
        return self.size == 1

    @property
    def is_main(self) -> bool:
        """Tell whether this process prints and writes files."""
        return self.rank == 0

    @property
    def signal_grace(self) -> float:
        """Return for how many seconds after a signal another one does not end the process."""
        return 0.0

    def shard(self, whole: slice) -> slice:
        """Return this rank's part of a range. The shards make up the whole; their sizes differ by one at most."""
        size = whole.stop - whole.start
        return slice(*(whole.start + size * rank // self.size for rank in (self.rank, self.rank + 1)))

    def local_batch_size(self, batch_size: int) -> int:
        """Return how many images of a batch this rank has; 0 if there are fewer images than ranks."""
        shard = self.shard(slice(0, batch_size))
        return shard.stop - shard.start

    # --- the life of the group ---

    def init(self) -> None:
        """Connect to the other processes."""

    def finalize(self) -> None:
        """Wait until all processes are done, then disconnect."""

    def abort(self, code: int) -> None:
        """End this process at once if others wait for it: torchrun then ends them."""

    # --- the network and its batches ---

    def wrap(self, model: "nn.Module") -> "nn.Module":
        """Return the network whose backward pass leaves the mean gradient of all processes."""
        return model

    def sync_batch_norm(self, model: "nn.Module") -> None:
        """Let the batch norms of a model, which is not one itself, normalize over the images of all ranks."""

    def micro_batches(
        self, images: "Tensor", targets: "Tensor", count: int, batch_size: int, smallest: int = 1
    ) -> MicroBatches:
        """Cut a batch into `count` micro-batches; return each with its weight in the mean loss of the batch.

        batch_size: images of the batch over all processes. smallest: images of a micro-batch; there are fewer of them
        rather than smaller ones.
        """
        if count == 1:
            return ((images, targets, 1.0),)
        sizes = piece_sizes(len(images), count, smallest)
        parts = zip(images.split(sizes), targets.split(sizes), strict=True)
        return [(part, wanted, len(part) / batch_size) for part, wanted in parts]

    def all_gather_batch(self, images: "Tensor", labels: "Tensor", batch_size: int) -> tuple["Tensor", "Tensor"]:
        """Return the whole batch, from the shards of all ranks."""
        return images, labels

    def shard_batch(self, images: "Tensor", targets: "Tensor") -> tuple["Tensor", "Tensor"]:
        """Return this rank's shard of a whole batch; one image with weight 0 if it has none."""
        return images, targets

    def unsharded(self, own: T, make: Callable[[], T]) -> T:
        """Return a loader of whole batches: `own` of a single process, else what `make` makes."""
        return own

    def broadcast_buffers(self, *models: "nn.Module | None") -> None:
        """Give all ranks the buffers of rank 0."""

    # --- the words of one rank, without the others ---

    def report(self, write: Callable[[], None], patience: float = 0) -> None:
        """Call write on rank 0. The others wait `patience` seconds: torchrun ends them once rank 0 has ended."""
        write()

    def describe_error(self, message: str) -> str:
        """Return the message of an error, in other words if another process caused it."""
        return message

    # --- numbers and messages; each call waits for all ranks ---

    def all_reduce_max(self, *values: float) -> Iterable[float]:
        """Return the largest of each value."""
        return values

    def all_reduce_sum(self, values: list[float]) -> list[float]:
        """Return the sum of each value."""
        return values

    def main_only(self, values: list[float]) -> list[float]:
        """Return the values on rank 0, zeros on the others."""
        return values

    def first_message(self, message: str | None) -> str | None:
        """Return the message of the lowest rank that has one."""
        return message

    def decide_alone(self, reason: str) -> str:
        """Return the reason if this process may act on it without asking the others, else ""."""
        return reason

    def broadcast(self, value: T) -> T:
        """Return the value of rank 0: plain values, and tensors on the host."""
        return value


def piece_sizes(total: int, count: int, smallest: int) -> list[int]:
    """Cut a number into up to `count` pieces of one size and a rest. A rest below `smallest` joins the last piece."""
    size = max(-(-total // count), smallest)
    whole, rest = divmod(total, size)
    sizes = [size] * whole
    if rest >= smallest or not sizes:
        return [*sizes, rest] if rest else sizes
    return [*sizes[:-1], size + rest]


SINGLE = World()


def get_world(environment: Mapping[str, str] = os.environ) -> World:
    """Read the variables of torchrun."""
    if not was_torchrun(environment):
        return SINGLE
    numbers: list[Any] = [int(environment[name]) for name in VARIABLES]
    if numbers[1] == 1:
        return World(*numbers)
    from deeptrain.runtime.distributed import DistributedWorld

    return DistributedWorld(*numbers)


def was_torchrun(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether torchrun started this process."""
    return all(environment.get(name, "").isdigit() for name in VARIABLES)

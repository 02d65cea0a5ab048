"""One of several processes that train one network: torch.distributed behind the methods of World."""
# pyright: reportPrivateImportUsage=false

import atexit
import io
import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from deeptrain.runtime import signals, terminal, watch
from deeptrain.runtime.world import T, World, piece_sizes

if TYPE_CHECKING:
    from torch import Tensor, nn

TIMEOUT = timedelta(minutes=30)  # for a process that lives and does not answer; torchrun reports dead ones at once
SIGNAL_GRACE = 2.0  # seconds: torchrun repeats the terminal's signal; a later one is a person's
MAX_MESSAGE_BYTES = 256


@dataclass(unsafe_hash=True)
class DistributedWorld(World):
    """One process of several. Torch is imported by its methods, so that a usage error is answered without it."""

    @property
    def signal_grace(self) -> float:
        return SIGNAL_GRACE

    def init(self) -> None:
        """Connect to the other processes: gloo for tensors on the host, NCCL for tensors on GPUs."""
        import torch
        from torch import distributed

        if distributed.is_initialized():
            return
        if torch.cuda.is_available():
            torch.cuda.set_device(self.local_rank % torch.cuda.device_count())
        _watch_ranks(self.is_main)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        distributed.init_process_group(backend, timeout=TIMEOUT)
        atexit.register(_destroy)

    def finalize(self) -> None:
        """Wait for all ranks (rank 0 also draws figures), then destroy the process group."""
        import torch
        from torch import distributed

        if distributed.is_initialized():
            distributed.all_reduce(torch.zeros(1))
            _destroy()

    def abort(self, code: int) -> None:
        from torch import distributed

        if distributed.is_initialized():
            os._exit(code)

    # --- the network and its batches ---

    def wrap(self, model: "nn.Module") -> "nn.Module":
        """Return DistributedDataParallel, which leaves the buffers (batch norm's statistics) to each rank."""
        from torch.nn.parallel import DistributedDataParallel

        device = next(model.parameters()).device
        devices = [device] if device.type == "cuda" else None
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # its successor is not in torch 2.11
        self.ddp_model = DistributedDataParallel(
            model, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
        )
        return self.ddp_model

    def sync_batch_norm(self, model: "nn.Module") -> None:
        from deeptrain.runtime.sync_batch_norm import convert_sync_batch_norm

        convert_sync_batch_norm(model)

    def micro_batches(
        self, images: "Tensor", targets: "Tensor", count: int, batch_size: int, smallest: int = 1
    ) -> Iterator[tuple["Tensor", "Tensor", float]]:
        """Yield this rank's micro-batches. The gradients are exchanged once, after the last one."""
        images_per_rank = batch_size / self.size  # DistributedDataParallel divides the sum of gradients by `size`
        is_idle = self.local_batch_size(batch_size) == 0  # its one image belongs to another rank
        sizes = piece_sizes(len(images), count, smallest)
        parts = list(zip(images.split(sizes), targets.split(sizes), strict=True))
        for number, (part, wanted) in enumerate(parts, 1):
            self.ddp_model.require_backward_grad_sync = number == len(parts)
            yield part, wanted, 0.0 if is_idle else len(part) / images_per_rank

    def all_gather_batch(self, images: "Tensor", labels: "Tensor", batch_size: int) -> tuple["Tensor", "Tensor"]:
        return self._all_gather(images, batch_size), self._all_gather(labels, batch_size)

    def shard_batch(self, images: "Tensor", targets: "Tensor") -> tuple["Tensor", "Tensor"]:
        shard = self.shard(slice(0, len(images)))
        if shard.start == shard.stop:
            shard = slice(0, 1)
        return images[shard], targets[shard]

    def unsharded(self, own: T, make: Callable[[], T]) -> T:
        return make()

    def broadcast_buffers(self, *models: "nn.Module | None") -> None:
        from torch import distributed

        for model in filter(None, models):
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)

    def report(self, write: Callable[[], None], patience: float = 0) -> None:
        if self.is_main:
            write()
        else:
            time.sleep(patience)

    def describe_error(self, message: str) -> str:
        """Return the message, unless it is gloo's or NCCL's about a lost connection."""
        lost = "another process has ended, perhaps with a message of its own above; go on with resume"
        return lost if "onnection" in message else message

    def _all_gather(self, values: "Tensor", batch_size: int) -> "Tensor":
        """Return (batch_size, ...) in order, from the shards (about batch_size / size, ...) of all ranks."""
        import torch
        from torch import distributed

        sizes = [World(rank, self.size).local_batch_size(batch_size) for rank in range(self.size)]
        longest = max(sizes)
        rows = values.permute(0, 2, 3, 1) if values.ndim == 4 else values  # images are stored channels last
        padded = rows.new_zeros((longest, *rows.shape[1:]))
        padded[: len(rows)] = rows[:longest]
        gathered = rows.new_empty((self.size * longest, *rows.shape[1:]))
        distributed.all_gather_into_tensor(gathered, padded)
        whole = torch.cat([shard[:size] for shard, size in zip(gathered.split(longest), sizes, strict=True)])
        return whole.permute(0, 3, 1, 2) if values.ndim == 4 else whole

    # --- numbers and messages ---

    def all_reduce_max(self, *values: float) -> list[float]:
        return self._all_reduce(list(values), "MAX")

    def all_reduce_sum(self, values: list[float]) -> list[float]:
        return self._all_reduce(values, "SUM")

    def main_only(self, values: list[float]) -> list[float]:
        return values if self.is_main else [0.0] * len(values)

    def _all_reduce(self, values: list[float], operation: str) -> list[float]:
        import torch
        from torch import distributed

        vector = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(vector, getattr(distributed.ReduceOp, operation))
        return vector.tolist()

    def decide_alone(self, reason: str) -> str:
        return ""

    def first_message(self, message: str | None) -> str | None:
        import torch
        from torch import distributed

        content = (message or "").encode()[:MAX_MESSAGE_BYTES]
        row = torch.zeros(MAX_MESSAGE_BYTES, dtype=torch.uint8)
        row[: len(content)] = torch.tensor(list(content), dtype=torch.uint8)
        rows = torch.empty(self.size * MAX_MESSAGE_BYTES, dtype=torch.uint8)
        distributed.all_gather_into_tensor(rows, row)
        texts = [bytes(each.tolist()).rstrip(b"\0").decode(errors="ignore") for each in rows.split(MAX_MESSAGE_BYTES)]
        return next(filter(None, texts), None)

    def broadcast(self, value: Any) -> Any:
        import torch
        from torch import distributed

        self.init()
        buffer = io.BytesIO()
        if self.is_main:
            torch.save(value, buffer)
        size = torch.tensor([buffer.tell()])
        distributed.broadcast(size, 0)
        content = torch.frombuffer(bytearray(buffer.getvalue() or int(size)), dtype=torch.uint8)
        distributed.broadcast(content, 0)
        if self.is_main:
            return value
        return torch.load(io.BytesIO(content.numpy().tobytes()), map_location="cpu", weights_only=True)


def _destroy() -> None:
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()


def _watch_ranks(is_main: bool) -> None:
    """Start a thread that looks at the ranks of this machine: the main thread may wait for one of them.

    A wait inside torch runs no handler of Python's. So the system also writes each signal into a pipe.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(os, "set_blocking"):
        return
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    signal.set_wakeup_fd(ends[1], warn_on_full_buffer=False)
    say = logging.getLogger(__name__).warning if is_main else lambda line: terminal.report(f"warning: {line}")
    threading.Thread(target=_look_at_ranks, args=(ends[0], say), daemon=True).start()


def _look_at_ranks(pipe: int, say: Callable[[str], None]) -> None:
    """Say once that no rank does anything; end this process if it was asked to stop and cannot."""
    torchrun, own = os.getppid(), os.getpid()
    ranks = watch.Watch(lambda: watch.children(torchrun) or [own], all_needed=True)
    arrived: list[int] = []  # signals, perhaps not yet handled by the main thread
    while True:
        time.sleep(watch.TICK)
        ranks.tick()
        with suppress(BlockingIOError):
            arrived += [number for number in os.read(pipe, 4096) if number in signals.SIGNALS]
        if signals.received:  # it has handled them; a later run in this process begins without any
            arrived = list(signals.received)
        if ranks.silent >= watch.WARN_AFTER and arrived:
            name = signals.SIGNALS[arrived[0]]
            terminal.report(f"error: stopped by {name} while it waited for another process; go on with resume")
            os._exit(signals.EXIT_CODE)
        if ranks.silent == watch.WARN_AFTER and _speaks(ranks):
            limit = int(TIMEOUT.total_seconds() / 60)
            line = f"no step for {ranks.silent} s: the processes wait for one another{ranks.hint()}"
            say(f"{line}; they do so for {limit} minutes at most")


def _speaks(ranks: watch.Watch) -> bool:
    """Tell whether this is the first of the ranks here that can say something."""
    stopped = ranks.stopped()
    return os.getpid() == min((pid for pid in ranks.pids() if pid not in stopped), default=0)

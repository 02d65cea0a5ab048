"""Several processes, one run: what they tell one another, and the network that averages their gradients."""
# pyright: reportPrivateImportUsage=false

import atexit
import io
import os
import warnings
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from deeptrain.runtime.world import World

PATIENCE = timedelta(minutes=30)  # for a process that lives and does not answer; torchrun tells of dead ones at once
SAID = 256  # bytes of a sentence that goes around


def join(processes: World) -> None:
    """Meet the others: gloo carries what lies on the host, NCCL what lies on a GPU. Without others, nothing."""
    if processes.alone or distributed.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(processes.local_rank % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)
    atexit.register(_part)


def leave() -> None:
    """Wait until all have done their work, the first one's drawing included, and part: who ends early ends them all."""
    if distributed.is_initialized():
        distributed.all_reduce(torch.zeros(1))
        _part()


def _part() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def break_off(code: int) -> None:
    """End this process where it stands, without a word to the others: torchrun then ends them, within seconds."""
    if distributed.is_initialized():
        os._exit(code)


# --- the network ---


def wrap(model: nn.Module) -> DistributedDataParallel:
    """Make the network that leaves the processes' mean in every gradient after a backward pass.

    Buffers (batch norm's statistics) are each process's own until `same_buffers`.
    """
    device = next(model.parameters()).device
    devices = [device] if device.type == "cuda" else None
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")  # its successor is not in torch 2.11
    return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True)


def same_buffers(model: nn.Module) -> None:
    """Give everybody the first process's buffers, so that all evaluate what it saves."""
    for buffer in model.buffers():
        distributed.broadcast(buffer, 0)


class SyncBatchNorm(_BatchNorm):
    """Batch norm over the images of all processes, each channel's moments weighed by the images behind them.

    PyTorch's own runs on GPUs alone. Where nothing is learned (no gradients) it is the plain layer.
    """

    def __init__(self, plain: _BatchNorm):
        super().__init__(plain.num_features, plain.eps, plain.momentum, plain.affine, plain.track_running_stats)
        self.weight, self.bias = plain.weight, plain.bias
        for name, buffer in plain.named_buffers():
            setattr(self, name, buffer)
        self.train(plain.training)

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # maps (N, C, H, W) and features (N, C)

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and torch.is_grad_enabled()):
            return super().forward(input)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [1, -1] + [1] * (input.ndim - 2)
        x = input.float()
        own = x.new_tensor([x.numel() / x.shape[1]])
        *_, count = totals = _Total.apply(torch.cat([x.sum(axes), own]))
        mean = totals[:-1] / count
        centred = x - mean.view(shape)
        variance = _Total.apply(centred.square().sum(axes)) / count
        if self.track_running_stats:
            self._note(mean.detach(), variance.detach() * (count / (count - 1)))
        output = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            output = output * self.weight.view(shape) + self.bias.view(shape)
        return output.to(input.dtype)

    def _note(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


class _Total(torch.autograd.Function):
    """The sum over all processes; so is its gradient."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        values = values.clone()
        distributed.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        distributed.all_reduce(gradient)
        return gradient


def synchronise_norms(model: nn.Module) -> None:
    """Replace every batch norm inside a model by one over all processes, which has the same parameters and buffers."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, _BatchNorm):
                setattr(module, name, SyncBatchNorm(child))


# --- a batch ---


def whole_batch(own: Tensor, size: int, processes: World) -> Tensor:
    """Return the batch of which every process holds its part, in order: (size, ...) from (about size / count, ...)."""
    parts = [World(rank, processes.count).part(slice(0, size)) for rank in range(processes.count)]
    longest = max(part.stop - part.start for part in parts)
    flat = own.permute(0, 2, 3, 1) if own.ndim == 4 else own  # as images are stored
    padded = flat.new_zeros((longest, *flat.shape[1:]))
    padded[: len(flat)] = flat[:longest]
    gathered = flat.new_empty((processes.count * longest, *flat.shape[1:]))
    distributed.all_gather_into_tensor(gathered, padded)
    pieces = gathered.split(longest)
    whole = torch.cat([piece[: part.stop - part.start] for piece, part in zip(pieces, parts, strict=True)])
    return whole.permute(0, 3, 1, 2) if own.ndim == 4 else whole


# --- words and numbers; all of these wait for everybody ---


def largest(*values: float) -> list[float]:
    """Return the largest of what the processes say, of each value."""
    vector = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(vector, distributed.ReduceOp.MAX)
    return vector.tolist()


def all_reduce_sum(values: list[float]) -> list[float]:
    """Return the sum over all processes of each value."""
    vector = torch.tensor(values, dtype=torch.float64)
    distributed.all_reduce(vector)
    return vector.tolist()


def first_said(sentence: str | None, processes: World) -> str | None:
    """Return what the first process that has something to say says; None if nobody has."""
    mine = (sentence or "").encode()[:SAID]
    row = torch.zeros(SAID, dtype=torch.uint8)
    row[: len(mine)] = torch.tensor(list(mine), dtype=torch.uint8)
    rows = torch.empty(processes.count * SAID, dtype=torch.uint8)
    distributed.all_gather_into_tensor(rows, row)
    said = [bytes(each.tolist()).rstrip(b"\0").decode(errors="ignore") for each in rows.split(SAID)]
    return next(filter(None, said), None)


def shared(state: Mapping[str, Any] | Sequence[Any] | None, processes: World) -> Any:
    """Return the first process's state, plain values and tensors on the host, in all of them."""
    buffer = io.BytesIO()
    if processes.first:
        torch.save(state, buffer)
    size = torch.tensor([buffer.tell()])
    distributed.broadcast(size, 0)
    content = torch.frombuffer(bytearray(buffer.getvalue() or int(size)), dtype=torch.uint8)
    distributed.broadcast(content, 0)
    if processes.first:
        return state
    return torch.load(io.BytesIO(content.numpy().tobytes()), map_location="cpu", weights_only=True)

"""The machine a run is on: its device, its precision, its generators, and what to record of its versions."""

import ctypes
import os
import platform
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from deeptrain.runtime.world import SINGLE, World

SMALL_BATCH = 32 * 1024  # pixels: 32 images of 32x32
MAX_GRAPHS = 128  # of a compiled network: accumulate=auto makes many batch sizes, SAM doubles them
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "not enough memory",
    "out of memory",
    "_ALLOC_FAILED",
)  # the last: CUDA's libraries
PERHAPS_OUT_OF_MEMORY = (  # what these libraries say of a full GPU, but also of other troubles
    "unable to find an engine to execute this computation",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_INTERNAL_ERROR",
    "CUBLAS_STATUS_NOT_INITIALIZED",
)


@dataclass
class Runtime:
    """Where and how precisely to compute. In fp32 autocast and scaler do nothing, so that there is one step path."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "fp32"
    compile: bool = False

    def __post_init__(self):
        self.autocast: AbstractContextManager = nullcontext()  # 3 us a step less than a disabled autocast
        if self.precision != "fp32":
            self.autocast = torch.autocast(self.device.type, DTYPES[self.precision])
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.channels_last = self.device.type in ("cpu", "cuda")  # 1.2 to 1.4 times as fast for convolutions
        self.seeders: list[Callable[[int], Any]] = [torch.default_generator.manual_seed]  # stochastic depth: the host's
        if self.device.type == "cuda":
            _set_up_cuda(self.device)
            self.seeders.append(torch.cuda.default_generators[self.device.index or 0].manual_seed)
        elif self.device.type == "mps":
            self.seeders.append(torch.mps.manual_seed)

    def seed(self, key: int) -> None:
        """Seed the generators that modules draw from; about 1 us, where torch.manual_seed takes 147."""
        for seed in self.seeders:
            seed(key)

    def compiled(self, network: nn.Module) -> nn.Module:
        """Return the network, compiled by torch.compile if `compile` is set.

        Every batch size has a graph of its own. One graph for all sizes would be made at the second size only.
        A resumed run meets the sizes in another order, and would get other bits.
        """
        if not self.compile:
            return network
        torch._dynamo.config.recompile_limit = MAX_GRAPHS  # pyright: ignore
        return torch.compile(network, dynamic=False)  # pyright: ignore

    def peak_memory(self) -> int | None:
        """Return the most bytes of the GPU's memory that tensors took at a time; None without CUDA."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None

    def to_device(self, model: nn.Module) -> nn.Module:
        """Move a model to the device, in the memory format that is fastest there."""
        convolutional = any(isinstance(module, nn.Conv2d) for module in model.modules())
        if convolutional and self.channels_last:
            return model.to(self.device, memory_format=torch.channels_last)  # pyright: ignore
        return model.to(self.device)


def _set_up_cuda(device: torch.device) -> None:
    """Choose the GPU, TF32 for speed, and the kernels whose bits repeat."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first product
    torch.cuda.set_device(device)  # pinned memory belongs to the current GPU, by default the first one
    torch.cuda.init()  # there are no generators before
    torch.set_float32_matmul_precision("high")  # TF32
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True


def pick_device(name: str, world: World = SINGLE) -> tuple[torch.device, str]:
    """Return the device of a setting and a line that says why; ValueError if it is not there.

    Of several processes on a machine each has a GPU of its own, by its number there.
    """
    if not world.is_single:
        return _own_device(name, world)
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
        reason = "cpu (no GPU found)" if name == "cpu" else f"{name}, the GPU found"
    else:
        reason = name
    if name.startswith("cuda") and not cuda:
        raise ValueError(f"device={name}: this machine has no CUDA device; leave it out or write device=cpu")
    if name == "mps" and not mps:
        raise ValueError("device=mps: this machine has no Apple GPU; leave it out or write device=cpu")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count()
        if (device.index or 0) >= count:
            raise ValueError(f"device={name}: this machine has {count} CUDA device(s), cuda:0 to cuda:{count - 1}")
        reason = f"{name}, {torch.cuda.get_device_name(device)}"
    return device, reason


def _own_device(name: str, world: World) -> tuple[torch.device, str]:
    ranks = f"{world.size} processes"
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu"), f"{ranks} on the CPU"
    if name not in ("auto", "cuda"):
        raise ValueError(f"device={name}: torchrun's processes have a GPU each; write device=cuda or device=cpu")
    reason = pick_device("cuda")[1]
    gpus = torch.cuda.device_count()
    if world.local_size > gpus:
        more = f"torchrun started {world.local_size} processes on this machine, which has {gpus} GPU(s)"
        raise ValueError(f"device={name}: {more}; write --nproc-per-node {gpus}, or device=cpu")
    return torch.device("cuda", world.local_rank), f"{ranks}, {reason} each"


def pick_precision(name: str, device: torch.device) -> str:
    """Return the precision of a setting; auto is bf16 where there are instructions for it, else fp32."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # 1.5 times as fast as fp32 for convolutions
    fast = device.type == "cpu" and any(getattr(torch.cpu, check, bool)() for check in checks)
    return "bf16" if fast else "fp32"


def use_threads(wanted: int | str, pixels: int) -> str:
    """Set how many threads compute on the CPU; auto goes by the pixels of a batch. Return a line that says so.

    With small batches threads mostly wait for one another, and when another process wants the cores, for minutes.
    The number decides the order of sums, so it is a rule and no measurement: the same run gives the same bits.
    """
    small = pixels < SMALL_BATCH
    if wanted == "auto" and small:
        torch.set_num_threads(1)
    elif wanted != "auto":
        torch.set_num_threads(int(wanted))
    count = torch.get_num_threads()
    return f"{count} thread{'s' if count > 1 else ''}" + (" (auto: small images)" if wanted == "auto" and small else "")


def keep_malloc_arena() -> None:
    """Tell glibc to keep what a step frees for the next one: page faults are up to a third of a step on a CPU."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that a device's or the machine's memory does not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    message = str(error) if isinstance(error, RuntimeError) else ""
    if any(words in message for words in OUT_OF_MEMORY):
        return True
    return any(words in message for words in PERHAPS_OUT_OF_MEMORY) and _gpu_is_nearly_full()


def _gpu_is_nearly_full() -> bool:
    """Tell whether less than an eighth of the GPU's memory is free, cached blocks included."""
    if not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return False
    free, total = torch.cuda.mem_get_info()
    cached = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return free + cached < total / 8

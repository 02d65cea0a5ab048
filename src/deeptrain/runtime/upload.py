"""The copy from the host to the device that waits for nothing."""

import numpy as np
import torch
from torch import Tensor

PINNED_BYTES = 16 * 1024  # CUDA stages smaller copies at once; a larger one from pageable memory waits for the stream


def upload(values: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Copy values of the host to the device without waiting for it; float64 arrays become float32.

    CUDA copies what is large from pinned memory, which is kept until the copy is done. Other devices may read memory
    that is freed in the meantime, as MPS does (pytorch issue 189690): there the copy is a blocking one.
    """
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(values.astype(np.float32) if values.dtype == np.float64 else values)
    if device.type != "cuda" or values.device.type != "cpu":
        return values.to(device)
    if values.nbytes > PINNED_BYTES and not values.is_pinned():
        values = values.pin_memory()
    return values.to(device, non_blocking=True)

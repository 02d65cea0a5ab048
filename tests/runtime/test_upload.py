"""The upload: values and dtypes, and when it may be asynchronous. Devices that are not here are played by stand-ins."""

import numpy as np
import pytest
import torch

from deeptrain.runtime.upload import PINNED_BYTES, upload


class Recorder:
    """What `upload` does to a host tensor of so many bytes."""

    def __init__(self, nbytes=0, pinned=False, device="cpu"):
        self.nbytes, self.pinned, self.device, self.calls = nbytes, pinned, torch.device(device), []

    def is_pinned(self):
        return self.pinned

    def pin_memory(self):
        self.pinned = True
        self.calls.append("pin")
        return self

    def to(self, device, non_blocking=False):
        self.calls.append((device.type, non_blocking))
        return self


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.int32, np.uint8, bool])
@pytest.mark.parametrize("count", [0, 5, 100_000])
def test_values_arrive(device, dtype, count):
    values = np.random.default_rng(0).integers(0, 2, count).astype(dtype)
    there = upload(values, device)
    assert there.device.type == device.type and np.array_equal(there.cpu().numpy(), values)
    assert there.dtype == (torch.float32 if dtype == np.float64 else torch.from_numpy(values).dtype)
    assert upload(there, device) is there


@pytest.mark.parametrize(
    ("device", "nbytes", "pinned", "calls"),
    [
        ("cuda", PINNED_BYTES, False, [("cuda", True)]),
        ("cuda", PINNED_BYTES + 1, False, ["pin", ("cuda", True)]),
        ("cuda", PINNED_BYTES + 1, True, [("cuda", True)]),
        ("mps", 8, False, [("mps", False)]),
        ("mps", 10**6, False, [("mps", False)]),
        ("xpu", 10**6, False, [("xpu", False)]),
    ],
)
def test_only_cuda_copies_while_the_host_goes_on(device, nbytes, pinned, calls):
    tensor = Recorder(nbytes, pinned)
    upload(tensor, torch.device(device))
    assert tensor.calls == calls


def test_what_is_on_the_device_is_not_pinned():
    tensor = Recorder(10**6, device="cuda")
    upload(tensor, torch.device("cuda"))
    assert tensor.calls == [("cuda", False)]

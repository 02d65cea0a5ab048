"""The runtime: what it asks of CUDA, which errors mean too little memory, and one graph for each batch size."""

import os
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from deeptrain.runtime.device import PERHAPS_OUT_OF_MEMORY, Runtime, is_out_of_memory
from deeptrain.runtime.versions import hardware_info

LIBRARIES = [
    "CUDA error: out of memory",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cusolver error: CUSOLVER_STATUS_ALLOC_FAILED",
    "MPS backend out of memory (MPS allocated: 17.6 GB)",
]


@pytest.fixture
def cuda(monkeypatch):
    """A machine with two GPUs, of which only the calls are kept."""
    calls, seeds = [], []
    generators = [SimpleNamespace(manual_seed=lambda key, gpu=gpu: seeds.append((gpu, key))) for gpu in range(2)]
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: calls.append(("set_device", str(device))))
    monkeypatch.setattr(torch.cuda, "init", lambda: calls.append(("init", os.environ["CUBLAS_WORKSPACE_CONFIG"])))
    monkeypatch.setattr(torch.cuda, "default_generators", generators)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    for flag in ("benchmark", "deterministic", "allow_tf32"):
        monkeypatch.setattr(torch.backends.cudnn, flag, getattr(torch.backends.cudnn, flag))
    precision = torch.get_float32_matmul_precision()
    yield SimpleNamespace(calls=calls, seeds=seeds)
    torch.set_float32_matmul_precision(precision)


@pytest.mark.parametrize(("name", "gpu"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1)])
def test_its_own_gpu_is_chosen_before_anything_else(cuda, name, gpu):
    runtime = Runtime(torch.device(name))
    assert cuda.calls == [("set_device", name), ("init", ":4096:8")]
    runtime.seed(7)
    assert cuda.seeds == [(gpu, 7)]


def test_its_facts_are_recorded(cuda, monkeypatch):
    facts = {"get_device_name": "NVIDIA X", "get_device_capability": (9, 0), "max_memory_allocated": 12}
    for name, fact in facts.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, fact=fact: fact)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    recorded = hardware_info(torch.device("cuda:1"))
    assert recorded == {"device": "NVIDIA X", "capability": "9.0", "cuda": torch.version.cuda, "cudnn": 91002}
    assert Runtime(torch.device("cuda:1")).peak_memory() == 12 and Runtime().peak_memory() is None


def test_cuda_is_asked_for_bits_that_repeat(cuda, monkeypatch):
    torch.backends.cudnn.benchmark = True
    Runtime(torch.device("cuda"))
    assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # the user's own stays
    Runtime(torch.device("cuda"))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.parametrize("message", LIBRARIES)
def test_every_library_says_it_in_its_own_words(message):
    assert is_out_of_memory(RuntimeError(message))
    assert not is_out_of_memory(ValueError(message))


@pytest.mark.parametrize("message", PERHAPS_OUT_OF_MEMORY)
@pytest.mark.parametrize(
    ("free", "reserved", "allocated", "expected"),
    [(1, 70, 69, True), (40, 30, 30, False), (1, 70, 20, False)],  # of 80: full; half free; free in torch's cache
)
def test_unclear_words_count_on_a_full_gpu_only(monkeypatch, message, free, reserved, allocated, expected):
    assert not is_out_of_memory(RuntimeError(message)), "there is no GPU here, or an empty one"
    for name, answer in {
        "is_available": True,
        "is_initialized": True,
        "mem_get_info": (free, 80),
        "memory_reserved": reserved,
        "memory_allocated": allocated,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda answer=answer: answer)
    assert is_out_of_memory(RuntimeError(f"GET was {message}")) is expected
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize("order", [[16, 6, 16, 6, 3], [6, 16, 3, 16]])
def test_every_batch_size_has_a_graph_of_its_own(monkeypatch, order):
    """So a resumed run, which meets the sizes in another order, gets the same graphs."""
    graphs = []

    def backend(graph, inputs):
        graphs.append([value for value in inputs if not isinstance(value, nn.Parameter)])
        return graph.forward

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda network, **options: compile_(network, backend=backend, **options))
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=2):
        network = Runtime(compile=True).compiled(nn.Sequential(nn.Linear(5, 4), nn.ReLU()))
        for size in order:
            assert network(torch.zeros(size, 5)).shape == (size, 4)
    torch._dynamo.reset()
    assert [len(inputs[0]) for inputs in graphs] == list(dict.fromkeys(order))
    assert all(isinstance(value, torch.Tensor) for inputs in graphs for value in inputs), "a size is no input"

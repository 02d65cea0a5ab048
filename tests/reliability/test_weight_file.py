"""Files of weights from elsewhere: every form is read, and none of a stranger's runs code or takes memory."""

import struct
from pathlib import Path

import hostile_files
import pytest
import torch
from safetensors.torch import save_file

from deeptrain.training import weight_file


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))


@pytest.mark.parametrize("inside", ["", "state_dict", "model_state", "model", "model_ema.module"])
@pytest.mark.parametrize("form", ["archive", "legacy", "safetensors"])
def test_every_form_gives_the_same_tensors(tmp_path, form, inside):
    weights, path = network().state_dict(), tmp_path / "any.name"
    content = weights
    for name in reversed(inside.split(".") if inside else []):
        content = {name: content, "epoch": 3, "best": 0.5, "notes": ["a", None]}
    if form == "safetensors":
        save_file(weights, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "archive")
    found = weight_file.read(path)
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())


def test_parameters_are_weights_too(tmp_path):
    torch.save({"model": dict(network().named_parameters())}, tmp_path / "weights.pth")
    assert list(weight_file.read(tmp_path / "weights.pth")) == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_a_whole_module_is_not_opened(tmp_path):
    torch.save(network(), tmp_path / "module.pth")
    with pytest.raises(ValueError, match=r"is not opened; save its weights alone: torch\.save\(model\.state_dict"):
        weight_file.read(tmp_path / "module.pth")


def legacy(pickled: bytes) -> bytes:
    """Write what torch.save wrote before 1.6, with this content and no storage."""
    return weight_file.LEGACY + b"\x80\2}." + pickled + b"\x80\2]."


def gigabytes(form: str) -> bytes:
    lying = hostile_files.holding(hostile_files.tensor(numel=2**30, size=hostile_files.whole(4)))
    return legacy(lying) if form == "legacy" else hostile_files.archive(lying)


@pytest.mark.parametrize("form", ["archive", "legacy"])
def test_no_payload_runs(tmp_path, monkeypatch, form):
    monkeypatch.chdir(tmp_path)
    for name, operations in hostile_files.payloads():
        pickled = hostile_files.holding(operations)
        Path("hostile.pth").write_bytes(legacy(pickled) if form == "legacy" else hostile_files.archive(pickled))
        with pytest.raises(ValueError, match="is not opened"):
            weight_file.read(Path("hostile.pth"))
        assert not Path(hostile_files.CANARY).exists(), name


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>404</html>",
        hostile_files.old_torch_file(),
        gigabytes("archive"),
        gigabytes("legacy"),
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 70) + b'{"a":{"dtype":"F32","shape":[1073741824],"data_offsets":[0,4294967296]}}',
    ],
    ids=["empty", "a page", "an old file", "a lying archive", "a lying old file", "a long table", "no tensor", "a lie"],
)
def test_what_is_no_file_of_weights_is_a_line(tmp_path, content):
    (tmp_path / "weights.bin").write_bytes(content)
    with pytest.raises(ValueError, match="save its weights alone") as error:
        weight_file.read(tmp_path / "weights.bin")
    assert str(error.value).startswith(str(tmp_path / "weights.bin")) and "\n" not in str(error.value)

"""Tensors of a file find their places in a network: by names, behind any prefix, or by order."""

import pytest
import torch
from torch import Tensor, nn

from deeptrain.training.initial_weights import InitialWeights
from deeptrain.training.matching import match

CLASSES = 5


def network(classes: int = CLASSES, channels: int = 3) -> nn.Module:
    torch.manual_seed(classes)
    body = {"conv": nn.Conv2d(channels, 8, 3), "norm": nn.BatchNorm2d(8), "fc": nn.Linear(8, classes)}
    model = nn.Module()
    for name, module in body.items():
        model.add_module(name, module)
    return model


def weights(classes: int = 9, prefix: str = "") -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in network(classes).state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module.", "backbone.", "model.", "state_dict.model."])
def test_prefixes_are_seen_through_and_a_head_of_other_classes_stays_random(prefix):
    model, given = network(), weights(prefix=prefix)
    found = match(model, given, "names", CLASSES)
    assert found.random == ["fc.weight", "fc.bias"] and found.unused == [f"{prefix}fc.weight", f"{prefix}fc.bias"]
    assert all(torch.equal(tensor, given[f"{prefix}{name}"]) for name, tensor in found.filled.items())
    said = found.describe(model.state_dict(), CLASSES)
    assert said.startswith("257 of 302 values filled; 2 tensors left at random, for 5 classes: fc.weight, fc.bias;")
    assert f"2 tensors of the file unused: {prefix}fc.weight" in said


def test_the_same_classes_fill_the_head_too():
    found = match(network(), weights(CLASSES), "names", CLASSES)
    assert not found.random and not found.unused


def test_a_prefix_on_some_of_the_names():
    given = {name if name.startswith("fc") else f"backbone.{name}": tensor for name, tensor in weights().items()}
    assert match(network(), given, "names", CLASSES).random == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize("counters", [True, False])
def test_order_where_names_differ(counters):
    given = {f"layer{index}": tensor for index, tensor in enumerate(weights().values()) if counters or tensor.ndim}
    with pytest.raises(
        ValueError, match=r"only 0 of 257 values .* all shapes fit in their order: add init_match=order"
    ):
        match(network(), given, "names", CLASSES)
    found = match(network(), given, "order", CLASSES)
    assert torch.equal(found.filled["norm.running_mean"], given["layer4"])
    assert [name for name in found.random if "batches" not in name] == ["fc.weight", "fc.bias"]


def test_an_order_that_does_not_fit_is_refused():
    given = {f"layer{index}": tensor for index, tensor in enumerate(reversed(weights().values()))}
    with pytest.raises(ValueError, match="the order of its tensors does not fit"):
        match(network(), given, "order", CLASSES)
    with pytest.raises(ValueError, match="choose the network that it was saved from"):
        match(network(), given, "names", CLASSES)
    with pytest.raises(ValueError, match="it has 1 tensors, this network 8"):
        match(network(), {"a": torch.zeros(2)}, "order", CLASSES)


def test_a_file_that_fits_less_than_half_is_refused():
    given = {name: tensor for name, tensor in weights().items() if name != "conv.weight"}
    with pytest.raises(ValueError, match="only 41 of 257 values below the head fit"):
        match(network(), given, "names", CLASSES)


def test_grey_images_take_the_sum_over_colours_and_half_precision_is_widened():
    given = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights().items()}
    found = match(network(channels=1), given, "names", CLASSES).filled["conv.weight"]
    torch.testing.assert_close(found, given["conv.weight"].sum(1, keepdim=True).float())
    assert found.dtype == torch.float32


def test_weights_that_are_not_finite_are_refused_and_change_nothing():
    model, given = network(), weights()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given["conv.weight"][0] = torch.nan
    with pytest.raises(ValueError, match=r"conv\.weight holds inf or NaN"):
        InitialWeights("file", "", given).load_into(model, ["class"] * CLASSES)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

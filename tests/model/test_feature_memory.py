"""Features of a frozen backbone, computed once: the same logits as the whole network, for all that a run does."""

import copy

import pytest
import torch
from torch import nn

from deeptrain.model.feature_memory import FeatureMemory, remember_features, remembers_features
from deeptrain.model.freezing import backbone, freeze

IMAGES = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Network(nn.Module):
    """Convolution, pooling, perhaps dropout, and a head. It counts its forward passes."""

    def __init__(self, tail: list[nn.Module], scale: float = 1.0):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.tail, self.scale, self.passes = nn.Sequential(*tail), scale, 0

    def forward(self, images):
        self.passes += 1
        return self.tail(self.stem(images).mean((2, 3))) * self.scale


def network(*tail: nn.Module, **settings) -> Network:
    torch.manual_seed(0)
    model = Network([*tail, nn.Linear(8, 5)], **settings)
    freeze(model, backbone(model, 5))
    return model.train()


def remember(model: nn.Module, max_bytes: int = 10**6) -> bool:
    return remember_features(model, 5, IMAGES[:2], lambda: iter(IMAGES.split(4)), len(IMAGES), max_bytes)


@pytest.mark.parametrize(
    "tail", [[], [nn.Dropout(0.5)], [nn.Dropout(0.5), nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.2)]]
)
def test_a_remembering_network_says_and_learns_what_it_would_have(tail):
    model, other = network(*tail), network(*copy.deepcopy(tail))
    assert remember(model) and remembers_features(model) and not remembers_features(other)
    for training in (True, False):
        for asked in (model.train(training), other.train(training)):
            torch.manual_seed(3)
            asked(IMAGES[[5, 0, 3]]).square().sum().backward()
    for name, parameter in other.named_parameters():
        gradient = model.get_parameter(name).grad
        assert (gradient is None) == (parameter.grad is None), name
        if parameter.grad is not None:
            torch.testing.assert_close(gradient, parameter.grad, rtol=1e-5, atol=1e-6)
    assert same_state(model, other)


def same_state(one: nn.Module, other: nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][name], value) for name, value in states[1].items())


def test_training_images_go_through_the_backbone_once_and_those_of_an_evaluation_too():
    model, val = network(), torch.randn(3, 3, 8, 8)
    assert remember(model)
    passes = model.passes
    for _ in range(3):
        model.train()(IMAGES[[2, 4]])
        model.eval()(val)
    assert model.passes == passes + 2 + 1, "two batches fill it, one is the evaluation's"
    assert torch.equal(model(val), Network.forward(model, val)), "the same batch has the same bits"


def test_bits_do_not_depend_on_what_was_asked_first():
    """So that a resumed run goes on as if it had never stopped."""
    one, other = network(), network()
    assert remember(one) and remember(other)
    with torch.inference_mode():
        other.eval()(IMAGES[:1])
    one(IMAGES[[1, 3, 5]])
    assert torch.equal(one.train()(IMAGES), other.train()(IMAGES))
    other(IMAGES).sum().backward()  # what an evaluation has found can be learned from


def test_other_images_other_weights_and_looks_at_layers_go_through_the_whole_network():
    model = network()
    assert remember(model)
    model(IMAGES)
    assert torch.equal(model(-IMAGES), Network.forward(model, -IMAGES))
    state = {name: 2 * value for name, value in model.state_dict().items()}
    model.load_state_dict(state)
    torch.testing.assert_close(model(IMAGES), Network.forward(model, IMAGES))
    seen = []
    hook = model.stem.register_forward_hook(lambda *_: seen.append(1))
    model(IMAGES)
    hook.remove()
    assert seen


def test_a_copy_has_a_head_of_its_own():
    model = network()
    assert remember(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.get_parameter("tail.0.weight").zero_()
    assert not torch.equal(model(IMAGES), other(IMAGES))


class FunctionalDropout(Network):
    def forward(self, images):
        return super().forward(nn.functional.dropout(images, 0.5, self.training))


@pytest.mark.parametrize("case", ["scaled after the head", "random below", "no head", "no room"])
def test_a_network_that_is_more_than_a_backbone_and_a_head_is_left_alone(case):
    model = network(scale=2.0 if case == "scaled after the head" else 1.0)
    if case == "random below":
        model.__class__ = FunctionalDropout
    room = 6 * 8 * 4 - 1 if case == "no room" else 10**6
    classes = 7 if case == "no head" else 5
    assert not remember_features(model, classes, IMAGES[:2], lambda: iter([IMAGES]), len(IMAGES), room)
    assert not remembers_features(model) and model.training and "forward" not in model.__dict__


def test_no_more_is_kept_than_there_is_room_for():
    memory = FeatureMemory(["tail.0"], lambda: [IMAGES], max_bytes=3 * 8 * 4)
    model = network()
    memory.forward(model.eval(), IMAGES)
    assert len(memory.features) == 3

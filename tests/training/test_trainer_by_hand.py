"""A Trainer made in Python has the protections of a run: no piece of one image, no unsettled batch norm."""

import re

import pytest
import torch

from deeptrain import Pipeline, Plan, Trainer, Validator, tensor_loader
from deeptrain.data.dataset import Samples
from deeptrain.data.loader import StreamLoader

IMAGES = torch.randint(0, 256, (100, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(100) % 2


def stream(images, labels, batch_size):
    samples = Samples(images.permute(0, 2, 3, 1).numpy(), None, labels.numpy())
    return StreamLoader(samples, batch_size, torch.device("cpu"), train=True)


def make(norm=torch.nn.BatchNorm1d, loader=tensor_loader, epochs=2, **settings):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 8), norm(8), torch.nn.ReLU())
    model.append(torch.nn.Linear(8, 2))
    optimizer, pipeline = torch.optim.SGD(model.parameters(), lr=0.1), Pipeline([], [128.0], [64.0])
    val = tensor_loader(IMAGES[83:], LABELS[83:], 8, train=False)
    train = loader(IMAGES[:83], LABELS[:83], 8)
    return Trainer(
        model, optimizer, pipeline, train, Validator(model, val, pipeline), plan=Plan(epochs=epochs), **settings
    )


@pytest.mark.parametrize("accumulate", [2, 3, 7, 8])
def test_no_piece_of_one_image_for_a_batch_norm(accumulate):
    trainer = make(accumulate=accumulate)  # BatchNorm1d refuses a single image
    assert trainer.min_images == 2
    trainer.fit()
    assert trainer.history[-1]["epoch"] == 2


def test_other_networks_and_an_own_choice_keep_their_pieces():
    assert make(norm=torch.nn.LayerNorm).min_images == 1
    assert make(min_images=4).min_images == 4


@pytest.mark.parametrize("loader", [tensor_loader, stream])
def test_batch_norms_are_measured_for_early_validations_and_the_training_keeps_its_bits(loader, monkeypatch):
    trainer = make(loader=loader)
    trainer.fit()
    monkeypatch.setattr("deeptrain.training.validation.remembers_start", lambda model: False)
    plain = make(loader=loader)
    plain.fit()
    assert trainer.history[0]["loss/val"] != plain.history[0]["loss/val"]
    ours, theirs = trainer.model.state_dict(), plain.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("norm", [torch.nn.LayerNorm, torch.nn.Identity])
def test_nothing_is_measured_where_nothing_remembers_its_start(norm):
    assert make(norm=norm).validator.bn_loader is None


@pytest.mark.parametrize("loader", [tensor_loader, stream])
def test_the_first_images_are_those_of_the_first_batches(loader):
    whole = loader(IMAGES, LABELS, 8)
    first = whole.first_images(20)
    assert first.sizes == [8, 8, 8] and first.num_images == 24 and len(whole.sizes) == 13
    ours, theirs = list(first.epoch(3)), list(whole.epoch(3))
    assert len(ours) == 3 and len(theirs) == 13
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(ours, theirs, strict=False))
    first.close()
    assert len(list(whole.epoch(0))) == 13


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accumulate": 0}, "accumulate=0: must be >= 1"),
        ({"clip_norm": -1.0}, "clip_norm=-1.0: must be > 0"),
        ({"max_norm": float("nan")}, "max_norm=nan: must be a number > 0"),
        ({"seed": -1}, "seed=-1: must be >= 0"),
        ({"epochs": 0}, "epochs=0: must be >= 1"),
        ({"epochs": 2.5}, "epochs=2.5: must be a whole number"),
    ],
)
def test_a_setting_out_of_its_range_is_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(**settings)


def test_an_optimizer_that_cannot_change_the_model_is_refused():
    trainer = make()
    parts = trainer.pipeline, trainer.train_loader, trainer.validator
    stranger = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.1)
    with pytest.raises(ValueError, match="optimizer: holds no parameter of the model"):
        Trainer(trainer.model, stranger, *parts)
    trainer.model.requires_grad_(False)
    with pytest.raises(ValueError, match="model: none of its parameters learns"):
        Trainer(trainer.model, trainer.optimizer, *parts)
    trainer.model[1].bias.requires_grad_(True)
    Trainer(trainer.model, trainer.optimizer, *parts)

"""Every operation against torchvision's, image by image and bit by bit, on batches with all of them."""

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate
from torchvision.transforms import InterpolationMode
from torchvision.transforms.autoaugment import RandAugment, TrivialAugmentWide, _apply_op

from deeptrain.aug.operations import OPERATION_NAMES, SIGNED_NAMES, Operations, magnitude_table

BINS = 31
SHAPES = [(3, 32, 32), (3, 24, 40), (1, 32, 32), (1, 24, 40)]
ODD_SHAPES = [(3, 33, 47), (3, 5, 7), (3, 2, 9), (3, 9, 2), (1, 1, 1)]


def narrow(shape):
    """Return RandAugment's magnitudes for images of a shape: ours, and torchvision's by name."""
    _, height, width = shape
    translate = (150 / 331 * width, 150 / 331 * height)
    ours = magnitude_table(BINS, shear=0.3, translate=translate, rotate=30, blend=0.9, posterize=4)
    return ours, RandAugment()._augmentation_space(BINS, (height, width))


def wide(shape):
    ours = magnitude_table(BINS, shear=0.99, translate=(32, 32), rotate=135, blend=0.99, posterize=6)
    return ours, TrivialAugmentWide()._augmentation_space(BINS)


def pictures(count, shape, seed=0):
    """Make noise, smooth images, few levels and one level in turn: uint8 channels_last."""
    rng = torch.Generator().manual_seed(seed)
    channels, height, width = shape
    noise = torch.randint(256, (count, *shape), generator=rng).to(torch.uint8)
    coarse = torch.randint(256, (count, channels, 4, 4), generator=rng).float()
    smooth = interpolate(coarse, (height, width), mode="bilinear").to(torch.uint8)
    kinds = [noise, smooth, noise // 100 * 50, noise[:, :, :1, :1].expand(-1, -1, height, width)]
    turn = torch.arange(count) % len(kinds)
    return torch.stack(kinds, 1)[torch.arange(count), turn].contiguous(memory_format=torch.channels_last)


def one_by_one(images, choices):
    pairs = zip(images, choices, strict=True)
    return torch.stack([_apply_op(image, *choice, InterpolationMode.NEAREST, None) for image, choice in pairs])


def assert_same_as_torchvision(shape, table, device, repeats=1):
    operations = Operations(shape, table)
    choices = np.tile(np.arange(len(operations.choices)), repeats)
    np.random.default_rng(0).shuffle(choices)
    images = pictures(len(choices), shape)
    before = images.clone()
    found = operations(images.to(device), choices)
    assert found.dtype == torch.uint8 and found.is_contiguous(memory_format=torch.channels_last)
    expected = one_by_one(images, [operations.choices[choice] for choice in choices])
    differs = (found.cpu() != expected).flatten(1).any(1).numpy()
    assert not differs.any(), {operations.choices[choice] for choice in choices[differs]}
    assert torch.equal(images, before)


@pytest.mark.parametrize("ranges", [narrow, wide])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_operation_at_every_magnitude_and_sign_is_torchvisions(device, shape, ranges):
    assert_same_as_torchvision(shape, ranges(shape)[0], device, repeats=4)


@pytest.mark.parametrize("shape", ODD_SHAPES)
def test_odd_sizes_too(device, shape):
    assert_same_as_torchvision(shape, narrow(shape)[0], device)


@pytest.mark.parametrize("ranges", [narrow, wide])
@pytest.mark.parametrize("shape", SHAPES)
def test_operations_and_magnitudes_are_torchvisions(shape, ranges):
    ours, theirs = ranges(shape)
    assert tuple(theirs) == OPERATION_NAMES
    assert {name for name, (_, signed) in theirs.items() if signed} == set(SIGNED_NAMES)
    assert {name: values.tolist() for name, (values, _) in theirs.items() if values.ndim} == ours


def test_the_fourteen_of_the_lecture():
    names = "Identity, AutoContrast, Equalize, Rotate, Solarize, Color, Posterize, Contrast, Brightness, Sharpness, "
    names += "ShearX, ShearY, TranslateX, TranslateY"
    assert set(OPERATION_NAMES) == set(names.split(", ")) and len(OPERATION_NAMES) == 14


@pytest.mark.parametrize("name", OPERATION_NAMES)
def test_a_batch_of_one_operation_and_of_one_image(device, name):
    shape = (3, 32, 32)
    operations = Operations(shape, narrow(shape)[0])
    choice = next(
        index
        for index, (other, magnitude) in enumerate(operations.choices)
        if other == name and (magnitude or name not in SIGNED_NAMES)
    )
    for count in (1, 7):
        images = pictures(count, shape, seed=count)
        found = operations(images.to(device), np.full(count, choice))
        assert torch.equal(found.cpu(), one_by_one(images, [operations.choices[choice]] * count))


def test_rounds_follow_one_another(device):
    shape = (3, 16, 12)
    operations, rng = Operations(shape, narrow(shape)[0]), np.random.default_rng(0)
    images, rounds = pictures(101, shape), [operations.sample(101, rng) for _ in range(3)]
    found, expected = operations(images.to(device), *rounds), images
    for choices in rounds:
        expected = one_by_one(expected, [operations.choices[choice] for choice in choices])
    assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_numbers_are_rounded_to_bytes(device, layout):
    shape = (3, 8, 8)
    operations, images = Operations(shape, narrow(shape)[0]), pictures(40, shape).to(device)
    choices = operations.sample(40, np.random.default_rng(0))
    near = (images + torch.empty(images.shape, device=device).uniform_(-0.49, 0.49)).clamp(0, 255)
    assert torch.equal(operations(near.contiguous(memory_format=layout), choices), operations(images, choices))


def test_choices_in_words():
    operations = Operations((3, 32, 32), {name: values[9:10] for name, values in narrow((3, 32, 32))[0].items()})
    assert [operations.describe(choice) for choice in range(len(operations.choices))] == [
        *("Identity", "ShearX 0.09", "ShearX -0.09", "ShearY 0.09", "ShearY -0.09", "TranslateX 4", "TranslateX -4"),
        *("TranslateY 4", "TranslateY -4", "Rotate 9", "Rotate -9", "Brightness 0.27", "Brightness -0.27"),
        *("Color 0.27", "Color -0.27", "Contrast 0.27", "Contrast -0.27", "Sharpness 0.27", "Sharpness -0.27"),
        *("Posterize 7", "Solarize 178.5", "AutoContrast", "Equalize"),
    ]

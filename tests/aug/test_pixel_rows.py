"""Images as pixel rows: views, constants along a row, uniform and clipped boxes, pasting bit for bit."""

import numpy as np
import pytest
import torch
from scipy import stats

from deeptrain.aug.pixel_rows import (
    box_masks,
    pad,
    paste,
    pixel_rows,
    sample_boxes,
    scatter,
    select,
    tile_channels,
    windows,
)


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (2, 1, 8, 8), (1, 3, 1, 1), (4, 3, 6, 1)])
def test_pixel_rows_share_memory_and_order(device, shape):
    images = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)
    view = pixel_rows(images)
    assert view.data_ptr() == images.data_ptr()
    for n, c, y, x in np.ndindex(shape):
        assert view[n, y, x * shape[1] + c] == images[n, c, y, x]


def test_constants_along_a_row(device):
    row = tile_channels((1.4, 2.6), 3, torch.uint8, device)
    assert row.tolist() == [1, 3, 1, 3, 1, 3] and row.device.type == device.type
    row = tile_channels((1.4, 2.6), 2, torch.float32, device)
    torch.testing.assert_close(row.cpu(), torch.tensor([1.4, 2.6, 1.4, 2.6]))


@pytest.mark.parametrize("side", [1, 4, 5, 12])
def test_boxes_have_their_centre_on_any_pixel_and_are_clipped(side):
    """All pixels are equally often the centre. top = centre - side // 2, clipped at 0 and H."""
    height, width = 12, 9
    boxes = sample_boxes(np.random.default_rng(0), 20_000, (height, width), (side, side))
    for start, end, extent in ((boxes[:, 0], boxes[:, 1], height), (boxes[:, 2], boxes[:, 3], width)):
        expected = np.zeros((extent + 1, extent + 1))
        for centre in range(extent):
            top = centre - side // 2
            expected[max(top, 0), min(top + side, extent)] += 1 / extent
        found = np.histogram2d(start, end, bins=[range(extent + 2)] * 2)[0]
        possible = expected > 0
        assert found[~possible].sum() == 0
        if possible.sum() > 1:
            assert stats.chisquare(found[possible], expected[possible] * len(boxes)).pvalue > 1e-3
    assert stats.spearmanr(boxes[:, 0], boxes[:, 2]).pvalue > 1e-3, "rows and columns are independent"


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("shape", [(16, 3, 5, 7), (16, 1, 8, 8)])
def test_pasting_equals_slicing(device, dtype, shape):
    generator = torch.Generator().manual_seed(0)
    own, other = (
        (255 * torch.rand(shape, generator=generator)).to(device, dtype).contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )
    boxes = sample_boxes(np.random.default_rng(0), shape[0], shape[2:], (4, 3))
    expected = own.clone()
    for image, (top, bottom, left, right) in enumerate(boxes):
        expected[image, :, top:bottom, left:right] = other[image, :, top:bottom, left:right]
    found = torch.empty_like(own)
    paste(pixel_rows(own), pixel_rows(other), *box_masks(boxes, own), out=pixel_rows(found))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("border", ["zero", "reflect"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("shape", "padding"), [((3, 3, 5, 7), 2), ((2, 1, 4, 4), 3), ((1, 3, 6, 3), 1)])
def test_padding_equals_numpys(device, border, dtype, shape, padding):
    images = torch.randint(256, shape, device=device).to(dtype)
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    expected = np.pad(images.permute(0, 2, 3, 1).cpu().numpy(), pads, "reflect" if border == "reflect" else "constant")
    assert np.array_equal(pad(images, padding, border).cpu().numpy(), expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_windows_equal_slices(device, dtype):
    padded = torch.randint(256, (20, 9, 11, 3), device=device).to(dtype)
    rng = np.random.default_rng(0)
    down, across = rng.integers(0, 5, 20), rng.integers(0, 4, 20)
    found = windows(padded, down, across, (5, 8))
    assert found.is_contiguous(memory_format=torch.channels_last)
    for image, source, top, left in zip(found, padded, down, across, strict=True):
        assert torch.equal(image, source[top : top + 5, left : left + 8].permute(2, 0, 1))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_select_and_scatter(device, dtype, layout):
    images = torch.randint(256, (9, 3, 4, 5), device=device, dtype=torch.uint8).contiguous(memory_format=layout)
    expected, index = images.clone(), np.array([1, 4, 8])
    selection = select(images, index)
    assert torch.equal(selection, images[index]) and selection.is_contiguous(memory_format=torch.channels_last)
    result = scatter(images, index, (255 - selection).to(dtype))
    assert result.dtype == dtype and result.is_contiguous(memory_format=torch.channels_last)
    expected[index] = 255 - expected[index]
    assert torch.equal(result, expected.to(dtype))

"""Pictures before training: the images that training will see, from the same draws, and every augmentation there is."""

import numpy as np
import pytest
import torch

from deeptrain import build
from deeptrain.analysis import preview
from deeptrain.config.compose import compose_run
from deeptrain.config.options import options
from deeptrain.runtime.random import generator

SMALL = ["data=synthetic", "data.shape=[3,16,16]", "data.size=100", "batch_size=20", "model=fcn", "model.hidden=[8]"]
RECIPE = ["data.crop_padding=2", "data.flip=true", "aug=[flip,color_jitter,cutmix]", "aug.flip.probability=0.5"]


@pytest.fixture
def drawn(monkeypatch) -> list:
    """Collect what is handed to the sheet: images, captions, titles."""
    sheets = []

    def grid(images, captions, columns, cell, titles=()):
        sheets.append((images, captions, titles))
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr(preview, "grid", grid)
    return sheets


@pytest.mark.parametrize("loader", ["resident", "stream"])
def test_the_sheet_shows_what_the_step_will_see(drawn, loader):
    """Row by row: images as they are stored, and below them what train_step makes of them in the same step."""
    setup = build.open_setup(compose_run([*SMALL, *RECIPE, f"data.loader={loader}", "workers=0"]))
    batches = build.train_loader(setup)
    preview.training_samples(setup, batches, epoch=1, step=2)
    ((sheet, captions, titles),) = drawn
    assert titles == ("as stored", "as trained on\nmixed with\nthe one before") * 2
    assert len(sheet) == len(captions) == 2 * preview.SHOWN
    shown = np.concatenate([sheet[8:16], sheet[24:32]])
    images, targets = list(batches.epoch(1))[2]
    seen, targets = setup.pipeline.augment(images, targets, generator(0, "augment", 1, 2))
    assert np.array_equal(shown, seen[:16].round().byte().permute(0, 2, 3, 1).numpy())
    stored = {image.tobytes() for image in np.asarray(setup.dataset.train.images)}
    originals = np.concatenate([sheet[:8], sheet[16:24]])
    assert all(image.tobytes() in stored for image in originals)
    assert "brightness" in captions[8] and "brightness" not in captions[0]
    assert sum("flipped" in caption for caption in captions) in range(1, 12), "half of a half"
    assert any(" · " in caption.partition("\\n")[0] for caption in captions[8:16]), "mixed targets are written"


@pytest.mark.parametrize(("size", "columns", "pairs"), [(1, 1, 1), (5, 5, 1), (8, 8, 1), (9, 4, 2), (10, 5, 2)])
def test_the_rows_of_a_short_batch_are_aligned(drawn, size, columns, pairs):
    """An image lies above what was made of it: without augmentation the two are equal."""
    setup = build.open_setup(compose_run([*SMALL, "data.crop_padding=0", "data.flip=false", f"batch_size={size}"]))
    preview.training_samples(setup, build.train_loader(setup), step=1)
    ((sheet, captions, titles),) = drawn
    assert len(sheet) == len(captions) == 2 * columns * pairs and len(titles) == 2 * pairs
    for row in range(0, len(sheet), 2 * columns):
        assert np.array_equal(sheet[row : row + columns], sheet[row + columns : row + 2 * columns])
        assert captions[row : row + columns] == captions[row + columns : row + 2 * columns]


def test_the_shelf_has_a_row_for_every_augmentation(drawn, tmp_path):
    preview.draw_regularizers(compose_run([*SMALL, "aug=mixup"]), tmp_path / "shelf.png")
    ((sheet, captions, titles),) = drawn
    names, added = zip(*(title.split("\n", 1) if "\n" in title else (title, "") for title in titles), strict=True)
    assert list(names) == ["as it is", *(name for name in options("aug") if name not in ("none", "off"))]
    assert [name for name, more in zip(names, added, strict=True) if more] == ["cutmix", "mixup", "mixup_or_cutmix"]
    assert len(sheet) == len(captions) == len(titles) * preview.COLUMNS
    rows = torch.from_numpy(sheet).split(preview.COLUMNS)
    for title, row in zip(titles[1:], rows[1:], strict=True):
        assert not torch.equal(row, rows[0]), f"{title} changes something"


def test_both_sheets_are_drawn(tmp_path):
    run = compose_run([*SMALL, *RECIPE])
    assert preview.draw_batch(run, tmp_path / "batch.png") == [
        "aug=flip mirrors again what data=synthetic has mirrored: set data.flip=false, or leave it out"
    ]
    preview.draw_regularizers(run, tmp_path / "shelf.png")
    assert {path.name for path in tmp_path.iterdir()} == {"batch.png", "shelf.png"}

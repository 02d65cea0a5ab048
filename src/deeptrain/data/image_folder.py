"""Your own images in folders: <class>/<image>, or train/, val/ and test/ with class folders inside."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deeptrain.data.dataset import HELD_OUT, Dataset, Samples
from deeptrain.data.folder_layout import read_layout
from deeptrain.data.image_files import FileLayout, ImageFiles
from deeptrain.data.path_messages import name_heif_reader
from deeptrain.data.split_folders import EXPECTED_LAYOUT
from deeptrain.schema import validate_call


@validate_call
@dataclass
class ImageFolder(ImageFiles):
    """Images in class folders. All splits share the class names of train. The test split is never used for val.

    A resume gives the classes that its run has learned, which keep their order. An evaluation gives the input shape
    too. Then test/ is enough, and with all_is_test so are class folders.
    """

    root: str = "data"
    learned_classes: list[str] | None = None
    input_shape: list[int] | None = None  # (C, H, W)
    all_is_test: bool = False

    name = "image_folder"

    def __post_init__(self):
        super().__post_init__()
        if "train" not in self.layout.splits and self.input_shape and self.decoder is None:
            channels, height, width = self.input_shape
            self.channels = 1 if channels == 1 else 3
            self.image_size = height if height == width else None  # pictures of one oblong size keep it

    def read_layout(self) -> FileLayout:
        try:
            root = self.read_path("root")
            if self.root == "data" and not root.exists():
                raise ValueError(f"is the default, and does not exist here; write data.root=FOLDER ({EXPECTED_LAYOUT})")
            layout = read_layout(root, learned_classes=self.learned_classes, all_is_test=self.all_is_test)
            if "train" not in layout.splits and not self.input_shape:
                raise ValueError(f"has test/ but no train/; {EXPECTED_LAYOUT}")
            return layout
        except ValueError as error:
            raise ValueError(name_heif_reader(f"root={self.root}: {error}")) from error

    def load(self, cache_dir: Path | str | None = None) -> Dataset:
        """Return train and val; where an evaluation has test/ alone, test for both, without statistics of its own."""
        if "train" in self.layout.splits:
            return super().load(cache_dir)
        test = self.test(cache_dir)
        zeros, ones = np.zeros(test.shape[0]), np.ones(test.shape[0])
        summary = f"{self.name}: {len(self.layout.classes)} classes, test {len(test):,} alone"
        facts = {"split": {}, "decoder": self._choose_decoder(cache_dir)[0]}
        return Dataset(self.name, self.layout.classes, test.shape, test, test, zeros, ones, summary, "", **facts)

    def test(self, cache_dir: Path | str | None = None) -> Samples:
        if not self.has_test():
            others = "or data.root=DIR split=all for all pictures of a folder that it has not seen"
            raise ValueError(f"root={self.root}: has no test/ folder; add {HELD_OUT}, {others}")
        return super().test(cache_dir)

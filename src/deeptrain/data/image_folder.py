"""Your own images in folders: <class>/<image>, or train/, val/ and test/ with class folders inside."""

from dataclasses import dataclass
from pathlib import Path

from deeptrain.data.dataset import Samples
from deeptrain.data.folder_layout import read_layout
from deeptrain.data.image_files import FileLayout, ImageFiles
from deeptrain.data.path_messages import name_heif_reader, printable
from deeptrain.schema import validate_call


@validate_call
@dataclass
class ImageFolder(ImageFiles):
    """Images in class folders. All splits share the class names of train. The test split is never used for val."""

    root: str = "data"

    name = "image_folder"

    def read_layout(self) -> FileLayout:
        try:
            return read_layout(Path(self.root).expanduser())
        except OSError as error:
            path = printable(error.filename or self.root)
            raise ValueError(f"root={self.root}: {path} cannot be read ({error.strerror}); make it readable") from error
        except ValueError as error:
            raise ValueError(name_heif_reader(f"root={self.root}: {error}")) from error

    def test(self, cache_dir: Path | str | None = None) -> Samples:
        if "test" not in self.layout.splits:
            raise ValueError(f"root={self.root}: has no test/ folder, so there is no test split to open")
        return super().test(cache_dir)

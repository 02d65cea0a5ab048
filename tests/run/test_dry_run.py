"""What needs no torch is found before it is imported."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

SCRIPT = """
import sys
from deeptrain.config.compose import compose_run
from deeptrain.errors import UsageError
from deeptrain.run.dry_run import check_test_split
for words in (["data=synthetic"], ["data=npz", "data.file=with.npz"], ["data=image_folder", "data.root=only_test"]):
    check_test_split(compose_run(words))
for words in (["data=npz", "data.file=without.npz"], ["data=csv", "data.file=list.csv"]):
    try:
        check_test_split(compose_run(words))
    except UsageError as error:
        print(error)
assert "torch" not in sys.modules
"""


@pytest.fixture
def sources(tmp_path):
    images, labels = np.zeros((8, 8, 8), np.uint8), np.arange(8) % 2
    np.savez(tmp_path / "without.npz", images=images, labels=labels)
    np.savez(tmp_path / "with.npz", images=images, labels=labels, test_images=images, test_labels=labels)
    for name in ("a", "b"):
        folder = tmp_path / "only_test" / "test" / name
        folder.mkdir(parents=True)
        Image.fromarray(images[0]).save(folder / "0.png")
    (tmp_path / "list.csv").write_text("only_test/test/a/0.png,a\nonly_test/test/b/0.png,b\n")
    return tmp_path


def test_data_without_a_test_split_are_refused_without_torch(sources):
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=sources, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    remedy = "has no test split; add split=val for the images that the run has held out"
    assert done.stdout.splitlines() == [f"data=npz: {remedy}", f"data=csv: {remedy}"]

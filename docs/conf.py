"""The docs site: uv run --group docs sphinx-build -W --keep-going -b html docs OUT."""

import shutil
from importlib.metadata import version as installed
from pathlib import Path

DOCS = Path(__file__).parent
EXAMPLES, COPIES = DOCS.parent / "examples", DOCS / "_examples"  # Sphinx reads only what lies below docs/

project = "deeptrain"
author = copyright = "The deeptrain authors"
version = release = installed("deeptrain")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"deeptrain {version}"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True  # one box for all that a cell prints

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"


def copy_examples(app) -> None:
    """Copy the notebooks of examples/ to docs/_examples, which git ignores, and write the page that lists them."""
    shutil.rmtree(COPIES, ignore_errors=True)
    COPIES.mkdir()
    notebooks = sorted(EXAMPLES.glob("*.ipynb"))
    for notebook in notebooks:
        shutil.copy(notebook, COPIES)
    names = "\n".join(notebook.stem for notebook in notebooks)
    listing = f":::{{toctree}}\n:maxdepth: 1\n\n{names}\n:::" if names else "There are none yet."
    (COPIES / "index.md").write_text(f"# Examples\n\n{listing}\n")


def setup(app) -> None:
    app.connect("builder-inited", copy_examples)  # before Sphinx looks for sources

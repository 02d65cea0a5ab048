"""diagnosis.html: what a diagnosis has found, on one page that needs nothing but itself."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deeptrain.report.rate_search import draw_rate_search

QUESTIONS = {
    "start": "Do images, labels, outputs and the first loss look as they should?",
    "memorise": "Can the network learn a few images by heart? One that cannot has no chance with all of them.",
    "rate": "Which learning rate makes the loss fall fastest, and is the run's own rate as good?",
}
HOW = {
    "start": "Nothing is trained. The loss is compared with that of guessing. Gradients show whether the loss rewards "
    "right answers, and whether an output depends on other images of its batch.",
    "memorise": "Regularization is off; rate and schedule are the run's own. Where it fails, the rate and other "
    "settings are changed one at a time, from the same weights.",
    "rate": "A range test, then short runs from the same weights on the same batches, each with its rate annealed to "
    "zero. Their losses on images of train and val are compared in pairs.",
}


def write_page(folder: Path, content: Mapping[str, Any], title: str) -> Path:
    """Write diagnosis.html, and the picture of the search for the rate, from what diagnosis.json holds."""
    import jinja2

    picture = None
    if content["find_lr"] is not None:
        draw_rate_search(content["find_lr"], folder / "find_lr.png", title)
        picture = "data:image/png;base64," + base64.b64encode((folder / "find_lr.png").read_bytes()).decode()
    setting = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    taken = [step["name"] for step in content["steps"]]
    page = setting.get_template("diagnosis.html.jinja").render(
        content=content,
        title=title,
        questions=QUESTIONS,
        how=HOW,
        missed=[name for name in QUESTIONS if name not in taken],
        picture=picture,
    )
    path = folder / "diagnosis.html"
    path.write_text(page, encoding="utf-8")
    return path

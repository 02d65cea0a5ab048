"""diagnosis.html: what a diagnosis has found, on one page that needs nothing but itself."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deeptrain.report.diagnosis_figures import draw_grid, draw_mended
from deeptrain.report.figures import draw_curves, draw_layers
from deeptrain.report.formatting import format_loss, percent
from deeptrain.report.rate_search import draw_rate_search

QUESTIONS = {
    "start": "Do images, labels, outputs and the first loss look as they should?",
    "memorise": "Can the network learn a few images by heart? One that cannot has no chance with all of them.",
    "rate": "Which learning rate makes the loss fall fastest, and is the run's own rate as good?",
    "grid": "Which learning rate goes with which weight decay?",
    "refine": "Is the best of these better than the run as it was typed?",
    "curves": "What do the curves of the chosen run show, and does it use the pictures?",
    "next": "What would make it better?",
}
HOW = {
    "start": "Nothing is trained. The loss is compared with that of guessing. Gradients show whether the loss rewards "
    "right answers, and whether an output depends on other images of its batch.",
    "memorise": "Regularization is off; rate and schedule are the run's own. Where it fails, the rate and other "
    "settings are changed one at a time, from the same weights. What helps is then tried in the run itself.",
    "rate": "A range test, then short runs from the same weights on the same batches. Each anneals its rate to zero. "
    "Their losses on images of train and val are compared in pairs. A remedy is then tried in the run itself.",
    "grid": "Short runs, each with its rate annealed to zero. Of those whose accuracy is within the noise of the best, "
    "the one of the lowest loss is refined. Where a decay changes too little to be seen, there is no run.",
    "refine": "Runs with the schedule that was typed, at rates half as far apart. Accuracies on val are compared image "
    "by image.",
    "curves": "A straight line is fitted to the same images. The network also answers grey pictures, and some whose "
    "pixels are in another order: there it must know less.",
    "next": "Each piece of advice is tried in a run from the same weights on the same batches. Only what is better "
    "beyond the noise is told.",
}
ALT = {
    "mended": "accuracy on val of the run as it was typed and with the changes that were tried, over steps",
    "find_lr": "loss of the range test and of the short runs, by learning rate",
    "grid": "accuracy on val of the short runs, by learning rate and weight decay",
    "curves": "loss and accuracy of the chosen run",
    "layers": "outputs, silent units, gradients and updates of each layer, before and after",
}
PLACES = {"find_lr": "rate", "grid": "grid", "curves": "curves", "layers": "curves"}  # the step that shows a picture


def write_page(folder: Path, content: Mapping[str, Any], title: str) -> Path:
    """Write diagnosis.html, and its pictures, from what diagnosis.json holds."""
    import jinja2

    setting = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    failed = [step["name"] for step in content["steps"] if step["status"] == "failed"]
    places = PLACES | dict.fromkeys(["mended", "layers"], failed[0]) if failed else PLACES
    pictures = {name: _as_url(path) for name, path in draw_pictures(folder, content, title).items()}
    taken = [step["name"] for step in content["steps"]]
    page = setting.get_template("diagnosis.html.jinja").render(
        content=content,
        title=title,
        questions=QUESTIONS,
        how=HOW,
        missed=[f"{number} {name}" for number, name in enumerate(QUESTIONS, start=1) if name not in taken],
        tried={step["name"]: _tried(step) for step in content["steps"]},
        pictures={step: [(pictures[n], ALT[n]) for n in pictures if places[n] == step] for step in QUESTIONS},
        refined=content.get("refined", []),
    )
    path = folder / "diagnosis.html"
    path.write_text(page, encoding="utf-8")
    return path


def _tried(step: Mapping[str, Any]) -> list[list[str]]:
    """Return a table, its head first, of the changes that a failed step has tried; [] if none."""
    measured = step["measured"]
    if step["status"] != "failed" or not isinstance(measured, Mapping):
        return []
    if step["name"] == "memorise":
        attempts = [measured["own"], measured["at_found"], *measured["others"]]
        rows = [_attempt(attempt) for attempt in attempts if attempt is not None]
        return [["change", "evaluation", "training", "steps"], *rows]
    if step["name"] == "rate":
        own = [["as typed", _loss(measured["own_loss"])]] if measured["own"] is not None else []
        rows = [
            ["the best rate", _loss(measured["loss"])],
            *([change, _loss(loss)] for change, loss in measured["changes"]),
        ]
        return [["short runs", "loss"], ["guessing", _loss(measured["guess"])], *own, *rows]
    return []


def _attempt(attempt: Mapping[str, Any]) -> list[str]:
    shares = [percent(attempt[key]) for key in ("eval_accuracy", "train_accuracy")] if attempt["steps"] else ["", ""]
    return [
        attempt["change"] or "as typed",
        *shares,
        f"{attempt['steps']:,}" if attempt["steps"] else "does not go with it",
    ]


def _loss(value: float | None) -> str:
    return "not finite" if value is None else format_loss(value)


def draw_pictures(folder: Path, content: Mapping[str, Any], title: str) -> dict[str, Path]:
    """Draw into a folder what was measured; return the files by name."""
    names = {"find_lr": content.get("find_lr"), "grid": content.get("grid")}
    names |= {"mended": content.get("mended"), "curves": content.get("rows"), "layers": content.get("layers")}
    paths = {name: folder / f"{name}.png" for name, what in names.items() if what}
    if "find_lr" in paths:
        draw_rate_search(content["find_lr"], paths["find_lr"], title)
    if "grid" in paths:
        draw_grid(content["grid"], paths["grid"], title)
    if "mended" in paths:
        draw_mended(content["mended"], paths["mended"], title)
    if "curves" in paths:
        draw_curves(content["rows"], paths["curves"], title, initial_loss=content["initial_loss"] or None)
    if "layers" in paths:
        draw_layers(content["layers"], paths["layers"], title, content.get("layers_as_typed", ()))
    return paths


def _as_url(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()

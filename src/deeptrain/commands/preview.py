"""Draw what a run would see and do: python scripts/preview.py data=cifar10 'aug=[randaugment,cutmix]'"""

from pathlib import Path

from deeptrain.commands.cli import answer
from deeptrain.runtime import terminal
from deeptrain.runtime.garbage import RARELY, collect_every

USAGE = """\
python scripts/preview.py [group=option ...] [key=value ...] [--all]

Takes the settings of python train.py and trains nothing. Writes outputs/preview/batch.png, images of the first training
batch as they are and, below each, as the network would see it, with the (mixed) target and what was drawn for it, and
outputs/preview/schedule.png, the learning rate. With --all also outputs/preview/shelf.png, every augmentation there is.
"""


@collect_every(RARELY)
def preview(arguments: list[str]) -> int:
    """Run the command; return its exit code."""
    return answer(arguments, USAGE, _preview, alone=True)


def _preview(arguments: list[str]) -> int:
    from deeptrain.commands.words import settings_of_a_run
    from deeptrain.config.compose import compose_run
    from deeptrain.run import dry_run

    words = settings_of_a_run([word for word in arguments if word != "--all"], "a preview", ("dir", "resume"))
    run = compose_run(words)
    dry_run.check_settings(run)
    from deeptrain.analysis.preview import draw_batch, draw_rate, draw_regularizers

    folder = Path("outputs") / "preview"
    folder.mkdir(parents=True, exist_ok=True)
    draw_rate(run, folder / "schedule.png")
    terminal.show(f"{folder / 'schedule.png'}")
    for sentence in draw_batch(run, folder / "batch.png"):
        terminal.report(f"warning: {sentence}")
    terminal.show(f"{folder / 'batch.png'}")
    if "--all" in arguments:
        draw_regularizers(run, folder / "shelf.png")
        terminal.show(f"{folder / 'shelf.png'}")
    return 0

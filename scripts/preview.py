"""Draw what a run would see and do: python scripts/preview.py data=cifar10 'aug=[cutout,cutmix]' schedule=cosine"""

import sys
from pathlib import Path

from deeptrain.cli import guarded, split_flags

USAGE = """\
python scripts/preview.py [group=option ...] [key=value ...]

Takes the settings of train.py and trains nothing. Writes outputs/preview/batch.png, the first training batch as the
network would see it with the (mixed) label under each image, and outputs/preview/schedule.png, the learning rate.
"""


def preview(arguments: list[str]) -> int:
    from deeptrain import build
    from deeptrain.config import compose_run

    _, words, searchpath = split_flags(arguments)
    run = compose_run(words, searchpath)
    build.rehearse(run)
    from deeptrain.lab.preview import draw_batch, draw_rate

    folder = Path("outputs") / "preview"
    folder.mkdir(parents=True, exist_ok=True)
    draw_rate(run, folder / "schedule.png")
    print(folder / "schedule.png")
    draw_batch(run, folder / "batch.png")
    print(folder / "batch.png")
    return 0


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv):
        sys.exit(print(USAGE))
    sys.exit(guarded(lambda: preview(sys.argv[1:]), debug="--debug" in sys.argv))

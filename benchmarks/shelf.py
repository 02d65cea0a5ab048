"""What a step of each experiment of the shelf costs, beside the net without the regularizer that it is added to."""

import argparse
from pathlib import Path

import torch
import yaml
from ours import build_trainer, repeatable
from timing import Way, circumstances, measure, median, spread, table

from deeptrain.runtime.resources import ROOT

SHELF = ROOT / "configs" / "experiment" / "shelf"
IMAGES, VALIDATED = 1280, 30  # validated once, at the end, which does not count
DATA = [
    "data=synthetic",  # what a step costs does not depend on what is in the pictures
    "data.shape=[3,32,32]",
    f"data.size={IMAGES + VALIDATED}",
    f"data.val_fraction={VALIDATED / (IMAGES + VALIDATED)}",
    "validate.clean_images=0",
    "device=cpu",
]


def plain(name: str) -> str:
    """Return the experiment that one adds its regularizer to; itself where it adds none."""
    base = Path(yaml.safe_load((SHELF / f"{name}.yaml").read_text())["defaults"][0]).name
    return name if base == "_base" or name.startswith("plain") else base


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps: does it run at all?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("names", nargs="*", help="of the shelf; all of them if none is named")
    options = parser.parse_args(words)
    names = options.names or sorted(path.stem for path in SHELF.glob("[!_]*.yaml"))
    names = list(dict.fromkeys([*map(plain, names), *names]))
    short, long, rounds, warmup = (1, 2, 1, 0) if options.quick else (2, 12, options.rounds, 1)
    print(circumstances("torch", quick=options.quick))
    torch.set_num_threads(options.threads)
    machine = [*DATA, f"threads={options.threads}"]
    trainers = {name: build_trainer([f"experiment=shelf/{name}", *machine]) for name in names}
    timings = measure({name: Way(repeatable(each), short, long) for name, each in trainers.items()}, rounds, warmup)
    rows = []
    for name in names:
        wall, cpu = 1e3 * median(timings[name].steady)
        more = 1e3 * median(timings[name].steady - timings[plain(name)].steady)[1]
        noise = 1e3 * spread(timings[name].steady)[1]
        beside = "" if name == plain(name) else f"{more:+.1f}"
        rows.append([name, plain(name), f"{cpu:.1f}", f"{wall:.1f}", beside, f"± {noise:.1f}"])
    table(["shelf/", "beside", "CPU, ms a step", "wall, ms", "more than beside, ms", "CPU spread"], rows)


if __name__ == "__main__":
    main()

"""What the search for the learning rate is worth: its regret against a grid of 11 rates, beside the rules of others.

Regret is the best validation accuracy of the grid, minus that of the rate taken, in points. The search takes rates of
the same ladder as the grid; the other rules' answers are moved to the nearest rung, and to the grid's ends.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch

from deeptrain import build
from deeptrain.analysis.find_lr import on_ladder
from deeptrain.config.compose import compose_run
from deeptrain.run.found_rate import search, with_rate
from deeptrain.training.nonfinite import NonFiniteError

GRID = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0]
MODELS = {
    "fcn": ["model=fcn"],
    "fcn, 6 layers": ["model=fcn", "model.hidden=[128,128,128,128,128,128]"],
    "rnn": ["model=rnn"],
    "resnet": ["model=resnet", "model.widths=[8,16,32]", "model.blocks=[1,1,1]"],
    "vgg": ["model=vgg", "model.widths=[8,16,32,64]", "model.blocks=[1,1,1,1]", "model.classifier=[64]"],
}
OPTIMIZERS = ("adamw", "sgd")
OTHERS = {
    "linear": ["model=fcn", "model.hidden=[]"],
    "fcn, tanh": ["model=fcn", "model.activation=tanh"],
    "fcn, dropout": ["model=fcn", "model.dropout=0.5"],
    "alexnet": ["model=alexnet", "model.width=0.125"],
    "preact_resnet": ["model=preact_resnet", "model.widths=[8,16,32]", "model.blocks=[1,1,1]"],
}
SECOND = (  # chosen before they were run, when the rule had been made on the models and optimizers above
    "mnist/fcn/rmsprop",
    "cifar10/fcn/adam",
    "mnist/linear/sgd",
    "cifar10/linear/adamw",
    "mnist/fcn, tanh/adamw",
    "cifar10/fcn, dropout/muon",
    "mnist/alexnet/adamw",
    "cifar10/alexnet/sgd",
    "mnist/preact_resnet/sgd",
    "cifar10/preact_resnet/adamw",
)
THIRD = (  # the same, when the rule had been mended on those
    "mnist/rnn/rmsprop",
    "cifar10/rnn/adam",
    "mnist/fcn, dropout/sgd",
    "cifar10/fcn, tanh/sgd",
    "mnist/vgg/rmsprop",
    "cifar10/vgg/muon",
    "mnist/resnet/lamb",
    "cifar10/resnet/rmsprop",
    "mnist/fcn, 6 layers/muon",
    "cifar10/fcn, 6 layers/adam",
)


def words_of(data: list[str], model: str, optimizer: str, steps: int) -> list[str]:
    common = ["batch_size=64", f"limit_steps={steps}", "epochs=1000", "validate.every_epochs=1000", "loggers=none"]
    return [*data, *(MODELS | OTHERS)[model], f"optimizer={optimizer}", *common, "threads=1"]


def accuracy(words: list[str]) -> float:
    """Return the validation accuracy of a run, 0 if it is not finite."""
    trainer = build.build_trainer(compose_run(words))
    try:
        trainer.fit()
        return trainer.progress.metrics["accuracy/val"]
    except NonFiniteError:
        return 0.0
    finally:
        trainer.close()


def compare(words: list[str], grid: dict[float, float]) -> dict:
    """Search the rate of a setting, train the grid if it is not known, and read off what each rule's rate gives."""
    run = compose_run(words)
    setup, began = build.open_setup(run), time.perf_counter()
    found = search(setup, lambda text: None)
    seconds = time.perf_counter() - began
    grid = grid or {rate: accuracy(with_rate(run, rate)) for rate in GRID}
    best = max(grid.values())
    rates = {"find_lr": found.lr or math.nan, "its range test": found.fallen, **found.other_rules()}
    rungs = {name: min(max(on_ladder(rate), GRID[0]), GRID[-1]) for name, rate in rates.items() if rate == rate}
    return {
        "words": words,
        "grid": {f"{rate:g}": value for rate, value in grid.items()},
        "rates": rates,
        "regret": {name: 100 * (best - grid[rung]) for name, rung in rungs.items()},
        "steps": found.steps,
        "share_of_grid": found.steps / (len(GRID) * found.planned_steps),
        "seconds": seconds,
        "summary": {name: value for name, value in found.summary().items() if name != "range_test"},
    }


def rows_of(path: Path | None) -> dict[str, dict]:
    """Return the rows of a file of JSON lines by name, {} without one."""
    lines = path.read_text().splitlines() if path and path.exists() else []
    return {row["name"]: row for row in map(json.loads, lines)}


def line(name: str, found: dict) -> str:
    regrets = "  ".join(f"{rule} {regret:.1f}" for rule, regret in found["regret"].items())
    return f"{name:<28} {found['rates']['find_lr']:<7g} {found['share_of_grid']:.1%} of the grid's steps | {regrets}"


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one setting of a few steps: does it run at all?")
    parser.add_argument("--root", default="data", help="holds MNIST/, and cifar10/ as a folder of pictures")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--images", type=int, default=3000, help="that are trained on")
    parser.add_argument("--out", type=Path, help="a file of JSON lines; settings in it are not run again")
    parser.add_argument("--grids", type=Path, help="such a file of before, whose grids are not trained again")
    parser.add_argument("--set", choices=("first", "second", "third"), default="first", help="of settings")
    parser.add_argument("names", nargs="*", help="data/model/optimizer; all of the set if none is named")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    few = [f"data.train_images={options.images}", "validate.images=4000", "validate.clean_images=1000"]
    folder = ["data=image_folder", f"data.root={options.root}/cifar10", "data.image_size=32", "data.flip=true"]
    sets = {"mnist": ["data=mnist", f"data.root={options.root}", *few], "cifar10": [*folder, *few]}
    if options.quick:
        sets, options.steps, options.names = {"digits": ["data=digits"]}, 2, ["digits/fcn/sgd"]
    first = [f"{data}/{model}/{optimizer}" for model in MODELS for data in sets for optimizer in OPTIMIZERS]
    settings = options.names or {"first": first, "second": SECOND, "third": THIRD}[options.set]
    known, grids = rows_of(options.out), rows_of(options.grids)
    for name in settings:
        data, model, optimizer = name.split("/")
        setting = words_of(sets[data], model, optimizer, options.steps)
        grid = {float(rate): value for rate, value in grids.get(name, {"grid": {}})["grid"].items()}
        found = known.get(name) or {"name": name, **compare(setting, grid)}
        if options.out and name not in known:
            with options.out.open("a") as file:
                file.write(json.dumps(found) + "\n")
        print(line(name, found), flush=True)


if __name__ == "__main__":
    main()

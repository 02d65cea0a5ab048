"""Batches of 64 to 16,384 on MNIST, by two budgets: the same epochs, and the same steps; beside the noise scale.

By epochs alone "large batches are bad" is a truism: they take fewer steps (Shallue et al., 2019). Every recipe has a
rate that is meant for 128 images a step; `scale_lr` multiplies it.
"""

import argparse
import csv
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, stdev

import torch

from deeptrain import build
from deeptrain.commands.cli import train
from deeptrain.config.compose import compose_run
from deeptrain.training.nonfinite import NonFiniteError

BATCHES = [64, 256, 1024, 4096, 16384]
RECIPES = {
    "SGD": ["optimizer=sgd", "scale_lr=none"],
    "SGD, linear": ["optimizer=sgd", "scale_lr=linear"],
    "SGD, sqrt": ["optimizer=sgd", "scale_lr=sqrt"],
    "LARS": ["optimizer=lars", "scale_lr=none"],
    "LAMB": ["optimizer=lamb", "scale_lr=none"],
}
POINTS = 20  # validations of a run: how finely the steps to the target are known


def steps_of(budget: str, batch: int, images: int, epochs: int, steps: int) -> int:
    return steps if budget == "steps" else epochs * max(1, images // batch)


def measure(words: list[str], steps: int, target: float) -> dict[str, float | None]:
    """Train for so many steps; return the last accuracy on val, and the steps after which the target was reached."""
    every = max(1, steps // POINTS)
    own = [f"limit_steps={steps}", "epochs=100000", "validate.every_epochs=100000", f"validate.every_steps={every}"]
    trainer = build.build_trainer(compose_run([*words, *own]))
    try:
        trainer.fit()
    except NonFiniteError:
        return {"accuracy": None, "reached": None}
    finally:
        trainer.close()
    reached = (row["step"] for row in trainer.history if row["accuracy/val"] >= target)
    return {"accuracy": trainer.history[-1]["accuracy/val"], "reached": next(reached, None)}


def noise_scales(words: list[str], steps: int) -> list[tuple[int, float]]:
    """Return the noise scale of a run at batch 64, by step."""
    with tempfile.TemporaryDirectory() as folder:
        own = ["optimizer=sgd", "batch_size=64", f"limit_steps={steps}", "epochs=100000", f"dir={folder}/run"]
        assert train([*words, *own, "validate.every_epochs=100000"]) == 0
        with (Path(folder) / "run" / "steps.csv").open() as file:
            rows = [row for row in csv.DictReader(file) if row.get("vitals/noise_scale")]
    return [(int(row["step"]), float(row["vitals/noise_scale"])) for row in rows]


def spread(values: list[float | None]) -> str:
    """Write accuracies in percent: mean and standard deviation; a run that is not finite is said."""
    known = [100 * value for value in values if value is not None]
    if len(known) < len(values):
        return f"{len(values) - len(known)} of {len(values)} diverged"
    return f"{fmean(known):.2f}" + (f" ± {stdev(known):.2f}" if len(known) > 1 else "")


def reached(values: list[float | None]) -> str:
    return f"{fmean(known):,.0f}" if len(known := [v for v in values if v is not None]) == len(values) else "not"


def tables(rows: list[dict], what: str) -> Iterator[str]:
    """Yield Markdown tables, one a budget: a row a recipe, a column a batch size."""
    by_cell = defaultdict(list)
    for row in rows:
        by_cell[row["budget"], row["recipe"], row["batch"]].append(row)
    batches = sorted({row["batch"] for row in rows})
    for budget in dict.fromkeys(row["budget"] for row in rows):
        steps = {row["batch"]: row["steps"] for row in rows if row["budget"] == budget}
        yield f"\nThe same {budget}, {what}\n"
        yield "| recipe | " + " | ".join(f"{batch:,} ({steps[batch]:,} steps)" for batch in batches) + " |"
        yield "|---" * (len(batches) + 1) + "|"
        for recipe in dict.fromkeys(row["recipe"] for row in rows):
            cells = [by_cell[budget, recipe, batch] for batch in batches]
            write = spread if what == "accuracy" else reached
            key = "accuracy" if what == "accuracy" else "reached"
            yield f"| {recipe} | " + " | ".join(write([row[key] for row in cell]) for cell in cells) + " |"


def draw(rows: list[dict], scales: list[tuple[int, float]], path: Path) -> None:
    """Draw the error over the batch size, a panel a budget, and the span of the noise scale."""
    import matplotlib.pyplot as plt

    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    figure, axes = plt.subplots(1, len(budgets), figsize=(10, 4), sharey=True, layout="constrained")
    for axis, budget in zip(axes, budgets, strict=True):
        for recipe in dict.fromkeys(row["recipe"] for row in rows):
            cells = defaultdict(list)
            for row in rows:
                if (row["budget"], row["recipe"]) == (budget, recipe):
                    cells[row["batch"]].append(1.0 if row["accuracy"] is None else 1 - row["accuracy"])
            means = [100 * fmean(values) for values in cells.values()]
            low, high = ([100 * pick(values) for values in cells.values()] for pick in (min, max))
            axis.plot(list(cells), means, marker="o", label=recipe)
            axis.fill_between(list(cells), low, high, alpha=0.15)
        if scales:
            first, last = scales[0][1], scales[-1][1]
            axis.axvspan(min(first, last), max(first, last), color="0.9", label="noise scale, first to last")
        axis.set(xscale="log", yscale="log", title=f"the same {budget}", xlabel="images a step")
        axis.set_xticks(batches := sorted({row["batch"] for row in rows}), [f"{batch:,}" for batch in batches])
        axis.minorticks_off()
        axis.set_yticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
    axes[0].set_ylabel("validation error, %")
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=100)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps on digits: does it run at all?")
    parser.add_argument("--root", default="data", help="holds MNIST/")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--target", type=float, default=0.95, help="accuracy whose steps are counted")
    parser.add_argument("--out", type=Path, help="a file of JSON lines; runs in it are not trained again")
    parser.add_argument("--plot", type=Path, help="a picture to draw")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    data, images, batches = ["data=mnist", f"data.root={options.root}"], 54000, BATCHES
    if options.quick:
        data, images, batches, options.epochs, options.steps, options.seeds = ["data=digits"], 1150, [64, 256], 1, 3, 1
    common = [*data, "aug=off", "model=fcn", "model.hidden=[128]", "schedule.warmup=0.1", "loggers=none", "threads=1"]
    common += ["device=cpu", "validate.clean_images=0"]
    known = {}
    if options.out and options.out.exists():
        known = {tuple(row["key"]): row for row in map(json.loads, options.out.read_text().splitlines())}
    rows = []
    for seed in range(options.seeds):
        for budget in ("epochs", "steps"):
            for batch in batches:
                for recipe, own in RECIPES.items():
                    key = (recipe, batch, budget, seed)
                    steps = steps_of(budget, batch, images, options.epochs, options.steps)
                    if key not in known:
                        found = measure([*common, *own, f"batch_size={batch}", f"seed={seed}"], steps, options.target)
                        names = {"recipe": recipe, "batch": batch, "budget": budget, "seed": seed}
                        known[key] = {"key": key, **names, "steps": steps, **found}
                        if options.out:
                            with options.out.open("a") as file:
                                file.write(json.dumps(known[key]) + "\n")
                    rows.append(known[key])
    scales = noise_scales(common, 3 if options.quick else 2001)
    print("\n".join([*tables(rows, "accuracy"), *tables(rows, f"steps to {options.target:.1%}")]))
    print("\nnoise scale, images: " + (", ".join(f"{value:,.0f} (step {step:,})" for step, value in scales) or "none"))
    if options.plot:
        draw(rows, scales, options.plot)


if __name__ == "__main__":
    main()
